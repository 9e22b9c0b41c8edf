/**
 * What docs/differences.md says about thin provisioning: where the kernel loses data or space, or
 * calls a failure a success, ours does not. Each entry there names its test here.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { errno } from '../../../src/base/errno.ts';
import { BioOp, type Bio } from '../../../src/block/bio.ts';
import { SALT } from '../../../src/persistent-data/validator.ts';
import { superblock } from '../../../src/thin/metadata/superblock.ts';
import { assertClean } from '../../helpers/check.ts';
import { copyDevice, editBlock, readBytes } from '../../helpers/edit-blocks.ts';
import { discard, fill } from '../../helpers/stack.ts';
import { Patient } from '../../helpers/thin-damage.ts';
import { imageOf } from '../../helpers/thin-images.ts';
import { BLOCK, DATA_BLOCKS, POOL, TimedPool } from '../../helpers/timed-pool.ts';

const K = 1024;

const fails = (promise: Promise<unknown>, name = 'EIO'): Promise<void> =>
  assert.rejects(promise, { errno: name });

const onWrite = (bio: Bio): number => (bio.op === BioOp.WRITE ? errno.EIO : 0);
const onFlush = (bio: Bio): number => (bio.op === BioOp.FLUSH ? errno.EIO : 0);
const never = (): number => 0;
/** The superblock can be written, nothing else. */
const behindSuperblock = (bio: Bio): number => (bio.sector === 0 ? 0 : onWrite(bio));

test('a block whose zeroing, copy or overwrite fails is free again', async () => {
  const rig = await TimedPool.make();
  const writeOrZero = (bio: Bio): number =>
    bio.op === BioOp.WRITE || bio.op === BioOp.WRITE_ZEROES ? errno.EIO : 0;
  await rig.fill(0, 0, BLOCK, 0x11);
  await rig.message('create_snap 1 0');
  rig.data.fail(writeOrZero);
  await fails(rig.fill(0, 1, 4 * K, 0x22));
  await fails(rig.fill(0, 2, BLOCK, 0x22));
  await fails(rig.fill(0, 0, 4 * K, 0x22));
  await fails(rig.fill(0, 0, BLOCK, 0x22));
  rig.data.fail(never);
  assert.match(await rig.status('p'), / 1\/8 - rw /);
  assert.equal(await rig.read(0, 0), `${BLOCK}x11`);
  assert.equal(await rig.read(0, 1), `${BLOCK}x00`);
  assert.equal(await rig.freeAfterCrash(), DATA_BLOCKS - 1);
  // All of them can be had.
  for (let i = 0; i < DATA_BLOCKS - 1; i++) await rig.fill(0, 10 + i, BLOCK, 0x33);
  await rig.close();
});

test('a block that a crash finds being prepared, or discarded, is free', async () => {
  const rig = await TimedPool.make();
  await rig.fill(0, 0, 2 * BLOCK, 0x11);
  rig.data.hold((bio) => bio.op !== BioOp.READ && bio.op !== BioOp.FLUSH);
  const t0 = rig.stack.device('t0');
  // A discard waits for the writes that came before it.
  const work = [discard(t0, BLOCK, BLOCK)];
  await rig.clock.pass(1);
  work.push(fill(t0, 5 * BLOCK, BLOCK, 0x22), fill(t0, 6 * BLOCK, 4 * K, 0x22));
  await rig.clock.pass(1);
  await rig.message('create_thin 1');
  assert.equal(rig.data.nrHeld, 3, 'an overwrite, a zeroing and a discard are on the way');
  assert.match(await rig.status('p'), / 4\/8 /, 'none of the three blocks can be had');
  assert.equal(await rig.freeAfterCrash(), DATA_BLOCKS - 1, 'only block 0 of t0 is mapped');
  rig.data.release();
  await rig.run(Promise.all(work));
  assert.match(await rig.status('p'), / 3\/8 /);
  await rig.close();
});

test('after an abort transaction id and mapped counts are those of the last commit', async () => {
  const rig = await TimedPool.make();
  await rig.fill(0, 0, BLOCK, 0x11, true);
  await rig.message('set_transaction_id 0 3');
  const before = [await rig.status('p'), await rig.status('t0')];
  rig.meta.fail(behindSuperblock);
  // Whatever comes into the same transaction is lost with it.
  await rig.run(rig.stack.suspend('p'));
  await fails(rig.message('create_snap 9 0'));
  rig.meta.fail(never);
  await rig.run(rig.stack.resume('p'));
  const [pool, thin] = [await rig.status('p'), await rig.status('t0')];
  assert.equal(pool, before[0]?.replace(' rw ', ' ro ').replace(' - 256', ' needs_check 256'));
  assert.equal(thin, before[1]);
  await rig.close();

  const other = await TimedPool.make();
  other.meta.fail(onWrite);
  await fails(other.message('set_transaction_id 0 5'));
  assert.match(await other.status('p'), / thin-pool 0 .* ro .* needs_check /);
  other.meta.fail(never);
  await other.close();
  await assertClean(other.disk);
});

