/**
 * PoolMetadata: a thin pool's metadata, its transactions, and every operation on them.
 * Answers to drivers/md/dm-thin-metadata.c and struct dm_pool_metadata (spec: thin, 1).
 *
 * Operations are synchronous; `commit` is not, and nothing may change while it runs: callers wait
 * for `whenIdle`. An operation that fails half-way throws MetadataOperationError: the transaction
 * must then be aborted. Errors of use (EEXIST, ENODATA, EBUSY, EINVAL) come before anything is
 * changed.
 *
 * What a crash leaves: exactly the state of the last commit.
 * Invariants: a device that exists has an entry in both trees; held blocks are free in the space
 *   map and are handed to no one else until they are inserted or given back.
 * Does not: move data, or know tables, modes and bios.
 */
import { assert, codeOf, DmError } from '../../base/error.ts';
import type { Log } from '../../base/log.ts';
import { getLe64 } from '../../base/struct.ts';
import type { BlockDevice } from '../../block/device.ts';
import type { Block, BlockNr } from '../../persistent-data/block.ts';
import { asBlockNr, BLOCK_SECTORS } from '../../persistent-data/block.ts';
import { BlockManager } from '../../persistent-data/block-manager.ts';
import { BTree, makeEntry } from '../../persistent-data/btree/btree.ts';
import { deleteTree } from '../../persistent-data/btree/delete.ts';
import { insert, makeValue } from '../../persistent-data/btree/insert.ts';
import { insertNested } from '../../persistent-data/btree/nested.ts';
import { remove, removeLeaves } from '../../persistent-data/btree/remove.ts';
import { blockNrAt, plainValueType } from '../../persistent-data/btree/value-type.ts';
import { CommitLock } from '../../persistent-data/commit-lock.ts';
import { MetadataOperationError } from '../../persistent-data/operation-error.ts';
import { DiskSpaceMap, type DataBlock } from '../../persistent-data/space-map/disk.ts';
import { METADATA_BLOCKS_MAX } from '../../persistent-data/space-map/layout.ts';
import { MetadataSpaceMap } from '../../persistent-data/space-map/metadata.ts';
import { TransactionManager } from '../../persistent-data/transaction-manager.ts';
import { deviceDetails, readDetails, writeDetails, type DeviceDetails } from './device-details.ts';
import { HeldBlocks } from './held-blocks.ts';
import { dataBlockAt, MAPPING_SIZE, mappingValueType, setMapping, timeAt } from './mapping.ts';
import {
  MAGIC,
  METADATA_BLOCK_SIZE_SECTORS,
  NEEDS_CHECK,
  superblock,
  SUPERBLOCK_LOCATION,
  superblockValidator,
  VERSION,
} from './superblock.ts';
import { ThinDevice, type MappedRun, type Mapping } from './thin-device.ts';

/** The most metadata blocks kept for commits (spec: thin, 1.8). */
const RESERVE_BLOCKS_MAX = 4096;

export interface OpenOptions {
  /** In sectors; must be what the metadata was formatted with. */
  readonly dataBlockSize: number;
  /** Format a device whose first block is zero; otherwise such a device is refused with EPERM. */
  readonly mayFormat: boolean;
  /** Memory for metadata blocks. */
  readonly cacheBytes?: number;
}

/** All of the in-memory state that an abort throws away. */
interface Structures {
  readonly tm: TransactionManager;
  readonly metadataSm: MetadataSpaceMap;
  readonly dataSm: DiskSpaceMap;
  /** Top level: device id -> root of the device's tree. Dropping a value drops the tree. */
  readonly topLevel: BTree;
  /** One device's tree: virtual block -> data block and time. */
  readonly bottomLevel: BTree;
  readonly details: BTree;
  root: BlockNr;
  detailsRoot: BlockNr;
}

