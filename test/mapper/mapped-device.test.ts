/**
 * A mapped device's states: what suspend waits for and keeps back, what resume lets go, through
 * which table and in which order; internal suspends; devices without a table, and their end.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { errno } from '../../src/base/errno.ts';
import { DmError } from '../../src/base/error.ts';
import { BioFlag, BioOp, STATUS_REQUEUE, type Bio } from '../../src/block/bio.ts';
import { ExtentFlag, type BlockDevice } from '../../src/block/device.ts';
import { MemoryDevice } from '../../src/block/memory-device.ts';
import type { MappedDevice } from '../../src/mapper/mapped-device.ts';
import { MapResult } from '../../src/mapper/target.ts';
import { submit } from '../helpers/block-device-suite.ts';
import { HeldDevice } from '../helpers/held-device.ts';
import { ProbeType } from '../helpers/probe-target.ts';
import { read, runs, SECTOR, Stack } from '../helpers/stack.ts';

const { READ, WRITE, FLUSH, DISCARD } = BioOp;

interface World {
  readonly stack: Stack;
  readonly probe: ProbeType;
  /** /dev/x, whose requests end when the test says so. */
  readonly disk: HeldDevice;
  readonly device: MappedDevice;
}

async function world(table = '0 64 linear /dev/x 0'): Promise<World> {
  const stack = new Stack();
  const probe = new ProbeType();
  stack.registry.register(probe);
  const disk = new HeldDevice(new MemoryDevice('x', 1024));
  disk.holding = false;
  stack.disk('x', disk);
  const device = await stack.create('t', table);
  probe.take();
  return { stack, probe, disk, device };
}

/** Submits a bio; its status is undefined as long as it has not ended. */
function start(device: BlockDevice, op: BioOp, sector: number, n: number, flags = 0) {
  const data = Buffer.alloc(n * SECTOR, sector + 1);
  const io: { status: number | undefined; done: Promise<number> } = {
    status: undefined,
    done: submit(device, op, sector, n, { data, flags }).then((status) => (io.status = status)),
  };
  return io;
}

/** Whether a promise is still pending when everything at hand is done. */
async function isPending(promise: Promise<unknown>): Promise<boolean> {
  let settled = false;
  const done = (): void => void (settled = true);
  promise.then(done, done);
  for (let i = 0; i < 3; i++) await new Promise((resolve) => setImmediate(resolve));
  return !settled;
}

// --- suspend

test('a suspend waits for all I/O in flight, and ends once it is done', async () => {
  const { stack, disk, device } = await world();
  disk.holding = true;
  const writes = [
    start(device, WRITE, 0, 8),
    start(device, READ, 8, 8),
    start(device, FLUSH, 0, 0),
  ];
  const suspend = stack.suspend('t');
  for (const write of writes) {
    assert.equal(await isPending(suspend), true);
    assert.equal(device.isSuspended, false);
    disk.release();
    assert.equal(await write.done, 0);
  }
  await suspend;
  assert.equal(device.isSuspended, true);
});

test('I/O that comes while a device is suspended, or about to be, waits without limit', async () => {
  const { stack, disk, device } = await world();
  disk.holding = true;
  const before = start(device, WRITE, 0, 8);
  const suspend = stack.suspend('t');
  assert.equal(await isPending(suspend), true);
  const during = start(device, WRITE, 8, 8);
  disk.releaseAll();
  await suspend;
  assert.equal(await before.done, 0);
  const after = [
    start(device, READ, 16, 8),
    start(device, FLUSH, 0, 0),
    start(device, DISCARD, 0, 8),
  ];
  assert.equal(await isPending(Promise.race([during, ...after].map(({ done }) => done))), true);
  assert.deepEqual(disk.log, ['WRITE 0+8']);
  await stack.resume('t');
  assert.equal(await during.done, 0);
  for (const io of after) assert.equal(await io.done, 0);
  assert.deepEqual(disk.log.slice(1), ['WRITE 8+8', 'READ 16+8', 'FLUSH 0+0', 'DISCARD 0+8']);
});

