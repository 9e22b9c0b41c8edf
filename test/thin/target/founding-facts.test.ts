/**
 * The facts of the founding documents about thin provisioning, one named test each: ten commits of
 * dm-thin's history that our users rely on.
 */
import assert from 'node:assert/strict';
import { setImmediate as turn } from 'node:timers/promises';
import { test } from 'node:test';
import { BioOp } from '../../../src/block/bio.ts';
import { MemoryDevice } from '../../../src/block/memory-device.ts';
import type { Pool } from '../../../src/thin/target/pool.ts';
import { ProbeDevice, type ProbeLog } from '../../helpers/probe-device.ts';
import { discard, fill, flush, read, runs, Stack } from '../../helpers/stack.ts';

const K = 1024;
const BLOCK = 64 * K;
const DATA_BLOCKS = 64;
const POOL = `0 ${DATA_BLOCKS * 128} thin-pool /dev/meta /dev/data 128 0`;

interface Rig {
  readonly stack: Stack;
  readonly log: ProbeLog;
  readonly meta: ProbeDevice;
  readonly data: ProbeDevice;
  readonly pool: Pool;
}

/** A pool over probes that share one log, with thin device 0 active as t0. */
async function rig(features = '', dataLimits = {}): Promise<Rig> {
  const stack = new Stack();
  const log: ProbeLog = [];
  const meta = new ProbeDevice('M', new MemoryDevice('meta', 8192), log);
  const below = new MemoryDevice('data', DATA_BLOCKS * 128, { limits: dataLimits });
  const data = new ProbeDevice('D', below, log);
  stack.disk('meta', meta);
  stack.disk('data', data);
  const device = await stack.create('p', `${POOL} ${features}`);
  await stack.message('p', 'create_thin 0');
  await stack.create('t0', '0 65536 thin /dev/mapper/p 0');
  const pool = stack.pools.findByDevice(device);
  assert.ok(pool !== undefined);
  log.length = 0;
  return { stack, log, meta, data, pool };
}

/** A few turns of the event loop: whatever can happen without outside help has happened. */
async function settle(): Promise<void> {
  for (let i = 0; i < 20; i++) await turn();
}

async function snapshot({ stack }: Rig, id: number, origin: number): Promise<void> {
  await stack.message('p', `create_snap ${id} ${origin}`);
}

test('the data device is flushed before every metadata commit', async () => {
  const { stack, log } = await rig();
  const t0 = stack.device('t0');
  await fill(t0, 0, 4 * K, 0x11);
  await flush(t0);
  await stack.message('p', 'create_thin 1');
  await fill(t0, BLOCK, BLOCK, 0x22, true);
  await stack.status('p');
  let nrCommits = 0;
  for (const [i, line] of log.entries()) {
    if (line !== 'M write 0+8') continue; // The superblock: a commit takes effect.
    nrCommits++;
    assert.equal(log[i - 1], 'M flush', 'the metadata is flushed right before the superblock');
    const begin = log.lastIndexOf('D flush', i);
    assert.ok(begin >= 0, 'the data device was flushed before');
    const between = log.slice(begin + 1, i - 1);
    assert.ok(
      between.every((step) => step.startsWith('M write')),
      `only metadata is written between the data flush and the superblock: ${between.join(', ')}`,
    );
    assert.equal(log[i + 1], 'M flush', 'and flushed right after it');
  }
  assert.ok(nrCommits >= 4);
});

test('a commit whose data flush fails does not take effect', async () => {
  const { stack, log, data } = await rig();
  const t0 = stack.device('t0');
  await fill(t0, 0, 4 * K, 0x11);
  log.length = 0;
  data.fail((bio) => (bio.op === BioOp.FLUSH ? 5 : 0));
  await assert.rejects(flush(t0));
  const written = log.filter((line) => line.startsWith('M write'));
  // The superblock alone is written again, to say needs_check: none of the transaction's blocks
  // are.
  assert.deepEqual(written, ['M write 0+8']);
  data.fail(() => 0);
  assert.match(await stack.status('p'), / 0\/64 - ro .* needs_check /);
  assert.equal(runs(await read(t0, 0, 4 * K)), '4096x00', 'the block is not mapped');
});

