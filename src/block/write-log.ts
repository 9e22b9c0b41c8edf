/**
 * WriteLog: a log of what was written to a device, in order of durability, on a device of its own.
 * Answers to the log device of drivers/md/dm-log-writes.c (spec: dm-core, 9.6), bit for bit.
 *
 *   LoggedDevice ──append──► queue ──one after the other──► entry and data ──(FUA, mark)──► super
 *
 * The super says how many entries there are. It is written behind each FUA write and mark only:
 * until then the log device shows the log as it was, or what it held before. Nothing is flushed.
 * A log that is full, or that cannot be written, is given up, once and for all; the logged devices
 * go on.
 * Several logged devices may share a log: it is theirs to give their sectors different places.
 * What waits to be written is in memory, without a limit, as in the kernel.
 * Does not: say in which order things are logged; that is LoggedDevice's.
 */
import { assert, DmError } from '../base/error.ts';
import { silentLog, type Log } from '../base/log.ts';
import { SECTOR_SIZE } from '../base/numbers.ts';
import { BioOp } from './bio.ts';
import { zeroRange } from './copy.ts';
import { request, type BlockDevice } from './device.ts';
import {
  END_MARK,
  LogFlag,
  logEntry,
  logSuper,
  MAGIC,
  markBytesMax,
  VERSION,
} from './write-log-format.ts';

/** What the kernel calls an I/O error in its line about the log. */
const BLK_STS_IOERR = 10;

/** An entry that has yet to be written. */
export interface LogRecord {
  readonly flags: number;
  /** The entry's sector, and the data behind it. */
  readonly bytes: Uint8Array;
  /** Sectors of 512 bytes of zeroes behind `bytes`. */
  readonly nrZeroSectors: number;
}

/** What is to be logged, in sectors of 512 bytes. */
export interface LoggedRange {
  readonly sector: number;
  readonly nrSectors: number;
}

const NOWHERE: LoggedRange = { sector: 0, nrSectors: 0 };

export class WriteLog {
  /** Logical block size of the logged devices: bytes of a sector of the log. */
  readonly sectorSize: number;
  readonly #device: BlockDevice;
  readonly #log: Log;
  readonly #sectorsEach: number;
  /** Where the next entry goes, in sectors of 512 bytes; the super is before them all. */
  #next: number;
  #nrEntries = 0;
  #disabled = false;
  /** Resolves when all that was appended is written, or given up. */
  #written: Promise<void> = Promise.resolve();

  /** Logs to `device`, from its begin; `log` is told what goes wrong. */
  constructor(device: BlockDevice, sectorSize: number, log: Log = silentLog) {
    assert(sectorSize % SECTOR_SIZE === 0, 'a sector of the log is whole sectors');
    this.#device = device;
    this.#log = log;
    this.sectorSize = sectorSize;
    this.#sectorsEach = sectorSize / SECTOR_SIZE;
    this.#next = this.#sectorsEach;
  }

  /** Entries written so far. */
  get nrEntries(): number {
    return this.#nrEntries;
  }

  /** The last sector in use, of 512 bytes; of a log that was full, the one that was wanted. */
  get highestSector(): number {
    return this.#next - 1;
  }

  /** The log was given up. */
  get isDisabled(): boolean {
    return this.#disabled;
  }

  /** The status of a log-writes target. */
  get status(): string {
    const disabled = this.#disabled ? ' logging_disabled' : '';
    return `${this.#nrEntries} ${this.highestSector}${disabled}`;
  }

  // --- records

  /** A write of `data` from `dataOffset`, which is copied now. */
  write(range: LoggedRange, flags: number, data: Uint8Array, dataOffset: number): LogRecord {
    const length = range.nrSectors * SECTOR_SIZE;
    const bytes = this.#entry(range, flags, 0, length);
    bytes.set(data.subarray(dataOffset, dataOffset + length), this.sectorSize);
    return { flags, bytes, nrZeroSectors: 0 };
  }