export class PoolMetadata {
  readonly #blocks: BlockManager;
  readonly #log: Log;
  #structures: Structures | null = null;
  #dataBlockSize = 0;
  #time = 0;
  #transactionId = 0n;
  #heldRoot = asBlockNr(0);
  #flags = 0;
  /** False until the first change: until then commits are skipped, the device is not written. */
  #inService = false;
  #changedSinceCommit = false;
  readonly #commitLock = new CommitLock();
  /** Counts changes of any mapping tree; see ThinDevice.rootGeneration. */
  #generation = 0;
  /** Most recently opened first, as the kernel's list. */
  readonly #devices: ThinDevice[] = [];
  readonly #held = new HeldBlocks();
  #preCommit: () => Promise<void> = () => Promise.resolve();
  #threshold: { blocks: number; reached: () => void } | null = null;
  readonly #entry = makeEntry();
  readonly #mapping = makeValue(MAPPING_SIZE);
  readonly #rootValue = makeValue(8);
  readonly #detailsValue = makeValue(deviceDetails.size);
  readonly #keys: [number, number] = [0, 0];

  private constructor(device: BlockDevice, log: Log, cacheBytes?: number) {
    this.#log = log;
    this.#blocks = new BlockManager(device, log, cacheBytes);
  }

  /**
   * Opens the metadata on `device`, formatting it first if allowed and needed (committed at once).
   * Rejects with DmError: EPERM, ENOTBLK, EILSEQ, EINVAL; the log says why.
   */
  static async open(device: BlockDevice, log: Log, options: OpenOptions): Promise<PoolMetadata> {
    const pmd = new PoolMetadata(device, log, options.cacheBytes);
    let freeAtAllocation: number | null = null;
    if (pmd.#blocks.isZero(SUPERBLOCK_LOCATION)) {
      if (!options.mayFormat) throw new DmError('EPERM', 'the metadata device is not formatted');
      freeAtAllocation = await pmd.#format(options.dataBlockSize);
    }
    pmd.#open(options.dataBlockSize);
    // The kernel goes on with the map that it has made, which knows whether it is short already.
    if (freeAtAllocation !== null) pmd.#s.metadataSm.freeAtAllocation = freeAtAllocation;
    return pmd;
  }

  // --- format and open

