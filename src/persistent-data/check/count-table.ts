/**
 * Reference counts found by a check: one byte a block in pages that exist only where something was
 * counted, with a map for the few large counts. A device of 2^40 blocks costs what is used of it.
 */

/** Small pages: wild numbers, as damage makes them, cost one each. */
const PAGE_BITS = 12;
const PAGE_SIZE = 2 ** PAGE_BITS;
/** A byte that says: the map has the count. */
const LARGE = 255;

export class CountTable {
  readonly #pages = new Map<number, Uint8Array>();
  readonly #large = new Map<number, number>();
  #lastIndex = -1;
  #lastPage: Uint8Array | undefined = undefined;
  #highest = -1;

  /** The highest number ever counted; -1 if none. */
  get highest(): number {
    return this.#highest;
  }

  get(n: number): number {
    const count = this.#page(n)?.[n % PAGE_SIZE] ?? 0;
    return count === LARGE ? (this.#large.get(n) as number) : count;
  }

  /** Counts `by` more references to `n`. */
  add(n: number, by = 1): void {
    const count = this.get(n) + by;
    const page = this.#page(n) ?? this.#addPage(n);
    if (count < LARGE) {
      page[n % PAGE_SIZE] = count;
    } else {
      page[n % PAGE_SIZE] = LARGE;
      this.#large.set(n, count);
    }
    if (n > this.#highest) this.#highest = n;
  }

  /** Whether nothing was counted in the page-sized neighbourhood of all of `[begin, end)`. */
  isUntouched(begin: number, end: number): boolean {
    const last = Math.floor((end - 1) / PAGE_SIZE);
    for (let index = Math.floor(begin / PAGE_SIZE); index <= last; index++) {
      if (this.#pages.has(index)) return false;
    }
    return true;
  }

  #page(n: number): Uint8Array | undefined {
    const index = Math.floor(n / PAGE_SIZE);
    if (index !== this.#lastIndex) {
      this.#lastIndex = index;
      this.#lastPage = this.#pages.get(index);
    }
    return this.#lastPage;
  }

  #addPage(n: number): Uint8Array {
    const page = new Uint8Array(PAGE_SIZE);
    this.#pages.set((this.#lastIndex = Math.floor(n / PAGE_SIZE)), page);
    this.#lastPage = page;
    return page;
  }
}
