/**
 * Traces: seeded sequences of requests to a cache, of the kinds that caches are built for or hurt
 * by.
 */
import { Random } from '../../helpers/random.ts';

export interface Access {
  readonly isWrite: boolean;
  readonly offsetBytes: number;
  readonly lengthBytes: number;
}

/** Asks for the cache's status. */
export const STATUS = 'status';

/** A request, a pause in seconds, or a look at the status. */
export type Step = Access | number | typeof STATUS;

export interface TraceShape {
  readonly seed: number;
  /** How long it takes where a pause lasts as long as in the guest. */
  readonly seconds: number;
  readonly blockBytes: number;
  readonly nrOriginBlocks: number;
  readonly nrCacheBlocks: number;
}

export interface Trace {
  /** Oblocks that are cached before it begins. */
  readonly cached: readonly number[];
  readonly steps: readonly Step[];
}

/** Says block after block which is accessed; `part` goes from 0 to 1. */
type Chooser = (random: Random, shape: TraceShape) => (part: number) => number;

const PAGE = 4096;
/** How often the guest sends requests. */
const REQUESTS_PER_SECOND = 150;
/** Long enough for the cache to become idle, and to be cleaned if it may be. */
const REST_SECONDS = 3;
/** Ditto, for a writeback period to end. */
const WRITEBACK_PERIOD_SECONDS = 10.2;
const NR_RESTS = 2;
/** The resume is over then, and the policy has looked at its queues for the first time. */
const FIRST_PAUSE_SECONDS = 1.5;
const READS = 0.7;
const PARTIAL_WRITES = 0.25;

/** A permutation, so that blocks that are alike are not neighbours. */
function scattered(random: Random, nr: number): number[] {
  const blocks = Array.from({ length: nr }, (_, i) => i);
  for (let i = nr - 1; i > 0; i--) {
    const j = random.below(i + 1);
    [blocks[i], blocks[j]] = [blocks[j] as number, blocks[i] as number];
  }
  return blocks;
}

/** Ranks below `nr`, the first most often, by Zipf's law. */
function zipf(random: Random, nr: number, exponent: number): () => number {
  const sums: number[] = [];
  let sum = 0;
  for (let rank = 1; rank <= nr; rank++) sums.push((sum += rank ** -exponent));
  return () => {
    const wanted = random.next() * sum;
    let low = 0;
    let high = nr - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((sums[middle] as number) < wanted) low = middle + 1;
      else high = middle;
    }
    return low;
  };
}

const choosers = {
  /** Few blocks are accessed often, many seldom; anywhere. */
  zipf: (random, { nrOriginBlocks }) => {
    const blocks = scattered(random, nrOriginBlocks);
    const rank = zipf(random, nrOriginBlocks / 2, 1);
    return () => blocks[rank()] as number;
  },
  /** Everything once from end to end, a few requests to each block, beside a small hot set. */
  scan: (random, { nrOriginBlocks, nrCacheBlocks }) => {
    const rank = zipf(random, nrCacheBlocks / 2, 0.8);
    let n = 0;
    return () =>
      random.chance(0.4) ? rank() : (nrCacheBlocks + Math.floor(n++ / 3)) % nrOriginBlocks;
  },
  /** Round and round through half as much again as is cached at first. */
  loop: (_random, { nrCacheBlocks }) => {
    let n = 0;
    return () => Math.floor(n++ / 2) % Math.floor(nrCacheBlocks * 0.75);
  },
  /** A hot set that moves four times. */
  shifting: (random, { nrOriginBlocks, nrCacheBlocks }) => {
    const blocks = scattered(random, nrOriginBlocks);
    const rank = zipf(random, nrCacheBlocks / 2, 0.7);
    return (part) => {
      if (random.chance(0.15)) return random.below(nrOriginBlocks);
      const shift = Math.floor(part * 5) * (nrCacheBlocks / 4);
      return blocks[(rank() + shift) % nrOriginBlocks] as number;
    };
  },
} satisfies Record<string, Chooser>;

export type TraceKind = keyof typeof choosers;
export const traceKinds = Object.keys(choosers) as TraceKind[];

/** A trace to a full cache, half of which is of use at its beginning. */
export function makeTrace(kind: TraceKind, shape: TraceShape): Trace {
  const { seed, seconds, blockBytes } = shape;
  const random = new Random(seed);
  const choose = choosers[kind](random.fork(), shape);
  const cached = cachedBefore(() => choose(0), random, shape);
  const nrRequests = Math.floor((seconds - NR_RESTS * REST_SECONDS) * REQUESTS_PER_SECOND);
  const nrBetweenRests = Math.ceil(nrRequests / (NR_RESTS + 1));
  const steps: Step[] = [FIRST_PAUSE_SECONDS];
  for (let i = 0; i < nrRequests; i++) {
    if (i > 0 && i % nrBetweenRests === 0) steps.push(STATUS, REST_SECONDS, STATUS);
    steps.push(accessOf(random, choose(i / nrRequests), blockBytes));
  }
  return { cached, steps };
}

/**
 * A trace that only ever hits, with a rest in which a writeback period ends: what it does to the
 * levels does not depend on when exactly which request is sent.
 */
export function makeHitsTrace(shape: TraceShape): Trace {
  const random = new Random(shape.seed);
  const cached = scattered(random, shape.nrOriginBlocks).slice(0, shape.nrCacheBlocks);
  const steps: Step[] = [FIRST_PAUSE_SECONDS];
  for (let part = 0; part < 2; part++) {
    if (part > 0) steps.push(WRITEBACK_PERIOD_SECONDS);
    for (let i = 0; i < shape.nrCacheBlocks / 3; i++) {
      steps.push(accessOf(random, random.pick(cached), shape.blockBytes));
    }
  }
  return { cached, steps };
}

function cachedBefore(choose: () => number, random: Random, shape: TraceShape): number[] {
  const cached = new Set<number>();
  for (let tries = 0; tries < shape.nrCacheBlocks; tries++) {
    if (cached.size < shape.nrCacheBlocks / 2) cached.add(choose());
  }
  while (cached.size < shape.nrCacheBlocks) cached.add(random.below(shape.nrOriginBlocks));
  const blocks = [...cached];
  return scattered(random, blocks.length).map((i) => blocks[i] as number);
}

function accessOf(random: Random, block: number, blockBytes: number): Access {
  const kind = random.next();
  const isWhole = kind >= READS + PARTIAL_WRITES;
  const page = isWhole ? 0 : random.below(blockBytes / PAGE);
  return {
    isWrite: kind >= READS,
    offsetBytes: block * blockBytes + page * PAGE,
    lengthBytes: isWhole ? blockBytes : PAGE,
  };
}
