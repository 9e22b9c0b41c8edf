/**
 * The mapper as a whole against a model: random tables of linear, striped, zero and error, two
 * deep, over disks that end requests in any order; random I/O, also in flight while tables are
 * swapped, and waiting while devices are suspended. The model is an array of bytes for each disk,
 * and for each table a list that says, sector by sector, where it leads.
 *
 *   t0  t1      top devices, over middle ones and disks
 *   m0  m1      middle devices, over disks
 *   d0  d1  d2  disks; d2 cannot discard
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { errno } from '../../src/base/errno.ts';
import { BioFlag, BioOp } from '../../src/block/bio.ts';
import { ExtentFlag, plainLimits } from '../../src/block/device.ts';
import { MemoryDevice } from '../../src/block/memory-device.ts';
import { submit } from '../helpers/block-device-suite.ts';
import { Random, seedOf } from '../helpers/random.ts';
import { ShuffleDevice } from '../helpers/shuffle-device.ts';
import { SECTOR, Stack } from '../helpers/stack.ts';

const DISK_SECTORS = 160;
const MIDDLE_SECTORS = 72;
const TOP_SECTORS = 60;

/** What one sector of a table leads to. */
type Place = 'zero' | 'error' | { readonly below: string; readonly sector: number };

/** A table, as text and as what it means. */
interface ModelTable {
  readonly text: string;
  readonly places: readonly Place[];
}

/** A part of a table: its words, and what its sectors lead to, the plainest way. */
function makeTarget(random: Random, lengthMax: number, below: ReadonlyMap<string, number>) {
  const kind = random.pick(['linear', 'linear', 'striped', 'striped', 'zero', 'error']);
  const nrStripes = kind === 'striped' ? random.between(1, 3) : 1;
  const chunk = kind === 'striped' ? random.between(1, 5) : 1;
  const nrRows = Math.floor(random.between(1, lengthMax) / (nrStripes * chunk));
  if (kind === 'zero' || kind === 'error' || nrRows === 0) {
    const length = random.between(1, Math.min(lengthMax, 12));
    const word = kind === 'error' ? 'error' : 'zero';
    return { words: word, places: new Array<Place>(length).fill(word) };
  }
  const stripes = Array.from({ length: nrStripes }, () => {
    const name = random.pick([...below.keys()]);
    const room = (below.get(name) as number) - nrRows * chunk;
    return { below: name, begin: random.between(0, room) };
  });
  const places: Place[] = [];
  for (let row = 0; row < nrRows; row++) {
    for (const stripe of stripes) {
      for (let i = 0; i < chunk; i++) {
        places.push({ below: stripe.below, sector: stripe.begin + row * chunk + i });
      }
    }
  }
  const where = stripes.map((stripe) => `${pathOf(stripe.below)} ${stripe.begin}`).join(' ');
  return {
    words: kind === 'linear' ? `linear ${where}` : `striped ${nrStripes} ${chunk} ${where}`,
    places,
  };
}

const pathOf = (name: string): string =>
  name.startsWith('d') ? `/dev/${name}` : `/dev/mapper/${name}`;

function makeTable(random: Random, size: number, below: ReadonlyMap<string, number>): ModelTable {
  const lines: string[] = [];
  const places: Place[] = [];
  while (places.length < size) {
    const target = makeTarget(random, size - places.length, below);
    lines.push(`${places.length} ${target.places.length} ${target.words}`);
    places.push(...target.places);
  }
  return { text: lines.join('\n'), places };
}

/** A table that can discard, if what is below can: of one target. */
function makePlainTable(
  random: Random,
  size: number,
  below: ReadonlyMap<string, number>,
): ModelTable {
  const name = random.pick([...below.keys()]);
  const begin = random.between(0, (below.get(name) as number) - size);
  return {
    text: `0 ${size} linear ${pathOf(name)} ${begin}`,
    places: Array.from({ length: size }, (_, i) => ({ below: name, sector: begin + i })),
  };
}

