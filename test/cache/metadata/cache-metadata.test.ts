/**
 * What each operation on a cache's metadata promises, and refuses.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DmError } from '../../../src/base/error.ts';
import { MemoryLog } from '../../../src/base/log.ts';
import { BioOp, type Bio } from '../../../src/block/bio.ts';
import { MemoryDevice } from '../../../src/block/memory-device.ts';
import { CacheMetadata } from '../../../src/cache/metadata/cache-metadata.ts';
import type { CacheFormat, PolicyIdentity } from '../../../src/cache/metadata/superblock.ts';
import { readCacheImage } from '../../../src/cache/tools/cache-image.ts';
import { BLOCK_SECTORS } from '../../../src/persistent-data/block.ts';
import { MetadataOperationError } from '../../../src/persistent-data/operation-error.ts';
import { CacheMaker } from '../../helpers/cache-images.ts';
import {
  assertSound,
  describeOpen,
  describeState,
  openCache,
  SMQ,
  type Shutdown,
} from '../../helpers/cache-states.ts';
import { imageOf, writeBytes } from '../../helpers/edit-blocks.ts';
import { FaultyDevice } from '../../helpers/faulty-device.ts';
import { Random, seedOf } from '../../helpers/random.ts';

const FORMATS: readonly CacheFormat[] = [1, 2];
const ALL_CLEAN: Shutdown = {
  dirty: new Set(),
  hints: [],
  policy: SMQ,
  discardBlockSize: 64,
  nrDiscards: 0,
  discards: new Set(),
};

const newDevice = (nrBlocks = 1024): MemoryDevice =>
  new MemoryDevice('metadata', nrBlocks * BLOCK_SECTORS);

/** Notes writes by block, and flushes. */
function recorded(device: MemoryDevice): { device: FaultyDevice; order: string[] } {
  const order: string[] = [];
  const watched = new FaultyDevice(device);
  watched.failBio = (bio: Bio) => {
    const blocks = Array.from({ length: bio.nrSectors / BLOCK_SECTORS }, (_, i) =>
      String(bio.sector / BLOCK_SECTORS + i),
    );
    order.push(bio.op === BioOp.FLUSH ? 'flush' : `write ${blocks.join(' ')}`);
    return 0;
  };
  return { device: watched, order };
}

const refusal = (operation: string, errno: string) => (error: unknown) => {
  assert.ok(error instanceof MetadataOperationError, String(error));
  assert.deepEqual([error.operation, error.errno], [operation, errno]);
  return true;
};

