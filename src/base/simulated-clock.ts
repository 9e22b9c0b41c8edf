/**
 * SimulatedClock: time that passes only when nothing is left to do at the present moment, so that
 * an hour of timeouts takes milliseconds and every run with the same inputs is the same run.
 *
 * Events fire one at a time, in the order of their time, those of one moment in the order in which
 * they were asked for; between two of them every promise that can settle has settled.
 * Invariant: nowMs never goes back.
 */
import type { Clock, Timer } from './clock.ts';

/** Simulated time after which something that has not happened is held to be lost. */
const PATIENCE_MS = 3_600_000;

interface Event {
  readonly at: number;
  readonly seq: number;
  readonly fire: () => void;
  isCancelled: boolean;
}

/** Nothing will make the awaited promise settle: somebody's I/O or wake-up was lost. */
export class HangError extends Error {}

export class SimulatedClock implements Clock {
  #now = 0;
  #seq = 0;
  /** A binary heap, the earliest event first. */
  readonly #events: Event[] = [];

  nowMs(): number {
    return this.#now;
  }

  after(delayMs: number, fire: () => void): Timer {
    const at = this.#now + delayMs;
    const event = { at, seq: this.#seq++, fire, isCancelled: false };
    this.#push(event);
    return { cancel: () => (event.isCancelled = true) };
  }

  soon(run: () => void): void {
    this.after(0, run);
  }

  /**
   * Lets time pass until `wanted` settles, and returns or throws what it settled to. Throws a
   * HangError if that will never happen.
   */
  async run<T>(wanted: Promise<T>): Promise<T> {
    let isSettled = false;
    const settle = (): void => {
      isSettled = true;
    };
    wanted.then(settle, settle);
    const limit = this.#now + PATIENCE_MS;
    await turn();
    while (!isSettled) {
      const event = this.#pop();
      if (event === null) throw new HangError('nothing is left that could happen');
      if (event.at > limit) throw new HangError(`waited ${PATIENCE_MS} simulated ms in vain`);
      this.#now = event.at;
      event.fire();
      await turn();
    }
    return wanted;
  }

  /** Lets `delayMs` pass. */
  async pass(delayMs: number): Promise<void> {
    await this.run(this.delay(delayMs));
  }

  /** A promise that resolves `delayMs` from now, for code that runs under `run`. */
  delay(delayMs: number): Promise<void> {
    return new Promise((resolve) => {
      this.after(delayMs, resolve);
    });
  }

  #push(event: Event): void {
    const heap = this.#events;
    let i = heap.length;
    heap.push(event);
    while (i > 0) {
      const parent = (i - 1) >> 1;
      const above = heap[parent] as Event;
      if (!isBefore(event, above)) break;
      heap[i] = above;
      i = parent;
    }
    heap[i] = event;
  }

  /** The next event that was not cancelled. */
  #pop(): Event | null {
    for (;;) {
      const [first] = this.#events;
      if (first === undefined) return null;
      this.#sink(this.#events.pop() as Event);
      if (!first.isCancelled) return first;
    }
  }

  /** Puts `event` in the place of the first one. */
  #sink(event: Event): void {
    const heap = this.#events;
    const size = heap.length;
    if (size === 0) return;
    let i = 0;
    for (;;) {
      let child = 2 * i + 1;
      if (child >= size) break;
      if (child + 1 < size && isBefore(heap[child + 1] as Event, heap[child] as Event)) child++;
      if (!isBefore(heap[child] as Event, event)) break;
      heap[i] = heap[child] as Event;
      i = child;
    }
    heap[i] = event;
  }
}

const isBefore = (a: Event, b: Event): boolean => a.at < b.at || (a.at === b.at && a.seq < b.seq);

/** Lets every promise settle that can. */
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
