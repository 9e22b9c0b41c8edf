/**
 * BioGate: lets a device's bios through to its table and counts them, or keeps them while the
 * device is suspended. Answers to md->deferred and md->pending_io in drivers/md/dm.c. Hot path.
 *
 *   open ──close──► closed: new bios wait, without limit ──open──► they go through, in order
 *
 * Invariant: `#nrInFlight` counts the bios that were let through and have not ended.
 */
import { errno } from '../base/errno.ts';
import { BioList, type Bio } from '../block/bio.ts';
import { Waiters } from './waiters.ts';

export class BioGate {
  #isClosed = false;
  /** Nobody will open the gate again: what waits, and what comes, ends with EIO. */
  #isAbandoned = false;
  #nrInFlight = 0;
  readonly #waiting = new BioList();
  readonly #drained = new Waiters();

  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** Whether `bio` may go on, and is counted; otherwise the gate has it now. */
  enter(bio: Bio): boolean {
    if (!this.#isClosed) {
      this.#nrInFlight++;
      return true;
    }
    this.keep(bio);
    return false;
  }

  /** Keeps a bio until the gate opens. */
  keep(bio: Bio): void {
    if (this.#isAbandoned) bio.end(errno.EIO);
    else this.#waiting.push(bio);
  }

  /** A bio that was let through is about to end, or to be kept. */
  leave(): void {
    this.#nrInFlight--;
    if (this.#nrInFlight === 0 && !this.#drained.isEmpty) this.#drained.wake();
  }

  close(): void {
    this.#isClosed = true;
  }

  /** Opens the gate; what waited goes to `submit`, in order. */
  open(submit: (bio: Bio) => void): void {
    this.#isClosed = false;
    // What is kept again meanwhile goes to the end of the list, for the next opening.
    for (let n = this.#waiting.size; n > 0; n--) {
      const bio = this.#waiting.shift();
      if (bio !== null) submit(bio);
    }
  }

  /** Ends what waits with EIO, and what comes while the gate stays closed. */
  abandon(): void {
    this.#isAbandoned = true;
    for (const bio of this.#waiting.drain()) bio.end(errno.EIO);
  }

  /** Resolves to true when nothing is in flight, to false if `signal` comes first. */
  whenDrained(signal?: AbortSignal): Promise<boolean> {
    return this.#nrInFlight === 0 ? Promise.resolve(true) : this.#drained.wait(signal);
  }
}
