/**
 * Validators: what makes a metadata block of a kind trustworthy. One runs after a block is read,
 * and fills in number and checksum before a block is written (spec: persistent-data, 2 and 3).
 * Answers to struct dm_block_validator and its implementations.
 */
import { DmError } from '../base/error.ts';
import type { Log } from '../base/log.ts';
import type { Le64Field } from '../base/struct.ts';
import { Le32Field } from '../base/struct.ts';
import type { Block } from './block.ts';
import { checksum } from './checksum.ts';

/** Salts by kind of block; their difference lets the kind of any block be recovered. */
export const SALT = {
  THIN_SUPERBLOCK: 160774,
  CACHE_SUPERBLOCK: 9031977,
  ERA_SUPERBLOCK: 146538381,
  CLONE_SUPERBLOCK: 257649492,
  BTREE_NODE: 121107,
  INDEX: 160478,
  BITMAP: 240779,
  ARRAY: 595846735,
} as const;

/** The checksum is the first field of every kind of block. */
const csumField = new Le32Field(0);

export interface Validator {
  /** As in kernel logs: `btree_node`, `sm_bitmap`, … */
  readonly name: string;
  readonly salt: number;
  /** Fills in own block number and checksum; the block is about to be written. */
  prepare(block: Block): void;
  /** Throws DmError if the block, just read, is not what it should be; the log gets the reason. */
  check(block: Block, log: Log): void;
}

export interface ValidatorSpec {
  readonly name: string;
  readonly salt: number;
  /** Where the block's own number is. */
  readonly blocknr: Le64Field;
  /** Words before the reason in the log: `btree: node_check failed: `. */
  readonly complaint: string;
  /** Between the two checksums in the log; the superblocks say it differently. */
  readonly csumWanted?: string;
  /** Checks between number and checksum (the superblock's magic): a reason, or null. */
  readonly checkEarly?: (block: Block) => string | null;
  /** Structural checks after the checksum: a reason, or null. */
  readonly checkLate?: (block: Block) => string | null;
}

/**
 * Makes the validator of a kind of block. Checks run in the kernel's order: number, checksum,
 * structure.
 */
export function makeValidator(spec: ValidatorSpec): Validator {
  const wanted = spec.csumWanted ?? ' != wanted ';
  const isSuperblock = spec.csumWanted !== undefined;
  const refuse = (errno: 'ENOTBLK' | 'EILSEQ', reason: string, log: Log): never => {
    log.write('error', `${spec.complaint}${reason}`);
    throw new DmError(errno, `${spec.complaint}${reason}`);
  };
  return {
    name: spec.name,
    salt: spec.salt,
    prepare(block) {
      spec.blocknr.set(block.view, 0, block.blocknr);
      csumField.set(block.view, 0, checksum(block.body, spec.salt));
    },
    check(block, log) {
      const found = ownNumber(block, spec.blocknr);
      if (found !== BigInt(block.blocknr)) {
        const relation = isSuperblock ? ': wanted ' : ' != wanted ';
        const reason = `blocknr ${found}${relation}${block.blocknr}`;
        refuse('ENOTBLK', reason, log);
      }
      const early = spec.checkEarly?.(block) ?? null;
      if (early !== null) refuse('EILSEQ', early, log);
      const computed = checksum(block.body, spec.salt);
      const stored = csumField.get(block.view, 0);
      if (computed !== stored) refuse('EILSEQ', `csum ${computed}${wanted}${stored}`, log);
      const late = spec.checkLate?.(block) ?? null;
      if (late !== null) refuse('EILSEQ', late, log);
    },
  };
}

function ownNumber(block: Block, field: Le64Field): bigint {
  return field.getBig(block.view, 0);
}

/** Whether a block's stored checksum is right for the kind that `salt` names. */
export function hasSalt(block: { body: Uint8Array; view: DataView }, salt: number): boolean {
  return checksum(block.body, salt) === csumField.get(block.view, 0);
}
