/**
 * A cache in a real kernel: steps that a script takes there, with an image of the metadata after
 * each, and the same operations done here by CacheMetadata. What the kernel decided (which cblock
 * holds what, hints, dirty bits, counters) is taken from its images; where it is written is not.
 */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { MemoryLog } from '../../src/base/log.ts';
import { MemoryDevice } from '../../src/block/memory-device.ts';
import { CacheMetadata } from '../../src/cache/metadata/cache-metadata.ts';
import type { CacheFormat } from '../../src/cache/metadata/superblock.ts';
import { readCacheImage, type CacheImage } from '../../src/cache/tools/cache-image.ts';
import { BLOCK_SECTORS, BLOCK_SIZE } from '../../src/persistent-data/block.ts';
import { deviceOf, imageOf } from './thin-images.ts';
import { runInKernel } from './kernel.ts';

export const NR_METADATA_BLOCKS = 160;
export const CACHE_BLOCK_SECTORS = 64;
export const NR_ORIGIN_BLOCKS = 3000;
const NR_FAST_BLOCKS = 1400;
const BLOCK_BYTES = CACHE_BLOCK_SECTORS * 512;

/** What is done with the cache; each step ends with a commit. */
export type CacheStep =
  /** A cache of `size` blocks is made. */
  | { readonly op: 'create'; readonly size: number }
  /** `count` whole blocks are written one by one, which maps each to the next free cblock. */
  | { readonly op: 'write'; readonly begin: number; readonly count: number }
  /** Origin blocks `[begin, end)` are discarded. */
  | { readonly op: 'discard'; readonly begin: number; readonly end: number }
  /** Everything dirty is written back. */
  | { readonly op: 'clean' }
  /** Suspended; a table for `size` blocks is loaded and resumed. */
  | { readonly op: 'reload'; readonly size: number; readonly mode: 'writeback' | 'passthrough' }
  /** Mappings go, in passthrough mode. */
  | { readonly op: 'invalidate'; readonly ranges: string }
  | { readonly op: 'remove' }
  /** A table is loaded and never resumed. */
  | { readonly op: 'load only'; readonly size: number };

const table = (format: CacheFormat, mode: string): string => {
  const features = [...(format === 2 ? ['metadata2'] : []), mode, 'no_discard_passdown'];
  const origin = NR_ORIGIN_BLOCKS * CACHE_BLOCK_SECTORS;
  return (
    `0 ${origin} cache /dev/ubda /dev/mapper/fast /dev/ubdc ${CACHE_BLOCK_SECTORS} ` +
    `${features.length} ${features.join(' ')} smq 2 migration_threshold 0`
  );
};

const fast = (size: number): string =>
  `dmsetup suspend fast; dmsetup load fast --table ` +
  `"0 ${size * CACHE_BLOCK_SECTORS} linear /dev/ubdb 0"; dmsetup resume fast`;

function linesOf(step: CacheStep, format: CacheFormat): string[] {
  const commit = 'dmsetup status c';
  switch (step.op) {
    case 'create':
      return [
        fast(step.size),
        `dmsetup create c --table "${table(format, 'writeback')}"`,
        commit,
        'image',
      ];
    case 'write':
      return [
        `dd if=/dev/zero of=/dev/mapper/c bs=${BLOCK_BYTES} seek=${step.begin} ` +
          `count=${step.count} oflag=direct conv=notrunc status=none`,
        commit,
        'image',
      ];
    case 'discard': {
      const [from, length] = [step.begin * BLOCK_BYTES, (step.end - step.begin) * BLOCK_BYTES];
      return [`blkdiscard -o ${from} -l ${length} /dev/mapper/c`, commit, 'image'];
    }
    case 'clean':
      return [
        'dmsetup message c 0 migration_threshold 1000000',
        'until dmsetup status --noflush c | awk "{ exit \\$14 != 0 }"; do sleep 0.1; done',
        'dmsetup message c 0 migration_threshold 0',
        commit,
        'image',
      ];
    case 'reload':
      return [
        'dmsetup suspend c',
        'image',
        fast(step.size),
        `dmsetup load c --table "${table(format, step.mode)}"`,
        'dmsetup resume c',
        commit,
        'image',
      ];
    case 'invalidate':
      return [`dmsetup message c 0 invalidate_cblocks ${step.ranges}`, commit, 'image'];
    case 'remove':
      return ['dmsetup remove c', 'image'];
    case 'load only':
      return [
        fast(step.size),
        'dmsetup create c --notable',
        `dmsetup load c --table "${table(format, 'writeback')}"`,
        'dmsetup remove c',
        'image',
      ];
  }
}

/** Empty disks for `inKernel`: metadata, fast device, origin. */
export function makeDisks(dir: string, metadata?: Uint8Array): string[] {
  const sizes = [
    NR_METADATA_BLOCKS * BLOCK_SIZE,
    NR_FAST_BLOCKS * BLOCK_BYTES,
    NR_ORIGIN_BLOCKS * BLOCK_BYTES,
  ];
  return sizes.map((size, i) => {
    const file = path.join(dir, `disk${i}`);
    fs.writeFileSync(file, i === 0 && metadata !== undefined ? metadata : '');
    fs.truncateSync(file, size);
    return file;
  });
}

export interface KernelRun {
  /** One after each commit of the kernel's. */
  readonly images: Buffer[];
  /** What `dmsetup status` printed, in order. */
  readonly statuses: string[];
  readonly log: string[];
}