for (const [what, disk, which] of [
  ['the data device could not be flushed', 'data', onFlush],
  ['the metadata could not be written', 'meta', behindSuperblock],
  ['the metadata could not be flushed', 'meta', onFlush],
] as const) {
  test(`flushes fail after changes were lost because ${what}, until the device is closed`, async () => {
    const rig = await TimedPool.make();
    await rig.message('create_thin 1');
    await rig.activate(1);
    await rig.fill(1, 0, BLOCK, 0x11, true);
    await rig.fill(0, 0, BLOCK, 0x11, true);
    rig[disk].fail(which);
    // Acknowledged, and lost by the commit that follows.
    await rig.fill(0, 3, BLOCK, 0x22);
    await rig.clock.pass(2500);
    rig[disk].fail(never);
    assert.match(await rig.status('p'), / 2\/8 - ro .* needs_check /);
    await fails(rig.flush(0));
    await fails(rig.fill(0, 0, 4 * K, 0x33, true));
    await rig.fill(0, 0, 4 * K, 0x44);
    await fails(rig.flush(0));
    await rig.flush(1);
    await rig.fill(1, 0, 4 * K, 0x44, true);
    assert.equal(await rig.read(0, 3), `${BLOCK}x00`);
    await rig.run(rig.stack.remove('t0'));
    await rig.activate(0);
    await rig.flush(0);
    await rig.close();
  });
}

test('an empty flush reaches the data device in every mode but fail, whatever is mapped', async () => {
  const rig = await TimedPool.make();
  await rig.fill(0, 3, BLOCK, 0x11, true);
  const flushed = async (): Promise<void> => {
    rig.log.length = 0;
    await rig.flush(0);
    assert.deepEqual(rig.log, ['D flush']);
  };
  await flushed();
  await rig.reload('1 read_only');
  assert.match(await rig.status('p'), / ro /);
  await flushed();
  await rig.reload('1 error_if_no_space');
  await rig.fill(0, 10, 7 * BLOCK, 0x22);
  await fails(rig.fill(0, 30, 4 * K, 0x22), 'ENOSPC');
  assert.match(await rig.status('p'), / out_of_data_space .* error_if_no_space /);
  await flushed();
  await rig.reload('0');
  const waiting = fill(rig.stack.device('t0'), 30 * BLOCK, 4 * K, 0x22);
  await rig.clock.pass(10);
  assert.match(await rig.status('p'), / out_of_data_space .* queue_if_no_space /);
  await flushed();
  await rig.run(discard(rig.stack.device('t0'), 10 * BLOCK, BLOCK));
  await rig.status('p');
  await rig.run(waiting);
  // A flush in the fail mode cannot mean anything.
  rig.meta.fail(() => errno.EIO);
  rig.disk.submit = (bio) => bio.end(errno.EIO);
  rig.disk.readSync = () => errno.EIO;
  await fails(rig.message('create_thin 5'));
  assert.match(await rig.status('p'), / Fail$/);
  await fails(rig.flush(0));
  await rig.close();
});

test('needs_check is on the disk as soon as it is set', async () => {
  const rig = await TimedPool.make();
  rig.meta.fail(behindSuperblock);
  await fails(rig.message('create_thin 9'));
  assert.ok(rig.needsCheckOnDisk, 'a crash now would not hide what happened');
  await rig.close();
});

test('needs_check is written when the pool is closed, if it could not be before', async () => {
  const rig = await TimedPool.make();
  rig.meta.fail(onWrite);
  await fails(rig.message('create_thin 9'));
  assert.ok(!rig.needsCheckOnDisk);
  rig.meta.fail(never);
  await rig.close();
  assert.ok(rig.needsCheckOnDisk);
});

test('nothing is formatted by a table in which thin-pool is not alone', async () => {
  const rig = new TimedPool();
  const table = `${POOL}\n${DATA_BLOCKS * 128} 8 zero`;
  await fails(rig.run(rig.stack.create('p', table)), 'EINVAL');
  assert.ok(readBytes(rig.disk, 0).every((byte) => byte === 0));
  assert.deepEqual(rig.log, []);
});

test('a discard fails if the mappings cannot be read', async () => {
  const rig = await TimedPool.make();
  await rig.fill(0, 0, 2 * BLOCK, 0x11);
  await rig.close();
  const patient = new Patient(imageOf(rig.disk));
  const [leaf = 0] = patient.mappingNodes();
  editBlock(rig.disk, leaf, (view) => view.setUint8(2000, view.getUint8(2000) ^ 1));
  for (const features of ['0', '1 no_discard_passdown']) {
    const again = new TimedPool(copyDevice(rig.disk));
    await again.run(again.stack.create('p', `${POOL} ${features}`));
    await again.activate(0);
    await fails(again.run(discard(again.stack.device('t0'), 0, 2 * BLOCK)));
    await again.close();
  }
});

test('a snapshot clock beyond 24 bits leaves block numbers alone', async () => {
  // A mapping keeps the time in 24 bits; the next bits are the data block's.
  const rig = await TimedPool.make();
  await rig.fill(0, 0, BLOCK, 0x11);
  await rig.close();
  const setTime = (view: DataView): void => superblock.time.set(view, 0, 2 ** 24 - 2);
  editBlock(rig.disk, 0, setTime, SALT.THIN_SUPERBLOCK);
  const again = new TimedPool(rig.disk);
  await again.run(again.stack.create('p', POOL));
  await again.activate(0);
  await again.fill(0, 0, BLOCK, 0x20);
  for (let id = 1; id <= 4; id++) {
    await again.message(`create_snap ${id} 0`);
    await again.fill(0, 0, BLOCK, 0x20 + id);
    await again.fill(0, 0, 4 * K, 0x30 + id);
  }
  for (let id = 1; id <= 4; id++) {
    await again.activate(id);
    const [head, rest] = [0x30 + id - 1, 0x20 + id - 1].map((byte) => byte.toString(16));
    const wanted = id === 1 ? `${BLOCK}x20` : `${4 * K}x${head} ${BLOCK - 4 * K}x${rest}`;
    assert.equal(await again.read(id, 0), wanted);
    await again.fill(id, 0, 4 * K, 0x77);
  }
  assert.equal(await again.read(0, 0), `${4 * K}x34 ${BLOCK - 4 * K}x24`);
  await again.close();
  await assertClean(rig.disk);
});
