/**
 * Goes through a log of a pool's metadata and data device, and complains about any entry at which a
 * power cut, or a disk that writes in any order, could hurt:
 *
 *  - at each flush, what is durable checks clean;
 *  - at each write of the superblock, so does what was flushed before it with this superblock on
 *    top, and what it maps holds no foreign data: all that it points to is durable already;
 *  - no entry writes to what the last durable superblock uses, nor, until a flush, to what the one
 *    before it does: but for block 0, and writes of a device to a data block of its own.
 *
 * What is durable is what the log has before a flush, and FUA writes; so no flush of the logged
 * devices may have overtaken another (see LoggedDevice). Data are told apart by tags:
 * each piece of 4096 bytes that a workload writes begins with its device's id and its place on it.
 */
import assert from 'node:assert/strict';
import { silentLog } from '../../src/base/log.ts';
import type { BlockDevice } from '../../src/block/device.ts';
import { MemoryDevice } from '../../src/block/memory-device.ts';
import { LogFlag } from '../../src/block/write-log-format.ts';
import { WriteLogReader, type WriteLogEntry } from '../../src/block/write-log-reader.ts';
import { BlockManager } from '../../src/persistent-data/block-manager.ts';
import { MetadataSpaceMap } from '../../src/persistent-data/space-map/metadata.ts';
import { TransactionManager } from '../../src/persistent-data/transaction-manager.ts';
import { asBlockNr } from '../../src/persistent-data/block.ts';
import {
  superblock,
  SUPERBLOCK_LOCATION,
  superblockValidator,
} from '../../src/thin/metadata/superblock.ts';
import { readPoolImage } from '../crash/pool-image.ts';
import { checkPool } from '../../src/thin/tools/check.ts';
import { assertClean } from './check.ts';
import { writeBytes } from './edit-blocks.ts';
import { describeEntry } from './write-log.ts';

const SECTOR = 512;
const PIECE = 4096;

/** The pool in the log. */
export interface Layout {
  /** The metadata device comes first, then the data device. */
  readonly metadataSectors: number;
  readonly dataSectors: number;
  readonly blockSectors: number;
  /** New blocks are zeroed, so that they hold nothing foreign. */
  readonly zeroing: boolean;
  /** Whose data a device may show: its own, and those of what it is a snapshot of. */
  readonly lineage: ReadonlyMap<number, ReadonlySet<number>>;
}

/** Tags the pieces of `data`, written to device `id` from byte `offset`; ids begin at 1. */
export function tag(data: Buffer, id: number, offset: number): Buffer {
  for (let at = 0; at < data.length; at += PIECE) {
    data.writeUInt32LE(id, at);
    data.writeUInt32LE((offset + at) / PIECE, at + 4);
  }
  return data;
}

/** Who uses a data block. */
interface User {
  readonly id: number;
  readonly virtual: number;
}

/** What a superblock needs to be left alone. */
interface Committed {
  readonly metadata: ReadonlySet<number>;
  readonly data: ReadonlyMap<number, readonly User[]>;
}

/** What was seen, so that a test can tell that there was something to look at. */
export interface Counts {
  flushes: number;
  commits: number;
  metadataWrites: number;
  dataWrites: number;
  discards: number;
  mappings: number;
}

export const noCounts = (): Counts => ({
  flushes: 0,
  commits: 0,
  metadataWrites: 0,
  dataWrites: 0,
  discards: 0,
  mappings: 0,
});

export class OrderChecker {
  readonly #layout: Layout;
  readonly #reader: WriteLogReader;
  /** What is durable, byte for byte. */
  readonly #durable: Buffer;
  /** What is logged since the last flush, and not durable yet. */
  #pending: WriteLogEntry[] = [];
  /** The durable superblock's, and that of one that was written since. */
  #committed: Committed | null = null;
  #written: Committed | null = null;
  #metadataChanged = false;
  #counts = noCounts();

  constructor(logDevice: BlockDevice, layout: Layout) {
    this.#layout = layout;
    this.#reader = WriteLogReader.open(logDevice);
    this.#durable = Buffer.alloc((layout.metadataSectors + layout.dataSectors) * SECTOR);
  }

