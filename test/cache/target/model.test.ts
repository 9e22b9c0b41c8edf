/**
 * A whole cache against a plain array: random reads, writes, flushes, discards, invalidations,
 * pauses in which the policy ticks, suspends, reloads with another mode, policy or size, and
 * crashes, with the I/O of a step in flight together and ending in any order. What is refused is
 * refused exactly when the model says so. Properties of fast-check: what fails is made small.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { DmError } from '../../../src/base/error.ts';
import { SECTOR_SIZE } from '../../../src/base/numbers.ts';
import { SimulatedClock } from '../../../src/base/simulated-clock.ts';
import { BioFlag, BioOp } from '../../../src/block/bio.ts';
import { request } from '../../../src/block/device.ts';
import { MemoryDevice } from '../../../src/block/memory-device.ts';
import { CacheTarget } from '../../../src/cache/target/cache-target.ts';
import { readCacheImage } from '../../../src/cache/tools/cache-image.ts';
import { checkCache } from '../../../src/cache/tools/check.ts';
import { Boot, BootDevice } from '../../helpers/boot.ts';
import { Random, seedOf } from '../../helpers/random.ts';
import { Stack } from '../../helpers/stack.ts';

/** Sectors of a block; content is followed in pieces. */
const BLOCK = 64;
const PIECE = 8;
const PER_BLOCK = BLOCK / PIECE;
const ORIGIN_BLOCKS = 24;
/** The last block is not a whole one. */
const NR_PIECES = ORIGIN_BLOCKS * PER_BLOCK + 3;
const CBLOCKS_MAX = 10;

const MODES = ['writeback', 'writethrough', 'passthrough'] as const;
type Mode = (typeof MODES)[number];

interface Io {
  readonly op: 'write' | 'fua' | 'read' | 'discard';
  readonly begin: number;
  readonly count: number;
}

type Op =
  | { readonly op: 'io'; readonly ios: readonly Io[] }
  | { readonly op: 'flush' | 'crash' | 'remove' | 'heat' }
  | { readonly op: 'idle'; readonly ms: number }
  | { readonly op: 'suspend'; readonly noflush: boolean; readonly io: Io }
  | { readonly op: 'reload'; readonly mode: Mode; readonly policy: 'smq' | 'cleaner' }
  | { readonly op: 'resize'; readonly nrCblocks: number }
  | { readonly op: 'invalidate'; readonly begin: number; readonly count: number }
  | { readonly op: 'threshold'; readonly sectors: number };

const io: fc.Arbitrary<Io> = fc
  .record({
    op: fc.constantFrom('write', 'write', 'write', 'fua', 'read', 'discard'),
    // A few blocks get most of it, so that they are promoted.
    block: fc.oneof({ weight: 3, arbitrary: fc.nat(4) }, fc.nat(ORIGIN_BLOCKS)),
    part: fc.oneof(fc.constant(null), fc.tuple(fc.nat(PER_BLOCK - 1), fc.nat(PER_BLOCK + 4))),
  })
  .map(({ op, block, part }) => ({
    op: op,
    begin: block * PER_BLOCK + (part?.[0] ?? 0),
    count: (part?.[1] ?? PER_BLOCK - 1) + 1,
  }));