type Io = {
  readonly device: string;
  readonly op: BioOp;
  readonly sector: number;
  readonly n: number;
  readonly flags: number;
  readonly byte: number;
};

/** What a bio does by the model: its status, and the disk sectors that it reads or changes. */
interface Effect {
  status: number;
  /** By sector of the bio: the disk and its sector; zero; or untouched. */
  readonly sectors: readonly ('zero' | 'none' | { disk: string; sector: number })[];
}

class World {
  readonly stack = new Stack();
  readonly disks = new Map<string, Buffer>();
  readonly #loaded = new Map<string, ModelTable>();
  readonly #live = new Map<string, ModelTable>();
  /** What the bios that are on their way will do. */
  readonly #pending = new Map<Io, Effect>();
  /** Whether a device discards: decided when its table becomes live, by what is below it then. */
  readonly #discards = new Map<string, boolean>();
  readonly #shuffles: ShuffleDevice[] = [];

  constructor(random: Random) {
    for (const name of ['d0', 'd1', 'd2']) {
      const limits = name === 'd2' ? plainLimits() : {};
      const memory = new MemoryDevice(name, DISK_SECTORS, { limits });
      const shuffle = new ShuffleDevice(memory, random);
      this.#shuffles.push(shuffle);
      this.stack.disk(name, shuffle);
      this.disks.set(name, Buffer.alloc(DISK_SECTORS * SECTOR));
      this.#discards.set(name, name !== 'd2');
    }
  }

  static async make(random: Random): Promise<World> {
    const world = new World(random);
    for (const name of ['m0', 'm1', 't0', 't1']) {
      world.stack.registry.create(name);
      await world.load(name, random);
      await world.resume(name);
    }
    return world;
  }

