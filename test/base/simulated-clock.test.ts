/** Simulated time: order, promises between events, and hangs that are noticed. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { HangError, SimulatedClock } from '../../src/base/simulated-clock.ts';

test('events fire in the order of their time, those of one moment as they were asked for', async () => {
  const clock = new SimulatedClock();
  const fired: string[] = [];
  for (const [name, delay] of [
    ['c', 5],
    ['a', 1],
    ['d', 5],
    ['b', 2],
  ] as const) {
    clock.after(delay, () => fired.push(`${name}@${clock.nowMs()}`));
  }
  await clock.pass(10);
  assert.deepEqual(fired, ['a@1', 'b@2', 'c@5', 'd@5']);
  assert.equal(clock.nowMs(), 10);
});

test('a cancelled timer does not fire, and cancelling it late does nothing', async () => {
  const clock = new SimulatedClock();
  let nr = 0;
  const early = clock.after(1, () => nr++);
  const late = clock.after(2, () => nr++);
  early.cancel();
  await clock.pass(3);
  late.cancel();
  assert.equal(nr, 1);
});

test('between two events every promise settles that can', async () => {
  const clock = new SimulatedClock();
  const seen: string[] = [];
  const work = async (): Promise<void> => {
    await clock.delay(1);
    for (let i = 0; i < 20; i++) await Promise.resolve();
    seen.push('promises');
  };
  clock.after(1, () => undefined);
  clock.after(1.5, () => seen.push('event'));
  await clock.run(Promise.all([work(), clock.delay(2)]));
  assert.deepEqual(seen, ['promises', 'event']);
});

test('what can never happen is a hang, at once; so is what takes hours', async () => {
  const clock = new SimulatedClock();
  await assert.rejects(clock.run(new Promise(() => undefined)), HangError);
  const tick = (): void => {
    clock.after(1000, tick);
  };
  tick();
  await assert.rejects(clock.run(new Promise(() => undefined)), /in vain/);
});

test('a rejection comes out', async () => {
  const clock = new SimulatedClock();
  const failing = clock.delay(5).then(() => Promise.reject(new Error('no')));
  await assert.rejects(clock.run(failing), /^Error: no$/);
});
