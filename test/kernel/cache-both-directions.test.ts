/**
 * A cache that was used here goes on in a real kernel, and back: the same data, the same mappings,
 * the same dirty blocks, hints and discards, in both formats and with blocks of all sizes, after
 * clean and unclean stops. cache_check and cache_dump agree with what we read.
 */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { test } from 'node:test';
import type { CacheImage } from '../../src/cache/tools/cache-image.ts';
import {
  CacheHere,
  cleansThere,
  closesThere,
  figuresOf,
  imageOfDisk,
  inKernel,
  makeCacheDisk,
  makeCacheWorkload,
  metadataOf,
  opensThere,
  PIECE,
  readsThere,
  runsThere,
  statusThere,
  type CacheModel,
  type CacheShape,
} from '../helpers/cache-two-sides.ts';
import { skipWithoutKernel } from '../helpers/kernel.ts';
import { must, scratchDir, skipWithout } from '../helpers/programs.ts';
import { seedOf } from '../helpers/random.ts';

const shapes: readonly CacheShape[] = [
  { name: '32 KiB', format: 1, blockSectors: 64, nrFastBlocks: 1100, nrOriginBlocks: 300 },
  { name: '64 KiB', format: 2, blockSectors: 128, nrFastBlocks: 600, nrOriginBlocks: 200 },
  { name: '192 sectors', format: 1, blockSectors: 192, nrFastBlocks: 200, nrOriginBlocks: 150 },
  { name: '1 MiB', format: 2, blockSectors: 2048, nrFastBlocks: 60, nrOriginBlocks: 40 },
  { name: '1 GiB', format: 1, blockSectors: 2097152, nrFastBlocks: 6, nrOriginBlocks: 5 },
];
const NR_STEPS = 120;

const skip = skipWithoutKernel() || skipWithout('cache_check', 'cache_dump', 'perl');

// --- what is compared

/** What both sides must agree on, whoever wrote it last. */
function content({ superblock: sb, mappings, discards }: CacheImage): unknown {
  const { cleanShutdown, version, nrCacheBlocks, dataBlockSize, policy } = sb;
  return { cleanShutdown, version, nrCacheBlocks, dataBlockSize, policy, mappings, discards };
}

/** Debian's tools find nothing wrong, and see what we see; they know no dirty bits of format 2. */
async function checkWithTools(disk: string): Promise<void> {
  const file = metadataOf(disk);
  await must('cache_check', ['-q', file]);
  const xml = await must('cache_dump', [file]);
  const { superblock, mappings, hints } = await imageOfDisk(disk);
  const seen = [
    ...xml.matchAll(/<mapping cache_block="(\d+)" origin_block="(\d+)" dirty="(\w+)"/g),
  ].map(([, cblock, oblock, dirty]) => ({
    cblock: Number(cblock),
    oblock: Number(oblock),
    isDirty: dirty === 'true',
  }));
  const known = superblock.version === 1;
  const ours = mappings.map((each) => ({ ...each, isDirty: known && each.isDirty }));
  assert.deepEqual(ours, seen, disk);
  for (const [, cblock, data = ''] of xml.matchAll(/<hint cache_block="(\d+)" data="([^"]*)"/g)) {
    const hint = Buffer.from(data, 'base64').readUInt32LE(0);
    assert.equal(hints?.[Number(cblock)], hint, `${disk}: hint of ${cblock}`);
  }
}

function checkPieces(
  { name }: CacheShape,
  model: CacheModel,
  found: ReadonlyMap<number, string>,
): void {
  const wrong = [...model.pieces].filter(([piece, byte]) => found.get(piece) !== String(byte));
  const lines = wrong.map(([piece, byte]) => `${piece}: wanted ${byte}, not ${found.get(piece)}`);
  assert.deepEqual(lines.slice(0, 10), [], `pieces with blocks of ${name}`);
}

async function piecesHere(cache: CacheHere, model: CacheModel): Promise<Map<number, string>> {
  const found = new Map<number, string>();
  for (const piece of model.pieces.keys()) found.set(piece, String(await cache.piece(piece)));
  return found;
}

/** What the kernel printed of cache `i`. */
function piecesThere(printed: readonly string[], i: number): Map<number, string> {
  const found = new Map<number, string>();
  for (const line of printed) {
    const [, offset, value = ''] = new RegExp(`^read c${i} (\\d+) (\\S+)$`).exec(line) ?? [];
    if (offset !== undefined) found.set(Number(offset) / PIECE, value);
  }
  return found;
}

