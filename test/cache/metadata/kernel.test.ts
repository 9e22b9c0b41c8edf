/**
 * The same operations, each committed, leave the same metadata image here as in a real kernel:
 * every block, stale ones and the superblock's checksum included.
 */
import { test } from 'node:test';
import type { CacheFormat } from '../../../src/cache/metadata/superblock.ts';
import {
  assertFollows,
  inKernel,
  makeDisks,
  NR_ORIGIN_BLOCKS,
  type CacheStep,
} from '../../helpers/cache-kernel.ts';
import { skipWithoutKernel } from '../../helpers/kernel.ts';
import { scratchDir } from '../../helpers/programs.ts';
import { Random, seedOf } from '../../helpers/random.ts';

/** Most blocks of one write. */
const RUN = 30;

/** Writes of blocks that were not written before. */
class Writes {
  readonly #random: Random;
  /** Starts of runs of RUN blocks that nobody has taken. */
  readonly #runs: number[];

  constructor(random: Random) {
    this.#random = random;
    this.#runs = Array.from({ length: NR_ORIGIN_BLOCKS / RUN }, (_, i) => i * RUN);
  }

  take(nrSteps: number, count: number): CacheStep[] {
    return Array.from({ length: nrSteps }, () => {
      const at = this.#random.below(this.#runs.length);
      return { op: 'write', begin: this.#runs.splice(at, 1)[0] as number, count };
    });
  }

  discards(nr: number): CacheStep[] {
    return Array.from({ length: nr }, () => {
      const begin = this.#random.below(NR_ORIGIN_BLOCKS - 200);
      return { op: 'discard', begin, end: begin + this.#random.between(1, 200) };
    });
  }
}

function stepsOf(random: Random): CacheStep[] {
  const writes = new Writes(random);
  return [
    { op: 'create', size: 600 },
    ...writes.take(10, 1),
    ...writes.take(3, RUN),
    ...writes.discards(3),
    { op: 'remove' },
    { op: 'create', size: 1100 },
    ...writes.take(4, 3),
    { op: 'reload', size: 1300, mode: 'writeback' },
    ...writes.discards(2),
    ...writes.take(3, RUN),
    { op: 'clean' },
    { op: 'reload', size: 1300, mode: 'passthrough' },
    { op: 'invalidate', ranges: '3 7-20 100-140' },
    { op: 'invalidate', ranges: '0' },
    { op: 'remove' },
    { op: 'load only', size: 1300 },
    { op: 'create', size: 1300 },
    ...writes.take(2, 10),
    { op: 'clean' },
    { op: 'remove' },
    { op: 'create', size: 90 },
    ...writes.take(1, 5),
    { op: 'reload', size: 500, mode: 'writeback' },
    { op: 'remove' },
  ];
}

for (const format of [1, 2] as CacheFormat[]) {
  const seed = seedOf(600 + format);
  test(
    `committed operations leave the kernel's image, format ${format} (seed ${seed})`,
    { skip: skipWithoutKernel() },
    async () => {
      const { dir, remove } = scratchDir();
      try {
        const steps = stepsOf(new Random(seed));
        const run = await inKernel(dir, makeDisks(dir), format, steps);
        await assertFollows(format, steps, run);
      } finally {
        remove();
      }
    },
  );
}