test('what waited is done before what comes after the resume, through the table that is live then', async () => {
  const { stack, disk, device } = await world('0 64 zero');
  await stack.suspend('t');
  const waiting = [3, 1, 2].map((sector) => start(device, WRITE, sector, 1));
  await stack.reload('t', '0 64 linear /dev/x 100');
  await stack.resume('t');
  const later = start(device, WRITE, 4, 1);
  for (const io of [...waiting, later]) assert.equal(await io.done, 0);
  assert.deepEqual(disk.log, ['WRITE 103+1', 'WRITE 101+1', 'WRITE 102+1', 'WRITE 104+1']);
});

test('a read that waited on zero and is resumed into error fails; beyond a smaller table too', async () => {
  const { stack, device } = await world('0 64 zero');
  await stack.suspend('t');
  const read = start(device, READ, 0, 8);
  await stack.reload('t', '0 64 error');
  await stack.resume('t');
  assert.equal(await read.done, errno.EIO);
  await stack.suspend('t');
  const [inside, outside] = [start(device, READ, 0, 8), start(device, READ, 32, 8)];
  await stack.reload('t', '0 32 zero');
  await stack.resume('t');
  assert.equal(await inside.done, 0);
  assert.equal(await outside.done, errno.EIO);
});

test('what a waiting bio submits from its end, while the others are let go, is done too', async () => {
  const { stack, device } = await world();
  await stack.suspend('t');
  const first = start(device, WRITE, 0, 1);
  const chained = first.done.then(() => start(device, READ, 0, 1).done);
  const last = start(device, WRITE, 1, 1);
  await stack.resume('t');
  assert.deepEqual(await Promise.all([first.done, chained, last.done]), [0, 0, 0]);
});

test('the hooks of a suspend and a resume come in their order, those of all targets', async () => {
  const { stack, probe, device } = await world('0 8 probe a\n8 8 probe b');
  let bio: Bio | null = null;
  probe.onMap = (held) => {
    bio = held;
    return MapResult.SUBMITTED;
  };
  const io = start(device, READ, 0, 8);
  const suspend = stack.suspend('t');
  assert.equal(await isPending(suspend), true);
  assert.deepEqual(probe.take(), ['a map read 0+8', 'a presuspend', 'b presuspend']);
  (bio as Bio | null)?.end(0);
  await suspend;
  assert.equal(io.status, undefined, 'its submitter hears of it a turn later');
  assert.deepEqual(probe.take(), ['a postsuspend', 'b postsuspend']);
  probe.onMap = null;
  const waiting = start(device, READ, 8, 8);
  await stack.resume('t');
  assert.deepEqual(probe.take(), [
    'a preresume',
    'b preresume',
    'a resume',
    'b resume',
    'b map read 8+8',
  ]);
  assert.equal(await waiting.done, 0);
});

test('suspending what is suspended and resuming what is active does nothing', async () => {
  const { stack, probe, device } = await world('0 8 probe a');
  await stack.resume('t');
  assert.deepEqual(probe.take(), []);
  await stack.suspend('t');
  probe.take();
  await stack.suspend('t');
  await stack.suspend('t', true);
  assert.equal(device.isNoflushSuspending, false, 'nor makes it a suspend of another kind');
  assert.deepEqual(probe.take(), []);
  await stack.resume('t');
  assert.deepEqual(probe.take(), ['a preresume', 'a resume']);
});

