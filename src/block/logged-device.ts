/**
 * LoggedDevice: passes everything on to a device, and records in a WriteLog what changes it, in the
 * order in which it can be relied on. Answers to drivers/md/dm-log-writes.c (spec: dm-core, 9.6).
 *
 *   write, discard:  ends ──► completed ──flush issued──► covered by it ──flush ends──► logged,
 *   flush:           ends ──► logged, behind what it covers                the flush behind them
 *   FUA write:       ends ──► logged
 *
 * So the log is what the worst disk would hold: a write that ends while a flush is under way is
 * logged with the next flush only, and a FUA write overtakes earlier ones, even where it overlaps
 * them. What a flush covers is logged with this flush, even if another that was issued later, and
 * so covers it too, ends earlier.
 * Data are copied when they are submitted. A bio that fails is logged like one that succeeds: how
 * much of it the disk has is unknown.
 * A discard that the device below cannot do is logged and succeeds. Zeroes are best written here,
 * since the log holds them as data; a WRITE_ZEROES that comes all the same is logged as such a
 * write.
 * Does not: end the log; several logged devices may share one, in different places.
 */
import { assert } from '../base/error.ts';
import { errno } from '../base/errno.ts';
import { SECTOR_SIZE } from '../base/numbers.ts';
import { BioFlag, BioOp, type Bio } from './bio.ts';
import type { BlockDevice, ExtentVisitor, Limits } from './device.ts';
import type { LogRecord, WriteLog } from './write-log.ts';
import { LogFlag } from './write-log-format.ts';

/** The largest discard where the device below knows none: the kernel's, just below 4 GiB. */
const MAX_DISCARD_SECTORS = 0x7f_ffff;

export class LoggedDevice implements BlockDevice {
  readonly #below: BlockDevice;
  readonly #log: WriteLog;
  readonly #place: number;
  readonly #unitSectors: number;
  /** Writes and discards that have ended and that no flush was issued after, in order. */
  #completed: LogRecord[] = [];
  #limits: Limits;
  #limitsOf: Limits;

  /**
   * `placeSectors` is added to every sector in the log, so that devices which share a log can be
   * told apart, and can be replayed as if one lay behind the other.
   */
  constructor(below: BlockDevice, log: WriteLog, placeSectors = 0) {
    const blockSize = below.limits.logicalBlockSize;
    assert(blockSize % log.sectorSize === 0, 'a logical block is whole sectors of the log');
    this.#below = below;
    this.#log = log;
    this.#place = placeSectors;
    this.#unitSectors = log.sectorSize / SECTOR_SIZE;
    this.#limitsOf = below.limits;
    this.#limits = loggedLimits(below.limits);
  }

  get name(): string {
    return this.#below.name;
  }

  get sizeSectors(): number {
    return this.#below.sizeSectors;
  }

  get readOnly(): boolean {
    return this.#below.readOnly;
  }

  get limits(): Limits {
    if (this.#below.limits !== this.#limitsOf) {
      this.#limitsOf = this.#below.limits;
      this.#limits = loggedLimits(this.#limitsOf);
    }
    return this.#limits;
  }

  refreshSize(): void {
    this.#below.refreshSize();
  }

  readSync(sector: number, nrSectors: number, data: Uint8Array, dataOffset: number): number {
    return this.#below.readSync(sector, nrSectors, data, dataOffset);
  }

  blockStatus(sector: number, nrSectors: number, visit: ExtentVisitor): void {
    this.#below.blockStatus(sector, nrSectors, visit);
  }

  /** Logs what ended and no flush has covered; to be called before the log is closed. */
  close(): void {
    this.#log.append(this.#takeCompleted());
  }

  submit(bio: Bio): void {
    assert((bio.flags & BioFlag.PREFLUSH) === 0, 'the mapper has split off the flush');
    if (!this.#mustLog(bio)) {
      this.#below.submit(bio);
    } else if (bio.op === BioOp.FLUSH) {
      const records = [...this.#takeCompleted(), this.#log.dataless(LogFlag.FLUSH)];
      this.#pass(bio, () => this.#log.append(records));
    } else if (bio.sector % this.#unitSectors !== 0 || bio.nrSectors % this.#unitSectors !== 0) {
      bio.end(errno.EINVAL);
    } else {
      this.#change(bio);
    }
  }

  /** What the device below refuses outright, or does not keep, has no place in the log. */
  #mustLog(bio: Bio): boolean {
    if (bio.op === BioOp.READ || this.#log.isDisabled) return false;
    return !this.#below.readOnly && bio.endSector <= this.#below.sizeSectors;
  }

  #change(bio: Bio): void {
    const record = this.#recordOf(bio);
    if (bio.op === BioOp.DISCARD && this.#below.limits.maxDiscardSectors === 0) {
      this.#completed.push(record);
      bio.end(0);
    } else if ((bio.flags & BioFlag.FUA) !== 0) {
      this.#pass(bio, () => this.#log.append([record]));
    } else {
      this.#pass(bio, () => this.#completed.push(record));
    }
  }

  #recordOf(bio: Bio): LogRecord {
    const range = { sector: this.#place + bio.sector, nrSectors: bio.nrSectors };
    const flags = (bio.flags & BioFlag.FUA) !== 0 ? LogFlag.FUA : 0;
    if (bio.op === BioOp.DISCARD) return this.#log.dataless(LogFlag.DISCARD, range);
    if (bio.op === BioOp.WRITE_ZEROES) return this.#log.zeroes(range, flags);
    return this.#log.write(range, flags, bio.data, bio.dataOffset);
  }

  #takeCompleted(): LogRecord[] {
    const records = this.#completed;
    this.#completed = [];
    return records;
  }

  /** Submits `bio` to the device below; `before` is called when it ends, before its submitter. */
  #pass(bio: Bio, before: () => void): void {
    const { onEnd } = bio;
    bio.onEnd = (ended) => {
      ended.onEnd = onEnd;
      before();
      onEnd(ended);
    };
    this.#below.submit(bio);
  }
}

function loggedLimits(below: Limits): Limits {
  const limits = { ...below, maxWriteZeroesSectors: 0 };
  if (below.maxDiscardSectors > 0) return limits;
  return {
    ...limits,
    discardGranularity: below.logicalBlockSize,
    maxDiscardSectors: MAX_DISCARD_SECTORS,
    discardZeroes: false,
  };
}
