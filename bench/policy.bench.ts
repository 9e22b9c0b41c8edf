/**
 * What a cache policy costs per request: look-ups of cached and of other blocks in random order,
 * each followed by a tick, as for one request after the other; what evening its queues out costs at
 * worst; and how the index compares with a Map of the same blocks.
 */
import { assert, present } from '../src/base/error.ts';
import { Random } from '../src/base/random.ts';
import { EntryIndex } from '../src/cache/policy/entry-index.ts';
import { EntryPool } from '../src/cache/policy/entry-pool.ts';
import { LEVEL_MAX } from '../src/cache/policy/multi-queue.ts';
import { makeLookupResult, type Policy } from '../src/cache/policy/policy.ts';
import { createPolicy } from '../src/cache/policy/registry.ts';

const SEED = 42;
/** Of the origin for each block of the cache. */
const ORIGIN_FACTOR = 16;
const BLOCK_SECTORS = 128;
const JIFFIES_PER_MINUTE = 6000;

export interface PolicyFigures {
  readonly nrCacheBlocks: number;
  /** Look-ups per second: cached, for the first time in a minute and again; and not cached. */
  readonly firstHits: number;
  readonly hits: number;
  readonly misses: number;
  /** Bytes that all these look-ups allocated, each. */
  readonly bytesPerLookup: number;
  /** Milliseconds to even out the queues of a cache that has just been filled. */
  readonly redistributionMs: number;
  /** Finds per second in the index, in a Map, and how many times the Map's that is. */
  readonly indexFinds: number;
  readonly mapFinds: number;
  readonly indexPerMap: number;
}

interface Blocks {
  readonly cached: Float64Array;
  readonly other: Float64Array;
}

/** Odd blocks are cached, even ones are not. */
function makeBlocks(nrCacheBlocks: number, random: Random): Blocks {
  const cached = new Float64Array(nrCacheBlocks);
  const other = new Float64Array(nrCacheBlocks);
  for (let i = 0; i < nrCacheBlocks; i++) {
    cached[i] = i * ORIGIN_FACTOR + 1 + 2 * random.below(ORIGIN_FACTOR / 2);
    other[i] = random.below((nrCacheBlocks * ORIGIN_FACTOR) / 2) * 2;
  }
  return { cached: shuffle(cached, random), other };
}

function shuffle(blocks: Float64Array, random: Random): Float64Array {
  for (let i = blocks.length - 1; i > 0; i--) {
    const j = random.below(i + 1);
    const block = blocks[i] as number;
    blocks[i] = blocks[j] as number;
    blocks[j] = block;
  }
  return blocks;
}

const result = makeLookupResult();

/** Look-ups per second. */
function lookupRate(policy: Policy, blocks: Float64Array): number {
  const begin = performance.now();
  for (let i = 0; i < blocks.length; i++) {
    policy.lookup(blocks[i] as number, false, false, result);
    policy.tick();
  }
  return (blocks.length / (performance.now() - begin)) * 1000;
}

/** Finds per second: in the index, and in the Map. Two loops, so that each calls only one thing. */
function indexRate(index: EntryIndex, blocks: Float64Array): number {
  const begin = performance.now();
  let sum = 0;
  for (let i = 0; i < blocks.length; i++) sum += index.find(blocks[i] as number);
  assert(sum >= 0, 'entries are not negative');
  return (blocks.length / (performance.now() - begin)) * 1000;
}

function mapRate(map: Map<number, number>, blocks: Float64Array): number {
  const begin = performance.now();
  let sum = 0;
  for (let i = 0; i < blocks.length; i++) sum += map.get(blocks[i] as number) ?? 0;
  assert(sum >= 0, 'entries are not negative');
  return (blocks.length / (performance.now() - begin)) * 1000;
}

