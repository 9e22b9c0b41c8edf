/**
 * One life of a pool on simulated disks: it is opened, worked on, and at some moment loses its
 * power. Afterwards every event of it can be made the moment of the cut.
 *
 * Each operation tells the World what its user has been promised. No two operations are under way
 * on the same part of a volume (see `isFree`), so that at any time what a volume holds is known;
 * reads are compared with that as they come.
 */
import assert from 'node:assert/strict';
import { DmError } from '../../src/base/error.ts';
import { SECTOR_SIZE } from '../../src/base/numbers.ts';
import type { Random } from '../../src/base/random.ts';
import { SimulatedClock } from '../../src/base/simulated-clock.ts';
import { BioFlag, BioOp } from '../../src/block/bio.ts';
import { request, type BlockDevice } from '../../src/block/device.ts';
import { MemoryDevice } from '../../src/block/memory-device.ts';
import { SimulatedStorage, type SimulatedDisk } from '../../src/block/simulated-disk.ts';
import { SparseBytes } from '../../src/block/sparse-bytes.ts';
import { makeMapping } from '../../src/thin/metadata/thin-device.ts';
import { Stack } from '../helpers/stack.ts';
import type { Image, Mortal } from './cuts.ts';
import { nameOf, NEVER, stampOf, stampSectors, UNMAPPED, VolumeHistory } from './history.ts';
import { BLOCK_SECTORS, World, type Found } from './world.ts';

/** Blocks and sectors of each volume; the last block is not a whole one. */
export const VOLUME_SECTORS = 3 * BLOCK_SECTORS + 40;
/** Sizes that a pool begins with, and those that it can grow to. */
const DATA_BLOCKS = { first: 40, last: 56 };
const METADATA_BLOCKS = { first: 96, last: 160 };
/** Sectors of the external origin: shorter than a volume, and no whole number of blocks. */
const ORIGIN_SECTORS = 2 * BLOCK_SECTORS + 24;
/** Stamp of the external origin's content, below those of all writes. */
const ORIGIN_STAMP = 1;
/** Volumes with these ids lie over the external origin. */
export const hasOrigin = (id: number): boolean => id % 3 === 0;

/** What outlives a power cut, and what is known about it. */
export interface Remains {
  readonly metadata: SparseBytes | undefined;
  readonly data: SparseBytes | undefined;
  readonly dataBlocks: number;
  readonly metadataBlocks: number;
  readonly found: Found;
  /** Numbers of writes that are taken. */
  readonly lastStamp: number;
}

/** Before the first life. */
export const NOTHING: Remains = {
  metadata: undefined,
  data: undefined,
  dataBlocks: DATA_BLOCKS.first,
  metadataBlocks: METADATA_BLOCKS.first,
  found: { transactionId: 0, contents: new Map() },
  lastStamp: ORIGIN_STAMP,
};

export interface LifeOptions {
  /** Feature arguments of the pool's table. */
  readonly features?: string;
  /** Disks fail: so may operations, as long as nothing promised is lost. */
  readonly mayFail?: boolean;
}

/** A part of a volume, in sectors. */
export interface Range {
  readonly begin: number;
  readonly end: number;
}

export class Life implements Mortal<Found> {
  readonly clock = new SimulatedClock();
  readonly storage: SimulatedStorage;
  readonly metadata: SimulatedDisk;
  readonly data: SimulatedDisk;
  readonly world: World;
  readonly stack: Stack;
  /** What was done, for those who replay a run. */
  readonly diary: string[] = [];
  dataBlocks: number;
  metadataBlocks: number;
  lastStamp: number;
  /** The event from which on the pool is formatted, if this life did it. */
  formatted = 0;
  readonly #options: LifeOptions;
  readonly #busy = new Map<number, Set<Range>>();
  readonly #inFlight = new Set<Promise<void>>();
  #failure: unknown = null;

