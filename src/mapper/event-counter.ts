/**
 * The event number of a mapped device, and those who wait for it to change (spec: dm-core, 6).
 * Answers to dm_table_event and dm_wait_event.
 */
export class EventCounter {
  #nr = 0;
  #closed = false;
  readonly #waiters = new Set<() => void>();

  get nr(): number {
    return this.#nr;
  }

  /** How many wait for it to change. */
  get nrWaiting(): number {
    return this.#waiters.size;
  }

  /** Counts one event and wakes everyone who waits. */
  raise(): void {
    this.#nr = (this.#nr + 1) >>> 0;
    this.#wake();
  }

  /** Wakes everyone without counting: the device is gone. */
  close(): void {
    this.#closed = true;
    this.#wake();
  }

  #wake(): void {
    for (const wake of [...this.#waiters]) wake();
  }

  /**
   * Resolves when the number differs from `nr`, at once if it does; also when the device is gone.
   */
  async waitWhile(nr: number, signal?: AbortSignal): Promise<void> {
    while (this.#nr === nr && !this.#closed && signal?.aborted !== true) {
      await new Promise<void>((resolve) => {
        const wake = (): void => {
          this.#waiters.delete(wake);
          signal?.removeEventListener('abort', wake);
          resolve();
        };
        this.#waiters.add(wake);
        signal?.addEventListener('abort', wake);
      });
    }
  }
}
