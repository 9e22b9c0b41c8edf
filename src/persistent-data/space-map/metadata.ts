/**
 * Metadata space map: reference counts of the metadata device, whose own blocks lie on that device.
 * Answers to drivers/md/persistent-data/dm-space-map-metadata.c (spec: persistent-data, 7.2 to
 * 7.7).
 *
 * Changing a count may shadow a bitmap or an overflow node, which changes counts again. So changes
 * asked for while one is under way are put in a queue, applied by the outermost one before it ends;
 * reading a count adds what is queued. It terminates because a bitmap is shadowed only once per
 * transaction.
 *
 * Invariants: outside of a call the queue is empty; a block freed in this transaction is not handed
 *   out again before commit.
 */
import { codeOf, DmError } from '../../base/error.ts';
import type { ReadView, WriteView } from '../../base/struct.ts';
import { asBlockNr, type BlockNr } from '../block.ts';
import type { TransactionManager } from '../transaction-manager.ts';
import { MetadataIndexStore } from './index-store.ts';
import { METADATA_BLOCKS_MAX, smRoot } from './layout.ts';
import { LowLevelMap, type OldView } from './low-level.ts';
import type { SpaceMap } from './space-map.ts';

/** The kernel's queue has this many places; a longer one means runaway recursion. */
const PENDING_MAX = 1024;

interface Pending {
  readonly delta: 1 | -1;
  readonly begin: number;
  readonly end: number;
}

/** A level of free space at which `reached` is called. */
interface Threshold {
  readonly blocks: number;
  readonly reached: () => void;
}

/** Index block, overflow tree and bitmap: fewer blocks cannot even be counted. */
const OWN_BLOCKS_MIN = 3;

export class MetadataSpaceMap implements SpaceMap<BlockNr> {
  readonly #tm: TransactionManager;
  #map: LowLevelMap;
  #old: OldView;
  /** Where the next search begins: one past the last block handed out. */
  #begin = 0;
  #allocated = 0;
  #depth = 0;
  readonly #pending: Pending[] = [];
  #threshold: Threshold | null = null;
  /** What was free after the last allocation; Infinity if there was none. */
  freeAtAllocation = Number.POSITIVE_INFINITY;
  /**
   * While the map makes itself: blocks are handed out in order from `#begin`, counts are queued.
   */
  #bootstrapEnd: number | null = null;

  private constructor(tm: TransactionManager) {
    this.#tm = tm;
    // Both are set by create or open before anyone else sees the map.
    this.#map = null as unknown as LowLevelMap;
    this.#old = null as unknown as OldView;
    tm.attach(this);
  }

  /**
   * Formats: a map of `nrBlocks` blocks (at most METADATA_BLOCKS_MAX) whose own are counted (7.5).
   */
  static create(tm: TransactionManager, nrBlocks: number): MetadataSpaceMap {
    const sm = new MetadataSpaceMap(tm);
    const n = Math.min(nrBlocks, METADATA_BLOCKS_MAX);
    if (n < OWN_BLOCKS_MIN) throw tooSmall(tm, n);
    sm.#begin = 1; // Block 0 is the superblock.
    sm.#bootstrapEnd = n;
    sm.#map = LowLevelMap.create(tm, MetadataIndexStore.create(tm));
    sm.#map.extend(n);
    sm.#bootstrapEnd = null;
    sm.#queue(1, 0, sm.#begin);
    sm.#applyPending();
    sm.commit();
    return sm;
  }