  constructor(random: Random, remains: Remains, options: LifeOptions = {}) {
    this.#options = options;
    this.storage = new SimulatedStorage(this.clock, random.fork());
    this.metadata = this.storage.disk('metadisk', METADATA_BLOCKS.last * 8, remains.metadata);
    const dataSectors = DATA_BLOCKS.last * BLOCK_SECTORS;
    this.data = this.storage.disk('data', dataSectors, remains.data ?? oldData(dataSectors));
    this.dataBlocks = remains.dataBlocks;
    this.metadataBlocks = remains.metadataBlocks;
    this.lastStamp = remains.lastStamp;
    this.stack = new Stack(this.clock);
    this.world = new World(remains.found.transactionId);
    for (const [id, content] of remains.found.contents) {
      const history = new VolumeHistory(id, { submit: -1, end: -1 }, content, underOf(id));
      this.world.volumes.push(history);
    }
  }

  /** In the order in which `verify` and `remains` take their images. */
  get disks(): SimulatedDisk[] {
    return [this.metadata, this.data];
  }

  verify(event: number, [metadata, data]: readonly BlockDevice[]): Promise<Found> {
    assert.ok(metadata !== undefined && data !== undefined);
    return this.world.verify(event, metadata, data);
  }

  /** Makes the devices, and the pool and its volumes active. */
  async open(): Promise<void> {
    this.stack.disk('metadisk', this.metadata);
    this.stack.disk('data', this.data);
    this.stack.disk('origin', await originDisk());
    await this.stack.create('meta', this.#metadataTable());
    await this.stack.create('p', this.#poolTable());
    if (this.world.volumes.length === 0) this.formatted = this.#event;
    for (const id of this.world.ids) await this.#activate(id);
  }

  #metadataTable(): string {
    return `0 ${this.metadataBlocks * 8} linear /dev/metadisk 0`;
  }

  #poolTable(): string {
    const length = this.dataBlocks * BLOCK_SECTORS;
    const { features = '0' } = this.#options;
    return `0 ${length} thin-pool /dev/mapper/meta /dev/data ${BLOCK_SECTORS} 2 ${features}`;
  }