for (const format of FORMATS) {
  test(`a device is formatted, then opened, each with a superblock of its own, format ${format}`, async () => {
    const { device, order } = recorded(newDevice());
    const metadata = await openCache(device, { format, mayFormat: true });
    const last = format === 1 ? 5 : 6;
    const blocks = Array.from({ length: last }, (_, i) => i + 1).join(' ');
    assert.deepEqual(order, [`write ${blocks}`, 'flush', 'write 0', 'flush', 'write 0', 'flush']);
    assert.deepEqual(
      [metadata.version, metadata.cleanWhenOpened, metadata.hasChanges, metadata.nrCacheBlocks],
      [format, true, false, 0],
    );
    const { superblock } = readCacheImage(device);
    assert.deepEqual(
      [superblock.cleanShutdown, superblock.hintRoot, superblock.policy.name],
      [false, 0, ''],
    );
  });

  test(`a cache of 1024 blocks takes the kernel’s number of metadata blocks, format ${format}`, async () => {
    const metadata = await openCache(newDevice(), { format, mayFormat: true });
    const used = (): number => metadata.nrMetadataBlocks - metadata.nrFreeMetadataBlocks;
    metadata.resize(1024);
    await metadata.commit(false);
    assert.equal(used(), format === 1 ? 9 : 11);
    metadata.setDirtyBits(() => false);
    metadata.setDiscards(128, 2048, () => false);
    metadata.writeHints(SMQ, () => 0);
    await metadata.commit(true);
    assert.equal(used(), format === 1 ? 13 : 15);
  });

  test(`a dirty block refuses to go when the cache shrinks, format ${format}`, async () => {
    const maker = await CacheMaker.make(format, new Random(1), { size: 700 });
    maker.metadata.insertMapping(64, 5);
    maker.metadata.insertMapping(600, 6);
    maker.metadata.insertMapping(699, 7);
    await maker.shutDown({ ...ALL_CLEAN, dirty: new Set([600, 699]) });
    const log = new MemoryLog();
    const options = { dataBlockSize: 64, mayFormat: false, format };
    const metadata = await CacheMetadata.open(maker.device, log, options);
    assert.throws(() => metadata.resize(64), refusal('dm_cache_resize', 'EINVAL'));
    const which = format === 2 ? 'blocks_are_clean_separate_dirty: ' : '';
    assert.deepEqual(log.lines, [
      `cache metadata: ${which}cache block 600 is dirty`,
      'cache metadata: unable to shrink cache due to dirty blocks',
    ]);
    metadata.abort();
    assert.equal(metadata.nrCacheBlocks, 700);
  });

  test(`blocks that go must be known to be clean, which they are not after a crash, format ${format}`, async () => {
    const maker = await CacheMaker.make(format, new Random(1), { size: 700 });
    maker.metadata.insertMapping(600, 6);
    await maker.shutDown(ALL_CLEAN);
    const clean = imageOf(maker.device);
    await maker.reopen(); // The next to open it finds it in use.

    const crashed = await openCache(maker.device);
    assert.throws(() => crashed.resize(64), refusal('dm_cache_resize', 'EINVAL'));
    crashed.abort();
    crashed.resize(601);
    await crashed.commit(false);
    assert.equal(crashed.nrCacheBlocks, 601);

    // After a clean shutdown, what the bits say is right again.
    crashed.setDirtyBits(() => false);
    await crashed.commit(true);
    crashed.resize(64);

    const device = newDevice(128);
    writeBytes(device, 0, clean);
    const known = await openCache(device);
    known.resize(64);
  });

  test(`after a crash the kernel drops what is dirty, and so does who asks for it, format ${format}`, async () => {
    const maker = await CacheMaker.make(format, new Random(1), { size: 700 });
    await maker.insert(100);
    const options = { dataBlockSize: 64, mayFormat: false, format, kernelQuirks: true };
    const metadata = await CacheMetadata.open(maker.device, new MemoryLog(), options);
    metadata.resize(64);
    await metadata.commit(false);
    assert.equal(metadata.nrCacheBlocks, 64);
    await assertSound(maker.device, 'shrunk');
  });

  test(`origin blocks of 48 bits are kept, format ${format}`, async () => {
    const maker = await CacheMaker.make(format, new Random(1), { size: 10 });
    const oblocks = [0, 1, 0xffff, 0x1_0000, 2 ** 32 - 1, 2 ** 32, 2 ** 48 - 1];
    for (const [cblock, oblock] of oblocks.entries()) maker.metadata.insertMapping(cblock, oblock);
    await maker.metadata.commit(false);
    const found: number[] = [];
    const metadata = await openCache(maker.device);
    metadata.loadMappings(SMQ, (oblock) => found.push(oblock));
    assert.deepEqual(found, oblocks);
    assert.throws(() => metadata.insertMapping(8, 2 ** 48), /48 bits/);
  });

  test(`no block is dirty, by the bits on the disk, until one is, format ${format}`, async () => {
    const maker = await CacheMaker.make(format, new Random(1), { size: 600 });
    maker.metadata.insertMapping(599, 6);
    assert.ok(maker.metadata.isAllClean);
    await maker.shutDown({ ...ALL_CLEAN, dirty: new Set([599]) });
    assert.ok(!maker.metadata.isAllClean);
    assert.ok(!(await openCache(maker.device)).isAllClean);
  });

  test(`the mark of a clean shutdown comes off at the first open, and with it what was known, format ${format}`, async () => {
    const seed = seedOf(5);
    const maker = await CacheMaker.make(format, new Random(seed), { size: 1300 });
    await maker.insert(300);
    await maker.shutDown();
    const policy = maker.state.shutdown?.policy ?? SMQ;
    assert.ok(readCacheImage(maker.device).superblock.cleanShutdown);

    const first = await openCache(maker.device);
    assert.ok(first.cleanWhenOpened);
    assert.ok(!first.isMarkedClean);
    assert.equal(describeOpen(first, policy), describeState(maker.state), `seed ${seed}`);
    assert.ok(!readCacheImage(maker.device).superblock.cleanShutdown);

    const second = await openCache(maker.device);
    assert.ok(!second.cleanWhenOpened);
    const unknown = { ...maker.state, shutdown: null };
    assert.equal(describeOpen(second, policy), describeState(unknown), `seed ${seed}`);
    // A clean shutdown later does not change what was found at the open.
    await second.commit(true);
    assert.ok(second.isMarkedClean);
    assert.ok(!second.cleanWhenOpened);
  });
}