  /** A write of zeroes. */
  zeroes(range: LoggedRange, flags: number): LogRecord {
    return { flags, bytes: this.#entry(range, flags, 0, 0), nrZeroSectors: range.nrSectors };
  }

  /** What has no data: a flush or a discard. */
  dataless(flags: number, range = NOWHERE): LogRecord {
    return { flags, bytes: this.#entry(range, flags, 0, 0), nrZeroSectors: 0 };
  }

  #entry(range: LoggedRange, flags: number, dataLength: number, room: number): Uint8Array {
    const { sector, nrSectors } = range;
    assert(sector % this.#sectorsEach === 0, 'what is logged begins at a sector of the log');
    assert(nrSectors % this.#sectorsEach === 0, 'what is logged is whole sectors of the log');
    const bytes = new Uint8Array(this.sectorSize + room);
    const view = new DataView(bytes.buffer);
    logEntry.sector.set(view, 0, sector / this.#sectorsEach);
    logEntry.nrSectors.set(view, 0, nrSectors / this.#sectorsEach);
    logEntry.flags.set(view, 0, flags);
    logEntry.dataLength.set(view, 0, dataLength);
    return bytes;
  }

  // --- appending

  /** Writes records to the log, after all that was appended before; owns them from now on. */
  append(records: readonly LogRecord[]): void {
    this.#written = this.#written.then(() => this.#writeAll(records));
  }

  /** Puts a text into the log; what does not fit into a sector is cut off. */
  mark(text: string): void {
    const wanted = Buffer.from(text);
    const kept = wanted.subarray(0, markBytesMax(this.sectorSize));
    const bytes = this.#entry(NOWHERE, LogFlag.MARK, kept.length, 0);
    bytes.set(kept, logEntry.size);
    this.append([{ flags: LogFlag.MARK, bytes, nrZeroSectors: 0 }]);
  }

  /** Resolves when all that was appended is written, or given up. Never rejects. */
  written(): Promise<void> {
    return this.#written;
  }

  /** Ends the log with the mark that says so. */
  async close(): Promise<void> {
    this.mark(END_MARK);
    await this.#written;
  }

  // --- writing

  async #writeAll(records: readonly LogRecord[]): Promise<void> {
    for (const record of records) {
      if (this.#disabled) return;
      // A crash here leaves entries that the super does not count yet.
      await this.#writeRecord(record);
    }
  }

  async #writeRecord(record: LogRecord): Promise<void> {
    const at = this.#next;
    const nrSectors = record.bytes.length / SECTOR_SIZE;
    this.#next += nrSectors + record.nrZeroSectors;
    if (this.#next >= this.#device.sizeSectors) {
      this.#giveUp('Ran out of space on the logdev');
      return;
    }
    this.#nrEntries++;
    try {
      await request(this.#device, BioOp.WRITE, at, nrSectors, record.bytes);
      await this.#zero(at + nrSectors, record.nrZeroSectors);
      if ((record.flags & (LogFlag.FUA | LogFlag.MARK)) !== 0) await this.#writeSuper();
    } catch (error) {
      if (!(error instanceof DmError)) throw error;
      this.#giveUp(`Error writing log block, error=${BLK_STS_IOERR}`);
    }
  }

  #giveUp(line: string): void {
    this.#disabled = true;
    this.#log.write('error', `log-writes: ${line}`);
  }

  #zero(sector: number, nrSectors: number): Promise<void> {
    return new Promise((resolve, reject) => {
      zeroRange(this.#device, sector, nrSectors, 0, (status) => {
        if (status === 0) resolve();
        else reject(new DmError('EIO', `${this.#device.name}: zeroing of the log failed`));
      });
    });
  }

  async #writeSuper(): Promise<void> {
    const bytes = new Uint8Array(this.sectorSize);
    const view = new DataView(bytes.buffer);
    logSuper.magic.setBig(view, 0, MAGIC);
    logSuper.version.set(view, 0, VERSION);
    logSuper.nrEntries.set(view, 0, this.#nrEntries);
    logSuper.sectorSize.set(view, 0, this.sectorSize);
    await request(this.#device, BioOp.WRITE, 0, this.#sectorsEach, bytes);
  }
}
