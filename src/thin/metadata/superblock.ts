/**
 * The thin pool's superblock: block 0 of the metadata device (spec: thin, 1.1).
 * Answers to struct thin_disk_superblock. Everything used lies within the first 512 bytes, so that
 * a torn write cannot mix two states.
 */
import { bytes, le32, le64, struct, type ReadView } from '../../base/struct.ts';
import { asBlockNr } from '../../persistent-data/block.ts';
import { ROOT_AREA_BYTES } from '../../persistent-data/space-map/layout.ts';
import { makeValidator, SALT } from '../../persistent-data/validator.ts';

export const superblock = struct(364, {
  csum: le32,
  flags: le32,
  blocknr: le64,
  /** All zero; neither used nor changed after format. */
  uuid: bytes(16),
  magic: le64,
  version: le32,
  /** The snapshot clock. */
  time: le32,
  /** The user's, all 64 bits. */
  transactionId: le64,
  /** Block of the metadata snapshot, 0 for none. */
  heldRoot: le64,
  dataSpaceMapRoot: bytes(ROOT_AREA_BYTES),
  metadataSpaceMapRoot: bytes(ROOT_AREA_BYTES),
  /** Top level of the mapping tree. */
  dataMappingRoot: le64,
  deviceDetailsRoot: le64,
  /** In sectors. */
  dataBlockSize: le32,
  metadataBlockSize: le32,
  /** As it was at format; never updated. */
  metadataNrBlocks: le64,
  compatFlags: le32,
  compatRoFlags: le32,
  incompatFlags: le32,
});

export const SUPERBLOCK_LOCATION = asBlockNr(0);
export const MAGIC = 27022010;
export const VERSION = 2;
export const METADATA_BLOCK_SIZE_SECTORS = 8;

/**
 * Bit 0 of `flags`: a checker must look before the pool may be written. Set, never cleared, by a
 * pool.
 */
export const NEEDS_CHECK = 1;

/** Whether a block has the thin superblock's magic. */
export function hasThinMagic(view: ReadView): boolean {
  return superblock.magic.getBig(view, 0) === BigInt(MAGIC);
}

export const superblockValidator = makeValidator({
  name: 'superblock',
  salt: SALT.THIN_SUPERBLOCK,
  blocknr: superblock.blocknr,
  complaint: 'thin metadata: sb_check failed: ',
  csumWanted: ': wanted ',
  checkEarly: ({ view }) =>
    hasThinMagic(view) ? null : `magic ${superblock.magic.getBig(view, 0)}: wanted ${MAGIC}`,
});