test('a FUA write that overwrites a whole block is acknowledged after the commit that maps it', async () => {
  const { stack, log, meta } = await rig();
  const t0 = stack.device('t0');
  meta.hold((bio) => bio.op === BioOp.FLUSH);
  let acknowledged = false;
  const done = fill(t0, 0, BLOCK, 0x11, true).then(() => (acknowledged = true));
  await settle();
  assert.equal(log[0], 'D write 0+128 FUA', 'the data goes out first');
  assert.equal(acknowledged, false, 'the mapping is not durable yet');
  meta.release();
  meta.hold((bio) => bio.op === BioOp.FLUSH);
  await settle();
  assert.ok(log.includes('M write 0+8'), 'the superblock is written');
  assert.equal(acknowledged, false, 'but not flushed');
  meta.release();
  await done;
  assert.equal(acknowledged, true);
});

test('a FUA write of part of a new block goes out after the commit that maps it', async () => {
  const { stack, log } = await rig();
  await fill(stack.device('t0'), 0, 4 * K, 0x11, true);
  const write = log.indexOf('D write 0+8 FUA');
  const superblock = log.indexOf('M write 0+8');
  assert.ok(superblock >= 0 && write > superblock, log.join(', '));
});

test('a reload that changes the data device is refused', async () => {
  const { stack } = await rig();
  stack.disk('other', DATA_BLOCKS * 128);
  const table = POOL.replace('/dev/data', '/dev/other');
  await assert.rejects(stack.reload('p', table), { errno: 'EBUSY' });
  const line = 'table: 254:0: thin-pool: data device already in use by a pool (-EBUSY)';
  assert.ok(stack.log.lines.includes(line), stack.log.lines.join('\n'));
  assert.equal(stack.device('p').inactive, null);
});

test('a reload that changes the metadata device is refused', async () => {
  const { stack } = await rig();
  stack.disk('other', 8192);
  const table = POOL.replace('/dev/meta', '/dev/other');
  await assert.rejects(stack.reload('p', table), { errno: 'EINVAL' });
  const line = 'table: 254:0: thin-pool: different pool cannot replace a pool (-EINVAL)';
  assert.ok(stack.log.lines.includes(line), stack.log.lines.join('\n'));
});

test('a data device that is the metadata device is refused, under any name', async () => {
  const stack = new Stack();
  stack.disk('both', 524288);
  for (const [m, d] of [
    ['/dev/both', '/dev/both'],
    ['98:0', '/dev/both'],
    ['/dev/../dev/both', '/dev/both'],
  ]) {
    stack.log.take();
    const table = `0 65536 thin-pool ${m} ${d} 128 0`;
    await assert.rejects(stack.create('p', table), { errno: 'EINVAL' });
    const line = 'table: 254:0: thin-pool: Error setting metadata or data device (-EINVAL)';
    assert.ok(stack.log.lines.includes(line), stack.log.lines.join('\n'));
  }
  const { device } = stack.registry.lookup.use('/dev/both', false, '/', null);
  assert.equal(runs(await read(device, 0, 4 * K)), '4096x00', 'nothing was formatted');
});

test('an external origin that is the pool itself is refused, under any name', async () => {
  const { stack } = await rig();
  for (const [pool, origin] of [
    ['/dev/mapper/p', '/dev/mapper/p'],
    ['/dev/mapper/p', '254:0'],
    ['254:0', '/dev/dm-0'],
  ]) {
    stack.log.take();
    const table = `0 1024 thin ${pool} 0 ${origin}`;
    await assert.rejects(stack.create('t1', table), { errno: 'EINVAL' });
    const line = 'table: 254:2: thin: Error setting origin device (-EINVAL)';
    assert.ok(stack.log.lines.includes(line), stack.log.lines.join('\n'));
  }
});

test('a discard is passed down for a block that nobody else has', async () => {
  const { stack, log } = await rig();
  const t0 = stack.device('t0');
  await fill(t0, 0, 2 * BLOCK, 0x11);
  log.length = 0;
  await discard(t0, 0, 2 * BLOCK);
  assert.ok(log.includes('D discard 0+256'), log.join(', '));
});