const opArbitrary: fc.Arbitrary<Op> = fc.oneof(
  {
    weight: 20,
    arbitrary: fc.record({
      op: fc.constant('io' as const),
      ios: fc.array(io, { minLength: 1, maxLength: 6 }),
    }),
  },
  { weight: 4, arbitrary: fc.record({ op: fc.constantFrom('flush' as const, 'heat' as const) }) },
  { weight: 2, arbitrary: fc.record({ op: fc.constantFrom('crash' as const, 'remove' as const) }) },
  {
    weight: 4,
    arbitrary: fc.record({
      op: fc.constant('idle' as const),
      ms: fc.constantFrom(30, 1100, 6000, 65_000),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ op: fc.constant('suspend' as const), noflush: fc.boolean(), io }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      op: fc.constant('reload' as const),
      mode: fc.constantFrom(...MODES),
      policy: fc.constantFrom('smq' as const, 'smq' as const, 'cleaner' as const),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      op: fc.constant('resize' as const),
      nrCblocks: fc.integer({ min: 1, max: CBLOCKS_MAX }),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      op: fc.constant('invalidate' as const),
      begin: fc.nat(CBLOCKS_MAX),
      count: fc.integer({ min: 1, max: CBLOCKS_MAX }),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      op: fc.constant('threshold' as const),
      sectors: fc.constantFrom(0, 2048),
    }),
  },
);

/** What a piece may hold; null is anything that it ever held: it was discarded. */
type Allowed = ReadonlySet<number> | null;

/** The plain array: what each piece holds, and what a crash may make of that. */
class Model {
  readonly now: Allowed[] = Array.from({ length: NR_PIECES }, () => new Set([0]));
  readonly #afterCrash: Allowed[] = [...this.now];
  readonly #ever = Array.from({ length: NR_PIECES }, () => new Set([0]));

  write(piece: number, value: number, isFua: boolean): void {
    const after = this.#afterCrash[piece] ?? null;
    this.now[piece] = new Set([value]);
    this.#ever[piece]?.add(value);
    if (isFua) this.#afterCrash[piece] = new Set([value]);
    else this.#afterCrash[piece] = after === null ? null : new Set([...after, value]);
  }

  discard(piece: number): void {
    this.now[piece] = null;
    this.#afterCrash[piece] = null;
  }

  flush(): void {
    for (const [piece, allowed] of this.now.entries()) this.#afterCrash[piece] = allowed;
  }

  crash(): void {
    for (const [piece, allowed] of this.#afterCrash.entries()) this.now[piece] = allowed;
  }

  /** A read has found `value`: what a crash left is known from now on. */
  found(piece: number, value: number): void {
    const allowed = this.now[piece] ?? this.#ever[piece];
    assert.ok(
      allowed?.has(value),
      `piece ${piece} is ${value}, not ${[...(allowed ?? [])].join()}`,
    );
    if (this.now[piece] !== null) this.now[piece] = new Set([value]);
  }
}

/** How often things happened, over all runs: a model test that meets nothing shows nothing. */
const seen = new Map<string, number>();
const count = (what: string): void => void seen.set(what, (seen.get(what) ?? 0) + 1);

class Subject {
  readonly clock = new SimulatedClock();
  readonly #random: Random;
  readonly #format: 1 | 2;
  readonly #metadata = new MemoryDevice('meta', 1024);
  readonly #fast = new MemoryDevice('fast', CBLOCKS_MAX * BLOCK);
  readonly #origin = new MemoryDevice('origin', NR_PIECES * PIECE);
  readonly #model = new Model();
  #boot: Boot;
  #stack: Stack;
  #nrCblocks = 6;
  #mode: Mode = 'writeback';
  #policy = 'smq';
  #lastValue = 0;

  constructor(seed: number, format: 1 | 2) {
    this.#random = new Random(seed);
    this.#format = format;
    this.#boot = new Boot(this.clock);
    this.#stack = this.#start();
  }

  #start(): Stack {
    const stack = new Stack(this.#boot);
    for (const device of [this.#metadata, this.#fast, this.#origin]) {
      stack.disk(device.name, new BootDevice(this.#boot, device, this.#random));
    }
    return stack;
  }

  async open(): Promise<void> {
    await this.#stack.create('cdata', this.#fastTable());
    await this.#stack.create('c', this.#table());
  }

  #fastTable(): string {
    return `0 ${this.#nrCblocks * BLOCK} linear /dev/fast 0`;
  }

  #table(mode = this.#mode, policy = this.#policy): string {
    const features = this.#format === 2 ? `2 metadata2 ${mode}` : `1 ${mode}`;
    const devices = '/dev/meta /dev/mapper/cdata /dev/origin';
    return `0 ${NR_PIECES * PIECE} cache ${devices} ${BLOCK} ${features} ${policy} 0`;
  }

  get #target(): CacheTarget {
    const target = this.#stack.device('c').live?.findOrNull(0);
    assert.ok(target instanceof CacheTarget);
    return target;
  }

