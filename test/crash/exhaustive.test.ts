/**
 * All sequences of up to four operations on a pool of a few blocks, each cut at every event of its
 * last operation: what is too rare for chance is met here.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Random } from '../../src/base/random.ts';
import { LOSSES } from '../../src/block/crash-images.ts';
import { seedOf } from '../helpers/random.ts';
import { Cuts } from './cuts.ts';
import { Life, NOTHING, type Range, type Remains } from './life.ts';
import { BLOCK_SECTORS } from './world.ts';

const LENGTH_MAX = 4;
/** The first volume; each snapshot is taken of it. */
const FIRST = 1;
const SNAPSHOTS = [4, 7, 8, 10];

const WHOLE: Range = { begin: 0, end: BLOCK_SECTORS };
const PART: Range = { begin: 24, end: 32 };

interface Operation {
  readonly name: string;
  /** Needs a snapshot. */
  readonly onSnapshot?: boolean;
  readonly run: (life: Life) => void | Promise<void>;
}

const newest = (life: Life): number => life.world.ids.at(-1) as number;

const operations: readonly Operation[] = [
  { name: 'write part', run: (life) => life.write(FIRST, PART) },
  { name: 'write whole', run: (life) => life.write(FIRST, WHOLE) },
  { name: 'write whole (FUA)', run: (life) => life.write(FIRST, WHOLE, true) },
  { name: 'discard', run: (life) => life.discard(FIRST, WHOLE) },
  { name: 'flush', run: (life) => life.flush(FIRST) },
  {
    name: 'snapshot',
    run: (life) => life.snapshot(SNAPSHOTS[life.world.volumes.length - 1] as number, FIRST),
  },
  { name: 'write snapshot', onSnapshot: true, run: (life) => life.write(newest(life), PART) },
  { name: 'discard snapshot', onSnapshot: true, run: (life) => life.discard(newest(life), WHOLE) },
  { name: 'delete snapshot', onSnapshot: true, run: (life) => life.delete(newest(life)) },
];

/** All sequences of `length` operations in which a snapshot is there when it is needed. */
function* sequences(length: number): Generator<Operation[]> {
  if (length === 0) {
    yield [];
    return;
  }
  for (const before of sequences(length - 1)) {
    const nr = (name: string): number => before.filter((each) => each.name === name).length;
    const hasSnapshot = nr('snapshot') > nr('delete snapshot');
    for (const operation of operations) {
      if (operation.onSnapshot !== true || hasSnapshot) yield [...before, operation];
    }
  }
}

/** A pool with one volume, whose first block is written and flushed. */
async function firstLife(random: Random): Promise<Remains> {
  const life = new Life(random.fork(), NOTHING);
  await life.clock.run(
    (async () => {
      await life.open();
      await life.create(FIRST);
      life.write(FIRST, WHOLE);
      await life.settle();
      life.flush(FIRST);
      await life.settle();
    })(),
  );
  const cuts = new Cuts(life, random);
  return life.remains(await cuts.cut(life.storage.nrEvents, 'none', 'the first life'));
}

async function trySequence(
  sequence: readonly Operation[],
  remains: Remains,
  random: Random,
): Promise<number> {
  const life = new Life(random.fork(), remains);
  let lastBegins = 0;
  await life.clock.run(
    (async () => {
      await life.open();
      for (const operation of sequence) {
        lastBegins = life.storage.nrEvents;
        await operation.run(life);
        await life.settle();
      }
    })(),
  );
  const cuts = new Cuts(life, random);
  const what = sequence.map(({ name }) => name).join(', ');
  for (let event = lastBegins + 1; event <= life.storage.nrEvents; event++) {
    await cuts.cut(event, 'all', what);
    await cuts.cut(event, random.pick(LOSSES), what);
  }
  return cuts.nr;
}

for (let length = 1; length <= LENGTH_MAX; length++) {
  const seed = seedOf(40 + length);
  test(`no sequence of ${length} operations loses anything in a cut (seed ${seed})`, async () => {
    const random = new Random(seed);
    const remains = await firstLife(random);
    let nrCuts = 0;
    let nrSequences = 0;
    for (const sequence of sequences(length)) {
      nrCuts += await trySequence(sequence, remains, random);
      nrSequences++;
    }
    assert.ok(nrSequences >= 6 ** length);
    assert.ok(nrCuts > nrSequences);
  });
}