test('a discard is not passed down for a block that a snapshot has', async () => {
  const r = await rig();
  const { stack, log } = r;
  const t0 = stack.device('t0');
  await fill(t0, 0, 3 * BLOCK, 0x11);
  await snapshot(r, 1, 0);
  log.length = 0;
  await discard(t0, 0, 3 * BLOCK);
  assert.deepEqual(
    log.filter((line) => line.includes('discard')),
    [],
  );
  const s1 = await stack.create('s1', '0 65536 thin /dev/mapper/p 1');
  assert.equal(runs(await read(s1, 0, 3 * BLOCK)), `${3 * BLOCK}x11`);
});

test('a discard is passed down when the last of several users discards', async () => {
  const r = await rig();
  const { stack, log } = r;
  const t0 = stack.device('t0');
  await fill(t0, 0, BLOCK, 0x11);
  await snapshot(r, 1, 0);
  const s1 = await stack.create('s1', '0 65536 thin /dev/mapper/p 1');
  await discard(t0, 0, BLOCK);
  log.length = 0;
  await discard(s1, 0, BLOCK);
  assert.ok(log.includes('D discard 0+128'), log.join(', '));
});

test('sharing is looked at again when a discard is passed down: it was broken meanwhile', async () => {
  // The run is found while both have the block. A read in flight makes the discard wait; meanwhile
  // the snapshot's block is broken away and the snapshot discarded, so the discard may be passed
  // down; and where the snapshot keeps the block it may not, whatever was true when the run was
  // found.
  const r = await rig();
  const { stack, log, data } = r;
  const t0 = stack.device('t0');
  await fill(t0, 0, 2 * BLOCK, 0x11);
  await snapshot(r, 1, 0);
  const s1 = await stack.create('s1', '0 65536 thin /dev/mapper/p 1');
  await fill(t0, 9 * BLOCK, 4 * K, 0x33); // Not shared: a read of it holds up discards, not copies.
  data.hold((bio) => bio.op === BioOp.READ);
  const reading = read(t0, 9 * BLOCK, 4 * K);
  await settle();
  const discarding = discard(t0, 0, 2 * BLOCK);
  await settle();
  data.hold(() => false);
  await fill(s1, 0, BLOCK, 0x22); // s1 has block 0 of its own now.
  log.length = 0;
  data.release();
  await Promise.all([reading, discarding]);
  const passed = log.filter((line) => line.includes('discard'));
  assert.deepEqual(passed, ['D discard 0+128'], 'block 0 has no user left, block 1 still has s1');
  assert.equal(runs(await read(s1, 0, 2 * BLOCK)), `${BLOCK}x22 ${BLOCK}x11`);
});

test('a block that broke its sharing is not mapped while a read of the shared block goes on', async () => {
  // Once it is mapped the shared block can be freed and written by somebody else, whose data the
  // read would then return.
  const r = await rig();
  const { stack, data } = r;
  const t0 = stack.device('t0');
  await fill(t0, 0, BLOCK, 0x11);
  await snapshot(r, 1, 0);
  data.hold((bio) => bio.op === BioOp.READ);
  const reading = read(t0, 0, 4 * K);
  await settle();
  data.hold(() => false);
  let isWritten = false;
  const writing = fill(t0, 0, BLOCK, 0x22).then(() => (isWritten = true));
  for (let i = 0; i < 5; i++) await settle();
  assert.ok(!isWritten, 'the write waits for the read');
  data.release();
  assert.equal(runs(await reading), `${4 * K}x11`);
  await writing;
  assert.equal(runs(await read(t0, 0, BLOCK)), `${BLOCK}x22`);
});

