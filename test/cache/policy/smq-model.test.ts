/**
 * smq against the plain restatement of its rules, and its invariants, after every operation.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { CleanerPolicy } from '../../../src/cache/policy/cleaner.ts';
import { makeLookupResult, WorkOp, type PolicyWork } from '../../../src/cache/policy/policy.ts';
import { SmqPolicy } from '../../../src/cache/policy/smq.ts';
import { Random, seedOf } from '../../helpers/random.ts';
import { assertAlike, checkSmq } from './check-smq.ts';
import { SmqModel, type ModelOptions } from './smq-model.ts';

/** Numbers that an operation chooses with: each picks among what is there at that time. */
type Operation = readonly [kind: number, which: number, flags: number];

const TIME_STEPS = [0, 1, 7, 100, 101, 1001, 6001];

/** A policy and a model that are told the same. */
class Pair {
  readonly policy: SmqPolicy;
  readonly model: SmqModel;
  readonly nrOblocks: number;
  readonly #out = makeLookupResult();
  /** Handed out and not completed. */
  readonly #running: PolicyWork[] = [];

  constructor(options: ModelOptions, nrLoaded: number, random: Random) {
    this.model = new SmqModel(options);
    const policyOptions = { ...options, jiffies: () => this.model.now, warn: () => undefined };
    this.policy = options.isCleaner
      ? new CleanerPolicy(policyOptions)
      : new SmqPolicy(policyOptions);
    this.nrOblocks = Math.floor(options.originSectors / options.blockSectors);
    const oblocks = new Set<number>();
    while (oblocks.size < nrLoaded) oblocks.add(random.below(this.nrOblocks));
    let cblock = 0;
    for (const oblock of oblocks) {
      const isDirty = random.chance(0.5);
      const hint = random.chance(0.5) ? null : random.below(70);
      this.policy.loadMapping(oblock, cblock, isDirty, hint);
      this.model.load(oblock, cblock, isDirty, hint);
      cblock++;
    }
  }

  check(): void {
    checkSmq(this.policy);
    assertAlike(this.policy, this.model);
  }