test('the format on the disk counts, whatever is asked for', async () => {
  const device = newDevice();
  await openCache(device, { format: 1, mayFormat: true });
  const metadata = await openCache(device, { format: 2 });
  metadata.resize(100);
  metadata.insertMapping(3, 4);
  metadata.setDirtyBits((cblock) => cblock === 3);
  await metadata.commit(true);
  const { superblock, mappings } = readCacheImage(device);
  assert.deepEqual([metadata.version, superblock.version, superblock.dirtyRoot], [1, 1, 0]);
  assert.deepEqual(mappings, [{ cblock: 3, oblock: 4, isDirty: true }]);
});

test('a device that is not formatted is refused where that is not allowed, and stays as it is', async () => {
  const device = newDevice(64);
  await assert.rejects(openCache(device), { errno: 'EPERM' });
  assert.ok(imageOf(device).every((byte) => byte === 0));
});

test('zeroes in the first block are all it takes to start afresh', async () => {
  const maker = await CacheMaker.make(2, new Random(1), { size: 1000 });
  await maker.insert(100);
  await maker.shutDown();
  writeBytes(maker.device, 0, new Uint8Array(4096));
  const metadata = await openCache(maker.device, { mayFormat: true });
  assert.deepEqual([metadata.nrCacheBlocks, metadata.cleanWhenOpened], [0, true]);
  await assertSound(maker.device, 'afresh');
});

test('hints are only shown to the policy that wrote them, of the same major version', async () => {
  const hintsFor = async (policy: PolicyIdentity): Promise<(number | null)[]> => {
    const maker = await CacheMaker.make(2, new Random(1), { size: 3 });
    for (const cblock of [0, 1, 2]) maker.metadata.insertMapping(cblock, cblock);
    await maker.shutDown({ ...ALL_CLEAN, hints: [63, 0, 0xffff_ffff] });
    const found: (number | null)[] = [];
    const metadata = await openCache(maker.device);
    metadata.loadMappings(policy, (_oblock, _cblock, _isDirty, hint) => found.push(hint));
    return found;
  };
  const hints = [63, 0, 0xffff_ffff];
  const none = [null, null, null];
  assert.deepEqual(await hintsFor(SMQ), hints);
  assert.deepEqual(await hintsFor({ ...SMQ, version: [2, 9, 9] }), hints);
  assert.deepEqual(await hintsFor({ ...SMQ, version: [1, 0, 0] }), none);
  assert.deepEqual(await hintsFor({ ...SMQ, name: 'mq' }), none);
  assert.deepEqual(await hintsFor({ ...SMQ, hintSize: 0 }), none);
});

test('a policy without hints leaves none', async () => {
  const maker = await CacheMaker.make(2, new Random(1), { size: 3 });
  maker.metadata.insertMapping(0, 0);
  await maker.shutDown({ ...ALL_CLEAN, hints: [1, 2, 3] });
  await maker.shutDown({ ...ALL_CLEAN, policy: { ...SMQ, hintSize: 0 } });
  assert.equal(readCacheImage(maker.device).superblock.hintRoot, 0);
  await assertSound(maker.device, 'without hints');
  const metadata = await openCache(maker.device);
  metadata.loadMappings({ ...SMQ, hintSize: 0 }, (_o, _c, _d, hint) => assert.equal(hint, null));
});

test('a visitor that refuses a mapping for its own reasons makes no failed operation', async () => {
  const maker = await CacheMaker.make(2, new Random(1), { size: 3 });
  maker.metadata.insertMapping(1, 7);
  await maker.metadata.commit(false);
  const log = new MemoryLog();
  const options = { dataBlockSize: 64, mayFormat: false, format: 2 } as const;
  const metadata = await CacheMetadata.open(maker.device, log, options);
  const load = (errno: 'EFBIG' | 'EBUSY' | 'EIO') => (): void =>
    metadata.loadMappings(SMQ, () => {
      throw new DmError(errno, 'no');
    });
  for (const errno of ['EFBIG', 'EBUSY'] as const) {
    assert.throws(load(errno), (error) => {
      assert.ok(error instanceof DmError && !(error instanceof MetadataOperationError));
      return error.errno === errno;
    });
  }
  assert.throws(load('EIO'), refusal('dm_cache_load_mappings', 'EIO'));
  const line = "cache metadata: policy couldn't load cache block 1";
  assert.deepEqual(log.lines, [line, line, line]);
});

