/**
 * The layout of a write log: what the kernel's log-writes target leaves on its log device (spec:
 * dm-core, 9.6). Answers to struct log_write_super and struct log_write_entry.
 *
 *   sector 0: super │ entry, data … │ entry, data … │ entry (a flush, discard or mark: no data) │ …
 *
 * A sector of the log has the logical block size of the device whose writes are logged, whatever
 * the log device's is; so have the sectors that the entries count in.
 */
import { le32, le64, struct } from '../base/struct.ts';

export const logSuper = struct(28, {
  magic: le64,
  version: le64,
  nrEntries: le64,
  /** Bytes of a sector of this log. */
  sectorSize: le32,
});

/** Head of an entry; it has a sector of the log to itself, the data follow in the next. */
export const logEntry = struct(32, {
  /** Where on the logged device, in sectors of the log. */
  sector: le64,
  /** How much, in sectors of the log: that many follow with the data, unless DISCARD or MARK. */
  nrSectors: le64,
  /** LogFlag bits; none for a plain write. */
  flags: le64,
  /** Bytes of a mark's text, which follows in the same sector; else 0. */
  dataLength: le64,
});

/** Above 2^53: to be compared as all 64 bits. */
export const MAGIC = 0x6a_7366_7773_6872n;
export const VERSION = 1;

/** What an entry is. */
export const LogFlag = {
  /** An empty flush. */
  FLUSH: 1,
  /** A write that was durable when it ended. */
  FUA: 2,
  DISCARD: 4,
  /** A text that a user put here. */
  MARK: 8,
  /** A file system said that it writes its metadata; never set here, where bios do not tell. */
  METADATA: 16,
} as const;

/** The mark that ends a log. */
export const END_MARK = 'dm-log-writes-end';

/** The most bytes of a mark's text: a zero ends it. */
export function markBytesMax(sectorSize: number): number {
  return sectorSize - logEntry.size - 1;
}
