/**
 * A whole pool against a model: seeded random operations, many in flight at once, on devices whose
 * bios end in any order; every read shows what the model says, and every so often the pool is
 * committed, checked as a whole and reopened.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SECTOR_SIZE } from '../../../src/base/numbers.ts';
import { BioFlag, BioOp } from '../../../src/block/bio.ts';
import { request, type BlockDevice } from '../../../src/block/device.ts';
import { MemoryDevice } from '../../../src/block/memory-device.ts';
import { makeMapping } from '../../../src/thin/metadata/thin-device.ts';
import { assertClean } from '../../helpers/check.ts';
import { Random, seedOf } from '../../helpers/random.ts';
import { ShuffleDevice } from '../../helpers/shuffle-device.ts';
import { Stack } from '../../helpers/stack.ts';

/** Sectors of a data block, and blocks of each thin device. */
const SPB = 128;
const THIN_BLOCKS = 24;
const THIN_SECTORS = SPB * THIN_BLOCKS;
const DATA_BLOCKS = 400;
/** Content is followed in pieces of so many sectors. */
const PIECE = 8;
const IN_FLIGHT_MAX = 24;

/** What a device holds: a byte by piece; missing is zero. */
type Content = Map<number, number>;

interface Range {
  readonly begin: number;
  readonly end: number;
}

class Rig {
  readonly #random: Random;
  readonly #features: string;
  readonly #meta = new MemoryDevice('meta', 4096 * 8);
  readonly #data = new MemoryDevice('data', DATA_BLOCKS * SPB);
  #stack: Stack;
  #shuffled: ShuffleDevice[] = [];
  readonly #devices = new Map<number, Content>();
  /** Ranges with an operation in flight, by device: nothing else touches them meanwhile. */
  readonly #busy = new Map<number, Set<Range>>();
  readonly #inFlight = new Set<Promise<void>>();
  #failure: unknown = null;

  constructor(random: Random, features: string) {
    this.#random = random;
    this.#features = features;
    this.#stack = new Stack();
  }

  async open(): Promise<void> {
    this.#stack = new Stack();
    this.#shuffled = [this.#meta, this.#data].map(
      (device) => new ShuffleDevice(device, this.#random),
    );
    this.#stack.disk('meta', this.#shuffled[0] as BlockDevice);
    this.#stack.disk('data', this.#shuffled[1] as BlockDevice);
    const length = DATA_BLOCKS * SPB;
    const table = `0 ${length} thin-pool /dev/meta /dev/data ${SPB} 0 ${this.#features}`;
    await this.#stack.create('p', table);
    for (const id of this.#devices.keys()) await this.#activate(id);
  }

  async #activate(id: number): Promise<void> {
    await this.#stack.create(`t${id}`, `0 ${THIN_SECTORS} thin /dev/mapper/p ${id}`);
    this.#busy.set(id, new Set());
  }

  async create(id: number): Promise<void> {
    await this.#stack.message('p', `create_thin ${id}`);
    this.#devices.set(id, new Map());
    await this.#activate(id);
  }

