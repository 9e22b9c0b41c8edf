/**
 * The cache's superblock: two that a kernel made, and what is wrong with others, in the order in
 * which the kernel looks, and in its words (spec: cache, 2.1, 2.2 and scenario 7).
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MemoryLog } from '../../../src/base/log.ts';
import { CacheMetadata } from '../../../src/cache/metadata/cache-metadata.ts';
import {
  readCounters,
  readPolicy,
  superblock,
  superblockValidator,
  writeCounters,
  writePolicy,
  type HitCounters,
  type PolicyIdentity,
} from '../../../src/cache/metadata/superblock.ts';
import { Block, BLOCK_SIZE } from '../../../src/persistent-data/block.ts';
import { smRoot } from '../../../src/persistent-data/space-map/layout.ts';
import { SALT } from '../../../src/persistent-data/validator.ts';
import { CacheMaker } from '../../helpers/cache-images.ts';
import { editBlock } from '../../helpers/edit-blocks.ts';
import { Random } from '../../helpers/random.ts';

interface Sample {
  readonly csum: number;
  readonly flags: number;
  readonly version: number;
  readonly policy: PolicyIdentity;
  readonly spaceMap: readonly [
    nrBlocks: number,
    nrAllocated: number,
    bitmaps: number,
    refs: number,
  ];
  readonly roots: readonly [mapping: number, hint: number, discard: number, dirty: number];
  readonly discards: readonly [blockSize: number, nrBlocks: number];
  readonly counters: HitCounters;
}

const samples: Record<string, Sample> = {
  'format 2, in use': {
    csum: 0xebab7a3c,
    flags: 0,
    version: 2,
    policy: { name: '', version: [0, 0, 0], hintSize: 0 },
    spaceMap: [1024, 11, 14, 2],
    roots: [9, 0, 6, 13],
    discards: [0, 0],
    counters: { readHits: 0, readMisses: 0, writeHits: 0, writeMisses: 0 },
  },
  'format 1, after a clean shutdown': {
    csum: 0xe274ec86,
    flags: 1,
    version: 1,
    policy: { name: 'smq', version: [2, 0, 0], hintSize: 4 },
    spaceMap: [1024, 13, 28, 2],
    roots: [22, 25, 24, 0],
    discards: [128, 2048],
    counters: { readHits: 0, readMisses: 1, writeHits: 0, writeMisses: 1 },
  },
};

function blockOf(sample: Sample): Block {
  const block = new Block(new ArrayBuffer(BLOCK_SIZE), 0);
  const { view } = block;
  superblock.flags.set(view, 0, sample.flags);
  superblock.magic.set(view, 0, 1623043);
  superblock.version.set(view, 0, sample.version);
  writePolicy(view, sample.policy);
  const map = superblock.metadataSpaceMapRoot.offset;
  for (const [i, field] of ['nrBlocks', 'nrAllocated', 'bitmapRoot', 'refCountRoot'].entries()) {
    smRoot[field as 'nrBlocks'].set(view, map, sample.spaceMap[i] as number);
  }
  superblock.mappingRoot.set(view, 0, sample.roots[0]);
  superblock.hintRoot.set(view, 0, sample.roots[1]);
  superblock.discardRoot.set(view, 0, sample.roots[2]);
  superblock.dirtyRoot.set(view, 0, sample.roots[3]);
  superblock.discardBlockSize.set(view, 0, sample.discards[0]);
  superblock.discardNrBlocks.set(view, 0, sample.discards[1]);
  superblock.dataBlockSize.set(view, 0, 128);
  superblock.metadataBlockSize.set(view, 0, 8);
  superblock.cacheBlocks.set(view, 0, 1024);
  writeCounters(view, sample.counters);
  return block;
}

for (const [name, sample] of Object.entries(samples)) {
  test(`the superblock of a kernel’s cache has the kernel’s checksum: ${name}`, () => {
    const block = blockOf(sample);
    superblockValidator.prepare(block);
    assert.equal(superblock.csum.get(block.view, 0).toString(16), sample.csum.toString(16));
    const log = new MemoryLog();
    superblockValidator.check(block, log);
    assert.deepEqual(log.lines, []);
    assert.deepEqual(readPolicy(block.view), sample.policy);
    assert.deepEqual(readCounters(block.view), sample.counters);
    assert.ok(block.bytes.subarray(superblock.size).every((byte) => byte === 0));
  });
}

test('a policy name of 15 characters fits, and a longer one is cut', () => {
  const { view } = new Block(new ArrayBuffer(BLOCK_SIZE), 0);
  for (const name of ['a', 'fifteen letters', 'seventeen letters', 'smq']) {
    writePolicy(view, { name, version: [1, 2, 0xffff_ffff], hintSize: 4 });
    const expected = { name: name.slice(0, 15), version: [1, 2, 0xffff_ffff], hintSize: 4 };
    assert.deepEqual(readPolicy(view), expected);
  }
});

/** A clean image of format 1, changed; `seal` makes its checksum right again. */
async function openChanged(
  change: (view: DataView) => void,
  options: { seal?: boolean; dataBlockSize?: number } = {},
): Promise<{ errno: string | null; lines: string[]; metadata: CacheMetadata | null }> {
  const maker = await CacheMaker.make(1, new Random(1), { size: 100 });
  await maker.insert(10);
  await maker.shutDown();
  const { seal = true, dataBlockSize = 64 } = options;
  editBlock(maker.device, 0, change, seal ? SALT.CACHE_SUPERBLOCK : undefined);
  const log = new MemoryLog();
  try {
    const open = { dataBlockSize, mayFormat: true, format: 1 } as const;
    const metadata = await CacheMetadata.open(maker.device, log, open);
    return { errno: null, lines: log.lines, metadata };
  } catch (error) {
    return { errno: (error as { errno: string }).errno, lines: log.lines, metadata: null };
  }
}