test('only mappings, dirty bits and discards are changes that ask for a commit', async () => {
  const metadata = await openCache(newDevice(), { mayFormat: true });
  const changes: [string, boolean, () => void][] = [
    ['counters', false, () => metadata.setCounters({ ...metadata.counters, readHits: 1 })],
    ['resize', true, () => metadata.resize(100)],
    ['hints', false, () => metadata.writeHints(SMQ, () => 1)],
    ['insert', true, () => metadata.insertMapping(1, 1)],
    ['remove', true, () => metadata.removeMapping(1)],
    ['dirty bits', true, () => metadata.setDirtyBits(() => false)],
    ['discards', true, () => metadata.setDiscards(64, 10, () => true)],
  ];
  for (const [name, asks, change] of changes) {
    change();
    assert.equal(metadata.hasChanges, asks, name);
    await metadata.commit(false);
    assert.equal(metadata.hasChanges, false);
  }
});

test('a commit flushes data devices first, then writes all but the superblock, and that last', async () => {
  const { device, order } = recorded(newDevice());
  const metadata = await openCache(device, { mayFormat: true });
  metadata.resize(10);
  order.length = 0;
  metadata.setPreCommit(() => {
    order.push('data');
    return Promise.resolve();
  });
  await metadata.commit(false);
  assert.equal(order[0], 'data');
  assert.deepEqual(order.slice(-3), ['flush', 'write 0', 'flush']);
  assert.ok(
    order.slice(1, -3).every((each) => /^write [^0]/.test(each)),
    order.join(),
  );
  assert.ok(order.length > 4);

  order.length = 0;
  await metadata.commit(false);
  assert.deepEqual(order, ['data', 'flush', 'write 0', 'flush'], 'without changes');
});

test('data that cannot be flushed fails the commit before anything is written', async () => {
  const device = newDevice();
  const metadata = await openCache(device, { mayFormat: true });
  metadata.resize(10);
  const before = imageOf(device);
  metadata.setPreCommit(() => Promise.reject(new DmError('EIO', 'the fast device is gone')));
  await assert.rejects(metadata.commit(false), refusal('dm_cache_commit', 'EIO'));
  assert.ok(imageOf(device).equals(before));
  assert.ok(metadata.hasChanges);
});

test('nothing can be changed while a commit runs, and one can wait for its end', async () => {
  const metadata = await openCache(newDevice(), { mayFormat: true });
  metadata.resize(10);
  let go = (): void => undefined;
  metadata.setPreCommit(() => new Promise((resolve) => (go = resolve)));
  const commit = metadata.commit(false);
  assert.ok(metadata.isCommitting);
  assert.throws(() => metadata.insertMapping(1, 1), /nothing changes while a commit runs/);
  assert.throws(() => metadata.abort(), /not aborted/);
  let isIdle = false;
  const idle = metadata.whenIdle().then(() => (isIdle = true));
  await Promise.resolve();
  assert.ok(!isIdle);
  go();
  await commit;
  await idle;
  assert.ok(!metadata.isCommitting);
  metadata.insertMapping(1, 1);
});

test('of a transaction in which something failed nothing is committed before it is aborted', async () => {
  const metadata = await openCache(newDevice(), { mayFormat: true });
  metadata.resize(10);
  await metadata.commit(false);
  metadata.insertMapping(3, 3);
  assert.throws(() => metadata.insertMapping(10, 1), refusal('dm_cache_insert_mapping', 'ENODATA'));
  await assert.rejects(metadata.commit(false), refusal('dm_cache_commit', 'EINVAL'));
  assert.throws(() => metadata.removeMapping(1), refusal('dm_cache_remove_mapping', 'EINVAL'));
  metadata.abort();
  assert.ok(metadata.hasChanges, 'what was changed is not durable');
  metadata.loadMappings(SMQ, () => assert.fail('the mapping is gone'));
  metadata.insertMapping(4, 4);
  await metadata.commit(false);
  assert.ok(!metadata.hasChanges);
});

test('needs_check is written at once, survives, and goes with the other flag', async () => {
  const maker = await CacheMaker.make(2, new Random(1), { size: 10 });
  await maker.shutDown();
  await maker.metadata.setNeedsCheck();
  const { cleanShutdown, needsCheck } = readCacheImage(maker.device).superblock;
  assert.deepEqual([cleanShutdown, needsCheck], [true, true]);
  const metadata = await openCache(maker.device);
  assert.deepEqual([metadata.needsCheck, metadata.cleanWhenOpened], [true, true]);
  const after = readCacheImage(maker.device).superblock;
  assert.deepEqual([after.cleanShutdown, after.needsCheck], [false, true]);
  metadata.abort();
  assert.ok(metadata.needsCheck);
});

