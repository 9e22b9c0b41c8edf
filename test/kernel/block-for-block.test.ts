/**
 * The same operations, each committed, leave the same metadata image here as in a real kernel:
 * every block, stale ones included, but for the superblock's root tails and its checksum, which the
 * kernel leaves uninitialised memory in (spec: persistent-data, 6.9).
 */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { test } from 'node:test';
import { skipWithoutKernel } from '../helpers/kernel.ts';
import { scratchDir, skipWithout } from '../helpers/programs.ts';
import { seedOf } from '../helpers/random.ts';
import {
  closeThere,
  Here,
  inKernel,
  makeImages,
  openThere,
  planLines,
} from '../helpers/two-sides.ts';
import { makeWorkload, type Shape } from '../helpers/workload.ts';

const BLOCK = 4096;
const base = {
  blockBytes: 65536,
  nrSteps: 500,
  zeroing: false,
  commitEach: true,
  passdown: false,
  dataBlocks: 8192,
};

const shapes: { name: string; shape: Shape }[] = [
  {
    name: 'a few devices, spread writes',
    shape: { ...base, thinBlocks: 2048, idsMax: 6 },
  },
  {
    name: 'many snapshots, dense writes, overflow counts',
    shape: { ...base, thinBlocks: 128, idsMax: 40 },
  },
  {
    name: 'one device and one snapshot, wide tree',
    shape: { ...base, nrSteps: 700, thinBlocks: 8192, idsMax: 2 },
  },
  {
    name: 'discards passed down',
    shape: { ...base, nrSteps: 300, thinBlocks: 256, idsMax: 10, passdown: true },
  },
  {
    name: 'metadata snapshots',
    shape: { ...base, nrSteps: 300, thinBlocks: 512, idsMax: 8, metadataSnaps: true },
  },
  {
    name: 'more devices than one details leaf holds',
    shape: { ...base, nrSteps: 240, thinBlocks: 64, idsMax: 200, creations: 0.8 },
  },
  {
    name: 'a data device of several bitmaps',
    shape: { ...base, nrSteps: 300, thinBlocks: 4096, idsMax: 5, dataBlocks: 70_000 },
  },
];

/** Numbers of the blocks that differ. */
function difference(here: Buffer, there: Buffer): number[] {
  const found: number[] = [];
  for (const image of [here, there]) {
    image.fill(0, 0, 4); // The superblock's checksum.
    image.fill(0, 64 + 32, 192); // The tail of the data map's root area,
    image.fill(0, 192 + 32, 320); // and of the metadata map's.
  }
  for (let at = 0; at < here.length; at += BLOCK) {
    if (here.compare(there, at, at + BLOCK, at, at + BLOCK) !== 0) found.push(at / BLOCK);
  }
  return found;
}

const skip = skipWithoutKernel() || skipWithout('perl');

for (const [index, { name, shape }] of shapes.entries()) {
  const seed = seedOf(100 + index);
  test(`committed steps leave the kernel's image: ${name} (seed ${seed})`, { skip }, async () => {
    const { dir, remove } = scratchDir();
    try {
      const { steps, model } = makeWorkload(seed, shape);
      const ids = [...model.devices.keys()];
      const ours = makeImages(dir, shape, 'here');
      const here = new Here(shape);
      await here.open(ours, []);
      await here.run(steps);
      for (const id of ids) await here.remove(`t${id}`);
      await here.remove('p');

      const theirs = makeImages(dir, shape, 'there');
      await inKernel(dir, theirs, [
        ...openThere(shape, []),
        ...steps.flatMap((step) => planLines(step, shape)),
        ...closeThere(ids),
      ]);
      const images = [ours.meta, theirs.meta].map((file) => fs.readFileSync(file));
      assert.deepEqual(difference(images[0] as Buffer, images[1] as Buffer), []);
    } finally {
      remove();
    }
  });
}
