/**
 * The hotspot queue: its geometry, and from when on it wants blocks promoted (spec: cache, 15.2 to
 * 15.5).
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { hotspotGeometry } from '../../../src/cache/policy/hotspot-geometry.ts';
import { HotspotQueue } from '../../../src/cache/policy/hotspot-queue.ts';

test('hotspots are 16 blocks, or fewer so that they do not cover more than the origin', () => {
  const of = (nrCacheBlocks: number, nrOblocks: number, blockSectors: number): number[] => {
    const geometry = hotspotGeometry(nrCacheBlocks, blockSectors, nrOblocks * blockSectors);
    return [geometry.blocksPerHotspot, geometry.nrHotspots, geometry.nrInTopLevels];
  };
  assert.deepEqual(of(256, 16 * 1024, 128), [16, 1024, 16]);
  assert.deepEqual(of(256, 16 * 1024 - 1, 128), [8, 1024, 16]);
  assert.deepEqual(of(256, 4096, 128), [4, 1024, 16]);
  assert.deepEqual(of(256, 4096, 192), [4, 1024, 16], 'block sizes need no power of two');
  assert.deepEqual(of(256, 100, 128), [1, 1024, 16], 'never less than a block');
  assert.deepEqual(of(4096, 1_000_000, 128), [16, 1024, 16]);
  assert.deepEqual(of(1_000_000, 64_000_000, 64), [16, 250_000, 3906]);
  assert.deepEqual(of(20, 1_000_000, 64), [16, 1024, 1], 'no more at the top than fit');
  assert.deepEqual(of(15, 1_000_000, 64), [16, 1024, 0]);
});

/** A queue that is never evened out, so that levels are what accesses make them. */
class Subject {
  readonly queue = new HotspotQueue(
    { blocksPerHotspot: 1, nrHotspots: 1024, nrInTopLevels: 16 },
    0,
  );
  #now = 0;
  #unknown = 1000;

  constructor() {
    this.queue.queue.redistribute = () => undefined;
  }

  access(oblock: number): boolean {
    const isHot = this.queue.access(oblock);
    this.queue.tick(this.#now);
    return isHot;
  }

  accessUnknown(): boolean {
    return this.access(this.#unknown++);
  }

  level(oblock: number): number {
    return this.queue.pool.level[this.queue.index.find(oblock)] as number;
  }

  /** Counts from 0 again. */
  newPeriod(): void {
    this.#now += 101;
    this.queue.tick(this.#now);
  }

  /** Accesses a block until its hotspot is at a level: one by one while the queue is new. */
  raiseTo(oblock: number, level: number): void {
    this.access(oblock);
    while (this.level(oblock) < level) this.access(oblock);
  }
}

test('before the first tick nothing is hot', () => {
  const queue = new HotspotQueue({ blocksPerHotspot: 1, nrHotspots: 1024, nrInTopLevels: 16 }, 0);
  for (let i = 0; i < 100; i++) assert.equal(queue.access(1), false);
});

test('a hotspot rises once between two ticks', () => {
  const { queue } = new Subject();
  const level = (): number => queue.pool.level[queue.index.find(7)] as number;
  queue.access(7);
  assert.equal(level(), 0, 'not when it is seen for the first time');
  queue.access(7);
  queue.access(7);
  assert.equal(level(), 1);
  queue.tick(0);
  queue.access(7);
  assert.equal(level(), 2);
});

test('rated poor, a queue promotes from level 48 on and lets entries rise by 4', () => {
  const subject = new Subject();
  subject.raiseTo(1, 44);
  subject.newPeriod();
  subject.accessUnknown();
  assert.equal(subject.access(1), true, 'from 44 to 48');
  assert.equal(subject.level(1), 48);
  subject.raiseTo(2, 40);
  subject.newPeriod();
  subject.accessUnknown();
  assert.equal(subject.access(2), false, 'from 40 to 44');
  assert.equal(subject.level(2), 44);
});

test('rated fair, it promotes from level 32 on and lets entries rise by 2', () => {
  const subject = new Subject();
  const fair = (): void => {
    // 1 hit of 10 is 25 of 256: below 32, not below 16.
    subject.newPeriod();
    subject.access(63);
    for (let i = 0; i < 9; i++) subject.accessUnknown();
  };
  subject.raiseTo(63, 60);
  subject.raiseTo(30, 30);
  subject.newPeriod();
  fair();
  assert.equal(subject.accessUnknown(), false);
  fair(); // This period has begun with the rating of the one before.
  assert.equal(subject.access(30), true, 'from 30 to 32');
  assert.equal(subject.level(30), 32);
});

test('rated well, it promotes everything and lets entries rise by 1', () => {
  const subject = new Subject();
  subject.raiseTo(63, 60);
  subject.newPeriod();
  // 1 hit of 8 is 32 of 256.
  subject.access(63);
  for (let i = 0; i < 7; i++) assert.equal(subject.accessUnknown(), true, `access ${i}`);
  assert.equal(subject.accessUnknown(), true, 'decided before it is counted');
  assert.equal(subject.accessUnknown(), false, '1 of 9 is fair');
  subject.newPeriod();
  subject.access(63);
  subject.newPeriod();
  subject.access(5);
  subject.access(5);
  assert.equal(subject.level(5), 1);
});

test('the counts start anew with a period, which lasts more than a second', () => {
  const subject = new Subject();
  subject.raiseTo(63, 60);
  subject.queue.tick(1);
  subject.queue.access(63);
  subject.queue.tick(101);
  assert.equal(subject.queue.access(1), true, 'well, still in the period');
  subject.queue.tick(102);
  subject.queue.tick(102);
  assert.equal(subject.queue.access(2), false, 'nothing is counted yet: poor');
});

test('when all entries are in use, the oldest of the lowest level makes room and its level stays', () => {
  const subject = new Subject();
  for (let oblock = 0; oblock < 1024; oblock++) subject.access(oblock);
  subject.access(0); // Up.
  subject.access(5000);
  assert.equal(subject.queue.index.find(1), -1, 'the oldest of level 0 is forgotten');
  assert.notEqual(subject.queue.index.find(0), -1);
  for (let oblock = 2; oblock < 1024; oblock++) subject.access(oblock);
  subject.access(5000);
  const before = subject.level(0);
  subject.access(6000);
  assert.equal(subject.queue.index.find(0), -1, 'now the first is the oldest of the lowest level');
  assert.equal(subject.level(6000), before);
});

test('levels are evened out so that the top eight hold as many as the cache can', () => {
  const queue = new HotspotQueue({ blocksPerHotspot: 1, nrHotspots: 1024, nrInTopLevels: 16 }, 0);
  for (let oblock = 0; oblock < 10; oblock++) queue.access(oblock);
  queue.tick(1);
  const nr = (level: number): number => queue.queue.nrInLevel(level);
  const top = [56, 57, 58, 59, 60, 61, 62, 63].map(nr);
  assert.deepEqual(top, [2, 2, 2, 2, 2, 0, 0, 0], 'fewer than the top levels hold');
  for (let oblock = 10; oblock < 16 + 56 * 3 + 5; oblock++) queue.access(oblock);
  queue.tick(102);
  const levels = Array.from({ length: 64 }, (_, level) => nr(level));
  const expected = [...new Array<number>(5).fill(4), ...new Array<number>(51).fill(3)];
  assert.deepEqual(levels, [...expected, ...new Array<number>(8).fill(2)]);
});
