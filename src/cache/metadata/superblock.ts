/**
 * The cache's superblock: block 0 of the metadata device (spec: cache, 2.1 and 2.2).
 * Answers to struct cache_disk_superblock. Everything used lies within the first 512 bytes, so that
 * a torn write cannot mix two states.
 */
import { DmError } from '../../base/error.ts';
import type { Log } from '../../base/log.ts';
import {
  bytes,
  le32,
  le64,
  le64Packed,
  struct,
  type ReadView,
  type WriteView,
} from '../../base/struct.ts';
import { asBlockNr, type Block } from '../../persistent-data/block.ts';
import { ROOT_AREA_BYTES } from '../../persistent-data/space-map/layout.ts';
import { makeValidator, SALT, type Validator } from '../../persistent-data/validator.ts';

const POLICY_NAME_BYTES = 16;

export const superblock = struct(292, {
  csum: le32,
  flags: le32,
  blocknr: le64,
  /** All zero, never used. */
  uuid: bytes(16),
  magic: le64,
  /** Of the format: 1, or 2 with a dirty bitset of its own. */
  version: le32,
  /** These three: of the policy that wrote the hints. */
  policyName: bytes(POLICY_NAME_BYTES),
  policyHintSize: le32,
  metadataSpaceMapRoot: bytes(ROOT_AREA_BYTES),
  mappingRoot: le64,
  /** 0 for none. */
  hintRoot: le64,
  discardRoot: le64,
  /** In sectors. */
  discardBlockSize: le64,
  discardNrBlocks: le64,
  /** In sectors. */
  dataBlockSize: le32,
  metadataBlockSize: le32,
  /** Length of the mapping array. */
  cacheBlocks: le32,
  compatFlags: le32,
  compatRoFlags: le32,
  incompatFlags: le32,
  /** These four: as of the last clean shutdown. */
  readHits: le32,
  readMisses: le32,
  writeHits: le32,
  writeMisses: le32,
  policyVersionMajor: le32,
  policyVersionMinor: le32,
  policyVersionPatch: le32,
  /** Format 2 only. */
  dirtyRoot: le64Packed,
});

export const SUPERBLOCK_LOCATION = asBlockNr(0);
export const MAGIC = 1623043;
export const METADATA_BLOCK_SIZE_SECTORS = 8;

/** Metadata formats. 2 keeps the dirty bits in a bitset, 1 in the mappings. */
export type CacheFormat = 1 | 2;
const VERSION_MIN = 1;
const VERSION_MAX = 2;

/** Bit 0 of `flags`: dirty bits, hints and discards are what they were when this was written. */
export const CLEAN_SHUTDOWN = 1;
/** Bit 1 of `flags`: a checker must look before the cache may be written. Never cleared here. */
export const NEEDS_CHECK = 2;

/** What hints are only good for: the same policy. A Policy is one. */
export interface PolicyIdentity {
  /** At most 15 characters. */
  readonly name: string;
  readonly version: readonly [major: number, minor: number, patch: number];
  /** Bytes of a hint: 0 or 4. */
  readonly hintSize: number;
}

/** Reads what the superblock says of the policy; an empty name before the first clean shutdown. */
export function readPolicy(view: ReadView): PolicyIdentity {
  let name = '';
  for (let i = 0; i < POLICY_NAME_BYTES; i++) {
    const byte = view.getUint8(superblock.policyName.offset + i);
    if (byte === 0) break;
    name += String.fromCharCode(byte);
  }
  return {
    name,
    version: [
      superblock.policyVersionMajor.get(view, 0),
      superblock.policyVersionMinor.get(view, 0),
      superblock.policyVersionPatch.get(view, 0),
    ],
    hintSize: superblock.policyHintSize.get(view, 0),
  };
}

/** Writes what `readPolicy` reads. */
export function writePolicy(view: WriteView, { name, version, hintSize }: PolicyIdentity): void {
  for (let i = 0; i < POLICY_NAME_BYTES; i++) {
    const byte = i < POLICY_NAME_BYTES - 1 && i < name.length ? name.charCodeAt(i) : 0;
    view.setUint8(superblock.policyName.offset + i, byte);
  }
  superblock.policyHintSize.set(view, 0, hintSize);
  superblock.policyVersionMajor.set(view, 0, version[0]);
  superblock.policyVersionMinor.set(view, 0, version[1]);
  superblock.policyVersionPatch.set(view, 0, version[2]);
}

/** Counters that a clean shutdown keeps; each is a u32 that wraps. */
export interface HitCounters {
  readonly readHits: number;
  readonly readMisses: number;
  readonly writeHits: number;
  readonly writeMisses: number;
}

/** Reads the counters. */
export function readCounters(view: ReadView): HitCounters {
  return {
    readHits: superblock.readHits.get(view, 0),
    readMisses: superblock.readMisses.get(view, 0),
    writeHits: superblock.writeHits.get(view, 0),
    writeMisses: superblock.writeMisses.get(view, 0),
  };
}

/** Writes the counters. */
export function writeCounters(view: WriteView, counters: HitCounters): void {
  superblock.readHits.set(view, 0, counters.readHits);
  superblock.readMisses.set(view, 0, counters.readMisses);
  superblock.writeHits.set(view, 0, counters.writeHits);
  superblock.writeMisses.set(view, 0, counters.writeMisses);
}

/** Whether a block has the cache superblock's magic. */
export function hasCacheMagic(view: ReadView): boolean {
  return superblock.magic.getBig(view, 0) === BigInt(MAGIC);
}

const unversionedValidator = makeValidator({
  name: 'superblock',
  salt: SALT.CACHE_SUPERBLOCK,
  blocknr: superblock.blocknr,
  complaint: 'cache metadata: sb_check failed: ',
  csumWanted: ': wanted ',
  checkEarly: ({ view }) =>
    hasCacheMagic(view) ? null : `magic ${superblock.magic.getBig(view, 0)}: wanted ${MAGIC}`,
});

/** Checks the version last, with an errno and words of its own. */
export const superblockValidator: Validator = {
  ...unversionedValidator,
  check(block: Block, log: Log) {
    unversionedValidator.check(block, log);
    const version = superblock.version.get(block.view, 0);
    if (version >= VERSION_MIN && version <= VERSION_MAX) return;
    const supported = `only versions between ${VERSION_MIN} and ${VERSION_MAX} supported`;
    const text = `Cache metadata version ${version} found, but ${supported}.`;
    log.write('error', `cache metadata: ${text}`);
    throw new DmError('EINVAL', text);
  },
};

/** Why metadata with this superblock cannot be used so, in the kernel's words; null if it can. */
export function refusalOf(
  view: ReadView,
  dataBlockSize: number,
  isWritable: boolean,
): string | null {
  const found = superblock.dataBlockSize.get(view, 0);
  if (found !== dataBlockSize) {
    return `changing the data block size (from ${found} to ${dataBlockSize}) is not supported`;
  }
  const incompat = superblock.incompatFlags.get(view, 0);
  if (incompat !== 0) return unsupported('', incompat);
  const compatRo = superblock.compatRoFlags.get(view, 0);
  if (compatRo !== 0 && isWritable) return unsupported('RDWR ', compatRo);
  return null;
}

function unsupported(access: string, features: number): string {
  const hex = features.toString(16);
  return `could not access metadata ${access}due to unsupported optional features (${hex}).`;
}
