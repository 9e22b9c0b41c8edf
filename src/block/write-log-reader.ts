/**
 * Reading a write log, whoever wrote it (layout: write-log-format.ts).
 *
 * Every number on the log device is hostile: a log that is not one, or goes on where the device has
 * ended, is reported as EILSEQ, at the entry where it is found; those before it are good.
 * Does not: replay anything, or believe in entries that the super does not count.
 */
import { DmError } from '../base/error.ts';
import { errnoName } from '../base/errno.ts';
import { isPowerOfTwo, SECTOR_SIZE } from '../base/numbers.ts';
import type { BlockDevice } from './device.ts';
import { LogFlag, logEntry, logSuper, MAGIC, VERSION } from './write-log-format.ts';

/** The largest logical block of any device: the largest page of any machine. */
const SECTOR_SIZE_MAX = 65536;

export interface WriteLogEntry {
  /** Counted from 0. */
  readonly index: number;
  /** LogFlag bits. */
  readonly flags: number;
  /** Where on the logged device, and how much; in sectors of 512 bytes. */
  readonly sector: number;
  readonly nrSectors: number;
  /** The entry's place on the log device, in sectors of 512 bytes. */
  readonly logSector: number;
  /** Where on the log device the data are, and how much; none for flushes, discards and marks. */
  readonly dataSector: number;
  readonly nrDataSectors: number;
  /** A mark's text, else ''. */
  readonly text: string;
}

export class WriteLogReader {
  /** Bytes of a sector of this log. */
  readonly sectorSize: number;
  readonly nrEntries: number;
  readonly #device: BlockDevice;

  private constructor(device: BlockDevice, sectorSize: number, nrEntries: number) {
    this.#device = device;
    this.sectorSize = sectorSize;
    this.nrEntries = nrEntries;
  }

  /** Opens the log on `device`. Throws EILSEQ if there is none, or the error of the read. */
  static open(device: BlockDevice): WriteLogReader {
    if (device.sizeSectors === 0) throw damage('wanted a super, found an empty device');
    const bytes = new Uint8Array(SECTOR_SIZE);
    readInto(device, 0, bytes);
    const view = new DataView(bytes.buffer);
    const magic = logSuper.magic.getBig(view, 0);
    if (magic !== MAGIC) throw damage(`wanted magic ${hex(MAGIC)}, found ${hex(magic)}`);
    const version = logSuper.version.getBig(view, 0);
    if (version !== BigInt(VERSION)) throw damage(`wanted version ${VERSION}, found ${version}`);
    const sectorSize = logSuper.sectorSize.get(view, 0);
    const isSize = sectorSize >= SECTOR_SIZE && sectorSize <= SECTOR_SIZE_MAX;
    if (!isSize || !isPowerOfTwo(sectorSize)) {
      throw damage(`wanted a sector size of 512 to ${SECTOR_SIZE_MAX}, found ${sectorSize}`);
    }
    const nrEntries = logSuper.nrEntries.getBig(view, 0);
    const room = Math.floor((device.sizeSectors * SECTOR_SIZE) / sectorSize) - 1;
    if (nrEntries > BigInt(Math.max(room, 0))) {
      throw damage(`wanted at most ${Math.max(room, 0)} entries, found ${nrEntries}`);
    }
    return new WriteLogReader(device, sectorSize, Number(nrEntries));
  }

  /** The entries, in order. Throws EILSEQ at one that cannot be. */
  *entries(): Generator<WriteLogEntry, void> {
    const bytes = new Uint8Array(this.sectorSize);
    const each = this.sectorSize / SECTOR_SIZE;
    let at = each;
    for (let index = 0; index < this.nrEntries; index++) {
      if (at + each > this.#device.sizeSectors) throw damage('it ends before the log', index);
      readInto(this.#device, at, bytes);
      const entry = this.#parse(bytes, index, at);
      yield entry;
      at = entry.dataSector + entry.nrDataSectors;
    }
  }

  #parse(bytes: Uint8Array, index: number, logSector: number): WriteLogEntry {
    const view = new DataView(bytes.buffer);
    const each = this.sectorSize / SECTOR_SIZE;
    const sector = sectorsOf(logEntry.sector.getBig(view, 0), each, index);
    const nrSectors = sectorsOf(logEntry.nrSectors.getBig(view, 0), each, index);
    const flags = Number(logEntry.flags.getBig(view, 0) & 0xffff_ffffn);
    const isMark = (flags & LogFlag.MARK) !== 0;
    if (isMark && nrSectors > 0) throw damage(`a mark of ${nrSectors} sectors`, index);
    const hasData = (flags & (LogFlag.DISCARD | LogFlag.MARK)) === 0;
    const nrDataSectors = hasData ? nrSectors : 0;
    const dataSector = logSector + each;
    const room = this.#device.sizeSectors - dataSector;
    if (nrDataSectors > room) {
      throw damage(`wanted at most ${room} sectors of data, found ${nrDataSectors}`, index);
    }
    const text = isMark ? this.#textOf(view, bytes, index) : '';
    return { index, flags, sector, nrSectors, logSector, dataSector, nrDataSectors, text };
  }

  #textOf(view: DataView, bytes: Uint8Array, index: number): string {
    const length = logEntry.dataLength.getBig(view, 0);
    const room = this.sectorSize - logEntry.size;
    if (length > BigInt(room)) {
      throw damage(`wanted at most ${room} bytes of text, found ${length}`, index);
    }
    const { size } = logEntry;
    return Buffer.from(bytes.subarray(size, size + Number(length))).toString();
  }

  /**
   * Reads `nrSectors` of an entry's data, of 512 bytes, from its sector `begin`; the caller does
   * not ask for more than it has, and asks for pieces of what may be large.
   */
  data(entry: WriteLogEntry, begin = 0, nrSectors = entry.nrDataSectors - begin): Uint8Array {
    const bytes = new Uint8Array(nrSectors * SECTOR_SIZE);
    readInto(this.#device, entry.dataSector + begin, bytes);
    return bytes;
  }
}

function readInto(device: BlockDevice, sector: number, bytes: Uint8Array): void {
  const status = device.readSync(sector, bytes.length / SECTOR_SIZE, bytes, 0);
  if (status === 0) return;
  const name = errnoName(status);
  throw new DmError(name, `${device.name}: cannot read the write log at sector ${sector}: ${name}`);
}

/** Sectors of 512 bytes, of a count of sectors of the log. */
function sectorsOf(count: bigint, each: number, index: number): number {
  const sectors = count * BigInt(each);
  // Half of what a number holds, so that sums of two are exact.
  if (sectors < BigInt(Number.MAX_SAFE_INTEGER) / 2n) return Number(sectors);
  throw damage(`wanted sectors below 2^52, found ${sectors}`, index);
}

function damage(what: string, index?: number): DmError {
  const where = index === undefined ? '' : ` at entry ${index}`;
  return new DmError('EILSEQ', `bad write log${where}: ${what}`);
}

function hex(value: bigint): string {
  return `0x${value.toString(16)}`;
}