test('a suspend that is given up leaves the device active, and what waited goes on', async () => {
  const { stack, probe, disk, device } = await world('0 64 probe a /dev/x');
  disk.holding = true;
  const before = start(device, WRITE, 0, 8);
  const given = new AbortController();
  const suspend = stack.registry.suspend(device, { noflush: true, signal: given.signal });
  assert.equal(await isPending(suspend), true);
  const during = start(device, WRITE, 8, 8);
  assert.equal(disk.held.length, 1);
  probe.take();
  given.abort();
  await assert.rejects(suspend, { errno: 'EINTR' });
  assert.deepEqual(probe.take(), ['a presuspendUndo', 'a map write 8+8']);
  assert.equal(device.isSuspended, false);
  assert.equal(device.isNoflushSuspending, false);
  assert.equal(disk.held.length, 2);
  disk.releaseAll();
  assert.deepEqual([await before.done, await during.done], [0, 0]);
  await stack.suspend('t');
  assert.equal(device.isSuspended, true);
});

test('a flush with data that is caught between its halves waits with its data', async () => {
  const { stack, disk, device } = await world();
  disk.holding = true;
  const both = start(device, WRITE, 0, 8, BioFlag.PREFLUSH);
  const suspend = stack.suspend('t');
  assert.equal(await isPending(suspend), true);
  disk.releaseAll();
  await suspend;
  assert.deepEqual(disk.log, ['FLUSH 0+0']);
  assert.equal(both.status, undefined);
  await stack.resume('t');
  assert.equal(await both.done, 0);
  assert.deepEqual(disk.log, ['FLUSH 0+0', 'WRITE 0+8']);
});

// --- without flush

/** A target that keeps its bios, and hands them back when it is suspended. */
function keepAndHandBack({ probe }: World): Bio[] {
  const kept: Bio[] = [];
  probe.onMap = (bio) => {
    kept.push(bio);
    return MapResult.SUBMITTED;
  };
  probe.onHook = (hook) => {
    if (hook !== 'presuspend') return;
    for (const bio of kept.splice(0)) bio.end(STATUS_REQUEUE);
  };
  return kept;
}

test('a suspend without flush gets queued I/O handed back, and it runs again after the resume', async () => {
  const here = await world('0 64 probe a');
  const { stack, probe, device } = here;
  keepAndHandBack(here);
  const ios = [start(device, WRITE, 0, 8), start(device, WRITE, 8, 8), start(device, FLUSH, 0, 0)];
  await stack.suspend('t', true);
  assert.equal(device.isNoflushSuspending, true);
  const later = start(device, WRITE, 16, 8);
  assert.equal(await isPending(Promise.race(ios.map(({ done }) => done))), true);
  probe.take();
  probe.onMap = null;
  await stack.resume('t');
  for (const io of [...ios, later]) assert.equal(await io.done, 0);
  assert.deepEqual(probe.take(/resume/), [
    'a map write 0+8',
    'a map write 8+8',
    'a map flush',
    'a map write 16+8',
  ]);
  assert.equal(device.isNoflushSuspending, false);
});

test('or through another table, also what the old one has never seen', async () => {
  const here = await world('0 64 probe a');
  const { stack, disk, device } = here;
  keepAndHandBack(here);
  const io = start(device, WRITE, 0, 8);
  await stack.suspend('t', true);
  await stack.reload('t', '0 64 linear /dev/x 10');
  await stack.resume('t');
  assert.equal(await io.done, 0);
  assert.deepEqual(disk.log, ['WRITE 10+8']);
});

test('a bio of which one piece is handed back runs again as a whole, whatever befell the others', async () => {
  const here = await world('0 8 probe a\n8 8 probe b\n16 8 error');
  const { stack, probe, device } = here;
  const kept = keepAndHandBack(here);
  const io = start(device, WRITE, 0, 24);
  assert.equal(kept.length, 2);
  kept.shift()?.end(errno.ENOSPC);
  await stack.suspend('t', true);
  assert.equal(await isPending(io.done), true);
  probe.take();
  probe.onMap = null;
  await stack.reload('t', '0 24 probe c');
  await stack.resume('t');
  assert.equal(await io.done, 0, 'the errors of the first try are forgotten');
});

