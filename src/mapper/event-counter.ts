/**
 * The event number of a mapped device, and those who wait for it to change (spec: dm-core, 6).
 * Answers to dm_table_event and dm_wait_event.
 */
export class EventCounter {
  #nr = 0;
  #closed = false;
  #waiters: (() => void)[] = [];

  get nr(): number {
    return this.#nr;
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
    for (const resolve of this.#waiters.splice(0)) resolve();
  }

  /**
   * Resolves when the number differs from `nr`, at once if it does; also when the device is gone.
   */
  async waitWhile(nr: number, signal?: AbortSignal): Promise<void> {
    while (this.#nr === nr && !this.#closed && signal?.aborted !== true) {
      await new Promise<void>((resolve) => {
        this.#waiters.push(resolve);
        signal?.addEventListener('abort', () => resolve(), { once: true });
      });
    }
  }
}
