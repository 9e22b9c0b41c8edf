/**
 * Seeded workloads on a thin pool that can be run here and in a real kernel alike, and a model that
 * knows what every device holds afterwards.
 */
import { Random } from './random.ts';

/** Content is followed in pieces of this many bytes. */
export const PIECE = 4096;

/** One step; the same words drive both sides. Offsets and lengths are in bytes. */
export type Step =
  | { readonly op: 'create'; readonly id: number }
  | { readonly op: 'snap'; readonly id: number; readonly origin: number }
  | { readonly op: 'delete'; readonly id: number }
  | { readonly op: 'txid'; readonly from: number; readonly to: number }
  | {
      readonly op: 'write';
      readonly id: number;
      readonly offset: number;
      readonly length: number;
      readonly byte: number;
      readonly sync: boolean;
    }
  | {
      readonly op: 'discard';
      readonly id: number;
      readonly offset: number;
      readonly length: number;
    }
  | { readonly op: 'sync'; readonly id: number }
  /** Takes or releases the pool's metadata snapshot. */
  | { readonly op: 'hold' }
  | { readonly op: 'release' };

export interface Shape {
  /** Data block size in bytes. */
  readonly blockBytes: number;
  /** Blocks of each thin device. */
  readonly thinBlocks: number;
  readonly nrSteps: number;
  /** Devices alive at once. */
  readonly idsMax: number;
  /** Data blocks of the pool: the workload never runs out. */
  readonly dataBlocks: number;
  /** Partial writes leave the rest of a new block as zeroes. */
  readonly zeroing: boolean;
  /** Without discards; see both-directions.test.ts. */
  readonly noDiscards?: boolean;
  /** Metadata snapshots are taken and released. */
  readonly metadataSnaps?: boolean;
  /** How often a device is made on top of the usual, of all steps. */
  readonly creations?: number;
  /** Discards are passed down, or not, on both sides; if not given, as the disks can. */
  readonly passdown?: boolean;
  /** Each write stays in one block and is synced, and so is each discard: a step, a commit. */
  readonly commitEach?: boolean;
}

/** What a device holds: piece number -> byte. Missing: unknown or zero, by the shape's zeroing. */
export type Content = Map<number, number>;

/** Makes a workload; `model` tells what it leaves. */
export function makeWorkload(seed: number, shape: Shape): { steps: Step[]; model: Model } {
  const random = new Random(seed);
  const model = new Model(shape);
  const steps: Step[] = [];
  const add = (step: Step): void => {
    steps.push(step);
    model.apply(step);
  };
  add({ op: 'create', id: 0 });
  while (steps.length < shape.nrSteps) {
    const ids = [...model.devices.keys()];
    const id = random.pick(ids);
    if (shape.metadataSnaps === true && random.chance(0.03)) {
      add({ op: model.held ? 'release' : 'hold' });
      continue;
    }
    const more = random.chance(shape.creations ?? 0);
    const roll = more ? 0.9 : random.next();
    if (roll < 0.6) add(randomWrite(random, shape, id));
    else if (roll < 0.75 && shape.noDiscards !== true) {
      add(randomDiscard(random, shape, id));
      if (shape.commitEach === true) add({ op: 'sync', id });
    } else if (roll < 0.8) add({ op: 'sync', id });
    else if (roll < 0.83) add({ op: 'txid', from: model.txid, to: random.below(1e9) });
    else if (roll < 0.93 && ids.length < shape.idsMax) {
      const fresh = random.between(1, 9999);
      if (model.devices.has(fresh)) continue;
      add(
        random.chance(0.25) ? { op: 'create', id: fresh } : { op: 'snap', id: fresh, origin: id },
      );
    } else if (ids.length > 1) add({ op: 'delete', id });
  }
  return { steps, model };
}

function randomWrite(random: Random, shape: Shape, id: number): Step {
  const piecesPerBlock = shape.blockBytes / PIECE;
  const pieces = piecesPerBlock * shape.thinBlocks;
  const whole = random.chance(0.3) && shape.blockBytes <= 8 * 1024 * 1024;
  const begin = whole ? random.below(shape.thinBlocks) * piecesPerBlock : random.below(pieces);
  const wanted = whole ? piecesPerBlock : random.between(1, Math.min(40, piecesPerBlock * 2));
  const room =
    shape.commitEach === true ? piecesPerBlock - (begin % piecesPerBlock) : pieces - begin;
  const n = Math.min(wanted, room);
  return {
    op: 'write',
    id,
    offset: begin * PIECE,
    length: n * PIECE,
    byte: random.between(1, 255),
    sync: shape.commitEach === true || random.chance(0.3),
  };
}

function randomDiscard(random: Random, shape: Shape, id: number): Step {
  const size = shape.blockBytes * shape.thinBlocks;
  const offset = random.below(size / PIECE) * PIECE;
  const most = Math.min(size - offset, shape.blockBytes * 6);
  const length = random.between(1, most / PIECE) * PIECE;
  return { op: 'discard', id, offset, length };
}

/** What a pool should hold after some steps. */
export class Model {
  readonly shape: Shape;
  readonly devices = new Map<number, Content>();
  txid = 0;
  held = false;

  constructor(shape: Shape) {
    this.shape = shape;
  }

  apply(step: Step): void {
    switch (step.op) {
      case 'create':
        this.devices.set(step.id, new Map());
        break;
      case 'snap':
        this.devices.set(step.id, new Map(this.#content(step.origin)));
        break;
      case 'delete':
        this.devices.delete(step.id);
        break;
      case 'txid':
        this.txid = step.to;
        break;
      case 'write':
        for (let at = step.offset; at < step.offset + step.length; at += PIECE) {
          this.#content(step.id).set(at / PIECE, step.byte);
        }
        break;
      case 'discard':
        this.#discard(step.id, step.offset, step.length);
        break;
      case 'hold':
      case 'release':
        this.held = step.op === 'hold';
        break;
      case 'sync':
        break;
    }
  }

  #content(id: number): Content {
    const content = this.devices.get(id);
    if (content === undefined) throw new Error(`no device ${id} in the model`);
    return content;
  }

  /** Only whole blocks go. */
  #discard(id: number, offset: number, length: number): void {
    const { blockBytes } = this.shape;
    const begin = Math.ceil(offset / blockBytes) * (blockBytes / PIECE);
    const end = Math.floor((offset + length) / blockBytes) * (blockBytes / PIECE);
    const content = this.#content(id);
    for (const piece of [...content.keys()]) {
      if (piece >= begin && piece < end) content.delete(piece);
    }
  }

  /** Pieces worth looking at: all that were ever written in any device, and their neighbours. */
  pieces(): number[] {
    const found = new Set<number>();
    for (const content of this.devices.values()) {
      for (const piece of content.keys()) {
        found.add(piece);
        if (this.shape.zeroing) {
          if (piece > 0) found.add(piece - 1);
          found.add(piece + 1);
        }
      }
    }
    const limit = (this.shape.blockBytes / PIECE) * this.shape.thinBlocks;
    return [...found].filter((piece) => piece < limit).sort((a, b) => a - b);
  }

  /** What a piece holds: a byte, or undefined where anything may be (no zeroing). */
  expect(id: number, piece: number): number | undefined {
    const byte = this.#content(id).get(piece);
    return byte ?? (this.shape.zeroing ? 0 : undefined);
  }
}