test('map may hand a bio back itself, while the device is being suspended', async () => {
  const { stack, probe, disk, device } = await world('0 32 linear /dev/x 0\n32 32 probe a');
  disk.holding = true;
  const slow = start(device, WRITE, 0, 8);
  // Before the gate closes, and after the suspend is known to be one without flush.
  let early: ReturnType<typeof start> | null = null;
  probe.onMap = () => MapResult.REQUEUE;
  probe.onHook = (hook) => {
    if (hook === 'presuspend') early = start(device, WRITE, 32, 8);
  };
  const suspend = stack.suspend('t', true);
  assert.equal(await isPending(suspend), true);
  disk.releaseAll();
  await suspend;
  assert.equal(await slow.done, 0);
  probe.onMap = null;
  await stack.resume('t');
  assert.equal(await (early as ReturnType<typeof start> | null)?.done, 0);
});

test('a suspend with flush fails what is handed back', async () => {
  const here = await world('0 64 probe a');
  const { stack, device } = here;
  keepAndHandBack(here);
  const io = start(device, WRITE, 0, 8);
  await stack.suspend('t');
  assert.equal(await io.done, errno.EIO);
});

// --- resume

test('a swap ends with the old table destroyed, after the new one has come alive', async () => {
  const { stack, probe, device } = await world('0 8 probe old');
  await stack.reload('t', '0 16 probe new1\n16 8 probe new2');
  assert.equal(device.sizeSectors, 8);
  await stack.resume('t');
  assert.deepEqual(probe.take(), [
    'new1 construct',
    'new2 construct',
    'old presuspend',
    'old postsuspend',
    'new1 preresume',
    'new2 preresume',
    'new1 resume',
    'new2 resume',
    'old destroy',
  ]);
  assert.equal(device.sizeSectors, 24);
  assert.equal(device.events.nr, 0);
});

test('a target that refuses the resume leaves the new table live and suspended, the old one gone', async () => {
  const { stack, probe, device } = await world('0 8 probe old');
  await stack.reload('t', '0 8 probe a\n8 8 probe b\n16 8 probe c');
  probe.onHook = (hook, tag) => {
    if (hook === 'preresume' && tag === 'b') throw new DmError('ENOSPC', 'no');
  };
  probe.take();
  stack.log.take();
  const waiting = start(device, READ, 0, 24);
  await waiting.done;
  await assert.rejects(stack.resume('t'), { errno: 'ENOSPC' });
  assert.deepEqual(stack.log.take(), ['table: 254:0: probe: preresume failed, error = -28']);
  assert.deepEqual(probe.take(/old (map|pre|post)/), ['a preresume', 'b preresume', 'old destroy']);
  assert.equal(device.isSuspended, true);
  assert.equal(await stack.table('t'), '0 8 probe a\n8 8 probe b\n16 8 probe c');
  const io = start(device, READ, 0, 24);
  await assert.rejects(stack.resume('t'), { errno: 'ENOSPC' });
  assert.equal(io.status, undefined, 'I/O goes on waiting');
  probe.onHook = () => undefined;
  await stack.resume('t');
  assert.equal(await io.done, 0);
});

test('read-only is what the live table is', async () => {
  const { stack, device } = await world('0 8 zero');
  const load = (readOnly: boolean): Promise<void> =>
    stack.registry.load(device, [{ start: 0, length: 8, type: 'zero', params: '' }], { readOnly });
  await load(true);
  assert.equal(device.readOnly, false);
  await stack.resume('t');
  assert.equal(device.readOnly, true);
  assert.equal(await start(device, WRITE, 0, 8).done, errno.EPERM);
  await load(false);
  assert.equal(device.readOnly, true);
  await stack.resume('t');
  assert.equal(await start(device, WRITE, 0, 8).done, 0);
});