const VALIDATOR = 'block manager: superblock validator check failed for block 0';
const UNREADABLE = "cache metadata: couldn't read lock superblock";

test('what is wrong with a superblock is found in the kernel’s order, and told in its words', async () => {
  // Each change comes on top of the next one: the first that is looked for is told.
  const blocknr = (view: DataView): void => view.setUint32(8, 5, true);
  const magic = (view: DataView): void => view.setUint32(32, 6142003, true);
  const csum = (view: DataView): void => view.setUint8(4000, 1);
  const version = (view: DataView): void => view.setUint32(40, 3, true);
  const all = [blocknr, magic, csum, version];
  const tellings: [errno: string, line: RegExp][] = [
    ['ENOTBLK', /^cache metadata: sb_check failed: blocknr 5: wanted 0$/],
    ['EILSEQ', /^cache metadata: sb_check failed: magic 6142003: wanted 1623043$/],
    ['EILSEQ', /^cache metadata: sb_check failed: csum \d+: wanted \d+$/],
    [
      'EINVAL',
      /^cache metadata: Cache metadata version 3 found, but only versions between 1 and 2 supported.$/,
    ],
  ];
  for (const [i, [errno, line]] of tellings.entries()) {
    const change = (view: DataView): void => all.slice(i).forEach((each) => each(view));
    const found = await openChanged(change, { seal: all[i] === version });
    assert.equal(found.errno, errno);
    assert.match(found.lines[0] ?? '', line);
    assert.deepEqual(found.lines.slice(1), [VALIDATOR, UNREADABLE]);
  }
});

test('the two checksums of a wrong one are told in decimal, computed first', async () => {
  const found = await openChanged((view) => view.setUint32(0, 1234, true), { seal: false });
  assert.match(found.lines[0] ?? '', /sb_check failed: csum \d{5,}: wanted 1234$/);
});

test('version 0 is refused', async () => {
  const found = await openChanged((view) => view.setUint32(40, 0, true));
  assert.equal(found.errno, 'EINVAL');
  assert.match(found.lines[0] ?? '', /Cache metadata version 0 found/);
});

test('features that nobody knows are refused, unless they are compatible', async () => {
  const refusals: [offset: number, value: number, line: string][] = [
    [248, 2, 'could not access metadata RDWR due to unsupported optional features (2).'],
    [252, 0xabc, 'could not access metadata due to unsupported optional features (abc).'],
  ];
  for (const [offset, value, line] of refusals) {
    const found = await openChanged((view) => view.setUint32(offset, value, true));
    assert.deepEqual([found.errno, found.lines], ['EINVAL', [`cache metadata: ${line}`]]);
  }
  const compatible = await openChanged((view) => view.setUint32(244, 1, true));
  assert.deepEqual([compatible.errno, compatible.lines], [null, []]);
});

test('another data block size is refused, before features are looked at', async () => {
  const change = (view: DataView): void => view.setUint32(252, 1, true);
  const { errno, lines } = await openChanged(change, { dataBlockSize: 256 });
  const line = 'cache metadata: changing the data block size (from 64 to 256) is not supported';
  assert.deepEqual([errno, lines], ['EINVAL', [line]]);
});

test('the metadata block size is not looked at, and stays', async () => {
  const { errno, metadata } = await openChanged((view) => view.setUint32(236, 16, true));
  assert.equal(errno, null);
  await metadata?.commit(false);
});
