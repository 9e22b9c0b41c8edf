/**
 * CommitLock: says that a commit runs, during which nothing may change the metadata. Everything
 * else that changes it is synchronous, so this is the only lock that metadata needs.
 */
import { assert } from '../base/error.ts';

export class CommitLock {
  #running: Promise<void> | null = null;

  get isHeld(): boolean {
    return this.#running !== null;
  }

  /** Holds the lock while `commit` runs, and settles as that does. One at a time. */
  hold(commit: () => Promise<void>): Promise<void> {
    assert(this.#running === null, 'one commit at a time');
    const done = commit().finally(() => {
      this.#running = null;
    });
    this.#running = done;
    return done;
  }

  /** Resolves when the running commit, if any, has ended. Another may run by then: look again. */
  async whenFree(): Promise<void> {
    await this.#running?.catch(() => undefined);
  }
}