  lookup(oblock: number, isWrite: boolean, isFast: boolean, handsOut: boolean): void {
    const expected = this.model.lookup(oblock, isWrite, isFast, handsOut);
    const method = handsOut ? 'lookupWithWork' : 'lookup';
    this.policy[method](oblock, isWrite, isFast, this.#out);
    assert.deepEqual({ ...this.#out }, expected);
    if (this.#out.work !== null) this.#running.push(this.#out.work);
  }

  getWork(isIdle: boolean): void {
    const work = this.policy.getBackgroundWork(isIdle);
    assert.deepEqual(work, this.model.getWork(isIdle));
    if (work !== null) this.#running.push(work);
  }

  /** As the target does it: dirty state and completion, in the order of 12.2. */
  complete(which: number, success: boolean, leavesDirty: boolean): void {
    const [work] = this.#running.splice(which % Math.max(1, this.#running.length), 1);
    if (work === undefined) return;
    const { op, cblock } = work;
    if (success && op !== WorkOp.PROMOTE) this.setDirty(cblock, false);
    this.policy.completeBackgroundWork(work, success);
    this.model.complete(op, cblock, success);
    if (success && op === WorkOp.PROMOTE) this.setDirty(cblock, leavesDirty);
  }

  setDirty(cblock: number, dirty: boolean): void {
    if (dirty) this.policy.setDirty(cblock);
    else this.policy.clearDirty(cblock);
    this.model.setDirty(cblock, dirty);
  }

  setSomeDirty(which: number, dirty: boolean): void {
    const item = this.model.mapped[which % Math.max(1, this.model.mapped.length)];
    if (item !== undefined) this.setDirty(item.id, dirty);
  }

  invalidate(which: number): void {
    const cblock = which % this.policy.pool.nrEntries;
    if (this.policy.pool.isPending(cblock)) return;
    assert.equal(this.policy.invalidateMapping(cblock), this.model.invalidate(cblock));
  }

  tick(jiffies: number): void {
    this.model.now += jiffies;
    this.policy.tick();
    this.model.tick();
  }

  allow(allowed: boolean): void {
    this.policy.allowMigrations(allowed);
    this.model.allowed = allowed;
  }

  apply([kind, which, flags]: Operation): void {
    const [a, b, c] = [1, 2, 4].map((bit) => (flags & bit) !== 0) as [boolean, boolean, boolean];
    if (kind < 50) this.lookup(which % this.nrOblocks, a, b, c);
    else if (kind < 60) this.getWork(a);
    else if (kind < 72) this.complete(which, a || b, c);
    else if (kind < 80) this.setSomeDirty(which, a);
    else if (kind < 97) this.tick(TIME_STEPS[which % TIME_STEPS.length] as number);
    else if (kind < 99) this.invalidate(which);
    else this.allow(a || b);
  }
}

const operation = fc.tuple(fc.nat(99), fc.nat(), fc.nat(7));
const setting = fc.record({
  nrCacheBlocks: fc.integer({ min: 1, max: 70 }),
  nrOblocks: fc.integer({ min: 1, max: 200 }),
  loadedPercent: fc.nat(100),
  isCleaner: fc.nat(9).map((n) => n === 0),
  seed: fc.nat(),
});

test('smq does what its rules say, whatever is asked of it', () => {
  const seed = seedOf(15);
  fc.assert(
    fc.property(setting, fc.array(operation, { maxLength: 150, size: 'max' }), (s, operations) => {
      const options = {
        nrCacheBlocks: s.nrCacheBlocks,
        blockSectors: 64,
        originSectors: s.nrOblocks * 64,
        isCleaner: s.isCleaner,
      };
      const room = Math.min(s.nrCacheBlocks, s.nrOblocks);
      const nrLoaded = Math.floor((room * s.loadedPercent) / 100);
      const pair = new Pair(options, nrLoaded, new Random(s.seed));
      pair.check();
      for (const each of operations) {
        pair.apply(each);
        pair.check();
      }
    }),
    { seed, numRuns: 150 },
  );
});

/** Few blocks often, many seldom. */
function skewed(random: Random, nr: number): number {
  return Math.floor(nr * random.next() ** 3);
}

test('smq does what its rules say over a long life, with more hotspots than it knows', () => {
  const seed = seedOf(16);
  const random = new Random(seed);
  const options = { nrCacheBlocks: 120, blockSectors: 64, originSectors: 5000 * 64 };
  const pair = new Pair(options, 100, random);
  try {
    for (let i = 0; i < 12_000; i++) {
      const kind = random.below(100);
      const which = kind < 50 ? skewed(random, 5000) : random.below(2 ** 31);
      pair.apply([kind === 99 ? 0 : kind, which, random.below(8)]);
      if (i % 40 === 0) pair.check();
    }
    assert.equal(pair.policy.hotspots.pool.nrFree, 0, 'all hotspot entries are in use');
    pair.check();
  } catch (error) {
    throw new Error(`DM_SEED=${seed}`, { cause: error });
  }
});

test('with 4096 items of work at hand a promotion is refused, and its cblock goes to the tail', () => {
  const options = { nrCacheBlocks: 4200, blockSectors: 64, originSectors: 64 * 8192 };
  const pair = new Pair(options, 0, new Random(1));
  for (let oblock = 0; oblock < 4100; oblock++) pair.lookup(oblock, true, true, oblock % 2 === 0);
  assertAlike(pair.policy, pair.model);
  assert.equal(pair.policy.residency, 4096);
  assert.deepEqual(pair.policy.pool.freeEntries().slice(-4), [4096, 4097, 4098, 4099]);
  pair.complete(0, true, true);
  pair.lookup(5000, true, true, true);
  assert.equal(pair.policy.residency, 4097);
  assertAlike(pair.policy, pair.model);
});

test('with 4096 items of work at hand a block stays where it is, at the head of its level', () => {
  const options = { nrCacheBlocks: 4200, blockSectors: 64, originSectors: 64 * 8192 };
  const pair = new Pair(options, 0, new Random(1));
  for (const [cblock, oblock] of [7000, 7001, 7002].entries()) {
    pair.policy.loadMapping(oblock, cblock, true, 5);
    pair.model.load(oblock, cblock, true, 5);
  }
  for (let oblock = 0; oblock < 4096; oblock++) pair.lookup(oblock, true, true, true);
  pair.getWork(true);
  assertAlike(pair.policy, pair.model);
  assert.equal(pair.policy.getBackgroundWork(true), null);
  pair.complete(0, true, true);
  pair.getWork(true);
  assertAlike(pair.policy, pair.model);
  assert.equal(pair.policy.tracker.nrPending, 4096);
});
