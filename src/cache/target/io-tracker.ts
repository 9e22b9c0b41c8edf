/**
 * IoTracker: whether the origin has anything to do, which decides when dirty blocks are written
 * back. Answers to struct io_tracker in drivers/md/dm-cache-target.c (spec: cache, 12.1).
 *
 * Hot path: `begin`, `end`.
 */
import type { Clock } from '../../base/clock.ts';

/** Nothing was accounted for longer than this: the origin is idle. */
export const IDLE_MS = 1000;

export class IoTracker {
  readonly #clock: Clock;
  #nrInFlight = 0;
  #idleSinceMs = -Infinity;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  begin(): void {
    this.#nrInFlight++;
  }

  end(): void {
    if (--this.#nrInFlight === 0) this.#idleSinceMs = this.#clock.nowMs();
  }

  get isIdle(): boolean {
    return this.#nrInFlight === 0 && this.#clock.nowMs() - this.#idleSinceMs > IDLE_MS;
  }
}