test('control operations on one device run one after the other, those on others do not wait', async () => {
  const { stack, disk, device } = await world();
  await stack.create('u', '0 8 zero');
  disk.holding = true;
  const write = start(device, WRITE, 0, 8);
  const order: string[] = [];
  const note = (what: string) => () => void order.push(what);
  const all = [
    stack.suspend('t').then(note('suspend')),
    stack.reload('t', '0 8 zero').then(note('load')),
    stack.resume('t').then(note('resume')),
    stack.suspend('t').then(note('suspend')),
  ];
  await stack.suspend('u');
  assert.deepEqual(order, []);
  assert.equal(device.inactive, null);
  disk.releaseAll();
  await Promise.all(all);
  assert.deepEqual(order, ['suspend', 'load', 'resume', 'suspend']);
  assert.equal(await write.done, 0);
  assert.equal(device.sizeSectors, 8);
});

// --- internal suspends

test('an internal suspend keeps I/O back, and does not show', async () => {
  const { probe, disk, device } = await world('0 64 probe a /dev/x');
  disk.holding = true;
  const before = start(device, WRITE, 0, 8);
  const suspended = device.internalSuspend();
  assert.equal(await isPending(suspended), true);
  disk.releaseAll();
  await suspended;
  assert.equal(await before.done, 0);
  assert.equal(device.isSuspended, false);
  const during = start(device, WRITE, 8, 8);
  assert.equal(await isPending(during.done), true);
  probe.take();
  device.internalResume();
  assert.equal(await during.done, 0);
  assert.deepEqual(probe.take(), ['a resume', 'a map write 8+8']);
});

test('a suspend or a resume that waits for the end of an internal suspend can be given up', async () => {
  // It may last: who waited for its end could not be stopped, and neither could the daemon.
  const { stack, device } = await world();
  const giveUp = async (wait: (signal: AbortSignal) => Promise<void>): Promise<void> => {
    const given = new AbortController();
    const waiting = wait(given.signal);
    assert.equal(await isPending(waiting), true);
    given.abort();
    await assert.rejects(waiting, { errno: 'EINTR' });
    await assert.rejects(wait(given.signal), { errno: 'EINTR' });
  };
  await device.internalSuspend();
  await giveUp((signal) => stack.registry.suspend(device, { signal }));
  assert.equal(device.isSuspended, false);
  device.internalResume();
  await stack.suspend('t');
  await device.internalSuspend();
  await giveUp((signal) => stack.registry.resume(device, { signal }));
  assert.equal(device.isSuspended, true);
  device.internalResume();
  await stack.resume('t');
  assert.equal(device.isSuspended, false);
});

test('internal suspends count', async () => {
  const { probe, device } = await world('0 64 probe a');
  await device.internalSuspend();
  await device.internalSuspend();
  assert.deepEqual(probe.take(), ['a presuspend', 'a postsuspend']);
  const io = start(device, READ, 0, 8);
  device.internalResume();
  assert.equal(await isPending(io.done), true);
  device.internalResume();
  assert.equal(await io.done, 0);
});

test("users' suspends and resumes wait until an internal suspend is over", async () => {
  const { stack, device } = await world('0 64 zero');
  await device.internalSuspend();
  const suspend = stack.suspend('t');
  assert.equal(await isPending(suspend), true);
  device.internalResume();
  await suspend;
  assert.equal(device.isSuspended, true);
  await device.internalSuspend();
  const io = start(device, READ, 0, 8);
  const resume = stack.resume('t');
  assert.equal(await isPending(resume), true);
  device.internalResume();
  await resume;
  assert.equal(await io.done, 0);
});

test('an internal suspend of what a user has suspended ends without letting I/O go', async () => {
  const { stack, probe, device } = await world('0 64 probe a');
  await stack.suspend('t');
  probe.take();
  await device.internalSuspend();
  assert.deepEqual(probe.take(), [], 'there is nothing to suspend');
  const io = start(device, READ, 0, 8);
  device.internalResume();
  assert.equal(await isPending(io.done), true);
  assert.equal(device.isSuspended, true);
  await stack.resume('t');
  assert.equal(await io.done, 0);
});

