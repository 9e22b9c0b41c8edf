/**
 * Every read, write, flush and discard of every scenario fails, one after the other, once or from
 * then on, on the metadata device, the fast device and the origin of a cache. Whatever happens:
 * every request ends, no bug is met, the cache is in a mode that fits what failed, and what was
 * acknowledged is there. The counterpart of failing-disks.test.ts.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SECTOR_SIZE } from '../../src/base/numbers.ts';
import { Random } from '../../src/base/random.ts';
import { BioOp } from '../../src/block/bio.ts';
import { LOSSES } from '../../src/block/crash-images.ts';
import { request } from '../../src/block/device.ts';
import type { Fault, FaultyOp } from '../../src/block/simulated-disk.ts';
import { seedOf } from '../helpers/random.ts';
import {
  CACHE_BLOCK,
  CacheLife,
  NO_CACHE,
  type CacheRange,
  type CacheRemains,
  type Mode,
} from './cache-life.ts';
import { Cuts } from './cuts.ts';

const OPS: readonly FaultyOp[] = ['read', 'write', 'flush', 'discard'];
const DISKS = ['metadata', 'fast', 'origin'] as const;
type Disk = (typeof DISKS)[number];

/** After the scenario: time to write back what is dirty. */
const AFTERMATH_MS = 15_000;

const blockAt = (index: number, nr = 1): CacheRange => ({
  begin: index * CACHE_BLOCK,
  end: (index + nr) * CACHE_BLOCK,
});
/** Of block 1, which is cached. */
const part: CacheRange = { begin: CACHE_BLOCK + 8, end: CACHE_BLOCK + 16 };

type Step = (life: CacheLife) => void | Promise<void>;

interface Scenario {
  readonly mode: Mode;
  readonly steps: readonly Step[];
}

/** Reads again and again until the block is promoted. */
async function heat(life: CacheLife, block: number): Promise<void> {
  for (let i = 0; i < 3; i++) {
    life.read(blockAt(block));
    await life.settle();
    await life.idle(1100);
  }
}

// Blocks 0 to 3 are cached and clean when a scenario begins.
const scenarios: Record<string, Scenario> = {
  'writeback: hits, promotions, writeback': {
    mode: 'writeback',
    steps: [
      (life) => life.write(part),
      (life) => life.write(blockAt(8)),
      (life) => life.write(blockAt(9), true),
      (life) => life.flush(),
      (life) => life.idle(4000),
      (life) => life.read(blockAt(0, 10)),
      (life) => life.suspendResume(false),
      (life) => life.write(part, true),
    ],
  },
  'writeback: copying promotions, demotions': {
    mode: 'writeback',
    steps: [
      (life) => life.write(blockAt(4, 4)),
      (life) => heat(life, 12),
      (life) => life.idle(65_000),
      (life) => heat(life, 13),
      (life) => life.write({ begin: 14 * CACHE_BLOCK, end: 14 * CACHE_BLOCK + 8 }),
      (life) => heat(life, 14),
      (life) => life.flush(),
      (life) => life.read(blockAt(10, 5)),
    ],
  },
  'writeback: discards': {
    mode: 'writeback',
    steps: [
      (life) => life.write(part),
      (life) => life.discard(blockAt(0, 2)),
      (life) => life.discard(blockAt(8, 2)),
      (life) => life.write({ begin: 8 * CACHE_BLOCK + 3, end: 8 * CACHE_BLOCK + 5 }),
      (life) => life.flush(),
      (life) => life.idle(3000),
      (life) => life.read(blockAt(0, 10)),
    ],
  },
  'writethrough: hits and misses': {
    mode: 'writethrough',
    steps: [
      (life) => life.write(part),
      (life) => life.write(blockAt(2), true),
      (life) => life.write(blockAt(8)),
      (life) => heat(life, 8),
      (life) => life.write({ begin: 8 * CACHE_BLOCK, end: 8 * CACHE_BLOCK + 8 }),
      (life) => life.flush(),
      (life) => life.read(blockAt(0, 9)),
    ],
  },
  'passthrough: invalidation by writes and by messages': {
    mode: 'passthrough',
    steps: [
      (life) => life.read(blockAt(0, 2)),
      (life) => life.write(part),
      (life) => life.write(blockAt(2), true),
      (life) => life.write(blockAt(8)),
      (life) => life.message('invalidate_cblocks 3'),
      (life) => life.flush(),
      (life) => life.read(blockAt(0, 9)),
    ],
  },
  'modes one after the other': {
    mode: 'writeback',
    steps: [
      (life) => life.write(part),
      (life) => life.reload('writethrough', 'smq 0'),
      (life) => life.write(blockAt(0)),
      (life) => life.idle(3000),
      (life) => life.reload('passthrough', 'smq 0'),
      (life) => life.write(blockAt(1)),
      (life) => life.reload('writeback', 'cleaner 0'),
      (life) => life.write(blockAt(2)),
      (life) => life.suspendResume(true),
    ],
  },
};

