/**
 * Block manager: metadata blocks of one device, read on demand, checked once, kept in a bounded
 * write-back cache. Answers to drivers/md/persistent-data/dm-block-manager.c (and dm-bufio beneath
 * it).
 *
 * Reading is synchronous; writing happens in `flush` only. The event loop is the lock: nothing else
 * runs between two statements of a metadata operation.
 *
 * Invariants: a dirty block is never evicted; nor is a block used since the last `newOperation`, so
 *   that an operation may keep the blocks it has read. An operation that visits more than it needs
 *   to keep calls `newOperation` in between and reads its way anew.
 * Whenever a block enters the cache, it is brought down to `cacheBlocks` blocks, unless more are
 *   dirty or in use; users commit early when `nrDirty` grows.
 * What a crash during `flush` leaves: any subset of the dirty blocks, none of which the committed
 * state refers to; the superblock goes alone, in a flush of its own, after all others are durable.
 */
import { assert, codeOf, DmError } from '../base/error.ts';
import { errno, errnoName } from '../base/errno.ts';
import { divDown, SECTOR_SIZE } from '../base/numbers.ts';
import type { Log } from '../base/log.ts';
import { BioOp } from '../block/bio.ts';
import { flushDevice, request, type BlockDevice } from '../block/device.ts';
import { BLOCK_SECTORS, BLOCK_SIZE, Block, type BlockNr, type ReadBlock } from './block.ts';
import type { Validator } from './validator.ts';

export const CACHE_BYTES_DEFAULT = 256 * 1024 * 1024;

/** Blocks are cut from slabs of this many bytes. */
const SLAB_BYTES = 1024 * 1024;
const SLAB_BLOCKS = SLAB_BYTES / BLOCK_SIZE;
/** Neighbouring dirty blocks are written together, up to this many. */
const RUN_BLOCKS_MAX = 64;
/** Writes in flight at once during a flush. */
const RUNS_IN_FLIGHT_MAX = 16;

export class BlockManager {
  /** Replaced only by another handle of the same device, and not during a flush. */
  device: BlockDevice;
  readonly log: Log;
  readonly #cacheBlocks: number;
  readonly #blocks = new Map<number, Block>();
  readonly #dirty = new Set<Block>();
  #free: Block[] = [];
  #newest: Block | null = null;
  #oldest: Block | null = null;
  #epoch = 1;
  #readOnly = false;
  #flushing = false;

  constructor(device: BlockDevice, log: Log, cacheBytes: number = CACHE_BYTES_DEFAULT) {
    this.device = device;
    this.log = log;
    this.#cacheBlocks = Math.max(16, divDown(cacheBytes, BLOCK_SIZE));
  }

  /** Blocks that the device holds now. */
  get nrBlocks(): number {
    return divDown(this.device.sizeSectors, BLOCK_SECTORS);
  }

  get nrDirty(): number {
    return this.#dirty.size;
  }

  /** Blocks in memory. */
  get nrCached(): number {
    return this.#blocks.size;
  }

  /** Enough is dirty that the owner should commit, for the cache to stay within its bound. */
  get wantsCommit(): boolean {
    return this.#dirty.size > this.#cacheBlocks / 2;
  }

  get readOnly(): boolean {
    return this.#readOnly;
  }

  setReadOnly(readOnly: boolean): void {
    this.#readOnly = readOnly;
  }

  /** Blocks read before this call may be evicted from now on. */
  newOperation(): void {
    this.#epoch++;
  }

  /**
   * The block, checked as `validator`'s kind when it enters the cache. Throws DmError: EIO, the
   * check's own, or EINVAL when the cached block is of another kind.
   */
  read(blocknr: BlockNr, validator: Validator): ReadBlock {
    return this.#get(blocknr, validator);
  }

  /**
   * As `read`, writable in place: for block 0, and for the transaction manager. Throws EPERM if
   * read-only.
   */
  write(blocknr: BlockNr, validator: Validator): Block {
    this.#mustBeWritable();
    const block = this.#get(blocknr, validator);
    this.#markDirty(block);
    return block;
  }

