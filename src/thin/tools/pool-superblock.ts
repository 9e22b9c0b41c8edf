/**
 * PoolSuperblock: what the superblock of a thin pool says, or the copy of it that is a metadata
 * snapshot, taken out of its block. Nothing in it is to be trusted: root numbers may point
 * anywhere.
 */
import type { ReadView } from '../../base/struct.ts';
import { peekLe64 } from '../../base/struct.ts';
import { ReadFailure, type BlockReader } from '../../persistent-data/check/block-reader.ts';
import {
  readSpaceMapRoot,
  type SpaceMapRoot,
} from '../../persistent-data/check/space-map-check.ts';
import { NEEDS_CHECK, superblock, superblockValidator } from '../metadata/superblock.ts';

export interface PoolSuperblock {
  readonly needsCheck: boolean;
  readonly version: number;
  /** The snapshot clock. */
  readonly time: number;
  readonly transactionId: bigint;
  /** Block of the metadata snapshot, 0 for none. */
  readonly heldRoot: number;
  /** Zeroes in a metadata snapshot. */
  readonly dataSpaceMap: SpaceMapRoot;
  readonly metadataSpaceMap: SpaceMapRoot;
  readonly mappingRoot: number;
  readonly detailsRoot: number;
  /** In sectors. */
  readonly dataBlockSize: number;
  /** Features that a writer, or any user, must know; none exist. */
  readonly compatRoFlags: number;
  readonly incompatFlags: number;
}

/** Why a superblock cannot be used, in the words of all of these tools. */
export const BAD_SUPERBLOCK = 'bad checksum in superblock';

/** Reads the superblock in `blocknr`: 0, or a metadata snapshot's block. */
export function readPoolSuperblock(
  reader: BlockReader,
  blocknr: number,
): PoolSuperblock | ReadFailure {
  const block = reader.read(blocknr, superblockValidator);
  return block instanceof ReadFailure ? block : fieldsOf(block.view);
}

function fieldsOf(view: ReadView): PoolSuperblock {
  return {
    needsCheck: (superblock.flags.get(view, 0) & NEEDS_CHECK) !== 0,
    version: superblock.version.get(view, 0),
    time: superblock.time.get(view, 0),
    transactionId: superblock.transactionId.getBig(view, 0),
    heldRoot: peekLe64(view, superblock.heldRoot.offset),
    dataSpaceMap: readSpaceMapRoot(view, superblock.dataSpaceMapRoot.offset),
    metadataSpaceMap: readSpaceMapRoot(view, superblock.metadataSpaceMapRoot.offset),
    mappingRoot: peekLe64(view, superblock.dataMappingRoot.offset),
    detailsRoot: peekLe64(view, superblock.deviceDetailsRoot.offset),
    dataBlockSize: superblock.dataBlockSize.get(view, 0),
    compatRoFlags: superblock.compatRoFlags.get(view, 0),
    incompatFlags: superblock.incompatFlags.get(view, 0),
  };
}