async function prepare(random: Random): Promise<CacheRemains> {
  const life = new CacheLife(random.fork(), NO_CACHE, 2);
  await life.clock.run(
    (async () => {
      await life.open('writeback');
      for (let i = 0; i < 4; i++) life.write(blockAt(i));
      await life.settle();
      await life.idle(8000);
      await life.close();
    })(),
  );
  const cuts = new Cuts(life, random);
  return life.remains(await cuts.cut(life.storage.nrEvents, 'none', 'preparation'));
}

/** Where a fault is planted. */
interface Place {
  readonly disk: Disk;
  readonly fault: Fault;
}

class Trial {
  readonly life: CacheLife;
  readonly #what: string;
  readonly #scenario: Scenario;

  constructor(name: string, scenario: Scenario, remains: CacheRemains, place: Place | null) {
    // The same seed in all trials of a scenario: the requests are the same up to the failure.
    this.life = new CacheLife(new Random(1), remains, 2, { mayFail: true });
    this.#what = place === null ? name : `${name}; ${place.disk}: ${JSON.stringify(place.fault)}`;
    this.#scenario = scenario;
    if (place !== null) this.life[place.disk].fail(place.fault);
  }

  get #log(): readonly string[] {
    return this.life.stack.log.lines;
  }

  /** Lives; rejects if a request hangs, a bug is met, or the mode is not what it should be. */
  async live(): Promise<void> {
    const { life } = this;
    try {
      await life.clock.run(this.#liveThrough());
      assert.equal(
        this.#log.find((text) => text.includes('bug: ')),
        undefined,
      );
    } catch (error) {
      const { stack } = error as Error;
      throw new Error(`${this.#what}: ${stack}\n${life.diary.join('\n')}\n${this.#log.join('\n')}`);
    }
  }

  async #liveThrough(): Promise<void> {
    const { life } = this;
    const { mode, steps } = this.#scenario;
    if (await life.try(() => life.open(mode))) {
      for (const step of steps) {
        // What an earlier failure has taken away cannot be worked on.
        const isDone = await life.try(() => step(life));
        if (!isDone && !(await this.#resume())) return;
        await life.settle();
      }
      await life.clock.delay(AFTERMATH_MS);
      await this.#verifyMode();
    }
    for (const disk of life.disks) disk.heal();
    await life.close();
  }

  /** A resume that failed can be tried again; false if the device stays suspended. */
  async #resume(): Promise<boolean> {
    const { life } = this;
    if (life.stack.device('c').isSuspended) await life.try(() => life.stack.resume('c'));
    return !life.stack.device('c').isSuspended;
  }

  /** A transaction that was lost leaves its mark; nothing else does. */
  async #verifyMode(): Promise<void> {
    const status = await this.life.stack.status('c');
    const lost = this.#log.some((text) => text.includes('aborting current metadata'));
    if (!lost) assert.match(status, / rw - $/);
    else assert.match(status, / ro needs_check $| Error$| Fail$/);
    const unrecoverable = this.#log.some((text) => text.includes('failed to abort'));
    if (unrecoverable) assert.match(status, / Fail$/);
  }

  /** What is on the disks when all has ended, and after cuts here and there. */
  async verify(random: Random): Promise<void> {
    const { life } = this;
    const { nrEvents } = life.storage;
    const cuts = new Cuts(life, random);
    const events = [random.below(nrEvents + 1), random.below(nrEvents + 1)].sort((a, b) => a - b);
    try {
      for (const event of events) await cuts.cut(event, random.pick(LOSSES), this.#what);
      await cuts.cut(nrEvents, 'none', this.#what);
    } catch (error) {
      throw new Error(`${(error as Error).message}\n${this.#log.join('\n')}`);
    }
  }
}

for (const [name, scenario] of Object.entries(scenarios)) {
  const seed = seedOf(80);
  test(`failing disks lose nothing that a cache acknowledged: ${name} (seed ${seed})`, async () => {
    const random = new Random(seed);
    const remains = await prepare(random);
    const rehearsal = new Trial(name, scenario, remains, null);
    await rehearsal.live();
    const places: Place[] = [];
    for (const disk of DISKS) {
      for (const op of OPS) {
        const nr = rehearsal.life[disk].nrOps[op];
        for (let nth = 0; nth < nr; nth++) {
          for (const stays of [false, true]) places.push({ disk, fault: { op, nth, stays } });
        }
      }
    }
    let nrFailed = 0;
    for (const place of places) {
      const trial = new Trial(name, scenario, remains, place);
      await trial.live();
      await trial.verify(random);
      nrFailed += trial.life[place.disk].nrFailed;
    }
    assert.ok(nrFailed > 20, `${nrFailed} requests failed`);
  });
}

// A migration that had failed used to wake the next look for work, which found the same block: with
// an origin that was gone, or metadata that could not be written, a cache did nothing else.
test('a writeback that fails is tried again at the next tick, not at once', async () => {
  const random = new Random(seedOf(81));
  const life = new CacheLife(random, NO_CACHE, 2, { mayFail: true });
  await life.clock.run(
    (async () => {
      await life.open('writeback');
      life.write(blockAt(0));
      await life.settle();
      life.origin.fail({ op: 'write', nth: 0, stays: true });
      await life.idle(10_000);
      const { nrFailed } = life.origin;
      assert.ok(nrFailed >= 5 && nrFailed <= 11, `${nrFailed} writes failed`);
      life.origin.heal();
      await life.idle(3000);
      assert.match(await life.stack.status('c'), / 0 2 metadata2 writeback /, 'nothing is dirty');
    })(),
  );
});

// The policy used to forget a block before the commit that drops it: when that failed, a write
// passed by a mapping that was there again, and whoever came in another mode read what was before.
test('a block whose invalidation was not committed is not passed by', async () => {
  const random = new Random(seedOf(82));
  const life = new CacheLife(random, await prepare(random), 2, { mayFail: true });
  await life.clock.run(
    (async () => {
      await life.open('passthrough');
      life.metadata.fail({ op: 'write', nth: 0, stays: true });
      await assert.rejects(life.message('invalidate_cblocks 0-8'), { errno: 'EIO' });
      const { nrFailed } = life.metadata;
      assert.ok(nrFailed > 0, 'the commit failed');
      const data = Buffer.alloc(CACHE_BLOCK * SECTOR_SIZE, 0x33);
      const write = request(life.stack.device('c'), BioOp.WRITE, 0, CACHE_BLOCK, data);
      await assert.rejects(write, { errno: 'EIO' });
      life.metadata.heal();
      await life.close();
    })(),
  );
});

test('a resume that cannot take the mark of a clean shutdown off is refused', async () => {
  const random = new Random(seedOf(83));
  const life = new CacheLife(random, await prepare(random), 2, { mayFail: true });
  await life.clock.run(
    (async () => {
      await life.open('writeback');
      await life.stack.suspend('c');
      await life.stack.reload('c', await life.stack.table('c'));
      life.metadata.fail({ op: 'write', nth: 0, stays: true });
      await assert.rejects(life.stack.resume('c'), { errno: 'EIO' });
      assert.ok(life.stack.device('c').isSuspended, 'no I/O is let in');
      life.metadata.heal();
      await life.close();
    })(),
  );
});
