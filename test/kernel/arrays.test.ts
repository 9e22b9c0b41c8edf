/**
 * Arrays and bitsets, block for block as a real kernel leaves them. A cache without any I/O does
 * little but resize its mapping array and dirty bits, and at each shutdown make its dirty bits and
 * hints anew: the same calls here must leave the same blocks, stale ones included. Block 0, the
 * cache's superblock, is not compared.
 */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { le32, le64, struct } from '../../src/base/struct.ts';
import { MemoryLog } from '../../src/base/log.ts';
import { MemoryDevice } from '../../src/block/memory-device.ts';
import { DmArray } from '../../src/persistent-data/array.ts';
import { Bitset } from '../../src/persistent-data/bitset.ts';
import { asBlockNr, BLOCK_SECTORS, BLOCK_SIZE } from '../../src/persistent-data/block.ts';
import { BlockManager } from '../../src/persistent-data/block-manager.ts';
import { makeValue } from '../../src/persistent-data/btree/insert.ts';
import { plainValueType } from '../../src/persistent-data/btree/value-type.ts';
import { MetadataSpaceMap } from '../../src/persistent-data/space-map/metadata.ts';
import { TransactionManager } from '../../src/persistent-data/transaction-manager.ts';
import { makeValidator, SALT } from '../../src/persistent-data/validator.ts';
import { imageOf } from '../helpers/edit-blocks.ts';
import { runInKernel, skipWithoutKernel } from '../helpers/kernel.ts';

/** Cache blocks after each step: all ways to grow and shrink over array blocks of 509 words. */
const SIZES = [3000, 1500, 600, 2600, 1019, 510, 2600, 1018, 3000, 509, 100, 3000];

const NR_BLOCKS = 1024;
const CACHE_BLOCK_SECTORS = 64;
const ORIGIN_SECTORS = 400_000;
const NR_DISCARD_BITS = Math.ceil(ORIGIN_SECTORS / CACHE_BLOCK_SECTORS);

function kernelScript(dir: string): string {
  return `
set -e
dmsetup create fast --table "0 ${CACHE_BLOCK_SECTORS} linear /dev/ubdb 0"
i=0
for n in ${SIZES.join(' ')}; do
  dmsetup suspend fast
  dmsetup load fast --table "0 $((n * ${CACHE_BLOCK_SECTORS})) linear /dev/ubdb 0"
  dmsetup resume fast
  dmsetup create c --table "0 ${ORIGIN_SECTORS} cache /dev/ubda /dev/mapper/fast /dev/ubdc \\
    ${CACHE_BLOCK_SECTORS} 2 metadata2 writeback smq 0"
  dmsetup remove c
  dd if=/dev/ubda of=${dir}/image$i bs=1M iflag=direct status=none
  i=$((i + 1))
done
`;
}

/** As little of a superblock as it takes to open the space map again. */
const header = struct(16, { csum: le32, flags: le32, blocknr: le64 });
const SPACE_MAP_ROOT = 64;
const SUPERBLOCK = asBlockNr(0);
const validator = makeValidator({
  name: 'superblock',
  salt: SALT.CACHE_SUPERBLOCK,
  blocknr: header.blocknr,
  complaint: 'cache metadata: sb_check failed: ',
});

/** What a cache's superblock remembers. */
interface CacheState {
  nrBlocks: number;
  mappings: number;
  hints: number;
  dirty: number;
  discards: number;
  nrDiscards: number;
}

/** A cache's metadata, with only those operations that make blocks. */
class PlainCache {
  readonly device = new MemoryDevice('metadata', NR_BLOCKS * BLOCK_SECTORS);
  #state: CacheState | null = null;

  /** Creates a cache of `nrBlocks` blocks on this metadata and removes it. */
  async createAndRemove(nrBlocks: number): Promise<void> {
    const blocks = new BlockManager(this.device, new MemoryLog());
    const tm = new TransactionManager(blocks);
    const map = this.#state === null ? await this.#format(tm) : openMap(tm);
    const state = this.#state as CacheState;

    const mappings = new DmArray(tm, plainValueType(8));
    const oldDirty = Bitset.open(tm, asBlockNr(state.dirty));
    const root = asBlockNr(state.mappings);
    state.mappings = mappings.resize(root, state.nrBlocks, nrBlocks, makeValue(8));
    oldDirty.resize(state.nrBlocks, nrBlocks, false);

    const dirty = Bitset.create(tm, nrBlocks, () => false);
    oldDirty.delete();
    const discards = Bitset.open(tm, asBlockNr(state.discards));
    discards.resize(state.nrDiscards, NR_DISCARD_BITS, false);
    for (let bit = 0; bit < NR_DISCARD_BITS; bit++) discards.clearBit(bit);
    const hints = new DmArray(tm, plainValueType(4));
    if (state.hints !== 0) hints.delete(asBlockNr(state.hints));
    state.hints = hints.create(nrBlocks, () => undefined);
    dirty.flush();
    discards.flush();
    state.dirty = dirty.root;
    state.discards = discards.root;
    state.nrDiscards = NR_DISCARD_BITS;
    state.nrBlocks = nrBlocks;
    await commit(tm, map);
  }

  async #format(tm: TransactionManager): Promise<MetadataSpaceMap> {
    const map = MetadataSpaceMap.create(tm, NR_BLOCKS);
    const mappings = new DmArray(tm, plainValueType(8)).empty();
    const dirty = Bitset.empty(tm).root;
    const discards = Bitset.empty(tm).root;
    this.#state = { nrBlocks: 0, mappings, hints: 0, dirty, discards, nrDiscards: 0 };
    await tm.preCommit();
    await tm.commit(() => {
      map.writeRoot(tm.blocks.create(SUPERBLOCK, validator).view, SPACE_MAP_ROOT);
    });
    return map;
  }
}

function openMap(tm: TransactionManager): MetadataSpaceMap {
  return MetadataSpaceMap.open(tm, tm.read(SUPERBLOCK, validator).view, SPACE_MAP_ROOT);
}

async function commit(tm: TransactionManager, map: MetadataSpaceMap): Promise<void> {
  await tm.preCommit();
  await tm.commit(() => {
    map.writeRoot(tm.blocks.write(SUPERBLOCK, validator).view, SPACE_MAP_ROOT);
  });
}

test(
  'arrays and bitsets that grow and shrink are the kernel’s, block for block',
  {
    skip: skipWithoutKernel(),
  },
  async () => {
    const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'arrays-'));
    try {
      const disks = [NR_BLOCKS * BLOCK_SIZE, 128 << 20, 256 << 20].map((size, i) => {
        const file = path.join(dir, `disk${i}`);
        fs.writeFileSync(file, '');
        fs.truncateSync(file, size);
        return file;
      });
      const { code, stderr } = await runInKernel(kernelScript(dir), { disks, dir });
      assert.equal(code, 0, stderr);
      const cache = new PlainCache();
      for (const [i, nrBlocks] of SIZES.entries()) {
        await cache.createAndRemove(nrBlocks);
        const mine = imageOf(cache.device);
        const kernels = fs.readFileSync(path.join(dir, `image${i}`));
        const different: number[] = [];
        for (let b = 1; b < NR_BLOCKS; b++) {
          const [begin, end] = [b * BLOCK_SIZE, (b + 1) * BLOCK_SIZE];
          if (!mine.subarray(begin, end).equals(kernels.subarray(begin, end))) different.push(b);
        }
        assert.deepEqual(different, [], `step ${i}, ${nrBlocks} cache blocks`);
      }
    } finally {
      fs.rmSync(dir, { recursive: true });
    }
  },
);