  async run(op: Op): Promise<void> {
    switch (op.op) {
      case 'io':
        await this.#ios(op.ios);
        break;
      case 'flush':
        await request(this.#stack.device('c'), BioOp.FLUSH, 0, 0);
        this.#model.flush();
        break;
      case 'heat':
        await this.#heat();
        break;
      case 'idle':
        await this.clock.delay(op.ms);
        break;
      case 'suspend':
        await this.#suspend(op.noflush, op.io);
        break;
      case 'reload':
        await this.#reload(op.mode, op.policy);
        break;
      case 'resize':
        await this.#resize(op.nrCblocks);
        break;
      case 'invalidate':
        await this.#invalidate(op.begin, op.count);
        break;
      case 'threshold':
        await this.#stack.message('c', `migration_threshold ${op.sectors}`);
        break;
      case 'remove':
        await this.#remove();
        break;
      case 'crash':
        await this.#crash();
        break;
    }
    await this.#verifyStatus();
  }

  // --- I/O

  /** Those of one step are in flight together, as far as they do not overlap. */
  async #ios(ios: readonly Io[]): Promise<void> {
    const taken = new Set<number>();
    const running: Promise<void>[] = [];
    for (const each of ios) {
      const end = Math.min(each.begin + each.count, NR_PIECES);
      const pieces = Array.from({ length: end - each.begin }, (_, i) => each.begin + i);
      if (pieces.length === 0 || pieces.some((piece) => taken.has(piece))) continue;
      for (const piece of pieces) taken.add(piece);
      running.push(this.#io(each.op, each.begin, end));
    }
    await Promise.all(running);
  }

  async #io(op: Io['op'], begin: number, end: number): Promise<void> {
    const device = this.#stack.device('c');
    const sector = begin * PIECE;
    const nrSectors = (end - begin) * PIECE;
    if (op === 'read') {
      await this.#verify(begin, end);
    } else if (op === 'discard') {
      await request(device, BioOp.DISCARD, sector, nrSectors);
      for (let piece = begin; piece < end; piece++) this.#model.discard(piece);
    } else {
      const isFua = op === 'fua';
      const value = (this.#lastValue % 255) + 1;
      this.#lastValue++;
      const data = Buffer.alloc(nrSectors * SECTOR_SIZE, value);
      await request(device, BioOp.WRITE, sector, nrSectors, data, isFua ? BioFlag.FUA : 0);
      for (let piece = begin; piece < end; piece++) this.#model.write(piece, value, isFua);
    }
  }

  async #verify(begin: number, end: number): Promise<void> {
    const nrSectors = (end - begin) * PIECE;
    const data = Buffer.alloc(nrSectors * SECTOR_SIZE, 0xee);
    await request(this.#stack.device('c'), BioOp.READ, begin * PIECE, nrSectors, data);
    for (let piece = begin; piece < end; piece++) {
      this.#model.found(piece, valueOf(data, piece - begin));
    }
  }

  /** Reads block 2 until it should be cached. */
  async #heat(): Promise<void> {
    for (let i = 0; i < 4; i++) {
      await this.#verify(2 * PER_BLOCK, 3 * PER_BLOCK);
      await this.clock.delay(1100);
    }
  }

  // --- the control plane