/** Takes the steps in a real kernel, then `after`. */
export async function inKernel(
  dir: string,
  disks: readonly string[],
  format: CacheFormat,
  steps: readonly CacheStep[],
  after: readonly string[] = [],
): Promise<KernelRun> {
  const script = [
    'set -e',
    'n=0',
    'image() { dd if=/dev/ubda of=image$n bs=64k iflag=direct status=none; n=$((n + 1)); }',
    `dmsetup create fast --table "0 ${CACHE_BLOCK_SECTORS} linear /dev/ubdb 0"`,
    `cd ${dir}`,
    ...steps.flatMap((step) => linesOf(step, format)),
    ...after,
  ].join('\n');
  const { code, stdout, stderr } = await runInKernel(script, { disks, dir });
  assert.equal(code, 0, `${stdout}\n${stderr}`);
  const images: Buffer[] = [];
  for (let i = 0; fs.existsSync(path.join(dir, `image${i}`)); i++) {
    images.push(fs.readFileSync(path.join(dir, `image${i}`)));
    fs.rmSync(path.join(dir, `image${i}`));
  }
  const statuses = stdout.split('\n').filter((line) => line !== '');
  return { images, statuses, log: stderr.split('\n') };
}

/** Does what the kernel's images show that it did. */
export class Follower {
  readonly device = new MemoryDevice('metadata', NR_METADATA_BLOCKS * BLOCK_SECTORS);
  readonly #format: CacheFormat;
  #metadata: CacheMetadata | null = null;
  #mappings = new Map<number, number>();

  constructor(format: CacheFormat) {
    this.#format = format;
  }

  get metadata(): CacheMetadata {
    assert.ok(this.#metadata !== null);
    return this.#metadata;
  }

  /** As the status line shows it. */
  get used(): string {
    const { nrMetadataBlocks, nrFreeMetadataBlocks } = this.metadata;
    return `${nrMetadataBlocks - nrFreeMetadataBlocks}/${nrMetadataBlocks}`;
  }

  /** The commits of a step, one at a time; each is to lead to the next of the kernel's images. */
  *commits(step: CacheStep): Generator<(image: CacheImage) => Promise<void>> {
    switch (step.op) {
      case 'create':
        yield async () => {
          await this.#open();
          await this.#resize(step.size);
        };
        break;
      case 'load only':
        yield async () => {
          await this.#open();
          this.#metadata = null;
        };
        break;
      case 'reload':
        yield (image) => this.#shutDown(image);
        yield () => this.#resize(step.size);
        break;
      case 'remove':
        yield async (image) => {
          await this.#shutDown(image);
          this.#metadata = null;
        };
        break;
      default:
        yield (image) => this.#follow(image);
    }
  }

  async #open(): Promise<void> {
    this.#metadata = await CacheMetadata.open(this.device, new MemoryLog(), {
      dataBlockSize: CACHE_BLOCK_SECTORS,
      mayFormat: true,
      format: this.#format,
    });
  }

  async #resize(size: number): Promise<void> {
    this.metadata.resize(size);
    for (const cblock of this.#mappings.keys()) if (cblock >= size) this.#mappings.delete(cblock);
    await this.metadata.commit(false);
  }

  async #follow({ mappings }: CacheImage): Promise<void> {
    const wanted = new Map(mappings.map(({ cblock, oblock }) => [cblock, oblock]));
    for (const cblock of this.#mappings.keys()) {
      if (!wanted.has(cblock)) this.metadata.removeMapping(cblock);
    }
    for (const [cblock, oblock] of wanted) {
      if (this.#mappings.get(cblock) !== oblock) this.metadata.insertMapping(cblock, oblock);
    }
    this.#mappings = wanted;
    await this.metadata.commit(false);
  }

  async #shutDown({ superblock: sb, mappings, discards, hints }: CacheImage): Promise<void> {
    const { metadata } = this;
    const dirty = new Set(mappings.filter(({ isDirty }) => isDirty).map(({ cblock }) => cblock));
    const discarded = new Set(discards);
    metadata.setDirtyBits((cblock) => dirty.has(cblock));
    metadata.setDiscards(sb.discardBlockSize, sb.nrDiscardBlocks, (dblock) =>
      discarded.has(dblock),
    );
    metadata.setCounters(sb.counters);
    metadata.writeHints(sb.policy, (cblock) => hints?.[cblock] ?? 0);
    await metadata.commit(true);
  }
}

/** Numbers of the blocks in which two images differ. */
export function differentBlocks(a: Buffer, b: Buffer): number[] {
  const found: number[] = [];
  for (let at = 0; at < a.length; at += BLOCK_SIZE) {
    if (a.compare(b, at, at + BLOCK_SIZE, at, at + BLOCK_SIZE) !== 0) found.push(at / BLOCK_SIZE);
  }
  return found;
}

/** Takes the steps here; each commit must leave the kernel's image, every block of it. */
export async function assertFollows(
  format: CacheFormat,
  steps: readonly CacheStep[],
  { images, statuses }: KernelRun,
): Promise<Follower> {
  const follower = new Follower(format);
  const [left, lines] = [[...images], [...statuses]];
  for (const [i, step] of steps.entries()) {
    for (const commit of follower.commits(step)) {
      const theirs = left.shift();
      assert.ok(theirs !== undefined, 'the kernel took all steps');
      await commit(readCacheImage(await deviceOf(theirs)));
      const what = `step ${i}: ${JSON.stringify(step)}`;
      assert.deepEqual(differentBlocks(imageOf(follower.device), theirs), [], what);
    }
    const isCounted = !['remove', 'load only'].includes(step.op);
    if (isCounted) assert.equal(lines.shift()?.split(' ')[4], follower.used, `step ${i}`);
  }
  assert.deepEqual(left, []);
  return follower;
}