test('read-only metadata refuses changes and commits, and goes on showing what it holds', async () => {
  const maker = await CacheMaker.make(2, new Random(1), { size: 10 });
  await maker.insert(5);
  const { metadata } = maker;
  metadata.setReadOnly(true);
  const { state } = maker;
  assert.throws(() => metadata.resize(5), refusal('dm_cache_resize', 'EINVAL'));
  assert.throws(
    () => metadata.setDirtyBits(() => true),
    refusal('dm_cache_set_dirty_bits', 'EINVAL'),
  );
  assert.throws(() => metadata.writeHints(SMQ, () => 0), refusal('dm_cache_write_hints', 'EINVAL'));
  assert.throws(
    () => metadata.setDiscards(64, 1, () => false),
    refusal('dm_cache_discard_bitset_resize', 'EINVAL'),
  );
  await assert.rejects(metadata.commit(true), refusal('dm_cache_commit', 'EINVAL'));
  assert.equal(metadata.nrCacheBlocks, 10);
  const { nrMetadataBlocks, nrFreeMetadataBlocks } = metadata;
  assert.ok(nrFreeMetadataBlocks < nrMetadataBlocks);
  metadata.setReadOnly(false);
  metadata.abort();
  const found: [number, number][] = [];
  metadata.loadMappings(SMQ, (oblock, cblock) => found.push([cblock, oblock]));
  assert.deepEqual(new Map(found), new Map(state.mappings));
});

test('a second table with other blocks is told the difference', async () => {
  const log = new MemoryLog();
  const options = { dataBlockSize: 64, mayFormat: true, format: 2 } as const;
  const metadata = await CacheMetadata.open(newDevice(), log, options);
  metadata.checkDataBlockSize(64);
  assert.throws(() => metadata.checkDataBlockSize(128), { errno: 'EINVAL' });
  assert.deepEqual(log.lines, [
    'cache metadata: data_block_size (128) different from that in metadata (64)',
  ]);
});

test('shrinking to a whole number of array blocks leaves no block behind', async () => {
  for (const format of FORMATS) {
    const maker = await CacheMaker.make(format, new Random(1), { size: 600 });
    await maker.resize(509);
    await assertSound(maker.device, `format ${format}`);
    await maker.resize(600);
    await assertSound(maker.device, `format ${format}`);
  }
});

test('only the blocks that fit an index are used of a large metadata device', async () => {
  const metadata = await openCache(new MemoryDevice('metadata', 35651584), { mayFormat: true });
  metadata.resize(1024);
  await metadata.commit(false);
  const used = metadata.nrMetadataBlocks - metadata.nrFreeMetadataBlocks;
  assert.deepEqual([used, metadata.nrMetadataBlocks], [265, 4161600]);
});

test('on a small device each step fails where the kernel’s does', async () => {
  // Metadata blocks of the device, and the operation that first finds no room (spec: scenario 33).
  const cases: [nrBlocks: number, operation: string | null, used?: number][] = [
    [3, 'open'],
    [6, 'open'],
    [7, 'dm_cache_resize'],
    [13, 'dm_cache_resize'],
    [14, 'dm_cache_commit', 7],
    [16, 'dm_cache_write_hints', 11],
    [32, null, 11],
  ];
  for (const [nrBlocks, expected, used] of cases) {
    const device = newDevice(nrBlocks);
    let metadata: CacheMetadata | null = null;
    let failed: string | null = null;
    try {
      metadata = await openCache(device, { format: 2, mayFormat: true });
      metadata.resize(1024);
      await metadata.commit(false);
      metadata.setDirtyBits(() => false);
      metadata.setDiscards(128, 2048, () => false);
      metadata.writeHints(SMQ, () => 0);
      await metadata.commit(true);
    } catch (error) {
      assert.ok(error instanceof DmError);
      assert.equal(error.errno, 'ENOSPC', `${nrBlocks} blocks`);
      failed = error instanceof MetadataOperationError ? error.operation : 'open';
    }
    assert.equal(failed, expected, `${nrBlocks} blocks`);
    if (metadata === null) continue;
    if (failed !== null) metadata.abort();
    await assertSound(device, `${nrBlocks} blocks`);
    const found = metadata.nrMetadataBlocks - metadata.nrFreeMetadataBlocks;
    if (used !== undefined && failed !== null) assert.equal(found, used, `${nrBlocks} blocks`);
  }
});