  async #suspend(noflush: boolean, { op, begin, count: length }: Io): Promise<void> {
    const end = Math.min(begin + length, NR_PIECES);
    if (begin >= end) return;
    // One in flight when the suspend begins; one that waits for the resume.
    const first = this.#io(op, begin, end);
    await this.#stack.suspend('c', noflush);
    const second = this.#heatless();
    await this.#stack.resume('c');
    await Promise.all([first, second]);
  }

  /** A read of the tail, which is never cached. */
  #heatless(): Promise<void> {
    return this.#verify(NR_PIECES - 1, NR_PIECES);
  }

  async #reload(mode: Mode, policy: string): Promise<void> {
    await this.#stack.suspend('c');
    const { cache } = this.#target;
    const wanted =
      mode !== 'passthrough'
        ? 'done'
        : !cache.metadata.cleanWhenOpened
          ? 'EINVAL'
          : cache.nrDirty > 0
            ? 'EBUSY'
            : 'done';
    await this.#stack.reload('c', this.#table(mode, policy));
    const found = await outcome(() => this.#stack.resume('c'));
    count(`${mode}: ${found}`);
    assert.equal(found, wanted, `to ${mode}`);
    if (found === 'done') {
      this.#mode = mode;
      this.#policy = policy;
    } else {
      // The old table is gone; the one before it is loaded anew.
      await this.#stack.reload('c', this.#table());
      await this.#stack.resume('c');
    }
  }

  async #resize(nrCblocks: number): Promise<void> {
    await this.#stack.suspend('c');
    const { cache } = this.#target;
    const mayGo = cache.firstDirty(nrCblocks) < 0;
    if (nrCblocks >= this.#nrCblocks || mayGo) {
      count(nrCblocks < this.#nrCblocks ? 'shrunk' : 'grown');
      this.#nrCblocks = nrCblocks;
      await this.#stack.suspend('cdata');
      await this.#stack.reload('cdata', this.#fastTable());
      await this.#stack.resume('cdata');
    }
    await this.#stack.reload('c', this.#table());
    await this.#stack.resume('c');
  }

  async #invalidate(begin: number, nr: number): Promise<void> {
    const end = begin + nr;
    const isPassthrough = this.#mode === 'passthrough';
    const fits = begin < this.#nrCblocks && end <= this.#nrCblocks;
    const wanted = !isPassthrough ? 'EPERM' : fits ? 'done' : 'EINVAL';
    const found = await outcome(() =>
      this.#stack.message('c', `invalidate_cblocks ${begin}-${end}`),
    );
    assert.equal(found, wanted, 'invalidate_cblocks');
    if (found !== 'done') return;
    count('invalidated');
    for (let cblock = begin; cblock < end; cblock++) {
      assert.ok(!this.#target.cache.policy.isMapped(cblock), `cblock ${cblock} is gone`);
    }
  }

  async #remove(): Promise<void> {
    await this.#stack.remove('c');
    const { damage } = await checkCache(this.#metadata);
    assert.deepEqual(damage.lines(), [], 'the metadata is sound');
    this.#verifyDisks();
    this.#model.flush();
    await this.#reopen();
  }

  async #crash(): Promise<void> {
    this.#boot.stop();
    this.#boot = new Boot(this.clock);
    this.#stack = this.#start();
    this.#model.crash();
    const { damage } = await checkCache(this.#metadata);
    assert.equal(damage.nrFatal, 0, damage.lines().join('; '));
    await this.#stack.create('cdata', this.#fastTable());
    await this.#reopen();
    // Now it is known what the crash left. It is durable: nothing here is lost but by a crash.
    await this.#verify(0, NR_PIECES);
    await request(this.#stack.device('c'), BioOp.FLUSH, 0, 0);
    this.#model.flush();
  }

  /** In the mode that it had, if that is allowed. */
  async #reopen(): Promise<void> {
    const found = await outcome(() => this.#stack.create('c', this.#table()));
    count(`${this.#mode} anew: ${found}`);
    if (found === 'done') return;
    assert.equal(this.#mode, 'passthrough', `opening in ${this.#mode} mode: ${found}`);
    this.#mode = 'writeback';
    await this.#stack.create('c', this.#table());
  }

  // --- what must hold

  async #verifyStatus(): Promise<void> {
    const words = (await this.#stack.status('c')).split(' ');
    const [used, total] = (words[6] ?? '').split('/').map(Number);
    const dirty = Number(words[13]);
    assert.equal(total, this.#nrCblocks);
    assert.ok(used !== undefined && used <= this.#nrCblocks, words.join(' '));
    assert.ok(dirty <= used, words.join(' '));
    if (this.#mode === 'passthrough') assert.equal(dirty, 0, 'nothing is dirty in passthrough');
    assert.match(words.join(' '), / rw - $/);
    if (Number(words[11]) > 0) count('demoted');
    if (Number(words[12]) > 0) count('promoted');
  }

  /** After a clean shutdown: what the disks hold is what the model says, by either reading. */
  #verifyDisks(): void {
    const { mappings, superblock } = readCacheImage(this.#metadata);
    assert.ok(superblock.cleanShutdown);
    for (const all of [true, false]) {
      // What counts as clean may be dropped: then the origin alone is what there is.
      const used = mappings.filter(({ isDirty }) => all || isDirty);
      const cblocks = new Map(used.map(({ oblock, cblock }) => [oblock, cblock]));
      const data = Buffer.alloc(PIECE * SECTOR_SIZE);
      for (let piece = 0; piece < NR_PIECES; piece++) {
        const cblock = cblocks.get(Math.floor(piece / PER_BLOCK));
        const device = cblock === undefined ? this.#origin : this.#fast;
        const at = cblock === undefined ? piece : cblock * PER_BLOCK + (piece % PER_BLOCK);
        assert.equal(device.readSync(at * PIECE, PIECE, data, 0), 0);
        this.#model.found(piece, valueOf(data, 0));
      }
    }
  }

  /** The end: everything is read once more, and shut down. */
  async close(): Promise<void> {
    await this.#verify(0, NR_PIECES);
    await this.#remove();
    await this.#stack.registry.shutDown();
    const bug = this.#stack.log.lines.find((line) => line.includes('bug: '));
    assert.equal(bug, undefined);
  }
}

function valueOf(data: Uint8Array, index: number): number {
  const bytes = data.subarray(index * PIECE * SECTOR_SIZE, (index + 1) * PIECE * SECTOR_SIZE);
  const first = bytes[0] as number;
  assert.ok(
    bytes.every((byte) => byte === first),
    'a piece is never mixed',
  );
  return first;
}

async function outcome(work: () => Promise<unknown>): Promise<string> {
  try {
    await work();
    return 'done';
  } catch (error) {
    if (!(error instanceof DmError)) throw error;
    return error.errno;
  }
}

for (const format of [1, 2] as const) {
  const seed = seedOf(500 + format);
  test(`a cache of format ${format} does what a plain array does (seed ${seed})`, async () => {
    seen.clear();
    const ops = fc.array(opArbitrary, { maxLength: 80, size: 'max' });
    await fc.assert(
      fc.asyncProperty(ops, fc.nat(), async (list, randomness) => {
        const subject = new Subject(randomness, format);
        const all = async (): Promise<void> => {
          await subject.open();
          for (const op of list) await subject.run(op);
          await subject.close();
        };
        await subject.clock.run(all());
      }),
      { seed, numRuns: 120, includeErrorInReport: true },
    );
    const met = [
      'promoted',
      'demoted',
      'invalidated',
      'grown',
      'shrunk',
      'writeback: done',
      'writethrough: done',
      'passthrough: done',
      'passthrough: EBUSY',
      'passthrough: EINVAL',
      'passthrough anew: EINVAL',
    ];
    for (const what of met) assert.ok(seen.has(what), `${what} was met`);
  });
}
