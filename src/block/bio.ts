/**
 * Bio: one block request on its way down, and the list and pool that hold bios.
 * Answers to the kernel's struct bio. Hot path.
 *
 * A bio is mapped, not copied: `data` belongs to the submitter and is read or filled in place, from
 * `dataOffset`, until `end` is called. A bio ends exactly once, with a status: 0, or a positive
 * Linux errno number. Whoever receives a bio by `submit` owns it until then; the submitter owns it
 * again from the moment its `onEnd` is called, which may be before `submit` returns.
 *
 * Invariants: `sector` and `nrSectors` are in 512-byte sectors; FLUSH has nrSectors 0 and no data;
 * READ and WRITE have `nrSectors * 512` bytes of data; DISCARD and WRITE_ZEROES have no data.
 */
import { assert } from '../base/error.ts';
import type { BlockDevice } from './device.ts';

/** What a bio asks for. FLUSH is the kernel's empty flush. */
export const BioOp = {
  READ: 0,
  WRITE: 1,
  FLUSH: 2,
  DISCARD: 3,
  WRITE_ZEROES: 9,
} as const;
export type BioOp = (typeof BioOp)[keyof typeof BioOp];

/** Flag bits of a bio. */
export const BioFlag = {
  /** Durable before it ends (writes only). */
  FUA: 1,
  /** Flush before the write; the mapper core turns this into an empty flush and a plain write. */
  PREFLUSH: 2,
  /** WRITE_ZEROES: keep the space allocated. */
  NOUNMAP: 4,
} as const;

const NO_DATA = new Uint8Array(0);

function endWithoutOwner(): void {
  assert(false, 'a submitted bio has an onEnd');
}

export class Bio {
  op: BioOp = BioOp.READ;
  flags = 0;
  sector = 0;
  nrSectors = 0;
  data: Uint8Array = NO_DATA;
  dataOffset = 0;
  /** Set by `end`: 0, or a positive errno number. */
  status = 0;
  /** Called once, by `end`. */
  onEnd: (bio: Bio) => void = endWithoutOwner;
  /** The submitter's own. */
  context: unknown = null;
  /** Where a target that remapped the bio sends it. */
  device: BlockDevice | null = null;
  /** Which copy of a flush or discard this is, for a target that asked for several. */
  targetBioNr = 0;
  /** Per-bio data of the target that maps this bio; made by the target, kept with a pooled bio. */
  perBio: unknown = null;
  /** The bio this one is a piece of, for the layer that split it. */
  parent: Bio | null = null;
  /** Pieces of this bio that have not ended, and the first error among them. */
  remaining = 0;
  firstError = 0;
  /** Link of the one list or pool that holds this bio. */
  next: Bio | null = null;

  /** Ends the bio: hands it back to its submitter with `status`. */
  end(status: number): void {
    this.status = status;
    this.onEnd(this);
  }

  /** One past the last sector. */
  get endSector(): number {
    return this.sector + this.nrSectors;
  }

  /** True for what changes the device: WRITE, DISCARD, WRITE_ZEROES. */
  get isWrite(): boolean {
    return this.op === BioOp.WRITE || this.op >= BioOp.DISCARD;
  }

  /** True for what a flush promise depends on: an empty flush or a FUA write. */
  get isFlushOrFua(): boolean {
    return this.op === BioOp.FLUSH || (this.flags & (BioFlag.FUA | BioFlag.PREFLUSH)) !== 0;
  }

  /** Forgets the payload and links, so that a pooled bio keeps nothing alive. */
  reset(): void {
    this.data = NO_DATA;
    this.context = null;
    this.device = null;
    this.parent = null;
    this.next = null;
  }
}

/**
 * Status with which a target hands a bio back to the mapper core, to be mapped again after resume.
 * Never seen outside the mapper.
 */
export const STATUS_REQUEUE = -1;

/** A first-in first-out list of bios, linked through `next`. A bio is in at most one list. */
export class BioList {
  #head: Bio | null = null;
  #tail: Bio | null = null;
  #size = 0;

  get size(): number {
    return this.#size;
  }

  get isEmpty(): boolean {
    return this.#head === null;
  }

  push(bio: Bio): void {
    bio.next = null;
    if (this.#tail === null) this.#head = bio;
    else this.#tail.next = bio;
    this.#tail = bio;
    this.#size++;
  }

  shift(): Bio | null {
    const bio = this.#head;
    if (bio === null) return null;
    this.#head = bio.next;
    if (this.#head === null) this.#tail = null;
    bio.next = null;
    this.#size--;
    return bio;
  }

  /** Moves all of `other` to the end of this list, in order. */
  splice(other: BioList): void {
    for (let bio = other.shift(); bio !== null; bio = other.shift()) this.push(bio);
  }

  /** Takes everything out, oldest first. */
  drain(): Bio[] {
    const bios: Bio[] = [];
    for (let bio = this.shift(); bio !== null; bio = this.shift()) bios.push(bio);
    return bios;
  }
}

/** Bios for reuse: `take` one, `give` it back after it ended. Holds at most `limit` idle ones. */
export class BioPool {
  #free: Bio | null = null;
  #nrFree = 0;
  readonly #limit: number;
  readonly #makePerBio: () => unknown;

  /** `makePerBio` makes the per-bio data of each new bio; it stays with the bio for its life. */
  constructor(makePerBio: () => unknown = () => null, limit = 4096) {
    this.#makePerBio = makePerBio;
    this.#limit = limit;
  }

  take(): Bio {
    const bio = this.#free;
    if (bio === null) {
      const made = new Bio();
      made.perBio = this.#makePerBio();
      return made;
    }
    this.#free = bio.next;
    this.#nrFree--;
    bio.next = null;
    return bio;
  }

  give(bio: Bio): void {
    if (this.#nrFree >= this.#limit) return;
    bio.reset();
    bio.next = this.#free;
    this.#free = bio;
    this.#nrFree++;
  }
}
