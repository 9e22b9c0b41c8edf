/**
 * Time as an argument: the clock that every floor is given, so that a whole stack can run in a
 * simulation with a clock of its own.
 */
import { performance } from 'node:perf_hooks';

/** A timer that can be taken back; cancelling twice, or after it fired, does nothing. */
export interface Timer {
  cancel(): void;
}

export interface Clock {
  /** Milliseconds from some fixed point, never going back. */
  nowMs(): number;
  /** Calls `fire` once, `delayMs` from now. */
  after(delayMs: number, fire: () => void): Timer;
  /** Calls `run` soon, after what runs now and the I/O that is already at hand. */
  soon(run: () => void): void;
}

/** Node fires timers at once that are longer. */
const TIMEOUT_MAX_MS = 2 ** 31 - 1;

/** The machine's clock. Its timers do not keep the process alive. */
export const systemClock: Clock = {
  nowMs: () => performance.now(),
  after(delayMs, fire) {
    let handle: NodeJS.Timeout;
    const start = (leftMs: number): void => {
      const stepMs = Math.min(leftMs, TIMEOUT_MAX_MS);
      handle = setTimeout(() => (leftMs > stepMs ? start(leftMs - stepMs) : fire()), stepMs);
      handle.unref();
    };
    start(delayMs);
    return { cancel: () => clearTimeout(handle) };
  },
  soon: (run) => {
    setImmediate(run);
  },
};