  /** Goes through the log; adds to `counts` what it has seen. */
  async run(counts: Counts): Promise<void> {
    this.#counts = counts;
    for (const entry of this.#reader.entries()) {
      try {
        await this.#entry(entry);
      } catch (error) {
        const where = `entry ${entry.index}, ${describeEntry(entry)}`;
        throw new Error(`${where}: ${(error as Error).message}`, { cause: error });
      }
    }
    await assertClean(this.#metadataWith(null), 'what is left in the end');
  }

  async #entry(entry: WriteLogEntry): Promise<void> {
    if ((entry.flags & LogFlag.MARK) !== 0) return;
    if ((entry.flags & LogFlag.FLUSH) !== 0) {
      await this.#flush();
      return;
    }
    if (entry.sector >= this.#layout.metadataSectors) this.#dataEntry(entry);
    else await this.#metadataEntry(entry);
    if ((entry.flags & LogFlag.FUA) !== 0) this.#apply(this.#durable, entry);
    else this.#pending.push(entry);
  }

  #apply(image: Buffer, entry: WriteLogEntry): void {
    const begin = entry.sector * SECTOR;
    if ((entry.flags & LogFlag.DISCARD) !== 0) {
      image.fill(0, begin, begin + entry.nrSectors * SECTOR);
    } else {
      image.set(this.#reader.data(entry), begin);
    }
  }

  async #flush(): Promise<void> {
    this.#counts.flushes++;
    for (const entry of this.#pending) this.#apply(this.#durable, entry);
    this.#pending = [];
    this.#committed = this.#written ?? this.#committed;
    this.#written = null;
    if (!this.#metadataChanged || this.#committed === null) return;
    this.#metadataChanged = false;
    await assertSound(this.#metadataWith(null));
  }

  /** The durable metadata as a device, with `newest` on top. */
  #metadataWith(newest: WriteLogEntry | null): MemoryDevice {
    const { metadataSectors } = this.#layout;
    const image = Buffer.from(this.#durable.subarray(0, metadataSectors * SECTOR));
    if (newest !== null) this.#apply(image, newest);
    const device = new MemoryDevice('metadata', metadataSectors);
    writeBytes(device, 0, image);
    return device;
  }

  // --- metadata

  async #metadataEntry(entry: WriteLogEntry): Promise<void> {
    this.#metadataChanged = true;
    const begin = entry.sector / 8;
    if (begin === 0) {
      assert.equal(entry.nrSectors, 8, 'the superblock is written alone');
      await this.#superblock(entry);
      return;
    }
    for (let block = begin; block < begin + entry.nrSectors / 8; block++) {
      this.#counts.metadataWrites++;
      for (const state of [this.#committed, this.#written]) {
        assert.ok(!(state?.metadata.has(block) ?? false), `block ${block} is in use`);
      }
    }
  }

  async #superblock(entry: WriteLogEntry): Promise<void> {
    this.#counts.commits++;
    assert.equal(this.#written, null, 'the superblock before this one was flushed');
    const device = this.#metadataWith(entry);
    await assertSound(device);
    const data = new Map<number, User[]>();
    for (const [id, { mappings }] of readPoolImage(device).devices) {
      for (const [virtual, { block }] of mappings) {
        this.#counts.mappings++;
        data.set(block, [...(data.get(block) ?? []), { id, virtual }]);
        if (this.#layout.zeroing) this.#mustBeOwn(block, id, virtual);
      }
    }
    this.#written = { metadata: usedBlocks(device), data };
  }

  /** What a mapping shows is durable, and nobody else's. */
  #mustBeOwn(block: number, id: number, virtual: number): void {
    const { metadataSectors, blockSectors, lineage } = this.#layout;
    const begin = (metadataSectors + block * blockSectors) * SECTOR;
    const bytes = this.#durable.subarray(begin, begin + blockSectors * SECTOR);
    for (const { writer, piece, at } of tagsOf(bytes)) {
      const where = `piece ${at} of data block ${block}, block ${virtual} of device ${id}`;
      assert.equal(piece, (virtual * blockSectors * SECTOR) / PIECE + at, where);
      assert.ok(lineage.get(id)?.has(writer), `${where}: written by device ${writer}`);
    }
  }

  // --- data

  #dataEntry(entry: WriteLogEntry): void {
    const { metadataSectors, blockSectors } = this.#layout;
    const sector = entry.sector - metadataSectors;
    const isDiscard = (entry.flags & LogFlag.DISCARD) !== 0;
    const first = Math.floor(sector / blockSectors);
    const last = Math.floor((sector + entry.nrSectors - 1) / blockSectors);
    const writers = isDiscard ? [] : tagsOf(this.#reader.data(entry));
    if (!isDiscard) assert.equal(first, last, 'a write stays within a data block');
    for (const state of [this.#committed, this.#written]) {
      for (let block = first; block <= last; block++) {
        const users = state?.data.get(block) ?? [];
        if (isDiscard) assert.ok(users.length <= 1, `data block ${block} is not discarded for all`);
        else if (users.length > 0) this.#mustBeUser(users, writers, `data block ${block}`);
      }
    }
    if (isDiscard) this.#counts.discards++;
    else this.#counts.dataWrites++;
  }

  /** A block in use is written by the one device that uses it, in place. */
  #mustBeUser(users: readonly User[], writers: readonly Tag[], what: string): void {
    assert.notEqual(writers.length, 0, `${what} is in use, and zeroed`);
    const perBlock = (this.#layout.blockSectors * SECTOR) / PIECE;
    for (const { writer, piece } of writers) {
      const virtual = Math.floor(piece / perBlock);
      const own = users.some((user) => user.id === writer && user.virtual === virtual);
      assert.ok(own, `${what} is in use, and written by device ${writer} at its block ${virtual}`);
    }
  }
}

interface Tag {
  readonly writer: number;
  readonly piece: number;
  /** Which piece of the bytes looked at. */
  readonly at: number;
}

/** The tags in `bytes`; pieces of zeroes have none. */
function tagsOf(bytes: Uint8Array): Tag[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const tags: Tag[] = [];
  for (let at = 0; at < bytes.length / PIECE; at++) {
    const writer = view.getUint32(at * PIECE, true);
    if (writer !== 0) tags.push({ writer, piece: view.getUint32(at * PIECE + 4, true), at });
  }
  return tags;
}

/** By our own check alone: there are hundreds of states to look at. */
async function assertSound(metadata: BlockDevice): Promise<void> {
  const { damage, ok } = await checkPool(metadata);
  assert.deepEqual(damage.lines(), []);
  assert.ok(ok, 'the metadata check clean');
}

/** The metadata blocks whose count is not zero, but for the superblock. */
function usedBlocks(device: BlockDevice): Set<number> {
  const blocks = new BlockManager(device, silentLog);
  const tm = new TransactionManager(blocks);
  const { view } = blocks.read(SUPERBLOCK_LOCATION, superblockValidator);
  const map = MetadataSpaceMap.open(tm, view, superblock.metadataSpaceMapRoot.offset);
  const used = new Set<number>();
  for (let block = 1; block < device.sizeSectors / 8; block++) {
    if (map.count(asBlockNr(block)) > 0) used.add(block);
  }
  return used;
}
