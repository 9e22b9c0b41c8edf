/**
 * CacheState: what a cache's metadata should say, as plain values, and what it does say, in the
 * same words, when it is opened.
 */
import assert from 'node:assert/strict';
import { MemoryLog } from '../../src/base/log.ts';
import type { BlockDevice } from '../../src/block/device.ts';
import { CacheMetadata } from '../../src/cache/metadata/cache-metadata.ts';
import type {
  CacheFormat,
  HitCounters,
  PolicyIdentity,
} from '../../src/cache/metadata/superblock.ts';
import { readCacheSuperblock } from '../../src/cache/tools/cache-superblock.ts';
import { checkCache } from '../../src/cache/tools/check.ts';
import { DeviceReader, ReadFailure } from '../../src/persistent-data/check/block-reader.ts';
import type { Random } from './random.ts';

export const DATA_BLOCK_SIZE = 64;

export const SMQ: PolicyIdentity = { name: 'smq', version: [2, 0, 0], hintSize: 4 };
const POLICIES: readonly PolicyIdentity[] = [
  SMQ,
  { name: 'cleaner', version: [2, 0, 0], hintSize: 4 },
  { name: 'fifteen letters', version: [3, 1, 0xffff_ffff], hintSize: 4 },
];

export const NO_COUNTERS: HitCounters = {
  readHits: 0,
  readMisses: 0,
  writeHits: 0,
  writeMisses: 0,
};

/** What only a clean shutdown leaves. */
export interface Shutdown {
  readonly dirty: ReadonlySet<number>;
  /** By cblock, of all cblocks. */
  readonly hints: readonly number[];
  readonly policy: PolicyIdentity;
  readonly discardBlockSize: number;
  readonly nrDiscards: number;
  readonly discards: ReadonlySet<number>;
}

export interface CacheState {
  readonly size: number;
  /** cblock to oblock. */
  readonly mappings: ReadonlyMap<number, number>;
  readonly counters: HitCounters;
  /** Null unless the last commit was a clean shutdown. */
  readonly shutdown: Shutdown | null;
}

export const EMPTY: CacheState = {
  size: 0,
  mappings: new Map(),
  counters: NO_COUNTERS,
  shutdown: null,
};

/** A clean shutdown of a cache with `mappings`: everything about it is random. */
export function randomShutdown(
  random: Random,
  { size, mappings }: CacheState,
  nrDiscards = random.below(700),
): Shutdown {
  const share = random.next();
  return {
    dirty: new Set([...mappings.keys()].filter(() => random.chance(0.4))),
    hints: Array.from({ length: size }, () => random.below(64)),
    policy: random.pick(POLICIES),
    discardBlockSize: discardBlockSizeFor(Math.max(0, ...mappings.values()), nrDiscards),
    nrDiscards,
    discards: new Set(
      Array.from({ length: nrDiscards }, (_, i) => i).filter(() => random.chance(share)),
    ),
  };
}

/** Such that the discard bits are of an origin that has block `oblock`. */
function discardBlockSizeFor(oblock: number, nrDiscards: number): number {
  let size = DATA_BLOCK_SIZE;
  if (nrDiscards > 0) while (size * nrDiscards <= oblock * DATA_BLOCK_SIZE) size *= 2;
  return size;
}

/** Writes what `shutdown` says; a clean commit is to follow. */
export function writeShutdown(metadata: CacheMetadata, shutdown: Shutdown): void {
  const { dirty, discardBlockSize, nrDiscards, discards, policy, hints } = shutdown;
  metadata.setDirtyBits((cblock) => dirty.has(cblock));
  metadata.setDiscards(discardBlockSize, nrDiscards, (dblock) => discards.has(dblock));
  metadata.writeHints(policy, (cblock) => hints[cblock] as number);
}

/** A state as text: one line a mapping, then what else is known. */
export function describeState({ size, mappings, counters, shutdown }: CacheState): string {
  const sorted = [...mappings].sort(([a], [b]) => a - b);
  const lines = sorted.map(([cblock, oblock]) => {
    const isDirty = shutdown === null || shutdown.dirty.has(cblock);
    return lineOf(cblock, oblock, isDirty, shutdown?.hints[cblock] ?? null);
  });
  const discards = shutdown === null ? [] : runsOf([...shutdown.discards].sort((a, b) => a - b));
  const unit = shutdown?.discardBlockSize ?? 0;
  return [...head(size, counters), ...lines, ...discards.map((run) => `${run} of ${unit}`)].join(
    '\n',
  );
}

const head = (size: number, counters: HitCounters): string[] => [
  `${size} blocks`,
  `hits and misses ${Object.values(counters).join(' ')}`,
];

function lineOf(cblock: number, oblock: number, isDirty: boolean, hint: number | null): string {
  return `${cblock}: ${oblock}${isDirty ? ' dirty' : ''} hint ${hint ?? 'none'}`;
}

function runsOf(sorted: readonly number[]): string[] {
  const runs: string[] = [];
  let begin = -1;
  for (const [i, dblock] of sorted.entries()) {
    if (begin < 0) begin = dblock;
    if (sorted[i + 1] === dblock + 1) continue;
    runs.push(runLine(begin, dblock + 1));
    begin = -1;
  }
  return runs;
}

const runLine = (begin: number, end: number): string => `discarded [${begin}, ${end})`;

/** Opens metadata that exists. */
export function openCache(
  device: BlockDevice,
  options: {
    format?: CacheFormat;
    mayFormat?: boolean;
    cacheBytes?: number;
    keepsMark?: boolean;
  } = {},
): Promise<CacheMetadata> {
  const { format = 2, mayFormat = false, ...rest } = options;
  const dataBlockSize = DATA_BLOCK_SIZE;
  return CacheMetadata.open(device, new MemoryLog(), { dataBlockSize, mayFormat, format, ...rest });
}

/** What open metadata says to one who loads it. */
export function describeOpen(metadata: CacheMetadata, policy: PolicyIdentity): string {
  const lines = head(metadata.nrCacheBlocks, metadata.counters);
  metadata.loadMappings(policy, (oblock, cblock, isDirty, hint) =>
    lines.push(lineOf(cblock, oblock, isDirty, hint)),
  );
  metadata.loadDiscards((begin, end) =>
    lines.push(`${runLine(begin, end)} of ${metadata.discardBlockSize}`),
  );
  return lines.join('\n');
}

/** The policy that the superblock names. */
export function policyOn(device: BlockDevice): PolicyIdentity {
  const sb = readCacheSuperblock(new DeviceReader(device));
  assert.ok(!(sb instanceof ReadFailure));
  return sb.policy;
}

/** Rejects unless the metadata is without fault; with what it was found to say otherwise. */
export async function assertSound(device: BlockDevice, what: string): Promise<void> {
  const { damage, ok } = await checkCache(device);
  assert.deepEqual(damage.lines(), [], what);
  assert.ok(ok, what);
}
