/**
 * Discards: unmapping of whole blocks, and passing down what nobody else uses.
 * Answers to process_discard_* in drivers/md/dm-thin.c (spec: thin, 9).
 *
 * The virtual range is held for the whole time. Without passdown: wait for the I/O in flight,
 * unmap. With passdown, for each run of blocks contiguous on both sides:
 *
 *   hold the physical range ─► wait for I/O in flight ─► unmap ─► hold the blocks that are free now
 *     ─► commit, if the run was shared ─► discard these on the data device ─► let go of them
 *
 * The commit is there because others may refer to the blocks in the last commit, to which a crash
 * returns: someone who broke the sharing since, or a device deleted since. What only this device
 * ever referred to may lose its content early: that is what was asked for.
 * Holding keeps a freed block from being handed out while its discard is on the way, which would
 * otherwise destroy new data. A block that a snapshot still uses is not free, so it is never passed
 * down; that is looked at after the unmapping, since sharing may have been broken, or the snapshot
 * discarded, after the run was found.
 */
import { Bio, BioOp } from '../../block/bio.ts';
import { errno } from '../../base/errno.ts';
import { asDataBlock } from '../../persistent-data/space-map/disk.ts';
import type { MappedRun } from '../metadata/thin-device.ts';
import type { Cell } from './cells.ts';
import { PoolMode } from './modes.ts';
import type { Pool } from './pool.ts';
import type { ThinTarget } from './thin-target.ts';
import type { Worker } from './worker.ts';

/** A discard request and how many of its runs have not ended. */
interface DiscardJob {
  readonly thin: ThinTarget;
  readonly bio: Bio;
  readonly cell: Cell;
  nrRuns: number;
  status: number;
}

/** One run of a discard with passdown. */
export interface DiscardRun {
  readonly job: DiscardJob;
  readonly run: MappedRun;
  readonly physical: Cell;
}

/** Data blocks, the end exclusive. */
type DataRange = [begin: number, end: number];

/** What waits for the I/O in flight: a whole discard without passdown, or one run with it. */
export type DiscardWork = DiscardJob | DiscardRun;

export class Discarder {
  readonly #pool: Pool;
  readonly #worker: Worker;

  constructor(pool: Pool, worker: Worker) {
    this.#pool = pool;
    this.#worker = worker;
  }

  /** Starts a discard; only whole blocks inside the request count. */
  process(thin: ThinTarget, bio: Bio): void {
    const { mode, sectorsPerBlock } = this.#pool;
    if (mode === PoolMode.FAIL) {
      bio.end(errno.EIO);
      return;
    }
    const begin = Math.ceil(bio.sector / sectorsPerBlock);
    const end = Math.floor((bio.sector + bio.nrSectors) / sectorsPerBlock);
    if (this.#pool.isReadOnly || begin >= end) {
      bio.end(0);
      return;
    }
    const held = thin.cells.virtual.heldIn(begin, end);
    if (held !== null) {
      held.waiting.push(bio);
      return;
    }
    const cell = thin.cells.virtual.hold(begin, end, bio);
    const job: DiscardJob = { thin, bio, cell, nrRuns: 1, status: 0 };
    if (this.#pool.features.discardPassdown) this.#startRuns(job);
    else this.#quiesce(job);
  }

  /** Cuts the range into runs; one whose blocks are busy is skipped and stays mapped. */
  #startRuns(job: DiscardJob): void {
    const { thin, cell } = job;
    for (let from = cell.begin; from < cell.end;) {
      let run: MappedRun | null;
      try {
        run = this.#pool.metadata.findRun(thin.device, from, cell.end);
      } catch (error) {
        this.#pool.lookupFailed(error);
        job.status = errno.EIO;
        break;
      }
      if (run === null) break;
      from = run.end;
      const dataEnd = run.dataBegin + (run.end - run.begin);
      if (thin.cells.physical.heldIn(run.dataBegin, dataEnd) !== null) continue;
      const physical = thin.cells.physical.hold(run.dataBegin, dataEnd, null);
      job.nrRuns++;
      this.#quiesce({ job, run, physical });
    }
    this.#runDone(job);
  }