test('an internal suspend hands queued I/O back, and it runs again after it', async () => {
  const here = await world('0 64 probe a');
  const { probe, device } = here;
  keepAndHandBack(here);
  const io = start(device, WRITE, 0, 8);
  await device.internalSuspend();
  assert.equal(io.status, undefined);
  probe.onMap = null;
  device.internalResume();
  assert.equal(await io.done, 0);
});

test('a device that is removed during an internal suspend fails what waits', async () => {
  const { stack, probe, device } = await world('0 64 probe a');
  await device.internalSuspend();
  const io = start(device, READ, 0, 8);
  probe.take();
  await stack.remove('t');
  assert.equal(await io.done, errno.EIO);
  device.internalResume();
  assert.deepEqual(probe.take(), ['a destroy']);
  assert.equal(await start(device, READ, 0, 8).done, errno.EIO);
});

// --- without a table

test('without a table I/O fails, and the log says so; suspended or not', async () => {
  const stack = new Stack();
  const device = stack.registry.create('t');
  assert.equal(device.sizeSectors, 0);
  const complaint = 'core: 254:0: mapping table unavailable, erroring io';
  for (const op of [READ, WRITE, FLUSH]) {
    assert.equal(await start(device, op, 0, 1).done, errno.EIO);
    assert.deepEqual(stack.log.take(), [complaint]);
  }
  await stack.suspend('t');
  assert.equal(device.isSuspended, true);
  assert.equal(await start(device, READ, 0, 1).done, errno.EIO);
  assert.equal(device.readSync(0, 1, Buffer.alloc(512), 0), errno.EIO);
  assert.deepEqual(extents(device, 0, 8), ['8:0']);
});

test('without a table a suspended device cannot be resumed, an active one can', async () => {
  const stack = new Stack();
  const device = stack.registry.create('t');
  await stack.resume('t');
  await stack.suspend('t');
  await assert.rejects(stack.resume('t'), { errno: 'EINVAL' });
  assert.equal(device.isSuspended, true);
  await stack.reload('t', '0 8 zero');
  await stack.resume('t');
  assert.equal(device.isSuspended, false);
  assert.equal(await start(device, READ, 0, 8).done, 0);
});

// --- synchronous reads and block status

function extents(device: BlockDevice, sector: number, n: number): string[] {
  const found: string[] = [];
  device.blockStatus(sector, n, (count, flags) => found.push(`${count}:${flags}`) > 0);
  return found;
}

test('a synchronous read goes through all targets, suspended or not, and fails where one cannot', async () => {
  const { stack, device } = await world('0 8 linear /dev/x 8\n8 8 zero\n16 8 error');
  await start(device, WRITE, 6, 1).done;
  await stack.suspend('t');
  const data = Buffer.alloc(5 * SECTOR, 0xee);
  assert.equal(device.readSync(5, 4, data, 512), 0);
  assert.equal(runs(data), '512xee 512x00 512x07 1024x00');
  assert.equal(device.readSync(15, 2, data, 0), errno.EIO);
  assert.equal(device.readSync(23, 2, data, 0), errno.EIO, 'beyond the end');
});

test('a suspended device tells nothing of its blocks', async () => {
  const { stack, device } = await world('0 64 zero');
  const hole = ExtentFlag.HOLE | ExtentFlag.ZERO;
  assert.deepEqual(extents(device, 3, 5), [`5:${hole}`]);
  await stack.suspend('t');
  assert.deepEqual(extents(device, 3, 5), ['5:0']);
});

/*
 * Beyond the end of its table a device looked for the next target for ever. That happened when the
 * device below another one was reloaded with a smaller table, as a client of the upper one asked
 * for the block status behind it: the daemon answered nobody any more.
 */