const statusesOf = (printed: readonly string[]): string[] =>
  printed.filter((line) => line.includes(' cache '));

const nrDirtyOf = (image: CacheImage): number =>
  image.mappings.filter(({ isDirty }) => isDirty).length;

// --- the runs

const workloads = (seed: number): ReturnType<typeof makeCacheWorkload>[] =>
  shapes.map((shape, i) => makeCacheWorkload(seed * 100 + i, shape, NR_STEPS));

/** Runs the workloads here; resolves to the caches, still open. */
async function runHere(
  disks: readonly string[],
  work: ReturnType<typeof workloads>,
): Promise<CacheHere[]> {
  return Promise.all(
    shapes.map(async (shape, i) => {
      const cache = new CacheHere(shape, i);
      await cache.open(disks[i] as string);
      const [first, second] = (work[i] as (typeof work)[number]).halves;
      await cache.run(first);
      await cache.clean();
      await cache.run(second);
      return cache;
    }),
  );
}

/** The same in the kernel; the caches are still open at the end. */
function runsOfAll(work: ReturnType<typeof workloads>): string[] {
  return [
    ...shapes.flatMap((shape, i) => opensThere(shape, i)),
    ...work.flatMap(({ halves }, i) => runsThere(halves[0], i)),
    ...cleansThere(shapes),
    ...work.flatMap(({ halves }, i) => runsThere(halves[1], i)),
  ];
}

/** Opens a cache here and closes it at once: what is left is what the policy makes of the hints. */
async function hintsAfterOpening(
  shape: CacheShape,
  i: number,
  disk: string,
): Promise<readonly number[] | null> {
  const cache = new CacheHere(shape, i);
  await cache.open(disk);
  await cache.close();
  return (await imageOfDisk(disk)).hints;
}

test(`caches made here go on in the kernel (seed ${seedOf(11)})`, { skip }, async () => {
  const { dir, remove } = scratchDir();
  try {
    const work = workloads(seedOf(11));
    const disks = shapes.map((shape) => makeCacheDisk(dir, shape));
    const caches = await runHere(disks, work);
    const statuses = await Promise.all(caches.map((cache) => cache.status()));
    for (const cache of caches) await cache.close();
    const images = await Promise.all(disks.map(imageOfDisk));
    for (const [i, disk] of disks.entries()) {
      await checkWithTools(disk);
      const { superblock, mappings, discards } = images[i] as CacheImage;
      assert.ok(superblock.cleanShutdown);
      assert.ok(mappings.some(({ isDirty }) => isDirty) && discards.length > 0, 'worth comparing');
    }
    for (const [i, disk] of disks.entries()) {
      fs.copyFileSync(metadataOf(disk), `${disk}.copy`);
      fs.truncateSync(`${disk}.copy`, fs.statSync(disk).size);
      assert.equal((images[i] as CacheImage).superblock.version, shapes[i]?.format);
    }
    const printed = await inKernel(dir, disks, [
      ...shapes.flatMap((shape, i) => [
        ...opensThere(shape, i),
        statusThere(i),
        // Nothing is read before this, so that the hints are those of the opening.
        ...closesThere(i),
        `sh dmsetup remove m${i}; dmsetup remove f${i}; dmsetup remove o${i}`,
        `sh dd if=/dev/ubd${String.fromCharCode(97 + i)} of=${disks[i]}.opened bs=64k count=64 ` +
          'iflag=direct status=none',
        ...opensThere(shape, i),
        ...readsThere((work[i] as (typeof work)[number]).model, i),
        ...closesThere(i),
      ]),
    ]);
    for (const [i, shape] of shapes.entries()) {
      const before = images[i] as CacheImage;
      const found = figuresOf(statusesOf(printed)[i] as string);
      assert.deepEqual(found, figuresOf(statuses[i] as string), shape.name);
      const opened = await imageOfDisk(`${disks[i]}.opened`);
      assert.deepEqual(content(opened), content(before), shape.name);
      assert.deepEqual(opened.hints, await hintsAfterOpening(shape, i, `${disks[i]}.copy`));
      const model = (work[i] as (typeof work)[number]).model;
      checkPieces(shape, model, piecesThere(printed, i));
    }
  } finally {
    remove();
  }
});

