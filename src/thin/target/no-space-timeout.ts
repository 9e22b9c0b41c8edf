/**
 * NoSpaceTimeout: how long writes wait for data space before they fail.
 * Answers to do_no_space_timeout and the module parameter no_space_timeout in drivers/md/dm-thin.c
 * (spec: thin, 6.3).
 */
import type { Clock, Timer } from '../../base/clock.ts';

/** Seconds, unless set otherwise. 0: for ever. */
export const NO_SPACE_TIMEOUT_SECONDS = 60;

export class NoSpaceTimeout {
  readonly #clock: Clock;
  readonly #seconds: () => number;
  readonly #expired: () => void;
  #timer: Timer | null = null;

  /** `seconds` is asked whenever the time begins to run; `expired` is called when it is over. */
  constructor(clock: Clock, seconds: () => number, expired: () => void) {
    this.#clock = clock;
    this.#seconds = seconds;
    this.#expired = expired;
  }

  /** The time begins to run, anew if it does already. */
  start(): void {
    this.cancel();
    const seconds = this.#seconds();
    if (seconds > 0) this.#timer = this.#clock.after(seconds * 1000, this.#expired);
  }

  cancel(): void {
    this.#timer?.cancel();
    this.#timer = null;
  }
}
