/**
 * BackgroundTracker: migrations that the policy wants or that are running: at most one for an
 * oblock, and a limited number in all. Answers to drivers/md/dm-cache-background-tracker.c (spec:
 * cache, 12.1, 15.6).
 *
 * What is queued comes out last in, first out.
 */
import { assert } from '../../base/error.ts';
import { WorkOp, type PolicyWork } from './policy.ts';

/** The kernel's module parameter smq_max_background_work, as it is by default. */
export const BACKGROUND_WORK_MAX = 4096;

export class BackgroundTracker {
  /** By oblock: queued, and handed out but not yet completed. */
  readonly #pending = new Map<number, PolicyWork>();
  readonly #queued: PolicyWork[] = [];
  #nrDemotions = 0;

  /** Queued and running. */
  get nrPending(): number {
    return this.#pending.size;
  }

  get nrQueued(): number {
    return this.#queued.length;
  }

  /** Demotions, queued and running. */
  get nrPendingDemotions(): number {
    return this.#nrDemotions;
  }

  isPending(oblock: number): boolean {
    return this.#pending.has(oblock);
  }

  /** Queues an item. False, and nothing done, if there are too many, or one for that oblock. */
  queue(work: PolicyWork): boolean {
    if (!this.issue(work)) return false;
    this.#queued.push(work);
    return true;
  }

  /** As `queue`, for an item that is begun at once. */
  issue(work: PolicyWork): boolean {
    if (this.#pending.size >= BACKGROUND_WORK_MAX || this.#pending.has(work.oblock)) return false;
    this.#pending.set(work.oblock, work);
    if (work.op === WorkOp.DEMOTE) this.#nrDemotions++;
    return true;
  }

  /** The item that was queued last, or null. */
  next(): PolicyWork | null {
    return this.#queued.pop() ?? null;
  }

  /** An item that was handed out is finished. */
  complete(work: PolicyWork): void {
    assert(this.#pending.get(work.oblock) === work, 'work that is completed was handed out');
    this.#pending.delete(work.oblock);
    if (work.op === WorkOp.DEMOTE) this.#nrDemotions--;
  }

  /** All items, in the order in which they were handed in. For checks. */
  items(): PolicyWork[] {
    return [...this.#pending.values()];
  }
}
