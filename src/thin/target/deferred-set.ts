/**
 * DeferredSet: work that must wait for the I/O already in flight, but not for later I/O.
 * Answers to struct dm_deferred_set in dm-bio-prison-v1.c (spec: thin, 8.1).
 *
 *   entries, oldest first:   [3 in flight | work a] -> [0 | work b] -> [2 in flight]   <- new I/O
 *
 * Work runs when its entry and all older ones have nothing in flight. Hot path: `enter`, `leave`.
 * Invariant: only entries before the last one have work.
 */

export class DeferredEntry<W> {
  inFlight = 0;
  work: W | null = null;
  next: DeferredEntry<W> | null = null;
}

export class DeferredSet<W> {
  #first = new DeferredEntry<W>();
  #last = this.#first;
  readonly #ready: (work: W) => void;

  /** `ready` is called, from `leave`, with work that need wait no longer. */
  constructor(ready: (work: W) => void) {
    this.#ready = ready;
  }

  /** Counts one I/O as in flight; give the entry to `leave` when it ends. */
  enter(): DeferredEntry<W> {
    this.#last.inFlight++;
    return this.#last;
  }

  leave(entry: DeferredEntry<W>): void {
    entry.inFlight--;
    if (entry === this.#first && entry.inFlight === 0 && entry !== this.#last) this.#sweep();
  }

  /** Makes `work` wait for the I/O in flight now. False if there is none: it may run at once. */
  add(work: W): boolean {
    if (this.#first === this.#last && this.#first.inFlight === 0) return false;
    this.#last.work = work;
    const entry = new DeferredEntry<W>();
    this.#last.next = entry;
    this.#last = entry;
    return true;
  }

  #sweep(): void {
    while (this.#first !== this.#last && this.#first.inFlight === 0) {
      const { work, next } = this.#first;
      this.#first = next as DeferredEntry<W>;
      if (work !== null) this.#ready(work);
    }
  }
}
