/**
 * Writes that wait for data space, and for how long; on a clock of the test's own. What the status
 * lines say meanwhile is compared with the kernel in kernel/transcripts/thin-out-of-data-space.sh.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { errno } from '../../../src/base/errno.ts';
import { BioOp } from '../../../src/block/bio.ts';
import { discard, fill } from '../../helpers/stack.ts';
import { BLOCK, DATA_BLOCKS, POOL, TimedPool } from '../../helpers/timed-pool.ts';

const SECOND = 1000;

/** A pool without a free block. */
async function fullPool(features = ''): Promise<TimedPool> {
  const pool = await TimedPool.make(features);
  await pool.fill(0, 0, DATA_BLOCKS * BLOCK, 0x11);
  return pool;
}

interface Waiting {
  /** Ends as the write does. */
  readonly ended: Promise<void>;
  /** `waits`, `ok`, or the errno's name. */
  outcome: string;
}

/** A write that needs a block. */
function writeBlock(pool: TimedPool, block: number): Waiting {
  const waiting: Waiting = {
    outcome: 'waits',
    ended: fill(pool.stack.device('t0'), block * BLOCK, 4096, 0x22).then(
      () => void (waiting.outcome = 'ok'),
      (error: { errno: string }) => void (waiting.outcome = error.errno),
    ),
  };
  return waiting;
}

test('writes wait for space for a minute, then fail, and so do all that follow', async () => {
  const pool = await fullPool();
  const write = writeBlock(pool, 20);
  await pool.clock.pass(59 * SECOND);
  assert.equal(write.outcome, 'waits');
  assert.match(await pool.status('p'), / out_of_data_space .* queue_if_no_space /);
  await pool.clock.pass(2 * SECOND);
  assert.equal(write.outcome, 'ENOSPC');
  assert.match(await pool.status('p'), / out_of_data_space .* error_if_no_space /);
  const later = writeBlock(pool, 21);
  await pool.clock.pass(10);
  assert.equal(later.outcome, 'ENOSPC');
  // Space gives the table's choice back.
  await pool.run(discard(pool.stack.device('t0'), 0, BLOCK));
  assert.match(await pool.status('p'), / rw .* queue_if_no_space /);
  await pool.close();
});

test('the timeout is that which was set when space ran out', async () => {
  const pool = await fullPool();
  pool.stack.pools.noSpaceTimeoutSeconds = 5;
  const write = writeBlock(pool, 20);
  await pool.clock.pass(SECOND);
  pool.stack.pools.noSpaceTimeoutSeconds = 100;
  await pool.clock.pass(3 * SECOND);
  assert.equal(write.outcome, 'waits');
  await pool.clock.pass(2 * SECOND);
  assert.equal(write.outcome, 'ENOSPC');
  await pool.close();
});

test('with a timeout of 0 writes wait for ever, and go on when there is space', async () => {
  const pool = await fullPool();
  pool.stack.pools.noSpaceTimeoutSeconds = 0;
  const writes = [writeBlock(pool, 20), writeBlock(pool, 21)];
  for (let day = 0; day < 3; day++) {
    for (let hour = 0; hour < 24; hour++) await pool.clock.pass(3600 * SECOND - 1);
  }
  assert.deepEqual(
    writes.map(({ outcome }) => outcome),
    ['waits', 'waits'],
  );
  await pool.run(discard(pool.stack.device('t0'), 0, 2 * BLOCK));
  await pool.status('p');
  await pool.run(Promise.all(writes.map(({ ended }) => ended)));
  assert.deepEqual(
    writes.map(({ outcome }) => outcome),
    ['ok', 'ok'],
  );
  assert.match(await pool.status('p'), / 8\/8 - rw /);
  await pool.close();
});

test('a suspend stops the time that writes wait, a resume lets it begin anew', async () => {
  const pool = await fullPool();
  const write = writeBlock(pool, 20);
  await pool.clock.pass(40 * SECOND);
  await pool.run(pool.stack.suspend('p', true));
  await pool.clock.pass(100 * SECOND);
  assert.equal(write.outcome, 'waits');
  await pool.run(pool.stack.resume('p'));
  await pool.clock.pass(59 * SECOND);
  assert.equal(write.outcome, 'waits');
  await pool.clock.pass(2 * SECOND);
  assert.equal(write.outcome, 'ENOSPC');
  await pool.close();
});

test('what waits for space ends with ENOSPC when the pool loses its metadata', async () => {
  const pool = await fullPool();
  const write = writeBlock(pool, 20);
  await pool.clock.pass(10);
  pool.meta.fail((bio) => (bio.op === BioOp.WRITE ? errno.EIO : 0));
  await assert.rejects(pool.message('create_thin 5'), { errno: 'EIO' });
  await pool.run(write.ended);
  assert.equal(write.outcome, 'ENOSPC');
  const later = writeBlock(pool, 20);
  await pool.run(later.ended);
  assert.equal(later.outcome, 'EIO', 'from then on it is not space that is missing');
  await pool.close();
});

test('a write that waits survives a reload, also to a table that does not let it wait', async () => {
  const pool = await fullPool();
  const write = writeBlock(pool, 20);
  await pool.clock.pass(10);
  await pool.run(pool.stack.reload('p', `${POOL} 0`));
  await pool.run(pool.stack.suspend('p', true));
  await pool.run(pool.stack.resume('p'));
  await pool.clock.pass(10);
  assert.equal(write.outcome, 'waits');
  await pool.run(pool.stack.reload('p', `${POOL} 1 error_if_no_space`));
  await pool.run(pool.stack.suspend('p', true));
  await pool.run(pool.stack.resume('p'));
  await pool.run(write.ended);
  assert.equal(write.outcome, 'ENOSPC');
  await pool.close();
});

test('the low water event comes once a resume', async () => {
  const pool = await TimedPool.make();
  const table = POOL.replace(/ 0$/, ' 4');
  const events = (): number => pool.stack.device('p').events.nr;
  const reload = async (): Promise<void> => {
    await pool.run(pool.stack.reload('p', table));
    await pool.run(pool.stack.resume('p'));
  };
  await reload();
  const before = events();
  await pool.fill(0, 0, 4 * BLOCK, 0x11);
  assert.equal(events(), before, 'five blocks are free when the fourth is taken');
  await pool.fill(0, 4, BLOCK, 0x11);
  assert.equal(events(), before + 1);
  await pool.fill(0, 5, BLOCK, 0x11);
  assert.equal(events(), before + 1);
  await reload();
  assert.equal(events(), before + 1);
  await pool.fill(0, 6, BLOCK, 0x11);
  assert.equal(events(), before + 2);
  await pool.close();
});
