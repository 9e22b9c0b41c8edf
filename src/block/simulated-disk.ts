/**
 * SimulatedDisk: a disk in memory with a volatile write cache, that takes its time, does things out
 * of order, fails when told to, and whose power can be cut at any moment.
 *
 * The fault model, which is what we assume of real disks:
 *  - Requests take a seeded random time. Those in flight together end in any order, and take effect
 *    in the order in which they end. Reads see every effect so far.
 *  - A write, discard or write-zeroes that has ended is in the cache: durable or not, nobody knows.
 *    It is durable when a flush that was submitted after it had ended, has ended; a FUA write when
 *    it has ended itself, with no promise for anything else.
 *  - A power cut keeps all that is durable. Of the rest, ended or in flight, it keeps any part:
 *    whole requests in any combination, and of a torn one any of its 512-byte sectors. A sector is
 *    never mixed and never becomes anything that nobody wrote: reads of a lost sector give what was
 *    durable there, or an older write that was not lost.
 *  - A discarded sector reads as zeroes, or, after a cut, as what it was before.
 *  - A failed write, discard or write-zeroes has reached any of its sectors. A failed flush
 *    promises nothing. A failed read gives nothing. A failure can pass or stay.
 *  - Not in the model: sectors that rot by themselves, writes that go to the wrong place or report
 *    success for nothing (checksums notice them; see the tests of damage), and two requests in
 *    flight together that overlap and swap places after both have ended.
 *
 * All disks of a SimulatedStorage share its clock, its randomness and its journal, in which every
 * submission and every end is an event with a number: crash-images.ts makes from it what a cut
 * after any event could have left.
 */
import type { SimulatedClock } from '../base/simulated-clock.ts';
import { errno } from '../base/errno.ts';
import { SECTOR_SIZE } from '../base/numbers.ts';
import type { Random } from '../base/random.ts';
import { BioFlag, BioOp, type Bio } from './bio.ts';
import {
  ExtentFlag,
  plainLimits,
  type BlockDevice,
  type ExtentVisitor,
  type Limits,
} from './device.ts';
import { SparseBytes } from './sparse-bytes.ts';

/** What can be told to fail; a write-zeroes counts as a write. */
export type FaultyOp = 'read' | 'write' | 'flush' | 'discard';

export interface Fault {
  readonly op: FaultyOp;
  /** Which one fails, counted from now: 0 is the next. */
  readonly nth: number;
  /** All after it fail, too. */
  readonly stays: boolean;
  /** The errno number it ends with. */
  readonly status?: number;
}

/** A request in the journal. */
export interface JournalEntry {
  readonly disk: SimulatedDisk;
  readonly op: BioOp;
  readonly isFua: boolean;
  readonly sector: number;
  readonly nrSectors: number;
  /** What a write wrote. */
  readonly data: Uint8Array | null;
  status: number;
  /** Sectors that a failed request reached; null is all of them. */
  reached: readonly boolean[] | null;
}

/** What happened, in order. Reads are not in it: they change nothing. */
export interface JournalEvent {
  readonly kind: 'submit' | 'end';
  readonly entry: JournalEntry;
}

/** Most requests end within this time, a few take ten times as long. */
const LATENCY_MS = 0.2;
/** Chunks of a disk's content: small, because a crash image copies those that it changes. */
const CHUNK_BYTES = 4096;

/** What the disks of one machine share. */
export class SimulatedStorage {
  readonly clock: SimulatedClock;
  readonly random: Random;
  readonly journal: JournalEvent[] = [];

  constructor(clock: SimulatedClock, random: Random) {
    this.clock = clock;
    this.random = random;
  }

  /** A new disk; `content` is what is on it, and is not changed. */
  disk(name: string, sizeSectors: number, content?: SparseBytes): SimulatedDisk {
    const bytes = content?.clone() ?? new SparseBytes(CHUNK_BYTES);
    return new SimulatedDisk(this, name, sizeSectors, bytes);
  }

  /** Events so far; the number of the next one. */
  get nrEvents(): number {
    return this.journal.length;
  }
}

export class SimulatedDisk implements BlockDevice {
  readonly name: string;
  readonly sizeSectors: number;
  readonly readOnly = false;
  readonly limits: Limits = {
    ...plainLimits(),
    discardGranularity: SECTOR_SIZE,
    maxDiscardSectors: 0x7f_ffff,
    discardZeroes: false,
  };
  /** What was on it at first. */
  readonly initial: SparseBytes;
  readonly #storage: SimulatedStorage;
  readonly #bytes: SparseBytes;
  #faults: { fault: Fault; seen: number }[] = [];
  /** Requests of each kind so far. */
  readonly nrOps: Record<FaultyOp, number> = { read: 0, write: 0, flush: 0, discard: 0 };
  /** Requests that were made to fail. */
  nrFailed = 0;

  /** Made by SimulatedStorage.disk. */
  constructor(storage: SimulatedStorage, name: string, sizeSectors: number, bytes: SparseBytes) {
    this.#storage = storage;
    this.name = name;
    this.sizeSectors = sizeSectors;
    this.initial = bytes.clone();
    this.#bytes = bytes;
  }

