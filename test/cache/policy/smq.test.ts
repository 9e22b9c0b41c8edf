/**
 * What smq has been seen to do in the kernel (spec: cache, 15.2 to 15.9).
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { NR_LEVELS } from '../../../src/cache/policy/multi-queue.ts';
import {
  makeLookupResult,
  WorkOp,
  type LookupResult,
  type PolicyWork,
} from '../../../src/cache/policy/policy.ts';
import { randomLevel, SmqPolicy } from '../../../src/cache/policy/smq.ts';
import { checkSmq } from './check-smq.ts';

const SECOND = 100;

/** A policy of `nrCacheBlocks` blocks over an origin of 4096, with a clock to turn by hand. */
class Subject {
  now = 0;
  readonly policy: SmqPolicy;
  readonly #out = makeLookupResult();

  constructor(nrCacheBlocks: number) {
    this.policy = new SmqPolicy({
      nrCacheBlocks,
      blockSectors: 128,
      originSectors: 128 * 4096,
      jiffies: () => this.now,
      warn: () => undefined,
    });
  }

  /** Looks up, and ticks, as when one request comes after the other. */
  access(oblock: number, isWrite = false, isFast = false): LookupResult {
    this.policy.lookup(oblock, isWrite, isFast, this.#out);
    this.policy.tick();
    checkSmq(this.policy);
    return { ...this.#out };
  }

  /** A write of the whole block to one that is not cached: promoted at once, and dirty. */
  overwrite(oblock: number): PolicyWork | null {
    this.policy.lookupWithWork(oblock, true, true, this.#out);
    const { work } = this.#out;
    if (work === null) return null;
    this.policy.completeBackgroundWork(work, true);
    this.policy.setDirty(work.cblock);
    return work;
  }

  pass(jiffies: number): void {
    this.now += jiffies;
    this.policy.tick();
  }

  /** Loads mappings from cblock 0 on, of the oblocks 0, 1, 2, … */
  load(isDirty: boolean, hints: readonly (number | null)[]): void {
    for (const [i, hint] of hints.entries()) this.policy.loadMapping(i, i, isDirty, hint);
  }

  hints(nr: number): number[] {
    return Array.from({ length: nr }, (_, cblock) => this.policy.getHint(cblock));
  }

  /** All work there is, as `op oblock`. */
  work(isIdle: boolean): string[] {
    const names = ['promote', 'demote', 'writeback'];
    const found: string[] = [];
    for (;;) {
      const work = this.policy.getBackgroundWork(isIdle);
      checkSmq(this.policy);
      if (work === null) return found;
      found.push(`${names[work.op]} ${work.oblock}`);
    }
  }
}

test('a new cache hands its cblocks out from 0 on; one that becomes free comes last', () => {
  const subject = new Subject(4);
  assert.deepEqual(
    [70, 80, 90].map((oblock) => subject.overwrite(oblock)?.cblock),
    [0, 1, 2],
  );
  assert.ok(subject.policy.invalidateMapping(0));
  assert.deepEqual(
    [71, 72].map((oblock) => subject.overwrite(oblock)?.cblock),
    [3, 0],
  );
  assert.equal(subject.policy.residency, 4);
});

test('a mapping without a hint gets its random level, which depends on the cblock alone', () => {
  assert.deepEqual([0, 1, 2, 3, 4, 5].map(randomLevel), [0, 3, 7, 10, 14, 17]);
  const subject = new Subject(6);
  subject.load(false, [null, null, null, null, null, null]);
  assert.deepEqual(subject.hints(6), [0, 3, 7, 10, 14, 17]);
});

test('a hint above 63 counts as 63', () => {
  const subject = new Subject(3);
  subject.load(true, [62, 63, 4_000_000_000]);
  assert.deepEqual(subject.hints(3), [62, 63, 63]);
});

/** The hint array that the kernel left (spec: cache, scenario 41): cblocks 0 to 39 of 150. */
const KERNEL_LEVELS = [
  2, 3, 7, 9, 13, 15, 19, 20, 25, 30, 32, 37, 40, 45, 48, 53, 59, 60, 2, 3, 7, 9, 12, 16, 18, 22,
  24, 29, 32, 37, 40, 45, 50, 52, 57, 60, 2, 3, 6, 11,
];

test('150 dirty blocks loaded without hints are spread over the levels as the kernel does it', () => {
  const subject = new Subject(1024);
  subject.load(
    true,
    Array.from({ length: 150 }, () => null),
  );
  subject.pass(1);
  assert.deepEqual(subject.hints(40), KERNEL_LEVELS);
});

test('queues are evened out at the first tick past the creation, and then once a minute', () => {
  const subject = new Subject(128);
  subject.load(
    false,
    Array.from({ length: 128 }, () => 63),
  );
  subject.pass(0);
  assert.deepEqual(new Set(subject.hints(128)), new Set([63]), 'in the jiffy of the creation');
  subject.pass(1);
  const even = Array.from({ length: 128 }, (_, i) => 63 - Math.floor(i / 2));
  assert.deepEqual(subject.hints(128), even, 'two to each level; what was loaded last is the head');
  subject.access(0);
  const changed = subject.hints(128);
  subject.pass(60 * SECOND);
  assert.deepEqual(subject.hints(128), changed, 'not before a minute has passed');
  for (let cblock = 0; cblock < 64; cblock++) subject.policy.invalidateMapping(cblock);
  subject.pass(1);
  const levels = subject.hints(128).slice(64);
  assert.deepEqual(
    [...levels].sort((a, b) => a - b),
    [...new Array(64).keys()],
  );
});

test('a block rises one level at most until the hit bits are cleared, which is once a minute', () => {
  for (const isDirty of [false, true]) {
    const subject = new Subject(4);
    subject.load(isDirty, [5, 9, 63]);
    subject.pass(1);
    const [first = NaN] = subject.hints(1);
    for (let i = 0; i < 10; i++) subject.access(0);
    assert.equal(subject.hints(1)[0], first + 1);
    subject.pass(60 * SECOND + 1);
    const [second = NaN] = subject.hints(1);
    subject.access(0);
    assert.equal(subject.hints(1)[0], second + 1);
  }
});

/*
 * Dirty blocks, level 1; 0 and 1 are the sentinels, of which 1 is current:
 *
 *   A B 0 C 1 D        ahead of both, between them, behind both
 *
 * A hit on the block at level 0 brings it to the tail there and the head of the list down. Where
 * that one goes in level 0 depends on what it had before it.
 */
test('a dirty block that gives way to one that is hit keeps its age', () => {
  const levelsOf = (subject: Subject, level: number): string =>
    subject.policy.dirty
      .entriesOf(level)
      .map((e) => (e < 9 ? e : e < 9 + NR_LEVELS ? 's0' : 's1'))
      .join(' ');
  const subject = new Subject(9);
  const { policy } = subject;
  for (let cblock = 0; cblock < 3; cblock++) policy.loadMapping(cblock, cblock, true, 0);
  policy.loadMapping(3, 3, true, 1);
  assert.equal(levelsOf(subject, 0), '2 1 0 s0 s1');
  assert.equal(levelsOf(subject, 1), '3 s0 s1');
  policy.lookup(0, false, false, makeLookupResult());
  assert.equal(levelsOf(subject, 0), '2 1 3 s0 s1', 'before the old sentinel, as it was');
  assert.equal(levelsOf(subject, 1), 's0 s1 0');
  policy.lookup(1, false, false, makeLookupResult());
  assert.equal(levelsOf(subject, 0), '2 3 s0 s1 0', 'to the tail: it was behind both');
  assert.equal(levelsOf(subject, 1), 's0 s1 1');
});

test('a dirty block from between the sentinels goes before the current one', () => {
  const subject = new Subject(2);
  const { policy } = subject;
  policy.loadMapping(0, 0, true, 20);
  policy.loadMapping(1, 1, true, 21);
  policy.setDirty(1); // To the tail, behind both.
  subject.now = 10 * SECOND + 1;
  // Only the sentinels are to move: a redistribution would move the blocks, too.
  const list = (): number[] => policy.dirty.entriesOf(21);
  const before = list();
  policy.dirty.redistribute = () => undefined;
  policy.tick();
  assert.deepEqual(list(), [before[1], 1, before[0]], 'the old sentinel is current now');
  policy.lookup(0, false, false, makeLookupResult());
  const [first = NaN, second = NaN, third = NaN] = policy.dirty.entriesOf(20);
  assert.ok(policy.pool.isSentinel(first) && policy.pool.isSentinel(third));
  assert.equal(second, 1);
});

test('a write of a whole block is promoted at once while a cblock is free', () => {
  const subject = new Subject(1024);
  assert.deepEqual(subject.access(5, true, false), {
    cblock: -1,
    mayHaveWork: false,
    work: null,
  });
  assert.equal(subject.access(7, false, true).mayHaveWork, false, 'a read is not');
  assert.equal(subject.access(6, true, true).mayHaveWork, true);
  assert.deepEqual(subject.work(false), ['promote 6']);
  const small = new Subject(1);
  assert.notEqual(small.overwrite(1), null);
  assert.equal(small.access(2, true, true).mayHaveWork, false, 'nothing is free');
});

test('accesses are not promoted before a redistribution has lifted their hotspot', () => {
  // Spec: cache, scenario 13.
  const subject = new Subject(1024);
  subject.pass(1);
  subject.pass(50);
  for (let i = 0; i < 5; i++) {
    assert.equal(subject.access(100).mayHaveWork, false, `read ${i} within a second`);
  }
  subject.pass(160);
  assert.equal(subject.access(100).mayHaveWork, true, 'the hotspot is at the top');
  assert.deepEqual(subject.work(false), ['promote 100']);
  // That was a hit of the hotspot queue, so that it is rated well and promotes everything.
  assert.equal(subject.access(101).mayHaveWork, true);
  assert.equal(subject.access(3000).mayHaveWork, true, 'a block that was never seen');
  assert.deepEqual(subject.work(false), ['promote 3000', 'promote 101']);
});

test('work comes out last in, first out', () => {
  const subject = new Subject(1024);
  for (const oblock of [1, 2, 3]) subject.access(oblock, true, true);
  assert.deepEqual(subject.work(false), ['promote 3', 'promote 2', 'promote 1']);
});

test('a block is not promoted twice at a time', () => {
  const subject = new Subject(1024);
  subject.access(1, true, true);
  assert.equal(subject.access(1, true, true).mayHaveWork, true);
  assert.equal(subject.policy.residency, 1);
  assert.deepEqual(subject.work(false), ['promote 1']);
  subject.access(1, true, true);
  assert.deepEqual(subject.work(false), [], 'nor while the first is running');
});

test('work that was handed out at the look-up is not handed out again', () => {
  const subject = new Subject(1024);
  const out = makeLookupResult();
  subject.policy.lookupWithWork(9, true, true, out);
  assert.deepEqual(out.work, { op: WorkOp.PROMOTE, oblock: 9, cblock: 0 });
  assert.deepEqual(subject.work(true), []);
  subject.policy.lookupWithWork(9, true, true, out);
  assert.equal(out.work, null, 'it counts as pending');
});

test('a promotion that fails frees its cblock; one that succeeds is at level 63', () => {
  const subject = new Subject(2);
  subject.access(1, true, true);
  subject.access(2, true, true);
  const second = subject.policy.getBackgroundWork(false) as PolicyWork;
  const first = subject.policy.getBackgroundWork(false) as PolicyWork;
  subject.policy.completeBackgroundWork(second, false);
  assert.equal(subject.policy.residency, 1);
  assert.equal(subject.access(2).cblock, -1);
  subject.policy.completeBackgroundWork(first, true);
  subject.policy.clearDirty(first.cblock);
  assert.equal(subject.access(1).cblock, 0);
  assert.deepEqual(subject.hints(2), [63, 0]);
});

test('a cblock that is reserved for a promotion is resident, and its hint is 0', () => {
  const subject = new Subject(2);
  subject.load(false, [40]);
  subject.access(100, true, true);
  assert.equal(subject.policy.residency, 2);
  assert.deepEqual(subject.hints(2), [40, 0]);
});

/** A full cache whose blocks are clean and at these levels, and at which every miss is promoted. */
function full(hints: readonly number[], isDirty = false): Subject {
  const subject = new Subject(hints.length);
  subject.load(isDirty, hints);
  subject.policy.clean.redistribute = () => undefined;
  subject.policy.dirty.redistribute = () => undefined;
  subject.access(4000);
  subject.pass(1);
  subject.pass(SECOND + 1);
  subject.access(4000);
  subject.work(false);
  return subject;
}

test('blocks above level 31 are not demoted', () => {
  const subject = full([63, 32, 40, 32]);
  assert.equal(subject.access(3000).mayHaveWork, true);
  assert.deepEqual(subject.work(false), []);
});

test('blocks are demoted from the lowest level on, the oldest first, until a quarter is on the way', () => {
  const subject = full([31, 7, 2, 2, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63]);
  // Cblock 3 was loaded last, to the front. One is demoted by the access that `full` ends with.
  const pending = subject.policy.tracker.items().map(({ cblock }) => cblock);
  assert.deepEqual(pending, [3]);
  const demoted: string[] = [];
  for (let i = 0; i < 8; i++) {
    subject.access(3000 + 16 * i);
    demoted.push(...subject.work(false));
  }
  assert.deepEqual(demoted, ['demote 2', 'demote 1', 'demote 0']);
});

test('a miss that finds nothing free is promoted only when it comes again after the demotion', () => {
  const subject = full([3, 63, 63, 63]);
  const [demotion] = subject.policy.tracker.items() as [PolicyWork];
  assert.equal(demotion.op, WorkOp.DEMOTE);
  subject.policy.completeBackgroundWork(demotion, true);
  assert.equal(subject.policy.residency, 3);
  assert.equal(subject.access(0).cblock, -1, 'it is gone');
  assert.deepEqual(subject.work(false), ['promote 0']);
});

test('with nothing clean to demote, a dirty block that was not touched lately is written back', () => {
  const subject = full([3, 5, 63, 63], true);
  assert.deepEqual(
    subject.policy.tracker.items().map(({ op, cblock }) => [op, cblock]),
    [[WorkOp.WRITEBACK, 0]],
  );
});

test('a busy cache writes back only what is ahead of the sentinels, an idle one everything', () => {
  const subject = new Subject(4);
  subject.load(true, [10, 20]);
  subject.policy.loadMapping(2, 2, false, 30);
  subject.policy.setDirty(2); // To the tail: it was touched.
  assert.deepEqual(subject.work(false), [], 'unless somebody wants a cblock');
  assert.deepEqual(subject.work(true), ['writeback 0', 'writeback 1', 'writeback 2']);
});

test('what is loaded is ahead of the sentinels, and so is written back or demoted at once', () => {
  const subject = full([3, 5, 63, 63]);
  assert.deepEqual(
    subject.policy.tracker.items().map(({ op, cblock }) => [op, cblock]),
    [[WorkOp.DEMOTE, 0]],
  );
});

test('a writeback leaves its block at the tail of its level, clean or dirty as it now is', () => {
  const subject = new Subject(4);
  subject.load(true, [10, 10, 10]);
  const works = [1, 2, 3].map(() => subject.policy.getBackgroundWork(true) as PolicyWork);
  assert.deepEqual(
    works.map(({ cblock }) => cblock),
    [2, 1, 0],
  );
  const [a, b, c] = works as [PolicyWork, PolicyWork, PolicyWork];
  subject.policy.clearDirty(a.cblock);
  subject.policy.completeBackgroundWork(a, true);
  subject.policy.completeBackgroundWork(b, false);
  subject.policy.clearDirty(c.cblock);
  subject.policy.setDirty(c.cblock); // Written meanwhile.
  subject.policy.completeBackgroundWork(c, true);
  const elements = (entries: number[]): number[] => entries.filter((e) => e < 4);
  assert.deepEqual(elements(subject.policy.clean.entriesOf(10)), [2]);
  assert.deepEqual(elements(subject.policy.dirty.entriesOf(10)), [1, 0]);
  checkSmq(subject.policy);
});

test('a hit on a block that is being moved neither raises it nor spends its hit', () => {
  const subject = new Subject(4);
  subject.load(true, [10]);
  const work = subject.policy.getBackgroundWork(true) as PolicyWork;
  assert.equal(subject.access(0).cblock, 0);
  assert.deepEqual(subject.hints(1), [10]);
  subject.policy.completeBackgroundWork(work, false);
  subject.access(0);
  assert.deepEqual(subject.hints(1), [11]);
});

test('nothing is promoted or demoted while migrations are not allowed', () => {
  const subject = full([3, 5, 63, 63]);
  subject.policy.allowMigrations(false);
  const pending = subject.policy.tracker.nrPending;
  assert.equal(subject.access(3000).mayHaveWork, true);
  assert.equal(subject.policy.tracker.nrPending, pending);
  subject.policy.allowMigrations(true);
  const empty = new Subject(4);
  empty.policy.allowMigrations(false);
  empty.access(1, true, true);
  assert.equal(empty.policy.residency, 0);
});

test('a cblock that is not mapped cannot be invalidated', () => {
  const subject = new Subject(4);
  subject.load(true, [10]);
  assert.equal(subject.policy.invalidateMapping(1), false);
  assert.equal(subject.policy.invalidateMapping(0), true);
  assert.equal(subject.policy.invalidateMapping(0), false);
  assert.equal(subject.policy.residency, 0);
  assert.equal(subject.access(0).cblock, -1);
});
