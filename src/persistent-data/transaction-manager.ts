/**
 * Transaction manager: hands out the only writable metadata blocks, by shadow paging.
 * Answers to drivers/md/persistent-data/dm-transaction-manager.c (spec: persistent-data, 5).
 *
 * A block of the last committed state is never changed in place: `shadow` copies it to a block that
 * is free in both the committed and the current state. Aborting is forgetting.
 *
 *   committed ──shadow, newBlock──► changed in memory ──flush──► durable, not yet referred to
 *       ▲                                                             │
 *       └───────────────── superblock written, flushed ◄──────────────┘
 *
 * What a crash leaves: the state whose superblock is on the disk, whole.
 * Invariant: the shadow set holds exactly the blocks made in this transaction.
 */
import { present } from '../base/error.ts';
import type { Block, BlockNr, ReadBlock, WriteBlock } from './block.ts';
import type { BlockManager } from './block-manager.ts';
import type { SpaceMap } from './space-map/space-map.ts';
import type { Validator } from './validator.ts';

export class TransactionManager {
  readonly blocks: BlockManager;
  #spaceMap: SpaceMap<BlockNr> | null = null;
  readonly #shadows = new Set<BlockNr>();

  /**
   * Set by `shadow`: the block was shared and copied, so the caller must count one more reference
   * to everything that the copy refers to.
   */
  shadowWasShared = false;

  constructor(blocks: BlockManager) {
    this.blocks = blocks;
  }

  /** The metadata space map; it needs the manager for its own blocks, so it comes second. */
  get spaceMap(): SpaceMap<BlockNr> {
    return present(this.#spaceMap, 'the space map is attached');
  }

  attach(spaceMap: SpaceMap<BlockNr>): void {
    this.#spaceMap = spaceMap;
  }

  /** The block for reading. Throws DmError as BlockManager.read. */
  read(blocknr: BlockNr, validator: Validator): ReadBlock {
    return this.blocks.read(blocknr, validator);
  }

  /** Allocates a block with reference count 1, all zero. Throws ENOSPC. */
  newBlock(validator: Validator): WriteBlock {
    const blocknr = this.spaceMap.newBlock();
    const block = this.blocks.create(blocknr, validator);
    this.#shadows.add(blocknr);
    return block;
  }

  /**
   * A writable form of a block that one reference of the caller points to. That reference moves to
   * the block returned, whose number the caller must store; see `shadowWasShared`.
   */
  shadow(blocknr: BlockNr, validator: Validator): WriteBlock {
    this.shadowWasShared = this.spaceMap.countIsMoreThanOne(blocknr);
    if (this.#shadows.has(blocknr) && !this.shadowWasShared) {
      return this.blocks.write(blocknr, validator);
    }
    return this.#copy(blocknr, validator);
  }

  #copy(blocknr: BlockNr, validator: Validator): WriteBlock {
    const wasShared = this.shadowWasShared; // Allocating may shadow blocks of the space map.
    const copy = this.spaceMap.newBlock();
    this.spaceMap.dec(blocknr, blocknr + 1);
    const original = this.blocks.read(blocknr, validator) as Block;
    const block = this.blocks.create(copy, validator);
    block.bytes.set(original.bytes);
    this.#shadows.add(copy);
    this.shadowWasShared = wasShared;
    return block;
  }

  inc(blocknr: BlockNr): void {
    this.spaceMap.inc(blocknr, blocknr + 1);
  }

  dec(blocknr: BlockNr): void {
    this.spaceMap.dec(blocknr, blocknr + 1);
  }

  /** The exact reference count. */
  count(blocknr: BlockNr): number {
    return this.spaceMap.count(blocknr);
  }

  /** Whether anyone else refers to the block; may say yes for a count that only looks high. */
  isShared(blocknr: BlockNr): boolean {
    return this.spaceMap.countIsMoreThanOne(blocknr);
  }

  /** First half of a commit: everything but the superblock becomes durable. */
  async preCommit(): Promise<void> {
    this.spaceMap.commit();
    // A crash here leaves the old state: the old superblock refers to none of these blocks.
    await this.blocks.flush();
  }

  /** Second half: `writeSuperblock` changes block 0 in memory; then it becomes durable, alone. */
  async commit(writeSuperblock: () => void): Promise<void> {
    writeSuperblock();
    this.#shadows.clear();
    // A crash here leaves the old or the new superblock: its used part lies within one sector.
    await this.blocks.flush();
  }
}
