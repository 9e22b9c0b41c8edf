/**
 * Every read, write, flush and discard of every scenario fails, one after the other, once or from
 * then on, on the metadata device and on the data device. Whatever happens: every request ends, no
 * bug is met, the pool is in a mode that fits what failed, and what was acknowledged is there.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Random } from '../../src/base/random.ts';
import { LOSSES } from '../../src/block/crash-images.ts';
import type { Fault, FaultyOp } from '../../src/block/simulated-disk.ts';
import { seedOf } from '../helpers/random.ts';
import { Cuts } from './cuts.ts';
import { Life, NOTHING, type Range, type Remains } from './life.ts';
import { BLOCK_SECTORS } from './world.ts';

const OPS: readonly FaultyOp[] = ['read', 'write', 'flush', 'discard'];
/** After the scenario: longer than the commit period, and than I/O waits for space. */
const AFTERMATH_MS = 70_000;

/** Volume 1 has its first two blocks written and flushed; 3 lies over an external origin. */
const FIRST = 1;
const OVER_ORIGIN = 3;

const blockAt = (index: number, nr = 1): Range => ({
  begin: index * BLOCK_SECTORS,
  end: (index + nr) * BLOCK_SECTORS,
});
const part: Range = { begin: 24, end: 32 };

type Step = (life: Life) => void | Promise<void>;

const scenarios: Record<string, readonly Step[]> = {
  'partial and whole writes to new blocks': [
    (life) => life.write(FIRST, { begin: 300, end: 308 }),
    (life) => life.write(OVER_ORIGIN, blockAt(0)),
    (life) => life.flush(FIRST),
    (life) => life.read(FIRST, blockAt(0, 3)),
  ],
  'FUA writes to new and to mapped blocks': [
    (life) => life.write(FIRST, blockAt(2), true),
    (life) => life.write(FIRST, part, true),
    (life) => life.write(OVER_ORIGIN, part, true),
    (life) => life.read(FIRST, blockAt(0, 3)),
  ],
  'copies out of an external origin': [
    (life) => life.write(OVER_ORIGIN, part),
    (life) => life.write(OVER_ORIGIN, { begin: 260, end: 270 }),
    (life) => life.flush(OVER_ORIGIN),
    (life) => life.discard(OVER_ORIGIN, blockAt(0, 3)),
    (life) => life.read(OVER_ORIGIN, blockAt(0, 3)),
  ],
  'a snapshot, and sharing broken on both sides': [
    (life) => life.snapshot(4, FIRST),
    (life) => life.write(FIRST, part),
    (life) => life.write(4, blockAt(1)),
    (life) => life.flush(4),
    (life) => life.flush(FIRST),
    (life) => life.read(4, blockAt(0, 3)),
  ],
  'discards of owned and of shared blocks': [
    (life) => life.snapshot(4, FIRST),
    (life) => life.write(FIRST, blockAt(0)),
    (life) => life.discard(4, blockAt(0, 2)),
    (life) => life.discard(FIRST, blockAt(0, 2)),
    (life) => life.flush(FIRST),
  ],
  'devices created and deleted': [
    (life) => life.create(2),
    (life) => life.write(2, blockAt(0)),
    (life) => life.snapshot(4, FIRST),
    (life) => life.delete(2),
    (life) => life.setTransactionId(7),
    (life) => life.delete(4),
  ],
  'data device grown': [
    (life) => life.growData(3),
    (life) => life.write(FIRST, blockAt(2)),
    (life) => life.flush(FIRST),
  ],
  'metadata device grown': [
    (life) => life.growMetadata(20),
    (life) => life.write(FIRST, blockAt(2)),
    (life) => life.flush(FIRST),
  ],
  'suspends, with and without flush': [
    (life) => life.suspended(FIRST, true, () => life.write(FIRST, blockAt(2))),
    (life) => life.suspendPool(false),
    (life) => life.suspendPool(true),
    (life) => life.read(FIRST, blockAt(0, 3)),
  ],
  'the commit timer': [
    (life) => life.write(FIRST, blockAt(2)),
    (life) => life.idle(2500),
    (life) => life.write(FIRST, part),
    (life) => life.idle(1500),
  ],
};

