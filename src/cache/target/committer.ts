/**
 * Committer: what has to wait for a metadata commit, and the commits that it waits for.
 * Answers to struct batcher in drivers/md/dm-cache-target.c (spec: cache, 13).
 *
 * A commit serves everything that was waiting when it began. What is added while one runs waits for
 * the next. Metadata must not be changed while a commit runs: `whenIdle` says when it does not.
 */
import type { Clock } from '../../base/clock.ts';
import { errno } from '../../base/errno.ts';
import { BioList, type Bio } from '../../block/bio.ts';

/** Called with 0 or the errno number of the commit. */
export type AfterCommit = (status: number) => void;

export class Committer {
  readonly #clock: Clock;
  /** Commits if anything has changed; resolves to 0 or an errno number. */
  readonly #commit: () => Promise<number>;
  readonly #issue: (bio: Bio) => void;
  #waiting: AfterCommit[] = [];
  readonly #bios = new BioList();
  /** Somebody has asked for a commit. */
  #isScheduled = false;
  #running: Promise<void> | null = null;

  /** `issue` sends on a bio that waited. */
  constructor(clock: Clock, commit: () => Promise<number>, issue: (bio: Bio) => void) {
    this.#clock = clock;
    this.#commit = commit;
    this.#issue = issue;
  }

  /** Calls `then` after a commit. */
  continueAfterCommit(then: AfterCommit): void {
    this.#waiting.push(then);
    if (this.#isScheduled) this.#start();
  }

  /** Sends `bio` on after a commit; it ends with EIO if that fails. */
  issueAfterCommit(bio: Bio): void {
    this.#bios.push(bio);
    if (this.#isScheduled) this.#start();
  }

  /** Asks for a commit, for those who wait or will. */
  schedule(): void {
    this.#isScheduled = true;
    if (this.#waiting.length > 0 || !this.#bios.isEmpty) this.#start();
  }

  /** Resolves when no run is due or under way. */
  async idle(): Promise<void> {
    while (this.#running !== null) await this.#running;
  }

  #start(): void {
    this.#running ??= new Promise<void>((resolve) => {
      this.#clock.soon(() => {
        void this.#run().finally(() => {
          this.#running = null;
          resolve();
          if (this.#isScheduled) this.schedule();
        });
      });
    });
  }

  async #run(): Promise<void> {
    this.#isScheduled = false;
    const waiting = this.#waiting;
    this.#waiting = [];
    const bios = this.#bios.drain();
    const status = await this.#commit();
    for (const then of waiting) then(status);
    for (const bio of bios) {
      if (status === 0) this.#issue(bio);
      else bio.end(errno.EIO);
    }
  }
}