  /** From now on, requests fail as `fault` says. */
  fail(fault: Fault): void {
    this.#faults.push({ fault, seen: 0 });
  }

  /** Nothing fails any more. */
  heal(): void {
    this.#faults = [];
  }

  refreshSize(): void {}

  blockStatus(sector: number, nrSectors: number, visit: ExtentVisitor): void {
    const chunkSectors = CHUNK_BYTES / SECTOR_SIZE;
    const end = Math.min(sector + nrSectors, this.sizeSectors);
    while (sector < end) {
      const n = Math.min(chunkSectors - (sector % chunkSectors), end - sector);
      const hole = this.#bytes.isHole(sector * SECTOR_SIZE);
      if (!visit(n, hole ? ExtentFlag.HOLE | ExtentFlag.ZERO : 0)) return;
      sector += n;
    }
  }

  readSync(sector: number, nrSectors: number, data: Uint8Array, dataOffset: number): number {
    if (sector + nrSectors > this.sizeSectors) return errno.EIO;
    const status = this.#faultOf('read');
    if (status !== 0) return status;
    this.#bytes.read(sector * SECTOR_SIZE, nrSectors * SECTOR_SIZE, data, dataOffset);
    return 0;
  }

  submit(bio: Bio): void {
    const { clock, journal, random } = this.#storage;
    if (bio.endSector > this.sizeSectors) {
      bio.end(errno.EIO);
      return;
    }
    const status = this.#faultOf(faultyOp(bio));
    const latency = random.next() * LATENCY_MS * (random.chance(0.05) ? 10 : 1);
    if (bio.op === BioOp.READ) {
      clock.after(latency, () => this.#endRead(bio, status));
      return;
    }
    const entry = this.#entryOf(bio);
    journal.push({ kind: 'submit', entry });
    clock.after(latency, () => {
      entry.status = status;
      if (status !== 0) entry.reached = Array.from({ length: bio.nrSectors }, half(random));
      applyEntry(entry, this.#bytes);
      journal.push({ kind: 'end', entry });
      bio.end(status);
    });
  }

  #entryOf(bio: Bio): JournalEntry {
    const { op, sector, nrSectors, data, dataOffset } = bio;
    const length = nrSectors * SECTOR_SIZE;
    return {
      disk: this,
      op,
      isFua: (bio.flags & BioFlag.FUA) !== 0,
      sector,
      nrSectors,
      data: op === BioOp.WRITE ? copyOf(data, dataOffset, length) : null,
      status: 0,
      reached: null,
    };
  }

  #endRead(bio: Bio, status: number): void {
    const offset = bio.sector * SECTOR_SIZE;
    if (status === 0) {
      this.#bytes.read(offset, bio.nrSectors * SECTOR_SIZE, bio.data, bio.dataOffset);
    }
    bio.end(status);
  }

  /** The errno number with which the request that now comes fails, or 0. */
  #faultOf(op: FaultyOp): number {
    this.nrOps[op]++;
    let status = 0;
    for (const each of this.#faults) {
      const { fault } = each;
      if (fault.op !== op) continue;
      const index = each.seen++;
      const fails = index === fault.nth || (fault.stays && index > fault.nth);
      if (fails) status = fault.status ?? errno.EIO;
    }
    if (status !== 0) this.nrFailed++;
    return status;
  }
}

/** Not `slice`: of a Buffer, that would be the submitter's own memory. */
const copyOf = (data: Uint8Array, offset: number, length: number): Uint8Array =>
  new Uint8Array(data.subarray(offset, offset + length));

const half = (random: Random) => (): boolean => random.chance(0.5);

function faultyOp(bio: Bio): FaultyOp {
  switch (bio.op) {
    case BioOp.READ:
      return 'read';
    case BioOp.FLUSH:
      return 'flush';
    case BioOp.DISCARD:
      return 'discard';
    default:
      return 'write';
  }
}

/**
 * Does to `bytes` what the request does to the sectors that it reached, of those that `keeps` says
 * yes to.
 */
export function applyEntry(
  entry: JournalEntry,
  bytes: SparseBytes,
  keeps: ((index: number) => boolean) | null = null,
): void {
  const { sector, nrSectors, reached } = entry;
  if (keeps === null && reached === null) {
    applyRun(entry, bytes, sector, nrSectors);
    return;
  }
  for (let i = 0; i < nrSectors; i++) {
    if (reached?.[i] === false || keeps?.(i) === false) continue;
    applyRun(entry, bytes, sector + i, 1);
  }
}

function applyRun(entry: JournalEntry, bytes: SparseBytes, sector: number, n: number): void {
  const offset = sector * SECTOR_SIZE;
  const { data } = entry;
  if (data === null) bytes.clear(offset, n * SECTOR_SIZE);
  else bytes.write(offset, n * SECTOR_SIZE, data, (sector - entry.sector) * SECTOR_SIZE);
}