  /** A block of 4096 zero bytes, dirty, never read from the device. Throws EPERM if read-only. */
  create(blocknr: BlockNr, validator: Validator): Block {
    this.#mustBeWritable();
    this.#mustExist(blocknr);
    let block = this.#blocks.get(blocknr);
    if (block === undefined) block = this.#insert(blocknr);
    else this.#touch(block);
    block.bytes.fill(0);
    block.validator = validator;
    this.#markDirty(block);
    return block;
  }

  /** Whether a block is all zero on the device; it is not checked and not cached. */
  isZero(blocknr: BlockNr): boolean {
    const bytes = new Uint8Array(BLOCK_SIZE);
    this.#readInto(blocknr, bytes);
    return bytes.every((byte) => byte === 0);
  }

  /**
   * Writes every dirty block, then flushes the device. Rejects with EIO (EPERM if read-only): then
   * all are still dirty, because what a failed flush leaves on the disk is unknown. No operation
   * spans a flush.
   */
  async flush(): Promise<void> {
    this.#mustBeWritable();
    assert(!this.#flushing, 'one flush at a time');
    this.#flushing = true;
    try {
      await this.#writeDirty();
      await flushDevice(this.device);
      this.#markAllClean();
    } finally {
      this.#flushing = false;
    }
  }

  /** Forgets everything in memory, dirty or not: the next read comes from the device. */
  reset(): void {
    assert(!this.#flushing, 'nothing is forgotten while it is written');
    for (const block of this.#blocks.values()) {
      block.dirty = false;
      block.validator = null;
      block.newer = null;
      block.older = null;
      this.#free.push(block);
    }
    this.#blocks.clear();
    this.#dirty.clear();
    this.#newest = null;
    this.#oldest = null;
    this.#epoch++;
  }

  // --- cache

  #get(blocknr: BlockNr, validator: Validator): Block {
    const block = this.#blocks.get(blocknr);
    if (block === undefined) return this.#load(blocknr, validator);
    if (block.validator !== validator) {
      const kinds = `(old=${block.validator?.name} vs new=${validator.name})`;
      const text = `validator mismatch ${kinds} for block ${blocknr}`;
      this.log.write('error', `block manager: ${text}`);
      throw new DmError('EINVAL', text);
    }
    this.#touch(block);
    return block;
  }

  #load(blocknr: BlockNr, validator: Validator): Block {
    this.#mustExist(blocknr);
    const block = this.#insert(blocknr);
    try {
      this.#readInto(blocknr, block.bytes);
      validator.check(block, this.log);
    } catch (error) {
      this.#forget(block);
      if (codeOf(error) !== errno.EIO) {
        const text = `${validator.name} validator check failed for block ${blocknr}`;
        this.log.write('error', `block manager: ${text}`);
      }
      throw error;
    }
    block.validator = validator;
    return block;
  }