test('a freed block is not reused while its discard is being passed down', async () => {
  const { stack, log, data } = await rig();
  const t0 = stack.device('t0');
  for (let i = 0; i < DATA_BLOCKS; i++) await fill(t0, i * BLOCK, BLOCK, 0x11);
  await stack.status('p');
  data.hold((bio) => bio.op === BioOp.DISCARD);
  const discarding = discard(t0, 0, BLOCK);
  await settle();
  assert.equal(data.nrHeld, 1, 'the discard is on its way');
  await stack.status('p'); // Committed: but for the discard, block 0 could be handed out.
  log.length = 0;
  const writing = fill(t0, 200 * BLOCK, BLOCK, 0x22);
  await settle();
  assert.ok(!log.includes('D write 0+128'), 'the only free block is not written');
  data.release();
  await discarding;
  await stack.status('p');
  await writing;
  assert.ok(log.includes('D write 0+128'), log.join(', '));
  assert.equal(runs(await read(t0, 200 * BLOCK, BLOCK)), `${BLOCK}x22`);
});

test('a passed-down discard is split by the limits of the data device', async () => {
  const { stack, log } = await rig('', { maxDiscardSectors: 200 });
  const t0 = stack.device('t0');
  await fill(t0, 0, 4 * BLOCK, 0x11);
  log.length = 0;
  await discard(t0, 0, 4 * BLOCK);
  assert.deepEqual(
    log.filter((line) => line.includes('discard')),
    ['D discard 0+200', 'D discard 200+200', 'D discard 400+112'],
  );
});

test('a failing passdown is ignored: the blocks are unmapped all the same', async () => {
  const { stack, data } = await rig();
  const t0 = stack.device('t0');
  await fill(t0, 0, BLOCK, 0x11);
  data.fail((bio) => (bio.op === BioOp.DISCARD ? 5 : 0));
  await discard(t0, 0, BLOCK);
  assert.equal(await stack.status('t0'), '0 65536 thin 0 -');
});

test('the deferred worker is not woken when nothing is deferred', async () => {
  const r = await rig();
  const { stack, pool } = r;
  const t0 = stack.device('t0');
  await fill(t0, 0, 8 * BLOCK, 0x11);
  await snapshot(r, 1, 0);
  await fill(t0, 0, BLOCK, 0x22);
  await settle();
  const before = pool.worker.nrWakeUps;
  for (let i = 0; i < 100; i++) {
    await read(t0, (i % 8) * BLOCK, 4 * K); // mapped: own and shared
    await read(t0, (100 + i) * BLOCK, 4 * K); // unmapped
    await fill(t0, (i % 16) * 4 * K, 4 * K, i); // mapped and its own
  }
  await settle();
  assert.equal(pool.worker.nrWakeUps, before);
});

test('nothing registered by an old table outlives it', async () => {
  // The kernel once flushed the data device through the table that had made the pool, freed since.
  const { stack, log, pool } = await rig();
  const t0 = stack.device('t0');
  const old = stack.device('p').live;
  await stack.reload('p', `${POOL.replace(' 128 0', ' 128 10')} 1 error_if_no_space`);
  await stack.resume('p');
  assert.notEqual(stack.device('p').live, old);
  assert.equal(old?.nrTargets, 0, 'the old table has ended its targets');
  assert.equal(old.devices.length, 0, 'and released its devices');
  log.length = 0;
  await fill(t0, 0, 4 * K, 0x11);
  await flush(t0);
  assert.ok(log.includes('D flush') && log.includes('M write 0+8'));
  assert.match(await stack.status('p'), / error_if_no_space - /, 'the new table is in force');
  assert.equal(pool.nrUsers, 2, 'one table and one thin device use the pool');
  await stack.remove('t0');
  await stack.remove('p');
  assert.equal(pool.nrUsers, 0);
  const quiet = log.length;
  await new Promise((resolve) => setTimeout(resolve, 1200));
  assert.equal(log.length, quiet, 'no timer of a removed pool does anything');
});

test('a message fails if its commit fails, and what it did is rolled back', async () => {
  // The kernel reports success here (spec: thin, scenario 33); see docs/differences.md.
  const { stack, meta } = await rig();
  meta.fail((bio) => (bio.op === BioOp.WRITE ? 5 : 0));
  await assert.rejects(stack.message('p', 'create_thin 9'), { errno: 'EIO' });
  meta.fail(() => 0);
  assert.match(await stack.status('p'), / ro .* needs_check /);
  await assert.rejects(stack.create('t9', '0 1024 thin /dev/mapper/p 9'), { errno: 'ENODATA' });
});