/** Measures a policy of `nrCacheBlocks` blocks, all of them cached; the medians of the rounds. */
export function measurePolicy(nrCacheBlocks: number, rounds: number): PolicyFigures {
  const random = new Random(SEED);
  const { cached, other } = makeBlocks(nrCacheBlocks, random);
  let now = 0;
  const policy = filledPolicy(cached, () => now);
  const { index, map } = makeIndices(cached);
  const all: Omit<PolicyFigures, 'nrCacheBlocks'>[] = [];
  for (let round = 0; round <= rounds; round++) {
    const redistributionMs = redistribute(cached);
    now += JIFFIES_PER_MINUTE + 1;
    policy.tick();
    shuffle(cached, random);
    const heap = process.memoryUsage().heapUsed;
    const firstHits = lookupRate(policy, cached);
    const hits = lookupRate(policy, cached);
    const misses = lookupRate(policy, other);
    const bytes = Math.max(0, process.memoryUsage().heapUsed - heap);
    const bytesPerLookup = bytes / (3 * nrCacheBlocks);
    shuffle(cached, random);
    const indexFinds = indexRate(index, cached);
    const mapFinds = mapRate(map, cached);
    const indexPerMap = indexFinds / mapFinds;
    if (round === 0) continue; // The first warms up.
    const rates = { firstHits, hits, misses, indexFinds, mapFinds, indexPerMap };
    all.push({ ...rates, bytesPerLookup, redistributionMs });
  }
  const middle = (key: keyof (typeof all)[number]): number =>
    all.map((figures) => figures[key]).sort((a, b) => a - b)[Math.floor(rounds / 2)] ?? NaN;
  return {
    nrCacheBlocks,
    firstHits: middle('firstHits'),
    hits: middle('hits'),
    misses: middle('misses'),
    bytesPerLookup: middle('bytesPerLookup'),
    redistributionMs: middle('redistributionMs'),
    indexFinds: middle('indexFinds'),
    mapFinds: middle('mapFinds'),
    indexPerMap: middle('indexPerMap'),
  };
}

/** A policy that has these blocks, all at the top level, as when a cache has just been filled. */
function filledPolicy(cached: Float64Array, jiffies: () => number): Policy {
  const policy = createPolicy('smq', {
    nrCacheBlocks: cached.length,
    blockSectors: BLOCK_SECTORS,
    originSectors: cached.length * ORIGIN_FACTOR * BLOCK_SECTORS,
    jiffies,
    warn: () => undefined,
  });
  const found = present(policy, 'smq is there');
  found.allowMigrations(false);
  for (let i = 0; i < cached.length; i++) {
    found.loadMapping(cached[i] as number, i, i % 2 === 0, LEVEL_MAX);
  }
  return found;
}

/** How many milliseconds it takes to even out the queues of a cache that has just been filled. */
function redistribute(cached: Float64Array): number {
  let now = 0;
  const policy = filledPolicy(cached, () => now);
  now = 1;
  const begin = performance.now();
  policy.tick();
  return performance.now() - begin;
}

function makeIndices(blocks: Float64Array): { index: EntryIndex; map: Map<number, number> } {
  const pool = new EntryPool(blocks.length);
  const index = new EntryIndex(pool);
  const map = new Map<number, number>();
  for (let e = 0; e < blocks.length; e++) {
    pool.block[e] = blocks[e] as number;
    index.insert(e);
    map.set(blocks[e] as number, e);
  }
  return { index, map };
}

/** The figures as a table. */
export function formatPolicy(figures: readonly PolicyFigures[]): string {
  const million = (perSecond: number): string => (perSecond / 1e6).toFixed(2);
  const rows = figures.map((f) => {
    const rates = [f.hits, f.firstHits, f.misses].map(million).join(' | ');
    const costs = `${f.bytesPerLookup.toFixed(1)} | ${f.redistributionMs.toFixed(0)}`;
    return `| ${f.nrCacheBlocks} | ${rates} | ${costs} | ${f.indexPerMap.toFixed(1)} |`;
  });
  return [
    '| blocks | hits, 10^6/s | first hits | misses | bytes each | evening out, ms | index ÷ Map |',
    '|---:|---:|---:|---:|---:|---:|---:|',
    ...rows,
  ].join('\n');
}
