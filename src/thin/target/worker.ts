/**
 * Worker: does everything of a pool that can change metadata, one pass after the other.
 * Answers to do_worker in drivers/md/dm-thin.c (spec: thin, 8.1 and 10.1).
 *
 * A pass: insert mappings whose data is ready; unmap discarded ranges that are quiet; for each thin
 * device the waiting cells, then the waiting bios, each sorted by sector; then commit, if someone
 * waits for it or the last commit is over a second ago.
 *
 * It is woken only when there is something to do: `nrWakeUps` counts, for the tests and the
 * benchmark. Between two statements of a pass nothing else runs, except where it awaits a commit;
 * whatever comes meanwhile is found by the next pass.
 */
import type { Timer } from '../../base/clock.ts';
import { errno } from '../../base/errno.ts';
import { BioList, BioOp, type Bio } from '../../block/bio.ts';
import type { BlockDevice } from '../../block/device.ts';
import { CellProcessor } from './cell-processor.ts';
import { DeferredSet } from './deferred-set.ts';
import { Discarder, type DiscardWork } from './discard.ts';
import type { NewMapping } from './new-mapping.ts';
import type { Pool } from './pool.ts';
import { Preparer } from './prepare.ts';
import type { ThinTarget } from './thin-target.ts';
import type { Cell } from './cells.ts';

/** Uncommitted changes are committed when the last commit is longer ago than this. */
export const COMMIT_PERIOD_MS = 1000;

export class Worker {
  readonly #pool: Pool;
  readonly preparer: Preparer;
  readonly discarder: Discarder;
  readonly #cells: CellProcessor;
  /** Reads of shared blocks: a copy's insertion waits for those that came before it. */
  readonly sharedReads: DeferredSet<NewMapping>;
  /** Every remapped read and write: a discard waits for those that came before it. */
  readonly allIo: DeferredSet<DiscardWork>;
  #preparedMappings: NewMapping[] = [];
  #preparedDiscards: DiscardWork[] = [];
  /** Bios that are issued, or ended, after the next commit. */
  readonly #issueAfterCommit = new BioList();
  readonly #endAfterCommit = new BioList();
  /** Called with the result of the next commit. */
  #callAfterCommit: ((status: number) => void)[] = [];
  #scheduled = false;
  #running = false;
  #wokenWhileRunning = false;
  #whenIdle: (() => void)[] = [];
  #lastCommitMs: number;
  #tick: Timer | null = null;
  #nrWakeUps = 0;

  constructor(pool: Pool) {
    this.#pool = pool;
    this.#lastCommitMs = pool.clock.nowMs();
    this.preparer = new Preparer(pool, (mapping) => {
      this.#preparedMappings.push(mapping);
      this.wake();
    });
    this.discarder = new Discarder(pool, this);
    this.#cells = new CellProcessor(pool, this.preparer);
    this.sharedReads = new DeferredSet((mapping) => this.preparer.actionDone(mapping, 0));
    this.allIo = new DeferredSet((work) => this.discardReady(work));
  }

  /** Times the worker was woken. */
  get nrWakeUps(): number {
    return this.#nrWakeUps;
  }

