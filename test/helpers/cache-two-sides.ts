/**
 * Caches on both sides: each on a disk of its own, a sparse file that holds metadata, fast device
 * and origin; a seeded workload, and a model of what it leaves.
 */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { readCacheImage, type CacheImage } from '../../src/cache/tools/cache-image.ts';
import { repoRoot, runInKernel } from './kernel.ts';
import { Random } from './random.ts';
import { discard, fill, flush, read, Stack } from './stack.ts';
import { deviceOf } from './thin-images.ts';

export const PIECE = 4096;
const SECTOR = 512;
const METADATA_SECTORS = 8192;
const METADATA_BYTES = METADATA_SECTORS * SECTOR;
/** Larger blocks are not written whole, nor written back: that would take too long. */
const WRITTEN_WHOLE_MAX = 1024 * 1024;

export interface CacheShape {
  readonly name: string;
  readonly format: 1 | 2;
  readonly blockSectors: number;
  readonly nrFastBlocks: number;
  readonly nrOriginBlocks: number;
}

const blockBytes = (shape: CacheShape): number => shape.blockSectors * SECTOR;
const isLarge = (shape: CacheShape): boolean => blockBytes(shape) > WRITTEN_WHOLE_MAX;

/** What is done to a cache; offsets and lengths are in bytes. */
export type CacheStep =
  | {
      readonly op: 'write';
      readonly offset: number;
      readonly length: number;
      readonly byte: number;
    }
  | { readonly op: 'read'; readonly offset: number }
  | { readonly op: 'discard'; readonly offset: number; readonly length: number }
  | { readonly op: 'sync' };

/** What the pieces of a cache hold; those that were discarded hold anything. */
export class CacheModel {
  readonly pieces = new Map<number, number>();

  apply(step: CacheStep): void {
    if (step.op !== 'write' && step.op !== 'discard') return;
    for (let at = step.offset; at < step.offset + step.length; at += PIECE) {
      if (step.op === 'write') this.pieces.set(at / PIECE, step.byte);
      else this.pieces.delete(at / PIECE);
    }
  }
}

export interface CacheWorkload {
  /** Between the two halves everything is written back. */
  readonly halves: readonly [readonly CacheStep[], readonly CacheStep[]];
  readonly model: CacheModel;
}

/** Ends with a sync. */
export function makeCacheWorkload(seed: number, shape: CacheShape, nrSteps: number): CacheWorkload {
  const random = new Random(seed);
  const half = (): CacheStep[] =>
    Array.from({ length: nrSteps / 2 }, () => randomStep(random, shape)).flat();
  const halves: CacheWorkload['halves'] = [half(), [...half(), { op: 'sync' }]];
  const model = new CacheModel();
  // Blocks that were never written hold zeroes, which no step writes.
  for (const step of halves.flat()) {
    if (step.op === 'read') model.pieces.set(step.offset / PIECE, 0);
  }
  for (const step of halves.flat()) model.apply(step);
  return { halves, model };
}

function randomStep(random: Random, shape: CacheShape): CacheStep[] {
  const bytes = blockBytes(shape);
  const block = random.below(shape.nrOriginBlocks) * bytes;
  const nrPieces = bytes / PIECE;
  const at = block + random.below(nrPieces) * PIECE;
  const byte = random.between(1, 255);
  const roll = random.next();
  if (roll < 0.15) return [{ op: 'read', offset: at }];
  if (roll < 0.22) return [{ op: 'sync' }];
  if (roll < 0.35) {
    const room = shape.nrOriginBlocks * bytes - block;
    return [{ op: 'discard', offset: block, length: Math.min(room, random.between(1, 4) * bytes) }];
  }
  if (isLarge(shape)) {
    // The only way into the cache without a copy is a block that was discarded.
    const write: CacheStep = { op: 'write', offset: at, length: PIECE, byte };
    return random.chance(0.3) ? [{ op: 'discard', offset: block, length: bytes }, write] : [write];
  }
  if (roll < 0.7) return [{ op: 'write', offset: block, length: bytes, byte }];
  const length = random.between(1, (block + bytes - at) / PIECE) * PIECE;
  return [{ op: 'write', offset: at, length, byte }];
}

// --- disks

/** A disk of its own for a cache. */
export function makeCacheDisk(dir: string, shape: CacheShape): string {
  const file = path.join(dir, `${shape.name.replaceAll(' ', '-')}.disk`);
  fs.writeFileSync(file, '');
  const blocks = shape.nrFastBlocks + shape.nrOriginBlocks;
  fs.truncateSync(file, METADATA_BYTES + blocks * blockBytes(shape));
  return file;
}

/** The metadata of a disk, as a file of its own. */
export function metadataOf(disk: string): string {
  const bytes = Buffer.alloc(METADATA_BYTES);
  const fd = fs.openSync(disk, 'r');
  fs.readSync(fd, bytes, 0, METADATA_BYTES, 0);
  fs.closeSync(fd);
  const file = `${disk}.metadata`;
  fs.writeFileSync(file, bytes);
  return file;
}

/** What our tools read from it. */
export async function imageOfDisk(disk: string): Promise<CacheImage> {
  return readCacheImage(await deviceOf(fs.readFileSync(metadataOf(disk))));
}

/** Tables of what a cache with number `i` stands on, and of itself, by name. */
function tables(shape: CacheShape, i: number, disk: string): (readonly [string, string])[] {
  const fast = shape.nrFastBlocks * shape.blockSectors;
  const origin = shape.nrOriginBlocks * shape.blockSectors;
  return [
    [`m${i}`, `0 ${METADATA_SECTORS} linear ${disk} 0`],
    [`f${i}`, `0 ${fast} linear ${disk} ${METADATA_SECTORS}`],
    [`o${i}`, `0 ${origin} linear ${disk} ${METADATA_SECTORS + fast}`],
  ];
}

