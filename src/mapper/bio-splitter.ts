/**
 * How a bio goes through a table: cut at target boundaries and at the targets' own limits, each
 * piece a clone that the target maps (spec: dm-core, 5). Answers to __split_and_process_bio in
 * drivers/md/dm.c. Hot path.
 *
 * The original's `remaining` counts its unfinished pieces, one more while pieces are still being
 * made, so that it cannot end early. The first error of a piece is the original's.
 */
import { assert } from '../base/error.ts';
import { errno } from '../base/errno.ts';
import type { Bio } from '../block/bio.ts';
import { BioFlag, BioOp, STATUS_REQUEUE } from '../block/bio.ts';
import { SECTOR_SIZE } from '../base/numbers.ts';
import type { Table } from './table.ts';
import { MapResult, type Target } from './target.ts';

/** Whoever wants to know that an original has ended; it then calls `bio.end`. */
export interface BioOwner {
  /** All pieces have ended; `status` is the first error, 0, or STATUS_REQUEUE. */
  bioDone(bio: Bio, status: number): void;
  /** A target threw: our bug. The piece has failed. */
  mapThrew(error: unknown): void;
}

/** The context of a clone: where it comes back to. One per target, made with the table. */
class Piece {
  readonly target: Target;
  readonly owner: BioOwner;
  readonly onEnd: (clone: Bio) => void;
  constructor(target: Target, owner: BioOwner) {
    this.target = target;
    this.owner = owner;
    this.onEnd = (clone) => this.#ended(clone);
  }

  #ended(clone: Bio): void {
    const status = this.target.hasEndIo ? this.target.endIo(clone) : clone.status;
    const original = clone.parent as Bio;
    clone.parent = null;
    this.target.bios.give(clone);
    pieceDone(this.owner, original, status);
  }
}

export class BioSplitter {
  readonly #table: Table;
  readonly #owner: BioOwner;
  readonly #pieces = new Map<Target, Piece>();
  /** The target and piece of a table of one target, which most are. */
  readonly #only: Piece | null;
  readonly #sizeSectors: number;

  constructor(table: Table, owner: BioOwner) {
    this.#table = table;
    this.#owner = owner;
    for (const target of table.targets()) this.#pieces.set(target, new Piece(target, owner));
    const [first] = this.#pieces.values();
    this.#only = this.#pieces.size === 1 ? (first ?? null) : null;
    this.#sizeSectors = table.sizeSectors;
  }

  /** Maps `bio`; its owner hears of the end. */
  process(bio: Bio): void {
    bio.remaining = 1;
    bio.firstError = 0;
    this.#split(bio);
    pieceDone(this.#owner, bio, 0);
  }

  #split(bio: Bio): void {
    if (bio.op === BioOp.FLUSH) {
      this.#copies(bio, 'nrFlushBios');
    } else if (bio.sector + bio.nrSectors > this.#sizeSectors) {
      bio.firstError = errno.EIO;
    } else if (this.#table.readOnly && bio.isWrite) {
      bio.firstError = errno.EPERM;
    } else if (bio.op === BioOp.DISCARD) {
      this.#ranges(bio, 'nrDiscardBios', this.#table.limits.maxDiscardSectors);
    } else if (bio.op === BioOp.WRITE_ZEROES) {
      this.#ranges(bio, 'nrWriteZeroesBios', this.#table.limits.maxWriteZeroesSectors);
    } else {
      assert((bio.flags & BioFlag.PREFLUSH) === 0, 'the device has split off the flush');
      this.#transfer(bio);
    }
  }

  /** A read or write: pieces in order, running concurrently. */
  #transfer(bio: Bio): void {
    const end = bio.sector + bio.nrSectors;
    let sector = bio.sector;
    while (sector < end) {
      const piece = this.#only ?? this.#pieceAt(sector);
      const { target } = piece;
      let room = target.begin + target.length - sector;
      const max = target.maxIoSectors;
      if (max > 0) room = Math.min(room, max - ((sector - target.begin) % max));
      const n = Math.min(room, end - sector);
      this.#submit(piece, bio, sector, n, 0);
      sector += n;
    }
  }

  /** An empty flush goes to every target, in as many copies as it asks for. */
  #copies(bio: Bio, count: 'nrFlushBios'): void {
    for (const piece of this.#pieces.values()) {
      for (let i = 0; i < piece.target[count]; i++) this.#submit(piece, bio, 0, 0, i);
    }
  }

  /** Discard and write-zeroes: cut at targets and at the largest size, in copies. */
  #ranges(bio: Bio, count: 'nrDiscardBios' | 'nrWriteZeroesBios', max: number): void {
    if (max === 0) {
      bio.firstError = errno.EOPNOTSUPP;
      return;
    }
    const end = bio.sector + bio.nrSectors;
    let sector = bio.sector;
    while (sector < end) {
      const piece = this.#pieceAt(sector);
      const { target } = piece;
      const n = Math.min(target.begin + target.length - sector, end - sector, max);
      for (let i = 0; i < target[count]; i++) this.#submit(piece, bio, sector, n, i);
      sector += n;
    }
  }

  #pieceAt(sector: number): Piece {
    return this.#only ?? (this.#pieces.get(this.#table.find(sector)) as Piece);
  }

  #submit(piece: Piece, bio: Bio, sector: number, nrSectors: number, targetBioNr: number): void {
    const clone = piece.target.bios.take();
    clone.op = bio.op;
    clone.flags = bio.flags;
    clone.sector = sector;
    clone.nrSectors = nrSectors;
    clone.data = bio.data;
    clone.dataOffset = bio.dataOffset + (sector - bio.sector) * SECTOR_SIZE;
    clone.status = 0;
    clone.targetBioNr = targetBioNr;
    clone.parent = bio;
    clone.onEnd = piece.onEnd;
    bio.remaining++;
    try {
      map(piece.target, clone);
    } catch (error) {
      // If the piece has ended, whoever heard of it threw. If not, it would hold up each suspend.
      if (clone.parent !== bio) throw error;
      clone.onEnd = () => undefined;
      this.#owner.mapThrew(error);
      pieceDone(this.#owner, bio, errno.EIO);
    }
  }
}

function map(target: Target, clone: Bio): void {
  switch (target.map(clone)) {
    case MapResult.SUBMITTED:
      break;
    case MapResult.REMAPPED:
      (clone.device as NonNullable<typeof clone.device>).submit(clone);
      break;
    case MapResult.REQUEUE:
      clone.end(STATUS_REQUEUE);
      break;
    case MapResult.KILL:
      clone.end(errno.EIO);
      break;
  }
}

function pieceDone(owner: BioOwner, bio: Bio, status: number): void {
  // A piece handed back makes the whole bio run again, whatever else befell it.
  if (status !== 0 && (bio.firstError === 0 || status === STATUS_REQUEUE)) bio.firstError = status;
  if (--bio.remaining === 0) owner.bioDone(bio, bio.firstError);
}
