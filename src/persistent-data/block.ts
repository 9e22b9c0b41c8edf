/**
 * A metadata block in memory, and the two ways to see it: read-only, and writable.
 *
 * Only the transaction manager hands out WriteBlock, so that a committed block cannot be changed by
 * mistake: such code does not compile. Both are the same object at run time.
 */
import type { ReadView, WriteView } from '../base/struct.ts';
import type { Validator } from './validator.ts';

/** Bytes of a metadata block; the only size there is. */
export const BLOCK_SIZE = 4096;
/** Sectors of a metadata block. */
export const BLOCK_SECTORS = 8;

declare const brand: unique symbol;

/** Number of a metadata block: its byte offset on the metadata device divided by 4096. */
export type BlockNr = number & { readonly [brand]: 'metadata block' };

/** Where a metadata block number is read from a disk structure or counted up: the only casts. */
export const asBlockNr = (n: number): BlockNr => n as BlockNr;

export interface ReadBlock {
  readonly blocknr: BlockNr;
  readonly view: ReadView;
}

export interface WriteBlock extends ReadBlock {
  readonly view: WriteView;
  readonly bytes: Uint8Array;
}

/**
 * A slot of the block manager's cache. Fields other than the block's own belong to the block
 * manager.
 */
export class Block implements WriteBlock {
  readonly bytes: Uint8Array;
  /** The block without its checksum field: what the checksum covers. */
  readonly body: Uint8Array;
  readonly view: DataView;
  blocknr = 0 as BlockNr;
  validator: Validator | null = null;
  dirty = false;
  /** The operation that last used the block; see BlockManager. */
  epoch = 0;
  newer: Block | null = null;
  older: Block | null = null;

  /** Cuts the slot out of `slab` at `offset`. */
  constructor(slab: ArrayBuffer, offset: number) {
    this.bytes = new Uint8Array(slab, offset, BLOCK_SIZE);
    this.body = new Uint8Array(slab, offset + 4, BLOCK_SIZE - 4);
    this.view = new DataView(slab, offset, BLOCK_SIZE);
  }
}
