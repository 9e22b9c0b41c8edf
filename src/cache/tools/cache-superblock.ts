/**
 * CacheSuperblock: what the superblock of a cache says, taken out of its block. Nothing in it is to
 * be trusted: root numbers may point anywhere, and numbers above 2^53 are rounded.
 */
import type { ReadView } from '../../base/struct.ts';
import { peekLe64 } from '../../base/struct.ts';
import { ReadFailure, type BlockReader } from '../../persistent-data/check/block-reader.ts';
import {
  readSpaceMapRoot,
  type SpaceMapRoot,
} from '../../persistent-data/check/space-map-check.ts';
import {
  CLEAN_SHUTDOWN,
  NEEDS_CHECK,
  readCounters,
  readPolicy,
  superblock,
  SUPERBLOCK_LOCATION,
  superblockValidator,
  type CacheFormat,
  type HitCounters,
  type PolicyIdentity,
} from '../metadata/superblock.ts';

export interface CacheSuperblock {
  /** Dirty bits, hints and discards are right. */
  readonly cleanShutdown: boolean;
  readonly needsCheck: boolean;
  readonly version: CacheFormat;
  readonly policy: PolicyIdentity;
  readonly metadataSpaceMap: SpaceMapRoot;
  readonly mappingRoot: number;
  /** 0 for none. */
  readonly hintRoot: number;
  readonly discardRoot: number;
  /** Format 2 only. */
  readonly dirtyRoot: number;
  /** In sectors. */
  readonly discardBlockSize: number;
  readonly nrDiscardBlocks: number;
  /** In sectors. */
  readonly dataBlockSize: number;
  readonly nrCacheBlocks: number;
  readonly counters: HitCounters;
  /** Features that a writer, or any user, must know; none exist. */
  readonly compatRoFlags: number;
  readonly incompatFlags: number;
}

/** Reads the superblock. */
export function readCacheSuperblock(reader: BlockReader): CacheSuperblock | ReadFailure {
  const block = reader.read(SUPERBLOCK_LOCATION, superblockValidator);
  return block instanceof ReadFailure ? block : fieldsOf(block.view);
}

function fieldsOf(view: ReadView): CacheSuperblock {
  const flags = superblock.flags.get(view, 0);
  return {
    cleanShutdown: (flags & CLEAN_SHUTDOWN) !== 0,
    needsCheck: (flags & NEEDS_CHECK) !== 0,
    version: superblock.version.get(view, 0) as CacheFormat,
    policy: readPolicy(view),
    metadataSpaceMap: readSpaceMapRoot(view, superblock.metadataSpaceMapRoot.offset),
    mappingRoot: peekLe64(view, superblock.mappingRoot.offset),
    hintRoot: peekLe64(view, superblock.hintRoot.offset),
    discardRoot: peekLe64(view, superblock.discardRoot.offset),
    dirtyRoot: peekLe64(view, superblock.dirtyRoot.offset),
    discardBlockSize: peekLe64(view, superblock.discardBlockSize.offset),
    nrDiscardBlocks: peekLe64(view, superblock.discardNrBlocks.offset),
    dataBlockSize: superblock.dataBlockSize.get(view, 0),
    nrCacheBlocks: superblock.cacheBlocks.get(view, 0),
    counters: readCounters(view),
    compatRoFlags: superblock.compatRoFlags.get(view, 0),
    incompatFlags: superblock.incompatFlags.get(view, 0),
  };
}