function cacheTable(shape: CacheShape, i: number): string {
  const features = shape.format === 2 ? '2 metadata2' : '1';
  const devices = ['m', 'f', 'o'].map((name) => `/dev/mapper/${name}${i}`).join(' ');
  return (
    `0 ${shape.nrOriginBlocks * shape.blockSectors} cache ${devices} ${shape.blockSectors} ` +
    `${features} no_discard_passdown smq 2 migration_threshold 0`
  );
}

// --- here

/** Our side. Between load and resume the policy's clock goes on, as it does in `opensThere`. */
export class CacheHere {
  readonly #stack = new Stack();
  readonly #name: string;
  readonly #i: number;
  readonly #shape: CacheShape;

  constructor(shape: CacheShape, i: number) {
    this.#shape = shape;
    this.#i = i;
    this.#name = `c${i}`;
  }

  async open(disk: string): Promise<void> {
    const stack = this.#stack;
    for (const [name, table] of tables(this.#shape, this.#i, disk)) await stack.create(name, table);
    stack.registry.create(this.#name);
    await stack.reload(this.#name, cacheTable(this.#shape, this.#i));
    await delay(50);
    await stack.resume(this.#name);
  }

  async run(steps: readonly CacheStep[]): Promise<void> {
    const device = this.#stack.device(this.#name);
    for (const step of steps) {
      if (step.op === 'write') await fill(device, step.offset, step.length, step.byte);
      else if (step.op === 'read') await read(device, step.offset, PIECE);
      else if (step.op === 'discard') await discard(device, step.offset, step.length);
      else await flush(device);
    }
  }

  /** Everything is written back. */
  async clean(): Promise<void> {
    if (isLarge(this.#shape)) return;
    await this.#stack.message(this.#name, 'migration_threshold 1000000');
    const end = Date.now() + 30_000;
    while (figuresOf(await this.status()).dirty > 0) {
      assert.ok(Date.now() < end, 'dirty blocks are written back');
      await delay(20);
    }
    await this.#stack.message(this.#name, 'migration_threshold 0');
  }

  status(): Promise<string> {
    return this.#stack.status(this.#name);
  }

  async piece(piece: number): Promise<number | 'mixed'> {
    const bytes = await read(this.#stack.device(this.#name), piece * PIECE, PIECE);
    const first = bytes[0] as number;
    return bytes.every((byte) => byte === first) ? first : 'mixed';
  }

  async close(): Promise<void> {
    await this.#stack.registry.shutDown();
  }
}

/** The figures of a status line that must be the same on both sides. */
export function figuresOf(status: string): { resident: string; dirty: number } {
  const words = status.split(' ');
  return { resident: words[6] ?? '', dirty: Number(words[13]) };
}

// --- there

const diskThere = (i: number): string => `/dev/ubd${String.fromCharCode(97 + i)}`;

/** Opens cache `i`. */
export const opensThere = (shape: CacheShape, i: number): string[] => [
  ...tables(shape, i, diskThere(i)).map(
    ([name, table]) => `sh dmsetup create ${name} --table "${table}"`,
  ),
  `sh dmsetup create c${i} --notable && dmsetup load c${i} --table "${cacheTable(shape, i)}" && ` +
    `sleep 0.05 && dmsetup resume c${i}`,
];

/** Steps on cache `i`, past the page cache. */
export const runsThere = (steps: readonly CacheStep[], i: number): string[] =>
  steps.map((step) => {
    switch (step.op) {
      case 'write':
        return `direct c${i} ${step.offset} ${step.length} ${step.byte}`;
      case 'read':
        return `read c${i} ${step.offset} ${PIECE}`;
      case 'discard':
        return `punch c${i} ${step.offset} ${step.length}`;
      case 'sync':
        return `sync c${i}`;
    }
  });

/** As `clean` here, of all caches at once. */
export function cleansThere(shapes: readonly CacheShape[]): string[] {
  const names = shapes.flatMap((shape, i) => (isLarge(shape) ? [] : [`c${i}`]));
  const say = (n: number): string[] =>
    names.map((name) => `sh dmsetup message ${name} 0 migration_threshold ${n}`);
  const wait = (name: string): string =>
    `sh until dmsetup status --noflush ${name} | grep -q ' 0 [23] [a-z]'; do sleep 0.1; done`;
  return [...say(1000000), ...names.map(wait), ...say(0)];
}

export const statusThere = (i: number): string => `sh dmsetup status c${i}`;

export const readsThere = (model: CacheModel, i: number): string[] =>
  [...model.pieces.keys()].map((piece) => `read c${i} ${piece * PIECE} ${PIECE}`);

export const closesThere = (i: number): string[] => [`close c${i}`, `sh dmsetup remove c${i}`];

/** Takes the lines of a plan in the kernel; resolves to what it printed. */
export async function inKernel(
  dir: string,
  disks: readonly string[],
  lines: readonly string[],
): Promise<string[]> {
  const plan = path.join(dir, 'plan');
  fs.writeFileSync(plan, `${lines.join('\n')}\n`);
  const script = `perl ${path.join(repoRoot, 'test/kernel/guest.pl')} ${plan}`;
  const { stdout, stderr } = await runInKernel(script, { disks, dir, seconds: 200 });
  assert.match(stdout, /finished\n$/, `${stdout.slice(-2000)}\n${stderr.slice(-2000)}`);
  return stdout.trim().split('\n');
}