test(`caches made in the kernel go on here (seed ${seedOf(12)})`, { skip }, async () => {
  const { dir, remove } = scratchDir();
  try {
    const work = workloads(seedOf(12));
    const disks = shapes.map((shape) => makeCacheDisk(dir, shape));
    const printed = await inKernel(dir, disks, [
      ...runsOfAll(work),
      ...shapes.map((_shape, i) => statusThere(i)),
      ...shapes.flatMap((_shape, i) => closesThere(i)),
    ]);
    for (const [i, shape] of shapes.entries()) {
      const disk = disks[i] as string;
      await checkWithTools(disk);
      const before = await imageOfDisk(disk);
      const cache = new CacheHere(shape, i);
      await cache.open(disk);
      const found = figuresOf(await cache.status());
      assert.deepEqual(found, figuresOf(statusesOf(printed)[i] as string), shape.name);
      assert.equal(found.dirty, nrDirtyOf(before), shape.name);
      await cache.close();
      assert.deepEqual(content(await imageOfDisk(disk)), content(before), shape.name);
      await checkWithTools(disk);
      const { model } = work[i] as (typeof work)[number];
      const again = new CacheHere(shape, i);
      await again.open(disk);
      checkPieces(shape, model, await piecesHere(again, model));
      await again.close();
    }
  } finally {
    remove();
  }
});

test(
  `after an unclean stop here, the kernel has all that was synced (seed ${seedOf(13)})`,
  { skip },
  async () => {
    const { dir, remove } = scratchDir();
    try {
      const work = workloads(seedOf(13));
      const disks = shapes.map((shape) => makeCacheDisk(dir, shape));
      const caches = await runHere(disks, work);
      // What another program finds now is what it would find had this one been killed.
      const copies = disks.map((disk) => `${disk}.copy`);
      for (const [i, disk] of disks.entries())
        await must('cp', ['--sparse=always', disk, copies[i] as string]);
      const images = await Promise.all(copies.map(imageOfDisk));
      for (const [i, cache] of caches.entries()) {
        const { mappings, superblock } = images[i] as CacheImage;
        assert.equal(superblock.cleanShutdown, false);
        const resident = `${mappings.length}/${shapes[i]?.nrFastBlocks}`;
        assert.equal(figuresOf(await cache.status()).resident, resident, 'synced');
        await cache.close();
        await checkWithTools(copies[i] as string);
      }
      const printed = await inKernel(
        dir,
        copies,
        shapes.flatMap((shape, i) => [
          ...opensThere(shape, i),
          statusThere(i),
          ...readsThere((work[i] as (typeof work)[number]).model, i),
          ...closesThere(i),
        ]),
      );
      for (const [i, shape] of shapes.entries()) {
        const { mappings } = images[i] as CacheImage;
        const resident = `${mappings.length}/${shape.nrFastBlocks}`;
        const found = figuresOf(statusesOf(printed)[i] as string);
        assert.deepEqual(found, { resident, dirty: mappings.length }, shape.name);
        checkPieces(shape, (work[i] as (typeof work)[number]).model, piecesThere(printed, i));
      }
    } finally {
      remove();
    }
  },
);

test(
  `after an unclean stop of the kernel, all that was synced is here (seed ${seedOf(14)})`,
  { skip },
  async () => {
    const { dir, remove } = scratchDir();
    try {
      const work = workloads(seedOf(14));
      const disks = shapes.map((shape) => makeCacheDisk(dir, shape));
      await inKernel(dir, disks, runsOfAll(work));
      for (const [i, shape] of shapes.entries()) {
        const disk = disks[i] as string;
        const { mappings, superblock } = await imageOfDisk(disk);
        assert.equal(superblock.cleanShutdown, false);
        await checkWithTools(disk);
        const cache = new CacheHere(shape, i);
        await cache.open(disk);
        const resident = `${mappings.length}/${shape.nrFastBlocks}`;
        assert.deepEqual(figuresOf(await cache.status()), { resident, dirty: mappings.length });
        const { model } = work[i] as (typeof work)[number];
        checkPieces(shape, model, await piecesHere(cache, model));
        await cache.close();
        await checkWithTools(disk);
      }
    } finally {
      remove();
    }
  },
);
