/**
 * Write logs in tests: what is in one.
 */
import type { BlockDevice } from '../../src/block/device.ts';
import { LogFlag } from '../../src/block/write-log-format.ts';
import { WriteLogReader, type WriteLogEntry } from '../../src/block/write-log-reader.ts';

const has = ({ flags }: WriteLogEntry, flag: number): boolean => (flags & flag) !== 0;

export const isFlush = (entry: WriteLogEntry): boolean => has(entry, LogFlag.FLUSH);
export const isMark = (entry: WriteLogEntry): boolean => has(entry, LogFlag.MARK);

/** An entry in words: `write 8+16`, `write FUA 0+8`, `discard 64+8`, `flush`, `mark x`. */
export function describeEntry(entry: WriteLogEntry): string {
  if (isMark(entry)) return `mark ${entry.text}`;
  if (isFlush(entry)) return 'flush';
  const what = has(entry, LogFlag.DISCARD) ? 'discard' : 'write';
  const fua = has(entry, LogFlag.FUA) ? ' FUA' : '';
  return `${what}${fua} ${entry.sector}+${entry.nrSectors}`;
}

/** The entries of the log on `device`, in words. */
export function describeLog(device: BlockDevice): string[] {
  return [...WriteLogReader.open(device).entries()].map(describeEntry);
}
