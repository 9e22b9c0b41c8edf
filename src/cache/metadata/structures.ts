/**
 * Structures: all that hangs off a cache's superblock, as it is in one transaction: made at format,
 * opened from the superblock, thrown away by an abort (spec: cache, 2).
 */
import type { Log } from '../../base/log.ts';
import type { ReadView, WriteView } from '../../base/struct.ts';
import { Bitset } from '../../persistent-data/bitset.ts';
import { asBlockNr } from '../../persistent-data/block.ts';
import type { BlockManager } from '../../persistent-data/block-manager.ts';
import { MetadataSpaceMap } from '../../persistent-data/space-map/metadata.ts';
import { TransactionManager } from '../../persistent-data/transaction-manager.ts';
import { DirtyBitset, DirtyFlags, type DirtyBits } from './dirty-bits.ts';
import { DiscardBits } from './discard-bits.ts';
import { HintArray } from './hint-array.ts';
import { MappingArray } from './mapping-array.ts';
import { superblock, type CacheFormat } from './superblock.ts';

export interface Structures {
  readonly tm: TransactionManager;
  readonly metadataSm: MetadataSpaceMap;
  readonly mappings: MappingArray;
  readonly dirty: DirtyBits;
  readonly hints: HintArray;
  readonly discards: DiscardBits;
}

/** Those of a cache without blocks. Throws ENOSPC. */
export function createStructures(blocks: BlockManager, format: CacheFormat, log: Log): Structures {
  const tm = new TransactionManager(blocks);
  const metadataSm = createSpaceMap(tm, blocks.nrBlocks, log);
  const mappings = MappingArray.empty(tm);
  const dirty =
    format === 1 ? new DirtyFlags(mappings) : new DirtyBitset(tm, mappings, Bitset.empty(tm));
  const discards = new DiscardBits(Bitset.empty(tm), 0, 0);
  return { tm, metadataSm, mappings, dirty, hints: new HintArray(tm, asBlockNr(0)), discards };
}

/** Those that the superblock names, of which only the space map is looked at now. */
export function openStructures(blocks: BlockManager, view: ReadView, log: Log): Structures {
  const tm = new TransactionManager(blocks);
  const metadataSm = openSpaceMap(tm, view, log);
  const mappingRoot = asBlockNr(superblock.mappingRoot.get(view, 0));
  const mappings = MappingArray.open(tm, mappingRoot, superblock.cacheBlocks.get(view, 0));
  const dirty =
    superblock.version.get(view, 0) === 1
      ? new DirtyFlags(mappings)
      : new DirtyBitset(
          tm,
          mappings,
          Bitset.open(tm, asBlockNr(superblock.dirtyRoot.get(view, 0))),
        );
  const discards = new DiscardBits(
    Bitset.open(tm, asBlockNr(superblock.discardRoot.get(view, 0))),
    superblock.discardBlockSize.get(view, 0),
    superblock.discardNrBlocks.get(view, 0),
  );
  const hints = new HintArray(tm, asBlockNr(superblock.hintRoot.get(view, 0)));
  return { tm, metadataSm, mappings, dirty, hints, discards };
}

function createSpaceMap(tm: TransactionManager, nrBlocks: number, log: Log): MetadataSpaceMap {
  try {
    return MetadataSpaceMap.create(tm, nrBlocks);
  } catch (error) {
    log.write('error', "transaction manager: couldn't create metadata space map");
    log.write('error', 'cache metadata: tm_create_with_sm failed');
    throw error;
  }
}

function openSpaceMap(tm: TransactionManager, view: ReadView, log: Log): MetadataSpaceMap {
  try {
    return MetadataSpaceMap.open(tm, view, superblock.metadataSpaceMapRoot.offset);
  } catch (error) {
    log.write('error', "transaction manager: couldn't open metadata space map");
    log.write('error', 'cache metadata: tm_open_with_sm failed');
    throw error;
  }
}

/** Brings into the blocks what is held in memory: before the first half of a commit. */
export function flushStructures(s: Structures): void {
  s.dirty.flush();
  s.discards.flush();
}

/** Names the structures in the superblock: in the second half of a commit. */
export function writeRoots(view: WriteView, s: Structures): void {
  superblock.mappingRoot.set(view, 0, s.mappings.root);
  superblock.cacheBlocks.set(view, 0, s.mappings.length);
  superblock.dirtyRoot.set(view, 0, s.dirty.root);
  superblock.hintRoot.set(view, 0, s.hints.root);
  superblock.discardRoot.set(view, 0, s.discards.root);
  superblock.discardBlockSize.set(view, 0, s.discards.blockSize);
  superblock.discardNrBlocks.set(view, 0, s.discards.nrBlocks);
  s.metadataSm.writeRoot(view, superblock.metadataSpaceMapRoot.offset);
}