  #quiesce(work: DiscardWork): void {
    if (!this.#worker.allIo.add(work)) this.#worker.discardReady(work);
  }

  /** The I/O in flight when the discard came has ended. */
  quiesced(work: DiscardWork): void {
    if (this.#pool.mode > PoolMode.OUT_OF_DATA_SPACE) this.#abandon(work);
    else if ('run' in work) this.#passDown(work);
    else this.#unmap(work);
  }

  /** The pool fell into a mode without changes: the discard fails, nothing is unmapped. */
  #abandon(work: DiscardWork): void {
    if ('run' in work) {
      work.job.status = errno.EIO;
      this.#endRun(work);
    } else {
      work.status = errno.EIO;
      this.#runDone(work);
    }
  }

  #unmap(job: DiscardJob): void {
    try {
      this.#pool.metadata.removeRange(job.thin.device, job.cell.begin, job.cell.end);
    } catch (error) {
      this.#pool.operationFailed(error);
      job.status = errno.EIO;
    }
    this.#runDone(job);
  }

  #passDown(work: DiscardRun): void {
    const { job, run } = work;
    const parts: DataRange[] = [];
    try {
      this.#pool.metadata.removeRange(job.thin.device, run.begin, run.end);
      this.#findFreeParts(run, parts);
    } catch (error) {
      this.#pool.operationFailed(error);
      job.status = errno.EIO;
      this.#endRun(work);
      return;
    }
    for (const [begin, end] of parts) this.#pool.metadata.holdFreeRange(begin, end);
    if (!run.shared || parts.length === 0) {
      this.#discardParts(work, parts);
      return;
    }
    this.#worker.commitThen((status) => {
      if (status === 0) {
        this.#discardParts(work, parts);
      } else {
        // The unmapping is rolled back: the blocks are in use again.
        job.status = errno.EIO;
        this.#letGo(work, parts);
      }
    });
  }

  #discardParts(work: DiscardRun, parts: readonly DataRange[]): void {
    let nrLeft = 1;
    const partDone = (): void => {
      // A failing passdown is ignored: the blocks are unmapped all the same.
      if (--nrLeft === 0) this.#letGo(work, parts);
    };
    for (const [begin, end] of parts) {
      nrLeft++;
      this.#discardData(begin, end, partDone);
    }
    partDone();
  }

  #letGo(work: DiscardRun, parts: readonly DataRange[]): void {
    for (const [begin, end] of parts) this.#pool.metadata.releaseFreeRange(begin, end);
    this.#endRun(work);
  }

  /** The parts of an unmapped run that nobody refers to any more. */
  #findFreeParts(run: MappedRun, parts: DataRange[]): void {
    const dataEnd = run.dataBegin + (run.end - run.begin);
    const isFree = (block: number): boolean =>
      this.#pool.metadata.isDataBlockFree(asDataBlock(block));
    for (let begin = run.dataBegin; begin < dataEnd;) {
      while (begin < dataEnd && !isFree(begin)) begin++;
      let end = begin;
      while (end < dataEnd && isFree(end)) end++;
      if (begin < end) parts.push([begin, end]);
      begin = end;
    }
  }

  /** Sends a discard for data blocks `[begin, end)`; the pool device splits it by its limits. */
  #discardData(begin: number, end: number, done: () => void): void {
    const bio = new Bio();
    bio.op = BioOp.DISCARD;
    bio.sector = this.#pool.sectorOf(begin);
    bio.nrSectors = this.#pool.sectorOf(end - begin);
    bio.onEnd = done;
    this.#pool.device.submit(bio);
  }

  #endRun(work: DiscardRun): void {
    // Bios that found the old mapping look again.
    work.job.thin.deferWaiting(work.physical);
    this.#runDone(work.job);
  }

  /** The request ends with its last run. */
  #runDone(job: DiscardJob): void {
    if (--job.nrRuns > 0) return;
    job.thin.deferWaiting(job.cell);
    job.bio.end(job.status);
  }
}
