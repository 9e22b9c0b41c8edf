/**
 * Replaying a write log onto a device: what the replay-log program of the kernel's test suites does
 * (spec: dm-core, 9.6).
 *
 *   entries: 0 … start │ replayed, one by one, a check after some of them │ end … nrEntries
 *
 * What a crash leaves: the device as of any entry so far; a replay can be begun anew.
 */
import { DmError } from '../base/error.ts';
import { SECTOR_SIZE } from '../base/numbers.ts';
import { BioOp } from './bio.ts';
import { zeroRange } from './copy.ts';
import { flushDevice, request, type BlockDevice } from './device.ts';
import { LogFlag } from './write-log-format.ts';
import type { WriteLogEntry, WriteLogReader } from './write-log-reader.ts';

/** Data are moved in pieces of so many sectors. */
const PIECE_SECTORS = 2048;

/** Which part of a log is replayed, and where it ends. */
export interface ReplayRange {
  /** The first entry. */
  readonly startEntry?: number | undefined;
  /** The first entry is the one behind this mark. */
  readonly startMark?: string | undefined;
  /** The last entry is the one before this mark. */
  readonly endMark?: string | undefined;
  /** At most so many entries. */
  readonly limit?: number | undefined;
  /** The last entry is the first one with this flag (LogFlag). */
  readonly untilFlag?: number | undefined;
}

export interface ReplayOptions extends ReplayRange {
  /** Only what lies in these sectors of the device is written; `endSector` is not included. */
  readonly startSector?: number | undefined;
  readonly endSector?: number | undefined;
  readonly skipDiscards?: boolean;
  /** Sees each entry when it is on the device; what it throws ends the replay. */
  readonly onEntry?: (entry: WriteLogEntry) => void | Promise<void>;
}

/**
 * The entries of `range`. Throws EILSEQ for a bad log, and ENOENT, at the end, for a mark or flag
 * that was wanted and is not there.
 */
export function* entriesIn(reader: WriteLogReader, range: ReplayRange): Generator<WriteLogEntry> {
  const { startEntry = 0, startMark, endMark, limit = Infinity, untilFlag } = range;
  let isBegun = startMark === undefined;
  let nr = 0;
  for (const entry of reader.entries()) {
    if (entry.index < startEntry) continue;
    if (!isBegun) {
      isBegun = isMark(entry, startMark);
      continue;
    }
    if (endMark !== undefined && isMark(entry, endMark)) return;
    if (nr++ >= limit) return;
    yield entry;
    if (untilFlag !== undefined && (entry.flags & untilFlag) !== 0) return;
  }
  if (!isBegun) throw missing(`the mark '${startMark}'`);
  if (nr >= limit) return;
  if (endMark !== undefined) throw missing(`the mark '${endMark}'`);
  if (untilFlag !== undefined) {
    throw missing(untilFlag === LogFlag.FLUSH ? 'a flush' : 'a FUA write');
  }
}

const isMark = (entry: WriteLogEntry, text: string | undefined): boolean =>
  (entry.flags & LogFlag.MARK) !== 0 && entry.text === text;

const missing = (what: string): DmError =>
  new DmError('ENOENT', `wanted ${what} in the write log, found none`);

/**
 * Does to `device` what the entries in `options` say, and makes it durable; resolves to how many
 * there were. Rejects with DmError, after what was done before.
 */
export async function replayLog(
  reader: WriteLogReader,
  device: BlockDevice,
  options: ReplayOptions,
): Promise<number> {
  let nr = 0;
  for (const entry of entriesIn(reader, options)) {
    await replayEntry(reader, device, entry, options);
    await options.onEntry?.(entry);
    nr++;
  }
  await flushDevice(device);
  return nr;
}

async function replayEntry(
  reader: WriteLogReader,
  device: BlockDevice,
  entry: WriteLogEntry,
  { startSector = 0, endSector = Infinity, skipDiscards = false }: ReplayOptions,
): Promise<void> {
  if ((entry.flags & LogFlag.MARK) !== 0 || entry.nrSectors === 0) return;
  const begin = Math.max(entry.sector, startSector);
  const end = Math.min(entry.sector + entry.nrSectors, endSector);
  if (begin >= end) return;
  if (end > device.sizeSectors) {
    const text = `entry ${entry.index} ends at sector ${end}`;
    throw new DmError('ENOSPC', `${device.name}: ${text}, beyond its ${device.sizeSectors}`);
  }
  if ((entry.flags & LogFlag.DISCARD) !== 0) {
    if (!skipDiscards) await discard(device, begin, end - begin);
    return;
  }
  for (let sector = begin; sector < end; sector += PIECE_SECTORS) {
    const n = Math.min(PIECE_SECTORS, end - sector);
    const data = reader.data(entry, sector - entry.sector, n);
    await request(device, BioOp.WRITE, sector, data.length / SECTOR_SIZE, data);
  }
}

/** Where the device cannot discard, zeroes are what a discard may leave. */
async function discard(device: BlockDevice, sector: number, nrSectors: number): Promise<void> {
  const max = device.limits.maxDiscardSectors;
  if (max === 0) {
    await new Promise<void>((resolve, reject) => {
      zeroRange(device, sector, nrSectors, 0, (status) => {
        if (status === 0) resolve();
        else reject(new DmError('EIO', `${device.name}: cannot zero at sector ${sector}`));
      });
    });
    return;
  }
  for (let at = sector; at < sector + nrSectors; at += max) {
    await request(device, BioOp.DISCARD, at, Math.min(max, sector + nrSectors - at));
  }
}
