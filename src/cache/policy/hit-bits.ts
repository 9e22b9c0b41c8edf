/**
 * HitBits: which entries have been hit in this period. Answers to the two hit bitsets of struct
 * smq_policy in drivers/md/dm-cache-policy-smq.c.
 *
 * An entry is marked with the number of the period, so that forgetting all of them, which happens
 * to the hotspot's at each tick and so for nearly every request, costs nothing.
 *
 * Hot path: nothing is allocated after the constructor.
 */
const PERIOD_MAX = 2 ** 32 - 1;

export class HitBits {
  readonly #marks: Uint32Array;
  #period: number;

  /** `firstPeriod` is for tests of what happens after the last one. */
  constructor(nrEntries: number, firstPeriod = 1) {
    this.#marks = new Uint32Array(nrEntries);
    this.#period = firstPeriod;
  }

  has(e: number): boolean {
    return this.#marks[e] === this.#period;
  }

  set(e: number): void {
    this.#marks[e] = this.#period;
  }

  clear(e: number): void {
    this.#marks[e] = 0;
  }

  clearAll(): void {
    if (this.#period === PERIOD_MAX) {
      this.#marks.fill(0);
      this.#period = 0;
    }
    this.#period++;
  }
}