  /** Resolves to what the metadata space map had free after the last allocation. */
  async #format(dataBlockSize: number): Promise<number> {
    const tm = new TransactionManager(this.#blocks);
    const metadataSm = this.#explained(
      () => MetadataSpaceMap.create(tm, this.#blocks.nrBlocks),
      "transaction manager: couldn't create metadata space map",
      'thin metadata: tm_create_with_sm failed',
    );
    const dataSm = this.#explained(
      () => DiskSpaceMap.create(tm, 0),
      'thin metadata: sm_disk_create failed',
    );
    const trees = this.#trees(tm, () => dataSm);
    const root = trees.topLevel.empty();
    const detailsRoot = this.#explained(
      () => trees.details.empty(),
      "thin metadata: couldn't create devices root",
    );
    await tm.preCommit();
    // A crash here leaves block 0 zero: the device is still unformatted.
    await tm.commit(() => {
      const { view } = this.#blocks.create(SUPERBLOCK_LOCATION, superblockValidator);
      superblock.magic.set(view, 0, MAGIC);
      superblock.version.set(view, 0, VERSION);
      superblock.dataBlockSize.set(view, 0, dataBlockSize);
      superblock.metadataBlockSize.set(view, 0, METADATA_BLOCK_SIZE_SECTORS);
      const nrBlocks = Math.min(this.#blocks.nrBlocks, METADATA_BLOCKS_MAX);
      superblock.metadataNrBlocks.set(view, 0, nrBlocks);
      superblock.dataMappingRoot.set(view, 0, root);
      superblock.deviceDetailsRoot.set(view, 0, detailsRoot);
      dataSm.writeRoot(view, superblock.dataSpaceMapRoot.offset);
      metadataSm.writeRoot(view, superblock.metadataSpaceMapRoot.offset);
    });
    return metadataSm.freeAtAllocation;
  }

  /** What `make` returns; a DmError of it is followed by the kernel's lines. */
  #explained<T>(make: () => T, ...lines: readonly string[]): T {
    try {
      return make();
    } catch (error) {
      codeOf(error);
      for (const line of lines) this.#log.write('error', line);
      throw error;
    }
  }

  #trees(
    tm: TransactionManager,
    dataSm: () => DiskSpaceMap,
  ): Pick<Structures, 'topLevel' | 'bottomLevel' | 'details'> {
    const bottomLevel = new BTree(tm, mappingValueType(dataSm));
    const topLevel = new BTree(tm, {
      size: 8,
      inc: (view, offset, count) => {
        for (let i = 0; i < count; i++) tm.inc(blockNrAt(view, offset + i * 8));
      },
      dec: (view, offset, count) => {
        // Read before anything is deleted: deleting a tree may evict the block that `view` shows.
        const roots = Array.from({ length: count }, (_, i) => blockNrAt(view, offset + i * 8));
        for (const root of roots) deleteTree(bottomLevel, root);
      },
      equal: (a, aOffset, b, bOffset) => getLe64(a, aOffset) === getLe64(b, bOffset),
    });
    const details = new BTree(tm, plainValueType(deviceDetails.size));
    return { topLevel, bottomLevel, details };
  }

  #open(dataBlockSize: number): void {
    const { view } = this.#explained(
      () => this.#blocks.read(SUPERBLOCK_LOCATION, superblockValidator),
      "thin metadata: couldn't read superblock",
    );
    const found = superblock.dataBlockSize.get(view, 0);
    if (found !== dataBlockSize) {
      const change = `(from ${found} to ${dataBlockSize})`;
      throw this.#refuse(`changing the data block size ${change} is not supported`);
    }
    const incompat = superblock.incompatFlags.get(view, 0);
    if (incompat !== 0) throw this.#refuseFeatures('', incompat);
    const compatRo = superblock.compatRoFlags.get(view, 0);
    const { isWriteProtected, readOnly } = this.#blocks.device;
    // A handle that cannot write is not enough: another table may bring one that can.
    if (compatRo !== 0 && !(isWriteProtected ?? readOnly)) {
      throw this.#refuseFeatures('RDWR ', compatRo);
    }
    this.#dataBlockSize = dataBlockSize;
    this.#readState();
  }

  #refuse(text: string): DmError {
    this.#log.write('error', `thin metadata: ${text}`);
    return new DmError('EINVAL', text);
  }

  #refuseFeatures(mode: string, flags: number): DmError {
    const hex = flags.toString(16);
    return this.#refuse(
      `could not access metadata ${mode}due to unsupported optional features (${hex}).`,
    );
  }

  /** Takes the whole state from the superblock: at open and after an abort. */
  #readState(): void {
    const { view } = this.#blocks.read(SUPERBLOCK_LOCATION, superblockValidator);
    const tm = new TransactionManager(this.#blocks);
    const metadataSm = this.#explained(
      () => MetadataSpaceMap.open(tm, view, superblock.metadataSpaceMapRoot.offset),
      "transaction manager: couldn't open metadata space map",
      'thin metadata: tm_open_with_sm failed',
    );
    const dataSm = DiskSpaceMap.open(tm, view, superblock.dataSpaceMapRoot.offset);
    this.#structures = {
      tm,
      metadataSm,
      dataSm,
      ...this.#trees(tm, () => dataSm),
      root: asBlockNr(superblock.dataMappingRoot.get(view, 0)),
      detailsRoot: asBlockNr(superblock.deviceDetailsRoot.get(view, 0)),
    };
    this.#time = superblock.time.get(view, 0);
    this.#transactionId = superblock.transactionId.getBig(view, 0);
    this.#heldRoot = asBlockNr(superblock.heldRoot.get(view, 0));
    this.#flags = superblock.flags.get(view, 0);
    this.#generation++;
    if (this.#threshold !== null) {
      metadataSm.setThreshold(this.#threshold.blocks, this.#threshold.reached);
    }
  }

  get #s(): Structures {
    assert(this.#structures !== null, 'the metadata is open');
    return this.#structures;
  }

  /**
   * Goes on with another handle of the same metadata device: tables open it with different access.
   */
  setDevice(device: BlockDevice): void {
    this.#blocks.device = device;
  }

  // --- transactions

  /** Called by each commit before anything of the metadata is written: flushes the data device. */
  setPreCommit(preCommit: () => Promise<void>): void {
    this.#preCommit = preCommit;
  }

  /** True while a commit runs: nothing may be changed. */
  get isCommitting(): boolean {
    return this.#commitLock.isHeld;
  }

  /** Resolves when the running commit, if any, has ended. Another may run by then: look again. */
  whenIdle(): Promise<void> {
    return this.#commitLock.whenFree();
  }

  /** The cache holds so much that is not written that the owner should commit. */
  get wantsCommit(): boolean {
    return this.#blocks.wantsCommit;
  }

  /**
   * Makes all changes durable: data device flushed, then metadata, then the superblock. Does
   * nothing if nothing was ever changed. Rejects with MetadataOperationError.
   */
  commit(): Promise<void> {
    if (!this.#inService) return Promise.resolve();
    return this.#commitLock.hold(() => this.#commit());
  }

  async #commit(): Promise<void> {
    try {
      await this.#flushData();
      // A crash before the superblock is written leaves the old state; its blocks are untouched.
      const s = this.#s;
      this.#writeChangedDetails(s);
      s.dataSm.commit();
      await s.tm.preCommit();
      await s.tm.commit(() => this.#writeSuperblock(s));
    } catch (error) {
      if (error instanceof DmError)
        throw new MetadataOperationError('dm_pool_commit_metadata', error);
      throw error;
    }
    this.#changedSinceCommit = false;
    for (const device of this.#devices) device.changedThisTransaction = false;
    this.#forgetIdleDevices();
  }

  /** Something has been changed that is not committed. */
  get hasChanges(): boolean {
    return this.#changedSinceCommit;
  }

  async #flushData(): Promise<void> {
    try {
      await this.#preCommit();
    } catch (error) {
      this.#log.write('error', 'thin metadata: pre-commit callback failed');
      throw error;
    }
  }

  #writeChangedDetails(s: Structures): void {
    for (const device of this.#devices) {
      if (!device.changed) continue;
      writeDetails(this.#detailsValue.view, 0, device);
      s.detailsRoot = insert(s.details, s.detailsRoot, device.id, this.#detailsValue).root;
      device.changed = false;
    }
  }

  #writeSuperblock(s: Structures): void {
    const { view } = this.#blocks.write(SUPERBLOCK_LOCATION, superblockValidator);
    superblock.time.set(view, 0, this.#time);
    superblock.dataMappingRoot.set(view, 0, s.root);
    superblock.deviceDetailsRoot.set(view, 0, s.detailsRoot);
    superblock.transactionId.setBig(view, 0, this.#transactionId);
    superblock.flags.set(view, 0, this.#flags);
    superblock.heldRoot.set(view, 0, this.#heldRoot);
    s.dataSm.writeRoot(view, superblock.dataSpaceMapRoot.offset);
    s.metadataSm.writeRoot(view, superblock.metadataSpaceMapRoot.offset);
  }

  /**
   * Throws the transaction away: the state is that of the last commit again. Open devices remember
   * that they lost changes. Throws DmError if the superblock cannot be read.
   */
  abort(): void {
    this.#blocks.reset();
    this.#structures = null;
    this.#readState();
    this.#changedSinceCommit = false;
    for (const device of this.#devices) {
      if (device.changedThisTransaction) device.abortedWithChanges = true;
      device.changed = false;
      device.changedThisTransaction = false;
      const details = this.#findDetails(device.id);
      if (details === null) device.mappedBlocks = 0;
      else Object.assign(device, details);
    }
    this.#forgetIdleDevices();
  }

  /** Runs a change; a DmError in the middle of it means that the transaction is lost. */
  #change<T>(operation: string, change: (s: Structures) => T): T {
    assert(!this.isCommitting, 'nothing changes while a commit runs');
    this.#blocks.newOperation();
    this.#inService = true;
    this.#changedSinceCommit = true;
    try {
      return change(this.#s);
    } catch (error) {
      if (error instanceof DmError) throw new MetadataOperationError(operation, error);
      throw error;
    } finally {
      this.#generation++;
    }
  }

  get readOnly(): boolean {
    return this.#blocks.readOnly;
  }

  /** While read-only, every change and every commit fails with EPERM. */
  setReadOnly(readOnly: boolean): void {
    this.#blocks.setReadOnly(readOnly);
  }

  get needsCheck(): boolean {
    return (this.#flags & NEEDS_CHECK) !== 0;
  }

  /**
   * Sets NEEDS_CHECK in memory and tries to write it at once, whatever the state of the
   * transaction; resolves when that is done or has failed. Throws if block 0 cannot be changed.
   */
  setNeedsCheck(): Promise<void> {
    const block = this.#lockSuperblock();
    this.#flags |= NEEDS_CHECK;
    superblock.flags.set(block.view, 0, this.#flags);
    return this.#blocks.flush().catch((error: unknown) => {
      if (!(error instanceof DmError)) throw error;
    });
  }

  #lockSuperblock(): Block {
    try {
      return this.#blocks.write(SUPERBLOCK_LOCATION, superblockValidator);
    } catch (error) {
      codeOf(error);
      // After a failed abort nobody is surprised.
      if (this.#structures !== null) {
        this.#log.write('error', "thin metadata: couldn't lock superblock");
      }
      throw error;
    }
  }

  // --- devices

  #findDetails(id: number): DeviceDetails | null {
    const s = this.#s;
    if (!s.details.lookup(s.detailsRoot, id, this.#entry)) return null;
    return readDetails(this.#entry.view, this.#entry.offset);
  }

  /** The device's record in memory, if any; else read from the tree and remembered. */
  #device(id: number): ThinDevice | null {
    const known = this.#devices.find((device) => device.id === id);
    if (known !== undefined) return known;
    const details = this.#findDetails(id);
    return details === null ? null : this.#remember(new ThinDevice(id, details));
  }

  #remember(device: ThinDevice): ThinDevice {
    this.#devices.unshift(device);
    return device;
  }

  #forgetIdleDevices(): void {
    for (let i = this.#devices.length - 1; i >= 0; i--) {
      const device = this.#devices[i];
      if (device?.openCount === 0 && !device.changed) this.#devices.splice(i, 1);
    }
  }

  /** Opens device `id`; ENODATA if there is none. Close it with `closeDevice`. */
  openDevice(id: number): ThinDevice {
    this.#blocks.newOperation();
    const device = this.#device(id);
    if (device === null) throw new DmError('ENODATA', `no thin device ${id}`);
    device.openCount++;
    return device;
  }

  closeDevice(device: ThinDevice): void {
    assert(device.openCount > 0, 'a closed device was open');
    device.openCount--;
    if (device.openCount === 0) device.abortedWithChanges = false;
    this.#forgetIdleDevices();
  }

  #exists(id: number): boolean {
    this.#blocks.newOperation();
    return this.#devices.some((device) => device.id === id) || this.#findDetails(id) !== null;
  }

  /** A new device without mappings. EEXIST. */
  createThin(id: number): void {
    if (this.#exists(id)) throw new DmError('EEXIST', `thin device ${id} exists`);
    this.#change('dm_pool_create_thin', (s) => {
      this.#setRoot(s, id, s.bottomLevel.empty());
      const details = { mappedBlocks: 0, ...this.#birth(this.#time) };
      this.#remember(new ThinDevice(id, details)).touch();
    });
  }

  /** A new device with the mappings that `origin` has now. EEXIST; ENODATA without origin. */
  createSnap(id: number, origin: number): void {
    if (this.#exists(id)) throw new DmError('EEXIST', `thin device ${id} exists`);
    const root = this.#lookupRoot(origin);
    if (root === null) throw new DmError('ENODATA', `no thin device ${origin}`);
    this.#change('dm_pool_create_snap', (s) => {
      s.tm.inc(root);
      this.#setRoot(s, id, root);
      this.#time++;
      const details = { mappedBlocks: 0, ...this.#birth(this.#time) };
      const snap = this.#remember(new ThinDevice(id, details));
      snap.touch();
      const from = this.#device(origin);
      if (from === null) throw new DmError('ENODATA', `no details of thin device ${origin}`);
      snap.mappedBlocks = from.mappedBlocks;
      from.snapshottedTime = this.#time;
      from.touch();
    });
  }

  #birth(time: number): Omit<DeviceDetails, 'mappedBlocks'> {
    return { transactionId: this.#transactionId, creationTime: time, snapshottedTime: time };
  }

  /** Deletes a device and what only it refers to. ENODATA; EBUSY while it is open. */
  deleteDevice(id: number): void {
    if (!this.#exists(id)) throw new DmError('ENODATA', `no thin device ${id}`);
    const open = this.#devices.some((device) => device.id === id && device.openCount > 0);
    if (open) throw new DmError('EBUSY', `thin device ${id} is active`);
    this.#change('dm_pool_delete_thin_device', (s) => {
      // Created in this transaction, it is not in the details tree yet.
      if (this.#findDetails(id) !== null) s.detailsRoot = remove(s.details, s.detailsRoot, id);
      s.root = remove(s.topLevel, s.root, id);
      const index = this.#devices.findIndex((device) => device.id === id);
      if (index >= 0) this.#devices.splice(index, 1);
    });
  }

  /** Sets the user's transaction id; EINVAL if it is not `current` now. */
  setTransactionId(current: bigint, next: bigint): void {
    if (this.#transactionId !== current) throw this.#refuse('mismatched transaction id');
    this.#change('dm_pool_set_metadata_transaction_id', () => {
      this.#transactionId = next;
    });
  }

  get transactionId(): bigint {
    return this.#transactionId;
  }

  get time(): number {
    return this.#time;
  }

  // --- mappings

  #lookupRoot(id: number): BlockNr | null {
    const s = this.#s;
    if (!s.topLevel.lookup(s.root, id, this.#entry)) return null;
    return blockNrAt(this.#entry.view, this.#entry.offset);
  }

  #setRoot(s: Structures, id: number, root: BlockNr): void {
    this.#rootValue.view.setUint32(0, root >>> 0, true);
    this.#rootValue.view.setUint32(4, Math.floor(root / 2 ** 32), true);
    s.root = insert(s.topLevel, s.root, id, this.#rootValue).root;
  }

  /** Root of the device's tree, null if it has none (its creation was aborted). Hot path. */
  #rootOf(device: ThinDevice): BlockNr | null {
    if (device.rootGeneration !== this.#generation) {
      device.root = this.#lookupRoot(device.id);
      device.rootGeneration = this.#generation;
    }
    return device.root;
  }

  /**
   * Finds virtual block `virtBlock`; false if it is not mapped. Throws DmError on damage. Hot path.
   */
  lookup(device: ThinDevice, virtBlock: number, out: Mapping): boolean {
    this.#blocks.newOperation();
    const root = this.#rootOf(device);
    if (root === null) return false;
    const entry = this.#entry;
    if (!this.#s.bottomLevel.lookup(root, virtBlock, entry)) return false;
    this.#readMapping(device, out);
    return true;
  }

  #readMapping(device: ThinDevice, out: Mapping): void {
    const { view, offset } = this.#entry;
    out.block = dataBlockAt(view, offset);
    out.shared = device.snapshottedTime > timeAt(view, offset);
  }

  /** Finds the first mapped block in `[begin, end)`; its number, or undefined. */
  nextMapped(device: ThinDevice, begin: number, end: number, out: Mapping): number | undefined {
    this.#blocks.newOperation();
    const root = this.#rootOf(device);
    if (root === null) return undefined;
    if (!this.#s.bottomLevel.lookupNext(root, begin, this.#entry)) return undefined;
    const { key } = this.#entry;
    if (key >= end) return undefined;
    this.#readMapping(device, out);
    return key;
  }

  /**
   * The first run of mapped blocks in `[begin, end)` (spec: thin, 1.6); null if nothing is mapped.
   */
  findRun(device: ThinDevice, begin: number, end: number): MappedRun | null {
    const found = { block: 0, shared: false };
    const first = this.nextMapped(device, begin, end, found);
    if (first === undefined) return null;
    const run = { begin: first, end: first + 1, dataBegin: found.block, shared: found.shared };
    while (run.end < end && this.lookup(device, run.end, found)) {
      if (found.block !== run.dataBegin + (run.end - run.begin)) break;
      if (found.shared !== run.shared) break;
      run.end++;
    }
    return run;
  }

  /** The highest mapped block; undefined if nothing is mapped. */
  highestMapped(device: ThinDevice): number | undefined {
    this.#blocks.newOperation();
    const root = this.#rootOf(device);
    return root === null ? undefined : this.#s.bottomLevel.highestKey(root);
  }

  /**
   * Maps `virtBlock` to a block got from `reserveDataBlock`, which is then in use. An old mapping
   * gives its block up.
   */
  insertBlock(device: ThinDevice, virtBlock: number, block: DataBlock): void {
    this.#change('dm_thin_insert_block', (s) => {
      this.#held.release(block);
      s.dataSm.inc(block, block + 1);
      setMapping(this.#mapping.view, 0, block, this.#time);
      this.#keys[0] = device.id;
      this.#keys[1] = virtBlock;
      const trees = [s.topLevel, s.bottomLevel];
      const { root, inserted } = insertNested(trees, s.root, this.#keys, this.#mapping);
      s.root = root;
      device.touch();
      if (inserted) device.mappedBlocks++;
    });
  }

  /** Unmaps `[begin, end)`; the blocks lose this device's references. */
  removeRange(device: ThinDevice, begin: number, end: number): void {
    this.#change('dm_thin_remove_range', (s) => {
      let root = this.#lookupRoot(device.id);
      if (root === null) throw new DmError('ENODATA', `no mapping tree of device ${device.id}`);
      // The top level lets go of the tree, which must not be deleted with it.
      s.tm.inc(root);
      s.root = remove(s.topLevel, s.root, device.id);
      let nrRemoved = 0;
      for (let from = begin; from < end;) {
        if (!s.bottomLevel.lookupNext(root, from, this.#entry)) break;
        from = this.#entry.key;
        if (from >= end) break;
        const removed = removeLeaves(s.bottomLevel, root, from, end);
        root = removed.root;
        nrRemoved += removed.nrRemoved;
      }
      device.mappedBlocks -= nrRemoved;
      device.touch();
      this.#setRoot(s, device.id, root);
    });
  }

  // --- data blocks

  /** Takes a free data block out of circulation, on the way to `insertBlock`. Throws ENOSPC. */
  reserveDataBlock(): DataBlock {
    // What a running commit frees is in use until the superblock is durable.
    assert(!this.isCommitting, 'no block is handed out while a commit runs');
    this.#blocks.newOperation();
    this.#inService = true;
    const block = this.#s.dataSm.findFree(this.#held);
    this.#held.hold(block);
    return block;
  }

  /** Gives back a reserved block that was not inserted. */
  releaseDataBlock(block: DataBlock): void {
    this.#held.release(block);
  }

  /** Keeps free blocks `[begin, end)` from being handed out, until released. */
  holdFreeRange(begin: number, end: number): void {
    this.#held.holdRange(begin, end);
  }

  releaseFreeRange(begin: number, end: number): void {
    this.#held.releaseRange(begin, end);
  }

  /** Whether nobody refers to the data block. */
  isDataBlockFree(block: DataBlock): boolean {
    return this.#s.dataSm.isFree(block);
  }

  get dataBlockSize(): number {
    return this.#dataBlockSize;
  }

  /** Data blocks at the last commit. */
  get nrDataBlocks(): number {
    return this.#s.dataSm.nrBlocksCommitted;
  }

  /**
   * Data blocks that the space map manages now: ahead of nrDataBlocks until a growth is committed.
   */
  get nrDataBlocksManaged(): number {
    return this.#s.dataSm.nrBlocks;
  }

  get nrFreeDataBlocks(): number {
    return this.#s.dataSm.nrFree - this.#held.size;
  }

  /** Manages `nrBlocks` data blocks. Only growing; EINVAL otherwise. */
  resizeData(nrBlocks: number): void {
    const old = this.#s.dataSm.nrBlocks;
    if (nrBlocks < old) throw this.#refuse('cannot reduce size of space map');
    this.#change('dm_pool_resize_data_dev', (s) => s.dataSm.extend(nrBlocks - old));
  }

  // --- metadata blocks

  /** Blocks of the metadata device that can be managed, as large as it is now. */
  get nrMetadataDeviceBlocks(): number {
    const { device } = this.#blocks;
    return Math.min(Math.floor(device.sizeSectors / BLOCK_SECTORS), METADATA_BLOCKS_MAX);
  }

  get nrMetadataBlocks(): number {
    return this.#s.metadataSm.nrBlocks;
  }

  /** Free metadata blocks beyond the reserve that commits live on. */
  get nrFreeMetadataBlocks(): number {
    const reserve = Math.min(RESERVE_BLOCKS_MAX, Math.floor(this.nrMetadataBlocks / 10));
    return Math.max(0, this.#s.metadataSm.nrFree - reserve);
  }

  /** Manages `nrBlocks` metadata blocks. Only growing; EINVAL otherwise. */
  resizeMetadata(nrBlocks: number): void {
    const old = this.nrMetadataBlocks;
    if (nrBlocks < old) throw this.#refuse('cannot reduce size of space map');
    this.#change('dm_pool_resize_metadata_dev', (s) => s.metadataSm.extend(nrBlocks - old));
  }

  /** Calls `reached` when allocations leave `blocks` or fewer metadata blocks free. */
  setMetadataThreshold(blocks: number, reached: () => void): void {
    this.#threshold = { blocks, reached };
    this.#s.metadataSm.setThreshold(blocks, reached);
  }

  // --- metadata snapshot

  /** Block of the metadata snapshot, 0 for none. */
  get heldRoot(): number {
    return this.#heldRoot;
  }

  /**
   * Takes a metadata snapshot (spec: thin, 1.7): EBUSY if there is one. The caller must have
   * committed just before, and commits afterwards.
   */
  reserveMetadataSnap(): void {
    if (this.#heldRoot !== 0) {
      const text = 'Pool metadata snapshot already exists: release this before taking another.';
      this.#log.write('warn', `thin metadata: ${text}`);
      throw new DmError('EBUSY', text);
    }
    this.#change('dm_pool_reserve_metadata_snap', (s) => {
      const copy = this.#copySuperblock(s);
      s.tm.inc(s.root);
      s.tm.inc(s.detailsRoot);
      this.#heldRoot = copy;
    });
  }

  /** A copy of the superblock in a block of its own, without space-map roots and held root. */
  #copySuperblock(s: Structures): BlockNr {
    // As for any block that is to be copied: with a second reference, shadowing leaves the
    // original.
    s.tm.inc(SUPERBLOCK_LOCATION);
    const copy = s.tm.shadow(SUPERBLOCK_LOCATION, superblockValidator) as Block;
    superblock.heldRoot.set(copy.view, 0, 0);
    const { dataSpaceMapRoot, metadataSpaceMapRoot } = superblock;
    for (const { offset, size } of [dataSpaceMapRoot, metadataSpaceMapRoot]) {
      copy.bytes.fill(0, offset, offset + size);
    }
    return copy.blocknr;
  }

  /** Releases the metadata snapshot; EINVAL if there is none. */
  releaseMetadataSnap(): void {
    const held = this.#heldRoot;
    if (held === 0) {
      const text = 'No pool metadata snapshot found: nothing to release.';
      this.#log.write('warn', `thin metadata: ${text}`);
      throw new DmError('EINVAL', text);
    }
    this.#change('dm_pool_release_metadata_snap', (s) => {
      const { view } = s.tm.read(held, superblockValidator);
      const root = asBlockNr(superblock.dataMappingRoot.get(view, 0));
      const detailsRoot = asBlockNr(superblock.deviceDetailsRoot.get(view, 0));
      this.#heldRoot = asBlockNr(0);
      deleteTree(s.topLevel, root);
      deleteTree(s.details, detailsRoot);
      s.tm.dec(held);
    });
  }
}
