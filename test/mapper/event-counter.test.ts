/** Event numbers, and who waits for them to change. */
import assert from 'node:assert/strict';
import { getEventListeners } from 'node:events';
import { test } from 'node:test';
import { EventCounter } from '../../src/mapper/event-counter.ts';

/** Whether a wait is over by now. */
async function isOver(wait: Promise<void>): Promise<boolean> {
  let over = false;
  void wait.then(() => (over = true));
  await new Promise((resolve) => setImmediate(resolve));
  return over;
}

test('a wait is over at once where the number differs, and waits where it does not', async () => {
  const events = new EventCounter();
  assert.equal(events.nr, 0);
  assert.equal(await isOver(events.waitWhile(7)), true);
  const wait = events.waitWhile(0);
  assert.equal(await isOver(wait), false);
  events.raise();
  assert.equal(events.nr, 1);
  assert.equal(await isOver(wait), true);
  assert.equal(await isOver(events.waitWhile(0)), true);
  assert.equal(await isOver(events.waitWhile(1)), false);
});

test('one event wakes everyone who waits for it', async () => {
  const events = new EventCounter();
  const waits = [events.waitWhile(0), events.waitWhile(0), events.waitWhile(0)];
  assert.equal(await isOver(Promise.race(waits)), false);
  events.raise();
  await Promise.all(waits);
});

test('a wait ends with the next event, whatever number it began with', async () => {
  const events = new EventCounter();
  events.raise();
  const wait = events.waitWhile(1);
  events.raise();
  assert.equal(await isOver(wait), true);
});

test('a wait ends with the device, or when its signal comes', async () => {
  const events = new EventCounter();
  const given = new AbortController();
  const waits = [events.waitWhile(0), events.waitWhile(0, given.signal)] as const;
  given.abort();
  assert.equal(await isOver(waits[1]), true);
  assert.equal(await isOver(waits[0]), false);
  assert.equal(await isOver(events.waitWhile(0, given.signal)), true);
  events.close();
  assert.equal(events.nr, 0, 'that is no event');
  assert.equal(await isOver(waits[0]), true);
  assert.equal(await isOver(events.waitWhile(0)), true);
});

/*
 * Each wait left its listener on the signal, and one that was aborted its entry among the waiters:
 * a monitor that polls a quiet device for months would have filled the daemon's memory.
 */
test('a wait that is over leaves nothing behind', async () => {
  const events = new EventCounter();
  const { signal } = new AbortController();
  for (let i = 0; i < 5; i++) {
    const wait = events.waitWhile(i, signal);
    assert.equal(getEventListeners(signal, 'abort').length, 1);
    events.raise();
    await wait;
    assert.equal(getEventListeners(signal, 'abort').length, 0);
  }
  for (let i = 0; i < 5; i++) {
    const given = new AbortController();
    const wait = events.waitWhile(5, given.signal);
    assert.equal(events.nrWaiting, 1);
    given.abort();
    await wait;
    assert.equal(events.nrWaiting, 0);
  }
});