  async #activate(id: number): Promise<void> {
    const origin = hasOrigin(id) ? ' /dev/origin' : '';
    const table = `0 ${VOLUME_SECTORS} thin /dev/mapper/p ${id}${origin}`;
    await this.stack.create(`t${id}`, table);
    this.#busy.set(id, new Set());
  }

  get #event(): number {
    return this.storage.nrEvents;
  }

  #note(text: string): void {
    this.diary.push(`${this.#event}: ${text}`);
  }

  /** All operations under way have ended. */
  async settle(): Promise<void> {
    await Promise.all(this.#inFlight);
    this.throwFailure();
  }

  /** Throws what an operation in the background met. */
  throwFailure(): void {
    if (this.#failure !== null) throw this.#failure as Error;
  }

  /** Closes everything, as a daemon that is stopped does. */
  async close(): Promise<void> {
    await this.settle();
    await this.stack.registry.shutDown();
  }

  /** What is left if the power is cut as `found` says, having looked at the images. */
  remains({ found, contents: [metadata, data] }: Image<Found>): Remains {
    const { dataBlocks, metadataBlocks, lastStamp } = this;
    return { metadata, data, dataBlocks, metadataBlocks, found, lastStamp };
  }

  // --- operations with data: they go on in the background

  /** Whether nothing is under way on `range` (in sectors) of the volume. */
  isFree(id: number, range: Range): boolean {
    const busy = [...(this.#busy.get(id) ?? [])];
    return !busy.some(({ begin, end }) => begin < range.end && range.begin < end);
  }

  /** Resolves when so few operations are under way that another one may start. */
  async room(nrMax: number): Promise<void> {
    while (this.#inFlight.size >= nrMax) await Promise.race(this.#inFlight);
  }

  #start(id: number, range: Range, what: string, work: () => Promise<void>): void {
    assert.ok(this.isFree(id, range), 'one operation at a time');
    const busy = this.#busyOf(id);
    this.#note(`t${id}: ${what} ${range.begin} + ${range.end - range.begin}`);
    busy.add(range);
    const promise = work()
      .catch((error: unknown) => {
        if (!this.#isExpected(error)) this.#failure ??= error;
      })
      .finally(() => {
        busy.delete(range);
        this.#inFlight.delete(promise);
      });
    this.#inFlight.add(promise);
  }

  #busyOf(id: number): Set<Range> {
    const busy = this.#busy.get(id);
    if (busy === undefined) throw new DmError('ENXIO', `t${id} is not active`);
    return busy;
  }

  /** Whether `error` is what a failing disk may lead to. */
  #isExpected(error: unknown): boolean {
    if (this.#options.mayFail !== true || !(error instanceof DmError)) return false;
    this.#note(`failed: ${error.message}`);
    return true;
  }

  #device(id: number): BlockDevice {
    return this.stack.device(`t${id}`);
  }

  write(id: number, range: Range, isFua = false): void {
    const stamp = ++this.lastStamp;
    this.#start(id, range, `write ${stamp}${isFua ? ' (FUA)' : ''}`, async () => {
      const { begin, end } = range;
      const volume = this.world.volume(id);
      const data = Buffer.alloc((end - begin) * SECTOR_SIZE);
      stampSectors(data, stamp, begin);
      const record = volume.begin(begin, end, stamp, this.#event);
      const flags = isFua ? BioFlag.FUA : 0;
      try {
        await request(this.#device(id), BioOp.WRITE, begin, end - begin, data, flags);
      } catch (error) {
        volume.fail(record, this.#event);
        throw error;
      }
      volume.end(record, this.#event, isFua);
    });
  }

  read(id: number, range: Range): void {
    this.#start(id, range, 'read', () => this.#verify(id, range));
  }

  async #verify(id: number, { begin, end }: Range): Promise<void> {
    const data = Buffer.alloc((end - begin) * SECTOR_SIZE, 0xee);
    await request(this.#device(id), BioOp.READ, begin, end - begin, data);
    const volume = this.world.volume(id);
    const allowed = this.#options.mayFail === true ? volume.allowedAt(this.#event) : null;
    for (let sector = begin; sector < end; sector++) {
      const found = stampOf(data, (sector - begin) * SECTOR_SIZE, sector);
      const isRight = allowed?.may(sector, found) ?? found === volume.current[sector];
      assert.ok(isRight, `a read of device ${id}, sector ${sector}, found ${nameOf(found)}`);
    }
  }

  /** Does nothing if the pool ignores discards. */
  discard(id: number, range: Range): void {
    if (this.#device(id).limits.maxDiscardSectors === 0) return;
    const first = Math.ceil(range.begin / BLOCK_SECTORS);
    const last = Math.floor(range.end / BLOCK_SECTORS);
    this.#start(id, range, 'discard', async () => {
      const volume = this.world.volume(id);
      const records = [];
      for (let block = first; block < last; block++) {
        const begin = block * BLOCK_SECTORS;
        records.push(volume.begin(begin, begin + BLOCK_SECTORS, UNMAPPED, this.#event));
      }
      try {
        await request(this.#device(id), BioOp.DISCARD, range.begin, range.end - range.begin);
      } catch (error) {
        for (const record of records) volume.fail(record, this.#event);
        throw error;
      }
      for (const record of records) {
        // A block that was busy on the physical side stays as it is.
        if (this.#isMapped(id, record.begin / BLOCK_SECTORS)) volume.forget(record);
        else volume.end(record, this.#event, false);
      }
    });
  }

  #isMapped(id: number, block: number): boolean {
    const pool = this.stack.pools.findByDevice(this.stack.device('p'));
    const thin = [...(pool?.thins ?? [])].find(({ device }) => device.id === id);
    assert.ok(pool !== undefined && thin !== undefined);
    return pool.metadata.lookup(thin.device, block, makeMapping());
  }

  flush(id: number): void {
    this.#start(id, { begin: 0, end: 0 }, 'flush', async () => {
      const submit = this.#event;
      await request(this.#device(id), BioOp.FLUSH, 0, 0);
      this.world.volume(id).flushed(submit, this.#event);
    });
  }

  // --- operations of the control plane, one at a time

  /** Does an operation that may fail if disks may; resolves to whether it did not. */
  async try(operation: () => void | Promise<void>): Promise<boolean> {
    try {
      await operation();
      return true;
    } catch (error) {
      if (!this.#isExpected(error)) throw error;
      return false;
    }
  }

  /** A message to the pool, and the commit that makes it durable. */
  async #message(words: string): Promise<void> {
    this.#note(words);
    const submit = this.#event;
    await this.stack.message('p', words);
    this.world.committed(submit, this.#event);
  }

  async create(id: number): Promise<void> {
    const created = { submit: this.#event, end: NEVER };
    const history = new VolumeHistory(id, created, underOf(id), underOf(id));
    this.world.volumes.push(history);
    await this.#message(`create_thin ${id}`);
    created.end = this.#event;
    await this.#activate(id);
  }

  /** Both must lie over the external origin, or both must not. */
  async snapshot(fresh: number, id: number): Promise<void> {
    assert.equal(hasOrigin(fresh), hasOrigin(id));
    this.#note(`t${id}: suspend`);
    await this.stack.suspend(`t${id}`);
    while ((this.#busy.get(id)?.size ?? 0) > 0) await Promise.resolve();
    const created = { submit: this.#event, end: NEVER };
    this.world.volumes.push(this.world.volume(id).snapshot(fresh, created, underOf(fresh)));
    try {
      await this.#message(`create_snap ${fresh} ${id}`);
      created.end = this.#event;
    } finally {
      await this.stack.resume(`t${id}`);
    }
    await this.#activate(fresh);
  }

  async delete(id: number): Promise<void> {
    await this.settle();
    await this.stack.remove(`t${id}`);
    this.#busy.delete(id);
    const volume = this.world.volume(id);
    const deleted = { submit: this.#event, end: NEVER };
    volume.deleted = deleted;
    await this.#message(`delete ${id}`);
    deleted.end = this.#event;
  }

  async setTransactionId(id: number): Promise<void> {
    const old = this.world.transactionId;
    const change = this.world.changeTransactionId(id, this.#event);
    await this.#message(`set_transaction_id ${old} ${id}`);
    change.end = this.#event;
  }

  /** Suspends a volume, does something to it, and resumes it. */
  async suspended(id: number, noflush: boolean, meanwhile: () => void): Promise<void> {
    this.#note(`t${id}: suspend${noflush ? ' --noflush' : ''} and resume`);
    await this.stack.suspend(`t${id}`, noflush);
    meanwhile();
    await this.stack.resume(`t${id}`);
  }

  async suspendPool(noflush: boolean): Promise<void> {
    this.#note('p: suspend and resume');
    await this.stack.suspend('p', noflush);
    await this.stack.resume('p');
  }

  async growData(nrBlocks: number): Promise<void> {
    this.dataBlocks = Math.min(this.dataBlocks + nrBlocks, DATA_BLOCKS.last);
    this.#note(`p: grow data to ${this.dataBlocks} blocks`);
    await this.stack.reload('p', this.#poolTable());
    await this.stack.suspend('p');
    await this.stack.resume('p');
  }

  async growMetadata(nrBlocks: number): Promise<void> {
    this.metadataBlocks = Math.min(this.metadataBlocks + nrBlocks, METADATA_BLOCKS.last);
    this.#note(`p: grow metadata to ${this.metadataBlocks} blocks`);
    await this.stack.suspend('p');
    await this.stack.reload('meta', this.#metadataTable());
    await this.stack.suspend('meta');
    await this.stack.resume('meta');
    await this.stack.resume('p');
  }

  async idle(ms: number): Promise<void> {
    this.#note(`idle for ${ms.toFixed(1)} ms`);
    await this.clock.delay(ms);
  }
}

const NOTHING_UNDER = new Uint32Array(VOLUME_SECTORS);
const ORIGIN_UNDER = new Uint32Array(VOLUME_SECTORS).fill(ORIGIN_STAMP, 0, ORIGIN_SECTORS);

const underOf = (id: number): Uint32Array => (hasOrigin(id) ? ORIGIN_UNDER : NOTHING_UNDER);

/** What a used disk is full of: nothing that a write of ours looks like. */
function oldData(nrSectors: number): SparseBytes {
  const bytes = new SparseBytes(4096);
  const old = Buffer.alloc(SECTOR_SIZE, 'somebody else');
  for (let i = 0; i < nrSectors; i++) bytes.write(i * SECTOR_SIZE, SECTOR_SIZE, old, 0);
  return bytes;
}

async function originDisk(): Promise<MemoryDevice> {
  const disk = new MemoryDevice('origin', ORIGIN_SECTORS);
  const content = Buffer.alloc(ORIGIN_SECTORS * SECTOR_SIZE);
  stampSectors(content, ORIGIN_STAMP, 0);
  await request(disk, BioOp.WRITE, 0, ORIGIN_SECTORS, content);
  return disk;
}