  #readInto(blocknr: BlockNr, bytes: Uint8Array): void {
    const code = this.device.readSync(blocknr * BLOCK_SECTORS, BLOCK_SECTORS, bytes, 0);
    if (code === 0) return;
    throw new DmError(
      errnoName(code),
      `${this.device.name}: cannot read metadata block ${blocknr}`,
    );
  }

  #mustExist(blocknr: BlockNr): void {
    if (blocknr < this.nrBlocks) return;
    const wanted = `wanted a metadata block below ${this.nrBlocks}`;
    throw new DmError('EIO', `${this.device.name}: ${wanted}, found ${blocknr}`);
  }

  #mustBeWritable(): void {
    if (this.#readOnly) throw new DmError('EPERM', 'the metadata is read-only');
  }

  #insert(blocknr: BlockNr): Block {
    const block = this.#takeSlot();
    block.blocknr = blocknr;
    block.epoch = this.#epoch;
    this.#blocks.set(blocknr, block);
    this.#link(block);
    return block;
  }

  #takeSlot(): Block {
    this.#evict();
    if (this.#free.length === 0) {
      const slab = new ArrayBuffer(SLAB_BYTES);
      for (let i = SLAB_BLOCKS - 1; i >= 0; i--) this.#free.push(new Block(slab, i * BLOCK_SIZE));
    }
    const block = this.#free.pop();
    assert(block !== undefined, 'a new slab has free blocks');
    return block;
  }

  /** Makes room for one more block: the least recently used clean ones go, unless in use. */
  #evict(): void {
    while (this.#blocks.size >= this.#cacheBlocks) {
      const oldest = this.#oldest;
      // The list is in order of use: if its oldest block is in use, all are.
      if (oldest === null || oldest.epoch === this.#epoch) return;
      this.#forget(oldest);
    }
  }

  #forget(block: Block): void {
    this.#unlink(block);
    this.#blocks.delete(block.blocknr);
    block.validator = null;
    this.#free.push(block);
  }

  #markDirty(block: Block): void {
    assert(!this.#flushing, 'no block changes while it is written');
    if (block.dirty) return;
    this.#unlink(block);
    block.dirty = true;
    this.#dirty.add(block);
  }

  #markAllClean(): void {
    this.newOperation(); // The list is in order of use only if none of these is in use.
    for (const block of this.#dirty) {
      block.dirty = false;
      this.#link(block);
    }
    this.#dirty.clear();
  }

  #touch(block: Block): void {
    block.epoch = this.#epoch;
    if (block.dirty || this.#newest === block) return;
    this.#unlink(block);
    this.#link(block);
  }

  // The list holds the clean blocks in order of use; dirty ones are not in it.

  #link(block: Block): void {
    block.newer = null;
    block.older = this.#newest;
    if (this.#newest !== null) this.#newest.newer = block;
    this.#newest = block;
    this.#oldest ??= block;
  }

  #unlink(block: Block): void {
    if (block.newer !== null) block.newer.older = block.older;
    else this.#newest = block.older;
    if (block.older !== null) block.older.newer = block.newer;
    else this.#oldest = block.newer;
    block.newer = null;
    block.older = null;
  }

  // --- writing

  /** Writes the dirty blocks, neighbours together. */
  async #writeDirty(): Promise<void> {
    const blocks = [...this.#dirty].sort((a, b) => a.blocknr - b.blocknr);
    for (const block of blocks) {
      assert(block.validator !== null, 'a dirty block has a kind');
      block.validator.prepare(block);
    }
    const runs = runsOf(blocks);
    let next = 0;
    const worker = async (): Promise<void> => {
      for (let run = runs[next++]; run !== undefined; run = runs[next++]) await this.#writeRun(run);
    };
    const workers = Array.from({ length: Math.min(RUNS_IN_FLIGHT_MAX, runs.length) }, worker);
    const failed = (await Promise.allSettled(workers)).find((r) => r.status === 'rejected');
    if (failed !== undefined) throw failed.reason;
  }

  async #writeRun(run: Block[]): Promise<void> {
    const first = run[0];
    assert(first !== undefined, 'a run is not empty');
    let data = first.bytes;
    if (run.length > 1) {
      data = new Uint8Array(run.length * BLOCK_SIZE);
      for (const [i, block] of run.entries()) data.set(block.bytes, i * BLOCK_SIZE);
    }
    const nrSectors = data.length / SECTOR_SIZE;
    await request(this.device, BioOp.WRITE, first.blocknr * BLOCK_SECTORS, nrSectors, data);
  }
}

/** Cuts blocks, in order of number, into runs of neighbours. */
function runsOf(blocks: Block[]): Block[][] {
  const runs: Block[][] = [];
  let run: Block[] = [];
  for (const block of blocks) {
    const last = run.at(-1);
    const joins = last !== undefined && block.blocknr === last.blocknr + 1;
    if (!joins || run.length === RUN_BLOCKS_MAX) {
      run = [];
      runs.push(run);
    }
    run.push(block);
  }
  return runs;
}
