/**
 * Waiters: those who wait for one thing to happen; each may give up before.
 */
export class Waiters {
  readonly #waiting = new Set<() => void>();

  get isEmpty(): boolean {
    return this.#waiting.size === 0;
  }

  /** Resolves to true at the next `wake`, to false if `signal` comes first. */
  wait(signal?: AbortSignal): Promise<boolean> {
    if (signal?.aborted === true) return Promise.resolve(false);
    return new Promise((resolve) => {
      const giveUp = (): void => {
        this.#waiting.delete(wake);
        resolve(false);
      };
      const wake = (): void => {
        signal?.removeEventListener('abort', giveUp);
        resolve(true);
      };
      this.#waiting.add(wake);
      signal?.addEventListener('abort', giveUp, { once: true });
    });
  }

  /** It has happened. */
  wake(): void {
    const woken = [...this.#waiting];
    this.#waiting.clear();
    for (const wake of woken) wake();
  }
}
