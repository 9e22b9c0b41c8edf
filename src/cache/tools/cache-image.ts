/**
 * CacheImage: all that a cache's metadata says, as plain values. Read as a check reads, block by
 * block from the device, so that it owes nothing to what wrote it.
 */
import { DmError } from '../../base/error.ts';
import type { BlockDevice } from '../../block/device.ts';
import { DeviceReader, ReadFailure } from '../../persistent-data/check/block-reader.ts';
import { CheckRun } from '../../persistent-data/check/check-run.ts';
import { formatDamage, isFatal, type Damage } from '../../persistent-data/check/damage.ts';
import { DIRTY } from '../metadata/mapping.ts';
import { readCacheSuperblock, type CacheSuperblock } from './cache-superblock.ts';
import { ArraysCheck } from './check-arrays.ts';

/** A cblock that holds an origin block. */
export interface CachedBlock {
  readonly cblock: number;
  readonly oblock: number;
  /** As the bits on the disk say, which are right only after a clean shutdown. */
  readonly isDirty: boolean;
}

export interface CacheImage {
  readonly superblock: CacheSuperblock;
  /** In order of cblock. */
  readonly mappings: readonly CachedBlock[];
  /** Of all cblocks, mapped or not; null if there are none. */
  readonly hints: readonly number[] | null;
  /** Blocks of the discard bitset that are set, in order. */
  readonly discards: readonly number[];
}

/** Reads the metadata on `device`. Throws EILSEQ if something cannot be read. */
export function readCacheImage(device: BlockDevice): CacheImage {
  const reader = new DeviceReader(device);
  const sb = readCacheSuperblock(reader);
  if (sb instanceof ReadFailure) throw new DmError('EILSEQ', sb.text);
  const run = new CheckRun(reader, (damage) => {
    if (isLoss(damage)) throw new DmError('EILSEQ', formatDamage(damage));
  });
  const mappings: (CachedBlock & { isDirty: boolean })[] = [];
  const dirty = new Set<number>();
  const hints: number[] = [];
  const discards: number[] = [];
  const arrays = new ArraysCheck(run, sb, {
    mapping: (cblock, oblock, flags) =>
      mappings.push({ cblock, oblock, isDirty: (flags & DIRTY) !== 0 }),
    dirtyBit: (cblock) => dirty.add(cblock),
    hint: (_cblock, hint) => hints.push(hint),
    discard: (dblock) => discards.push(dblock),
  });
  arrays.checkMappings();
  arrays.checkDirtyBits(false);
  arrays.checkHints();
  arrays.checkDiscards();
  if (sb.version > 1) for (const each of mappings) each.isDirty = dirty.has(each.cblock);
  return { superblock: sb, mappings, hints: arrays.hasHints ? hints : null, discards };
}

/**
 * Whether something that belongs into the image cannot be had; odd values are shown as they are.
 */
const isLoss = (damage: Damage): boolean => isFatal(damage) && damage.kind !== 'value';