  /** The map whose root record is at `offset` of the owner's superblock. */
  static open(tm: TransactionManager, view: ReadView, offset: number): MetadataSpaceMap {
    const sm = new MetadataSpaceMap(tm);
    const index = MetadataIndexStore.open(tm, asBlockNr(smRoot.bitmapRoot.get(view, offset)));
    sm.#map = LowLevelMap.open(tm, index, {
      nrBlocks: smRoot.nrBlocks.get(view, offset),
      nrAllocated: smRoot.nrAllocated.get(view, offset),
      refCountRoot: asBlockNr(smRoot.refCountRoot.get(view, offset)),
    });
    sm.#old = sm.#map.oldView();
    return sm;
  }

  get nrBlocks(): number {
    return this.#map.nrBlocks;
  }

  /** Blocks freed in this transaction do not count: a commit must be able to do without them. */
  get nrFree(): number {
    return this.#old.nrBlocks - this.#old.nrAllocated - this.#allocated;
  }

  /**
   * Calls `reached` whenever an allocation leaves `blocks` or fewer free and the one before did
   * not.
   */
  setThreshold(blocks: number, reached: () => void): void {
    this.#threshold = { blocks, reached };
  }

  count(block: BlockNr): number {
    return this.#map.count(block) + this.#pendingFor(block);
  }

  /** Says yes for any block whose bitmap entry is 3, whatever is queued. */
  countIsMoreThanOne(block: BlockNr): boolean {
    if (this.#bootstrapEnd !== null) return false;
    const count = this.#map.bitmapCount(block);
    return count === 3 || count + this.#pendingFor(block) > 1;
  }

  inc(begin: number, end: number): void {
    this.#change(1, begin, end);
  }

  dec(begin: number, end: number): void {
    this.#change(-1, begin, end);
  }

  newBlock(): BlockNr {
    if (this.#bootstrapEnd !== null) return this.#bootstrapBlock(this.#bootstrapEnd);
    try {
      return this.#findBlock();
    } catch (error) {
      codeOf(error);
      const text = 'space map metadata: unable to allocate new metadata block';
      this.#tm.blocks.log.write('error', text);
      throw error;
    }
  }

  #findBlock(): BlockNr {
    let found = this.#map.findCommonFree(this.#old, this.#begin, this.#map.nrBlocks);
    if (found < 0) found = this.#map.findCommonFree(this.#old, 0, this.#begin);
    if (found < 0) throw this.#noSpace();
    this.#begin = found + 1;
    // Nested, the block is not marked yet; it is not found again because the search begins behind
    // it.
    this.#change(1, found, found + 1);
    this.#allocated++;
    this.#checkThreshold();
    return asBlockNr(found);
  }

  commit(): void {
    this.#map.index.commit();
    this.#old = this.#map.oldView();
    this.#allocated = 0;
  }

  /** Grows the map (7.6): what it needs for itself comes from the new area. */
  extend(extra: number): void {
    const oldBlocks = this.#map.nrBlocks;
    const allocated = this.#allocated;
    this.#begin = oldBlocks;
    this.#bootstrapEnd = oldBlocks + extra;
    try {
      this.#map.extend(extra);
      let counted = oldBlocks;
      while (counted < this.#begin) {
        this.#queue(1, counted, this.#begin);
        counted = this.#begin;
        this.#applyPending();
        this.#map.index.commit();
      }
    } finally {
      this.#bootstrapEnd = null;
    }
    this.#allocated = allocated;
  }

  writeRoot(view: WriteView, offset: number): void {
    this.#map.writeRoot(view, offset);
  }

  // --- recursion

  #change(delta: 1 | -1, begin: number, end: number): void {
    if (this.#depth > 0 || this.#bootstrapEnd !== null) {
      this.#queue(delta, begin, end);
      return;
    }
    this.#depth++;
    try {
      this.#applyFirst(delta, begin, end);
      this.#applyAllPending();
    } finally {
      this.#depth--;
    }
  }

  /** As #apply; if that fails what is queued is tried all the same, as the kernel's log tells. */
  #applyFirst(delta: 1 | -1, begin: number, end: number): void {
    try {
      this.#apply(delta, begin, end);
    } catch (error) {
      codeOf(error);
      try {
        this.#applyAllPending();
      } catch (later) {
        codeOf(later);
      }
      throw error;
    }
  }

  #apply(delta: 1 | -1, begin: number, end: number): void {
    if (delta === 1) this.#map.inc(begin, end);
    else this.#map.dec(begin, end);
  }

  #queue(delta: 1 | -1, begin: number, end: number): void {
    if (this.#pending.length === PENDING_MAX) {
      this.#tm.blocks.log.write('error', 'space map metadata: too many recursive allocations');
      throw new DmError('ENOMEM', 'too many recursive allocations');
    }
    this.#pending.push({ delta, begin, end });
  }

  #applyPending(): void {
    this.#depth++;
    try {
      this.#applyAllPending();
    } finally {
      this.#depth--;
    }
  }

  /**
   * Applies the queue in order; applying may append. An entry counts as queued until it is applied.
   */
  #applyAllPending(): void {
    for (let op = this.#pending[0]; op !== undefined; op = this.#pending[0]) {
      this.#apply(op.delta, op.begin, op.end);
      this.#pending.shift();
    }
  }

  #pendingFor(block: number): number {
    let sum = 0;
    for (const op of this.#pending) if (block >= op.begin && block < op.end) sum += op.delta;
    return sum;
  }

  // --- allocation

  #bootstrapBlock(end: number): BlockNr {
    if (this.#begin >= end) throw this.#noSpace();
    return asBlockNr(this.#begin++);
  }

  #noSpace(): DmError {
    return new DmError('ENOSPC', 'no free metadata block');
  }

  #checkThreshold(): void {
    const before = this.freeAtAllocation;
    const now = this.nrFree;
    this.freeAtAllocation = now;
    const threshold = this.#threshold;
    if (threshold !== null && now <= threshold.blocks && before > threshold.blocks) {
      threshold.reached();
    }
  }
}

/** The kernel notices when it counts the blocks that it has taken beyond the end. */
function tooSmall(tm: TransactionManager, nrBlocks: number): DmError {
  const { log } = tm.blocks;
  log.write('error', 'space map common: metadata block out of bounds');
  log.write('error', 'space map common: dm_tm_shadow_block() failed');
  log.write('error', 'space map metadata: dm_sm_metadata_create: apply_bops failed');
  const wanted = `wanted at least ${OWN_BLOCKS_MIN} metadata blocks`;
  return new DmError('EINVAL', `${wanted}, found ${nrBlocks}`);
}