  /** One random step; operations with data go on in the background. */
  async step(): Promise<void> {
    if (this.#failure !== null) throw this.#failure as Error;
    const ids = [...this.#devices.keys()];
    const id = this.#random.pick(ids);
    const roll = this.#random.next();
    if (roll < 0.45) this.#write(id);
    else if (roll < 0.75) this.#read(id);
    else if (roll < 0.85) this.#discard(id);
    else if (roll < 0.9) this.#start(id, { begin: 0, end: 0 }, () => this.#flush(id));
    else if (roll < 0.93) await this.#snapshot(id, ids);
    else if (roll < 0.95 && ids.length > 1) await this.#delete(id);
    else if (roll < 0.96) await this.#suspendResume(id);
    else if (roll < 0.97) await this.#suspendPool();
    else await this.#stack.status('p');
    while (this.#inFlight.size >= IN_FLIGHT_MAX) await Promise.race(this.#inFlight);
  }

  #device(id: number): BlockDevice {
    return this.#stack.device(`t${id}`);
  }

  #isBusy(id: number, range: Range): boolean {
    return [...(this.#busy.get(id) ?? [])].some(
      ({ begin, end }) => begin < range.end && range.begin < end,
    );
  }

  /** Runs `work` in the background, with `range` (in pieces) of the device to itself. */
  #start(id: number, range: Range, work: () => Promise<void>): void {
    if (this.#isBusy(id, range)) return;
    this.#busy.get(id)?.add(range);
    const promise = work()
      .catch((error: unknown) => {
        this.#failure ??= error;
      })
      .finally(() => {
        this.#busy.get(id)?.delete(range);
        this.#inFlight.delete(promise);
      });
    this.#inFlight.add(promise);
  }

  async settle(): Promise<void> {
    await Promise.all(this.#inFlight);
    if (this.#failure !== null) throw this.#failure as Error;
  }

  #randomRange(): Range {
    const nrPieces = THIN_SECTORS / PIECE;
    const perBlock = SPB / PIECE;
    if (this.#random.chance(0.3)) {
      const begin = this.#random.below(THIN_BLOCKS) * perBlock;
      return { begin, end: begin + perBlock };
    }
    const begin = this.#random.below(nrPieces);
    return { begin, end: Math.min(begin + this.#random.between(1, perBlock * 2), nrPieces) };
  }

  #write(id: number): void {
    const range = this.#randomRange();
    const byte = this.#random.between(1, 255);
    const fua = this.#random.chance(0.2) ? BioFlag.FUA : 0;
    const { begin, end } = range;
    this.#start(id, range, async () => {
      const n = (end - begin) * PIECE;
      const data = Buffer.alloc(n * SECTOR_SIZE, byte);
      await request(this.#device(id), BioOp.WRITE, begin * PIECE, n, data, fua);
      for (let piece = begin; piece < end; piece++) this.#devices.get(id)?.set(piece, byte);
    });
  }

  #read(id: number): void {
    const range = this.#randomRange();
    this.#start(id, range, () => this.#verify(id, range));
  }

  async #verify(id: number, { begin, end }: Range): Promise<void> {
    const n = (end - begin) * PIECE;
    const data = Buffer.alloc(n * SECTOR_SIZE, 0xee);
    await request(this.#device(id), BioOp.READ, begin * PIECE, n, data);
    const content = this.#devices.get(id);
    for (let piece = begin; piece < end; piece++) {
      const wanted = content?.get(piece) ?? 0;
      const at = (piece - begin) * PIECE * SECTOR_SIZE;
      const found = data.subarray(at, at + PIECE * SECTOR_SIZE);
      const first = found[0] as number;
      assert.ok(
        found.every((byte) => byte === first),
        `device ${id} piece ${piece} is mixed`,
      );
      assert.equal(first, wanted, `device ${id} piece ${piece}`);
    }
  }

  #discard(id: number): void {
    const range = this.#randomRange();
    this.#start(id, range, async () => {
      const n = (range.end - range.begin) * PIECE;
      // A block that is busy on the physical side stays mapped: then it keeps what it had.
      await request(this.#device(id), BioOp.DISCARD, range.begin * PIECE, n);
      const perBlock = SPB / PIECE;
      const end = Math.floor(range.end / perBlock);
      for (let block = Math.ceil(range.begin / perBlock); block < end; block++) {
        if (this.#isMapped(id, block)) continue;
        for (let i = 0; i < perBlock; i++) this.#devices.get(id)?.delete(block * perBlock + i);
      }
    });
  }

  #isMapped(id: number, block: number): boolean {
    const pool = this.#stack.pools.findByDevice(this.#stack.device('p'));
    const thin = [...(pool?.thins ?? [])].find(({ device }) => device.id === id);
    assert.ok(pool !== undefined && thin !== undefined);
    return pool.metadata.lookup(thin.device, block, makeMapping());
  }

  async #flush(id: number): Promise<void> {
    await request(this.#device(id), BioOp.FLUSH, 0, 0);
  }

  async #snapshot(id: number, ids: readonly number[]): Promise<void> {
    const fresh = this.#random.between(1, 5000);
    if (ids.includes(fresh) || ids.length > 7) return;
    await this.#stack.suspend(`t${id}`);
    // All I/O of the device has ended; the model may be a microtask behind.
    while ((this.#busy.get(id)?.size ?? 0) > 0) await Promise.resolve();
    const content = new Map(this.#devices.get(id));
    await this.#stack.message('p', `create_snap ${fresh} ${id}`);
    await this.#stack.resume(`t${id}`);
    this.#devices.set(fresh, content);
    await this.#activate(fresh);
  }

  async #delete(id: number): Promise<void> {
    await this.settle();
    await this.#stack.remove(`t${id}`);
    await this.#stack.message('p', `delete ${id}`);
    this.#devices.delete(id);
    this.#busy.delete(id);
  }

  async #suspendResume(id: number): Promise<void> {
    await this.#stack.suspend(`t${id}`, this.#random.chance(0.5));
    this.#write(id); // Waits for the resume.
    await this.#stack.resume(`t${id}`);
  }

  async #suspendPool(): Promise<void> {
    await this.#stack.suspend('p', this.#random.chance(0.5));
    await this.#stack.resume('p');
  }

  /**
   * All of every device is as the model says; the metadata is sound; then everything starts anew.
   */
  async checkAndReopen(): Promise<void> {
    await this.settle();
    const all = { begin: 0, end: THIN_SECTORS / PIECE };
    for (const id of this.#devices.keys()) await this.#verify(id, all);
    const mapped = await this.#stack.status('p');
    const used = Number(/ (\d+)\/400 /.exec(mapped)?.[1]);
    for (const device of this.#shuffled) device.steady();
    await this.#stack.registry.shutDown();
    await assertClean(this.#meta);
    await this.open();
    const again = await this.#stack.status('p');
    assert.equal(Number(/ (\d+)\/400 /.exec(again)?.[1]), used, 'no block is lost on the way');
    for (const id of this.#devices.keys()) await this.#verify(id, all);
  }
}

const variants = [
  { name: 'zeroing, passdown', features: '0' },
  { name: 'zeroing, no passdown', features: '1 no_discard_passdown' },
];

for (const [index, { name, features }] of variants.entries()) {
  for (const seed of [seedOf(900 + index), seedOf(950 + index)]) {
    test(`a pool does what its model does: ${name} (seed ${seed})`, async () => {
      const rig = new Rig(new Random(seed), features);
      await rig.open();
      await rig.create(0);
      for (let round = 0; round < 6; round++) {
        for (let i = 0; i < 400; i++) await rig.step();
        await rig.checkAndReopen();
      }
    });
  }
}
