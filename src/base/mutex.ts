/**
 * Mutex: asynchronous work that must not overlap, in order of arrival. For the control plane; the
 * I/O paths need none, because the event loop is their lock.
 */
export class Mutex {
  #last: Promise<unknown> = Promise.resolve();

  /** Runs `work` after all work given before has settled. */
  run<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#last.then(work);
    this.#last = result.catch(() => undefined);
    return result;
  }
}
