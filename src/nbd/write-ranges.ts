/**
 * WriteRanges: the writes in flight on one device, over all connections, so that a write of part of
 * a sector (read, change, write) never runs beside another write of the same sectors. Hot path:
 * `begin` and `end` while no partial write is about.
 *
 * Plain writes that overlap each other are not ordered: the protocol leaves that undefined.
 */

/** A write in flight or waiting. Embedded in the request; linked by WriteRanges alone. */
export interface WriteRange {
  beginSector: number;
  endSector: number;
  /** Reads the sectors first: needs them for itself. */
  partial: boolean;
  previous: WriteRange | null;
  next: WriteRange | null;
  /** Called when the range may go on, if `begin` said to wait. */
  start: () => void;
}

export class WriteRanges {
  #first: WriteRange | null = null;
  /** Partial ranges in flight or waiting. */
  #nrPartial = 0;
  readonly #waiting: WriteRange[] = [];

  /** Enters a range. False: it must wait; its `start` will be called. */
  begin(range: WriteRange): boolean {
    if (range.partial) this.#nrPartial++;
    if (this.#nrPartial > 0 && this.#mustWait(range)) {
      this.#waiting.push(range);
      return false;
    }
    this.#link(range);
    return true;
  }

  end(range: WriteRange): void {
    this.#unlink(range);
    if (range.partial) this.#nrPartial--;
    if (this.#waiting.length > 0) this.#startWaiting();
  }

  #mustWait(range: WriteRange): boolean {
    return this.#waiting.some((other) => conflicts(range, other)) || this.#isBusy(range);
  }

  #isBusy(range: WriteRange): boolean {
    for (let other = this.#first; other !== null; other = other.next) {
      if (conflicts(range, other)) return true;
    }
    return false;
  }

  /** Starts those that nothing stands before any more, in order of arrival. */
  #startWaiting(): void {
    const waiting = this.#waiting.splice(0);
    const startable: WriteRange[] = [];
    for (const range of waiting) {
      if (this.#mustWait(range)) {
        this.#waiting.push(range);
      } else {
        this.#link(range);
        startable.push(range);
      }
    }
    for (const range of startable) range.start();
  }

  #link(range: WriteRange): void {
    range.previous = null;
    range.next = this.#first;
    if (this.#first !== null) this.#first.previous = range;
    this.#first = range;
  }

  #unlink(range: WriteRange): void {
    if (range.previous !== null) range.previous.next = range.next;
    else this.#first = range.next;
    if (range.next !== null) range.next.previous = range.previous;
    range.previous = null;
    range.next = null;
  }
}

function conflicts(a: WriteRange, b: WriteRange): boolean {
  if (!a.partial && !b.partial) return false;
  return a.beginSector < b.endSector && b.beginSector < a.endSector;
}
