/**
 * Commits that others begin while the worker is at work.
 *
 * Status, messages and suspends commit, whenever they come. The worker looked for a running commit
 * at the begin of a pass only, but another one could begin between two cells of the pass. With
 * skip_block_zeroing the next mapping was then inserted in the middle of a commit: an assertion
 * failed, and the pool with it, for good; `dmsetup status` during a burst of writes was enough.
 * With zeroing, the next block could be one that the running commit had freed: it was zeroed while
 * the superblock on the disk still mapped its old content, which a power cut would have brought
 * back as zeroes.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { systemClock, type Clock } from '../../../src/base/clock.ts';
import { BioOp } from '../../../src/block/bio.ts';
import { MemoryDevice } from '../../../src/block/memory-device.ts';
import { ProbeDevice, type ProbeLog } from '../../helpers/probe-device.ts';
import { discard, fill, flush, Stack } from '../../helpers/stack.ts';

const BLOCK = 65_536;
const DATA_BLOCKS = 64;
const MAPPED = 40;
const DISCARDED = 20;

interface Rig {
  readonly stack: Stack;
  readonly log: ProbeLog;
  readonly meta: ProbeDevice;
  /** Called when the next pass of the worker has begun. */
  afterNextPassBegins: (() => void) | null;
}

/** A pool whose first blocks are mapped, and committed. */
async function rig(features: string): Promise<Rig> {
  const log: ProbeLog = [];
  const meta = new ProbeDevice('M', new MemoryDevice('meta', 8192), log);
  const clock: Clock = {
    nowMs: () => 0,
    after: (delayMs, fire) => systemClock.after(delayMs, fire),
    soon: (run) =>
      systemClock.soon(() => {
        run(); // A pass, up to where it first lets others run.
        const act = r.afterNextPassBegins;
        r.afterNextPassBegins = null;
        act?.();
      }),
  };
  const r: Rig = { stack: new Stack(clock), log, meta, afterNextPassBegins: null };
  r.stack.disk('meta', meta);
  r.stack.disk('data', new ProbeDevice('D', new MemoryDevice('data', DATA_BLOCKS * 128), log));
  const table = `0 ${DATA_BLOCKS * 128} thin-pool /dev/meta /dev/data 128 0 ${features}`;
  await r.stack.create('p', table);
  await r.stack.message('p', 'create_thin 0');
  await r.stack.create('t0', '0 65536 thin /dev/mapper/p 0');
  const t0 = r.stack.device('t0');
  await Promise.all(Array.from({ length: MAPPED }, (_, i) => fill(t0, i * BLOCK, BLOCK, i + 1)));
  await flush(t0);
  log.length = 0;
  return r;
}

/** Writes to new blocks, all for one pass, in which a status commits. */
async function writeWhileStatusCommits(r: Rig, count: number): Promise<string> {
  await turn(); // The worker comes to rest.
  const t0 = r.stack.device('t0');
  const status = new Promise<string>((resolve) => {
    r.afterNextPassBegins = () => void r.stack.status('p').then(resolve);
  });
  const writes = Array.from({ length: count }, (_, i) => fill(t0, (100 + i) * BLOCK, 4096, 0xaa));
  await Promise.all(writes);
  return status;
}

test('a commit that begins in the middle of a pass is waited for before the next mapping', async () => {
  const r = await rig('1 skip_block_zeroing');
  // Something to commit.
  await discard(r.stack.device('t0'), 0, BLOCK);
  assert.match(await writeWhileStatusCommits(r, 20), / rw /);
  assert.ok((await r.stack.status('p')).includes(` ${MAPPED - 1 + 20}/${DATA_BLOCKS} - rw `));
});

test('a block that a running commit frees is not handed out before that commit is durable', async () => {
  const r = await rig('1 no_discard_passdown');
  await discard(r.stack.device('t0'), 0, DISCARDED * BLOCK);
  r.log.length = 0;
  r.meta.hold((bio) => bio.op === BioOp.FLUSH);
  const done = writeWhileStatusCommits(r, DATA_BLOCKS - MAPPED + 5);
  for (let i = 0; i < 50; i++) await turn(); // The commit gets to its flush, the pass to its end.
  r.meta.release();
  await done;
  const freed = r.log.findIndex((line) => {
    const [, sector] = /^D (?:write|zero) (\d+)\+/.exec(line) ?? [];
    return sector !== undefined && Number(sector) < DISCARDED * 128;
  });
  const superblock = r.log.indexOf('M write 0+8');
  assert.ok(superblock >= 0 && freed >= 0, 'both happen');
  assert.equal(r.log[superblock + 1], 'M flush');
  assert.ok(freed > superblock + 1, `data block reused first: ${r.log.join(', ')}`);
});