async function prepare(random: Random): Promise<Remains> {
  const life = new Life(random.fork(), NOTHING);
  await life.clock.run(
    (async () => {
      await life.open();
      await life.create(FIRST);
      await life.create(OVER_ORIGIN);
      life.write(FIRST, blockAt(0));
      life.write(FIRST, blockAt(1));
      await life.settle();
      life.flush(FIRST);
      await life.settle();
    })(),
  );
  const cuts = new Cuts(life, random);
  return life.remains(await cuts.cut(life.storage.nrEvents, 'none', 'preparation'));
}

/** Where a fault is planted. */
interface Place {
  readonly disk: 'metadata' | 'data';
  readonly fault: Fault;
}

class Trial {
  readonly life: Life;
  readonly #what: string;
  readonly #steps: readonly Step[];

  constructor(name: string, steps: readonly Step[], remains: Remains, place: Place | null) {
    // The same seed in all trials of a scenario: the requests are the same up to the failure.
    this.life = new Life(new Random(1), remains, { mayFail: true });
    this.#what = place === null ? name : `${name}; ${place.disk}: ${JSON.stringify(place.fault)}`;
    this.#steps = steps;
    if (place !== null) this.life[place.disk].fail(place.fault);
  }

  /** Lives; rejects if a request hangs, a bug is met, or the mode is not what it should be. */
  async live(): Promise<void> {
    const { life } = this;
    try {
      await life.clock.run(this.#liveThrough());
      this.#verifyLog();
    } catch (error) {
      const { stack } = error as Error;
      const log = life.stack.log.lines.join('\n');
      throw new Error(`${this.#what}: ${stack}\n${life.diary.join('\n')}\n${log}`);
    }
  }

  async #liveThrough(): Promise<void> {
    const { life } = this;
    if (await life.try(() => life.open())) {
      for (const step of this.#steps) {
        // What an earlier failure has taken away cannot be worked on.
        await life.try(() => step(life));
        await life.settle();
      }
      await life.clock.delay(AFTERMATH_MS);
      await life.settle();
      await this.#verifyMode();
    }
    life.metadata.heal();
    life.data.heal();
    await life.close();
  }

  get #logTexts(): readonly string[] {
    return this.life.stack.log.lines;
  }

  /** A transaction that was lost leaves its mark; nothing else does. */
  async #verifyMode(): Promise<void> {
    const status = await this.life.stack.status('p');
    const lost = this.#logTexts.some((text) => text.includes('aborting current metadata'));
    if (!lost) assert.match(status, / rw /);
    else assert.match(status, / ro .* needs_check | Fail/);
    const unrecoverable = this.#logTexts.some((text) => text.includes('failed to abort'));
    if (unrecoverable) assert.match(status, / Fail$/);
  }

  #verifyLog(): void {
    const bug = this.#logTexts.find((text) => text.includes('bug: '));
    assert.equal(bug, undefined);
  }

  /** What is on the disks when all has ended, and after cuts here and there. */
  async verify(random: Random): Promise<void> {
    const { life } = this;
    const { nrEvents } = life.storage;
    const cuts = new Cuts(life, random);
    const events = [random.below(nrEvents + 1), random.below(nrEvents + 1)].sort((a, b) => a - b);
    for (const event of events) await cuts.cut(event, random.pick(LOSSES), this.#what);
    await cuts.cut(nrEvents, 'none', this.#what);
  }
}

for (const [name, steps] of Object.entries(scenarios)) {
  const seed = seedOf(70);
  test(`failing disks lose nothing that was acknowledged: ${name} (seed ${seed})`, async () => {
    const random = new Random(seed);
    const remains = await prepare(random);
    const rehearsal = new Trial(name, steps, remains, null);
    await rehearsal.live();
    let nrFailed = 0;
    for (const disk of ['metadata', 'data'] as const) {
      const nrOps = { ...rehearsal.life[disk].nrOps };
      for (const op of OPS) {
        for (let nth = 0; nth < nrOps[op]; nth++) {
          for (const stays of [false, true]) {
            const trial = new Trial(name, steps, remains, { disk, fault: { op, nth, stays } });
            await trial.live();
            await trial.verify(random);
            nrFailed += trial.life[disk].nrFailed;
          }
        }
      }
    }
    assert.ok(nrFailed > 20, `${nrFailed} requests failed`);
  });
}