test('block status beyond the end is known to nobody, also through a device above', async () => {
  const { stack, device } = await world('0 64 zero');
  const upper = await stack.create('u', '0 64 linear /dev/mapper/t 0');
  await stack.reload('t', '0 32 zero');
  await stack.resume('t');
  const hole = ExtentFlag.HOLE | ExtentFlag.ZERO;
  assert.deepEqual(extents(device, 16, 32), [`16:${hole}`, '16:0']);
  assert.deepEqual(extents(upper, 0, 64), [`32:${hole}`, '32:0']);
  assert.deepEqual(extents(upper, 40, 8), ['8:0']);
  assert.equal(await start(upper, READ, 40, 8).done, errno.EIO);
  assert.equal(upper.readSync(40, 8, Buffer.alloc(4096), 0), errno.EIO);
});

// --- the end

test('removing a device waits for what is in flight, and fails what waits', async () => {
  const { stack, probe, disk, device } = await world('0 64 probe a /dev/x');
  disk.holding = true;
  const io = start(device, WRITE, 0, 8);
  probe.take();
  const removed = stack.remove('t');
  assert.equal(await isPending(removed), true);
  const late = start(device, WRITE, 8, 8);
  disk.releaseAll();
  await removed;
  assert.equal(await io.done, 0);
  assert.equal(await late.done, errno.EIO);
  assert.deepEqual(probe.take(), ['a presuspend', 'a postsuspend', 'a destroy']);
  stack.log.take();
  assert.equal(await start(device, READ, 0, 8).done, errno.EIO);
  assert.deepEqual(stack.log.take(), [], 'that a client goes on asking is no news');
});

test('removing a suspended device does not suspend it once more', async () => {
  const { stack, probe, device } = await world('0 64 probe a');
  await stack.reload('t', '0 64 probe b');
  await stack.suspend('t');
  const io = start(device, READ, 0, 8);
  probe.take();
  await stack.remove('t');
  assert.equal(await io.done, errno.EIO);
  assert.deepEqual(probe.take(), ['a destroy', 'b destroy']);
});

test('what waits for a device that nobody will resume fails, and what comes too', async () => {
  const { stack, device } = await world('0 64 zero');
  device.abandon();
  assert.equal(await start(device, READ, 0, 8).done, 0, 'an active device goes on');
  await stack.suspend('t');
  const waiting = start(device, READ, 0, 8);
  device.abandon();
  assert.equal(await waiting.done, errno.EIO);
  assert.equal(await start(device, FLUSH, 0, 0).done, errno.EIO);
});

test('a stack of devices carries I/O down to the disk and errors up from it', async () => {
  const { stack, disk } = await world('0 64 linear /dev/x 8');
  await stack.create('u', '0 4 linear /dev/mapper/t 4\n4 4 linear /dev/mapper/t 32');
  const top = await stack.create('v', '0 8 linear /dev/mapper/u 0');
  assert.equal(await start(top, WRITE, 2, 4).done, 0);
  assert.deepEqual(disk.log, ['WRITE 14+2', 'WRITE 40+2']);
  assert.equal(runs(await read(top, 0, 4096)), '1024x00 2048x03 1024x00');
  disk.holding = true;
  const failing = start(top, WRITE, 2, 4);
  disk.fail(errno.ENOSPC);
  disk.release();
  assert.equal(await failing.done, errno.ENOSPC);
  // A suspend in the middle keeps I/O back from there down.
  disk.holding = false;
  await stack.suspend('u');
  const waiting = start(top, READ, 0, 8);
  const suspendTop = stack.suspend('v');
  assert.equal(await isPending(suspendTop), true, 'it is in flight in the device above');
  await stack.suspend('t');
  await stack.resume('u');
  assert.equal(await isPending(waiting.done), true);
  await stack.resume('t');
  assert.equal(await waiting.done, 0);
  await suspendTop;
});