  /** Lets a pass run soon. */
  wake(): void {
    if (this.#running) {
      this.#wokenWhileRunning = true;
      return;
    }
    if (this.#scheduled) return;
    this.#scheduled = true;
    this.#nrWakeUps++;
    this.#pool.clock.soon(() => {
      this.#scheduled = false;
      this.#running = true;
      // A pass that throws met a bug of ours: it surfaces as an unhandled rejection, which is
      // fatal.
      void this.#run();
    });
  }

  /** Resolves when no pass is due or running. */
  async idle(): Promise<void> {
    while (this.#scheduled || this.#running) {
      await new Promise<void>((resolve) => this.#whenIdle.push(resolve));
    }
  }

  /** Once a second: commits what has been left uncommitted. */
  startTicking(): void {
    this.stopTicking();
    this.#tick = this.#pool.clock.after(COMMIT_PERIOD_MS, () => {
      this.startTicking();
      if (this.#pool.metadata.hasChanges) this.wake();
    });
  }

  stopTicking(): void {
    this.#tick?.cancel();
    this.#tick = null;
  }

  // --- what others leave for the next pass

  discardReady(work: DiscardWork): void {
    this.#preparedDiscards.push(work);
    this.wake();
  }

  /** Issues a flush or FUA write after the next commit. */
  commitThenIssue(bio: Bio): void {
    this.#issueAfterCommit.push(bio);
    this.wake();
  }

  /** Ends a FUA overwrite after the next commit. */
  commitThenEnd(bio: Bio): void {
    this.#endAfterCommit.push(bio);
    this.wake();
  }

  /** Calls `done` after the next commit, with 0 or the errno number that it failed with. */
  commitThen(done: (status: number) => void): void {
    this.#callAfterCommit.push(done);
    this.wake();
  }

  // --- a pass

  async #run(): Promise<void> {
    try {
      do {
        this.#wokenWhileRunning = false;
        await this.#pass();
      } while (this.#wokenWhileRunning);
    } catch (error) {
      this.#pool.bug(error);
    }
    this.#running = false;
    for (const resolve of this.#whenIdle.splice(0)) resolve();
  }

  async #pass(): Promise<void> {
    while (this.#pool.metadata.isCommitting) await this.#pool.metadataIdle();
    for (const mapping of this.#preparedMappings.splice(0)) this.preparer.insert(mapping);
    for (const work of this.#preparedDiscards.splice(0)) this.discarder.quiesced(work);
    for (const thin of this.#pool.thins) {
      await this.#processCells(thin, thin.takeDeferredCells());
      await this.#processBios(thin, thin.takeDeferredBios());
    }
    await this.#commitIfDue();
  }

  async #processCells(thin: ThinTarget, cells: Cell[]): Promise<void> {
    cells.sort((a, b) => a.begin - b.begin);
    for (const cell of cells) await this.#processCell(thin, cell);
  }

  async #processCell(thin: ThinTarget, cell: Cell): Promise<void> {
    // Status, messages and suspends commit, too: one may have begun since the last cell.
    while (this.#pool.metadata.isCommitting) await this.#pool.metadataIdle();
    if (!this.#cells.process(thin, cell, true)) {
      // Out of data space as far as can be seen: a commit may free some.
      await this.#commit();
      this.#cells.process(thin, cell, false);
    }
    if (this.#isMetadataSpaceShort()) await this.#commit();
  }

  /** Blocks freed by this transaction can be used after a commit. */
  #isMetadataSpaceShort(): boolean {
    const { metadata, isReadOnly } = this.#pool;
    return !isReadOnly && metadata.hasChanges && metadata.nrFreeMetadataBlocks === 0;
  }

  /** Commits in the middle of a pass; nobody else's commit runs when it resolves. */
  async #commit(): Promise<void> {
    await this.#pool.commit();
    while (this.#pool.metadata.isCommitting) await this.#pool.metadataIdle();
  }

  async #processBios(thin: ThinTarget, bios: Bio[]): Promise<void> {
    bios.sort((a, b) => a.sector - b.sector);
    for (const bio of bios) {
      if (bio.op === BioOp.FLUSH) thin.issueFlush(bio);
      else if (bio.op === BioOp.DISCARD) this.discarder.process(thin, bio);
      else {
        const cell = thin.holdVirtual(bio);
        if (cell !== null) await this.#processCell(thin, cell);
      }
    }
  }

  // --- commit

  async #commitIfDue(): Promise<void> {
    const { metadata } = this.#pool;
    const waited =
      !this.#issueAfterCommit.isEmpty ||
      !this.#endAfterCommit.isEmpty ||
      this.#callAfterCommit.length > 0;
    const due = metadata.hasChanges && (this.#isCommitTime() || metadata.wantsCommit);
    if (!waited && !due) return;
    const toIssue = this.#issueAfterCommit.drain();
    const toEnd = this.#endAfterCommit.drain();
    const toCall = this.#callAfterCommit.splice(0);
    const status = await this.#pool.commit();
    for (const done of toCall) done(status);
    if (status !== 0) {
      for (const bio of [...toIssue, ...toEnd]) bio.end(errno.EIO);
      return;
    }
    this.#lastCommitMs = this.#pool.clock.nowMs();
    for (const bio of toEnd) bio.end(0);
    for (const bio of toIssue) {
      // The commit has flushed the data device already.
      if (bio.op === BioOp.FLUSH) bio.end(0);
      else (bio.device as BlockDevice).submit(bio);
    }
  }

  #isCommitTime(): boolean {
    return this.#pool.clock.nowMs() - this.#lastCommitMs > COMMIT_PERIOD_MS;
  }
}