  #makeTable(name: string, random: Random): ModelTable {
    const disks = [...this.disks.keys()].map((disk): [string, number] => [disk, DISK_SECTORS]);
    const plain = random.chance(0.4);
    if (name.startsWith('m')) {
      return (plain ? makePlainTable : makeTable)(random, MIDDLE_SECTORS, new Map(disks));
    }
    const below = new Map<string, number>([
      ...disks,
      ['m0', MIDDLE_SECTORS],
      ['m1', MIDDLE_SECTORS],
    ]);
    return (plain ? makePlainTable : makeTable)(random, TOP_SECTORS, below);
  }

  async load(name: string, random: Random): Promise<void> {
    const table = this.#makeTable(name, random);
    await this.stack.reload(name, table.text);
    this.#loaded.set(name, table);
  }

  async resume(name: string): Promise<void> {
    await this.stack.resume(name);
    this.goesLive(name);
  }

  /** The loaded table of a device, if there is one, counts from now on. */
  goesLive(name: string): void {
    const table = this.#loaded.get(name);
    if (table === undefined) return;
    this.#loaded.delete(name);
    this.#live.set(name, table);
    const can = (place: Place): boolean =>
      typeof place === 'object' && this.#discards.get(place.below) === true;
    this.#discards.set(name, table.places.every(can));
  }

  /** What a bio would do now. */
  effect(io: Io): Effect {
    const effect: Effect = { status: 0, sectors: [] };
    const deallocates = io.op === BioOp.DISCARD || io.op === BioOp.WRITE_ZEROES;
    const fail = (status: number): 'none' => {
      effect.status = status;
      return 'none';
    };
    const follow = (device: string, sector: number): Effect['sectors'][number] => {
      if (deallocates && this.#discards.get(device) !== true) return fail(errno.EOPNOTSUPP);
      if (this.disks.has(device)) return { disk: device, sector };
      const place = this.#live.get(device)?.places[sector] ?? 'error';
      if (place === 'error') return fail(errno.EIO);
      return place === 'zero' ? 'zero' : follow(place.below, place.sector);
    };
    const sectors: Effect['sectors'][number][] = [];
    for (let i = 0; i < io.n; i++) sectors.push(follow(io.device, io.sector + i));
    return { status: effect.status, sectors };
  }

  /** The disk sectors that a bio touches. */
  touched(io: Io): string[] {
    return this.effect(io).sectors.flatMap((at) =>
      typeof at === 'object' ? [`${at.disk} ${at.sector}`] : [],
    );
  }

  /** Submits a bio; the function that it resolves to compares its outcome with the model. */
  start(io: Io): () => Promise<void> {
    const data = Buffer.alloc(io.n * SECTOR, io.op === BioOp.READ ? 0xee : io.byte);
    const device = this.stack.device(io.device);
    const status = submit(device, io.op, io.sector, io.n, { data, flags: io.flags });
    return async () => {
      const text = `${io.device}: op ${io.op} at ${io.sector}+${io.n}`;
      const effect = this.#pending.get(io) as Effect;
      assert.equal(await status, effect.status, text);
      for (const [i, at] of effect.sectors.entries()) {
        const part = data.subarray(i * SECTOR, (i + 1) * SECTOR);
        if (io.op === BioOp.READ) this.#checkRead(part, at, `${text}, sector ${i}`);
        else if (typeof at === 'object')
          this.#sectorOf(at).fill(io.op === BioOp.WRITE ? io.byte : 0);
      }
    };
  }

  /** Settles what these bios do: they are mapped now. */
  settle(ios: readonly Io[]): void {
    for (const io of ios) this.#pending.set(io, this.effect(io));
  }

  #sectorOf({ disk, sector }: { disk: string; sector: number }): Buffer {
    return (this.disks.get(disk) as Buffer).subarray(sector * SECTOR, (sector + 1) * SECTOR);
  }

  #checkRead(part: Buffer, at: Effect['sectors'][number], text: string): void {
    if (typeof at === 'object') assert.ok(part.equals(this.#sectorOf(at)), text);
    else
      assert.ok(
        part.every((byte) => byte === (at === 'zero' ? 0 : 0xee)),
        text,
      );
  }

  /** Compares all that can be read, every way that it can be, with the model. */
  async checkAll(): Promise<void> {
    for (const device of this.stack.registry.devices) {
      const n = device.sizeSectors;
      const io: Io = { device: device.dmName, op: BioOp.READ, sector: 0, n, flags: 0, byte: 0 };
      this.settle([io]);
      await this.start(io)();
      const { sectors } = this.effect(io);
      let sector = 0;
      device.blockStatus(0, n, (count, flags) => {
        for (const end = sector + count; sector < end; sector++) {
          if ((flags & ExtentFlag.ZERO) === 0) continue;
          const at = sectors[sector];
          assert.ok(at !== undefined && at !== 'none', `${device.dmName}: ${sector} is no zeroes`);
          if (at !== 'zero') assert.ok(this.#sectorOf(at).every((byte) => byte === 0));
        }
        return true;
      });
      assert.equal(sector, n);
      for (const [i, at] of sectors.entries()) {
        const data = Buffer.alloc(SECTOR, 0xee);
        const status = device.readSync(i, 1, data, 0);
        assert.equal(status, at === 'none' ? errno.EIO : 0);
        this.#checkRead(data, at, `${device.dmName}: synchronous read of ${i}`);
      }
    }
  }

  /** Takes everything apart; what must be left is nothing. */
  async end(): Promise<void> {
    for (const shuffle of this.#shuffles) shuffle.steady();
    await this.checkAll();
    for (const name of ['t1', 't0', 'm1', 'm0']) {
      const device = this.stack.device(name);
      assert.equal(device.openCount > 0, this.stack.registry.usersOf(device).length > 0);
      if (name.startsWith('m')) assert.equal(device.openCount, 0, `${name} is free`);
      await this.stack.remove(name);
    }
    const found = Buffer.alloc(DISK_SECTORS * SECTOR);
    for (const [name, content] of this.disks) {
      const { device } = this.stack.registry.lookup.use(`/dev/${name}`, true, '/', null);
      assert.equal(device.readSync(0, DISK_SECTORS, found, 0), 0);
      assert.ok(found.equals(content), `${name} holds what the model says`);
    }
  }
}

const OPS: readonly BioOp[] = [
  BioOp.READ,
  BioOp.READ,
  BioOp.WRITE,
  BioOp.WRITE,
  BioOp.DISCARD,
  BioOp.WRITE_ZEROES,
];

/** Up to eight bios, none of which touches what another one changes. */
function makeBatch(world: World, random: Random, flags: readonly number[]): Io[] {
  const ios: Io[] = [];
  const read = new Set<string>();
  const changed = new Set<string>();
  for (let i = random.between(1, 8); i > 0; i--) {
    const device = random.pick(['t0', 't1', 't0', 't1', 'm0', 'm1']);
    const size = device.startsWith('m') ? MIDDLE_SECTORS : TOP_SECTORS;
    const sector = random.below(size);
    const op = random.pick(OPS);
    const io: Io = {
      device,
      op,
      sector,
      n: random.between(1, Math.min(size - sector, random.chance(0.3) ? size : 10)),
      flags: op === BioOp.WRITE ? random.pick(flags) : 0,
      byte: random.between(1, 255),
    };
    const touched = world.touched(io);
    if (touched.some((at) => changed.has(at) || (op !== BioOp.READ && read.has(at)))) continue;
    for (const at of touched) (op === BioOp.READ ? read : changed).add(at);
    ios.push(io);
  }
  return ios;
}

type Step = { readonly op: 'io' | 'swap' | 'wait' | 'suspend'; readonly seed: number };

async function runStep(world: World, { op, seed }: Step): Promise<void> {
  const random = new Random(seed);
  const name = random.pick(['m0', 'm1', 't0', 't1']);
  const device = world.stack.device(name);
  const noflush = random.chance(0.5);
  switch (op) {
    case 'io': {
      const ios = makeBatch(world, random, [0, BioFlag.FUA, BioFlag.PREFLUSH]);
      world.settle(ios);
      for (const check of ios.map((io) => world.start(io))) await check();
      assert.equal(await submit(device, BioOp.FLUSH, 0, 0), 0);
      break;
    }
    case 'swap': {
      // In flight as the table goes: mapped by the old one.
      const ios = makeBatch(world, random, [0, BioFlag.FUA]);
      world.settle(ios);
      const checks = ios.map((io) => world.start(io));
      await world.load(name, random);
      if (random.chance(0.5)) await world.stack.suspend(name, noflush);
      await world.stack.resume(name);
      for (const check of checks) await check();
      world.goesLive(name);
      break;
    }
    case 'wait': {
      // Submitted while the device is suspended: mapped by the new table, if there is one.
      await world.stack.suspend(name, noflush);
      if (random.chance(0.7)) await world.load(name, random);
      world.goesLive(name);
      const ios = makeBatch(world, random, [0, BioFlag.FUA, BioFlag.PREFLUSH]);
      world.settle(ios);
      const checks = ios.map((io) => world.start(io));
      await world.resume(name);
      for (const check of checks) await check();
      break;
    }
    case 'suspend':
      await world.stack.suspend(name, noflush);
      await world.stack.suspend(name);
      await world.resume(name);
      break;
  }
}

const steps = fc.array(
  fc.record({
    op: fc.constantFrom('io' as const, 'io', 'swap', 'wait', 'suspend'),
    seed: fc.nat(),
  }),
  { maxLength: 40, size: 'max' },
);

test('random tables, two deep, carry random I/O as the model does, through swaps and suspends', async () => {
  await fc.assert(
    fc.asyncProperty(fc.nat(), steps, async (seed, all) => {
      const world = await World.make(new Random(seed));
      for (const step of all) await runStep(world, step);
      await world.end();
    }),
    { seed: seedOf(1), numRuns: 100, includeErrorInReport: true },
  );
});
