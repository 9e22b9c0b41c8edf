/**
 * What was seen on a real kernel of caches under smq and cleaner, told again by the simulator
 * (spec: cache, 20).
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CacheSimulator, type SimulatedCacheOptions } from './simulator.ts';

const BLOCK = 65536;
const REQUEST_MS = 0.2;

/** A cache of scenario set-up S, 1024 blocks of 64 KiB, and commands to it one after the other. */
class Session {
  readonly simulator: CacheSimulator;
  /** When the next request begins; the cache was loaded and resumed in the jiffy at 0. */
  ms = 0;

  constructor(options: Partial<SimulatedCacheOptions> = {}) {
    this.simulator = new CacheSimulator({
      nrCacheBlocks: 1024,
      blockSectors: 128,
      originSectors: 262144,
      mode: 'writeback',
      migrationThreshold: 0,
      copyMs: 2,
      commitMs: 6,
      loadedMs: 0,
      resumedMs: 0,
      cached: [],
      isCachedDirty: false,
      ...options,
    });
  }

  read(offsetBytes: number, lengthBytes = 4096): this {
    return this.#request(false, offsetBytes, lengthBytes);
  }

  write(offsetBytes: number, lengthBytes = 4096): this {
    return this.#request(true, offsetBytes, lengthBytes);
  }

  #request(isWrite: boolean, offsetBytes: number, lengthBytes: number): this {
    const [beginMs, endMs] = [this.ms, this.ms + REQUEST_MS];
    this.simulator.send([{ isWrite, offsetBytes, lengthBytes, beginMs, endMs }]);
    return this.pass(8);
  }

  pass(ms: number): this {
    this.ms += ms;
    this.simulator.runUntil(this.ms);
    return this;
  }

  /** As the spec writes it: `rh rm wh wm dem pro dirty`. */
  get counters(): string {
    const { readHits, readMisses, writeHits, writeMisses, demotions, promotions } =
      this.simulator.counters;
    const words = [readHits, readMisses, writeHits, writeMisses, demotions, promotions];
    return [...words, this.simulator.dirty.size].join(' ');
  }
}

const K = 1024;

test('the counters in writeback mode (scenario 11)', () => {
  const session = new Session().pass(1500);
  session.read(6400 * K);
  assert.equal(session.counters, '0 1 0 0 0 0 0');
  session.pass(2000).read(6400 * K);
  assert.equal(session.counters, '0 2 0 0 0 1 0');
  session.read(6400 * K).read(6400 * K);
  assert.equal(session.counters, '2 2 0 0 0 1 0');
  session.write(6400 * K);
  assert.equal(session.counters, '2 2 1 0 0 1 1');
  session.write(12800 * K, BLOCK);
  assert.equal(session.counters, '2 2 1 0 0 2 2');
  session.write(12800 * K, BLOCK);
  assert.equal(session.counters, '2 2 2 0 0 2 2');
});

test('dirty blocks are written back if one may be copied at a time (scenario 12)', () => {
  const filled = (migrationThreshold: number): Session => {
    const session = new Session({ migrationThreshold }).pass(1500);
    for (let i = 0; i < 7; i++) session.write(i * BLOCK, BLOCK);
    return session.pass(2500);
  };
  assert.equal(filled(0).simulator.dirty.size, 7);
  assert.equal(filled(127).simulator.dirty.size, 7);
  const one = filled(128).simulator;
  assert.equal(one.dirty.size, 0);
  assert.equal(one.nrRunningInIdleMax, 1);
  const all = filled(2048).simulator;
  assert.equal(all.dirty.size, 0);
  assert.ok(all.nrRunningInIdleMax > 1);
});

test('promotion timing (scenario 13)', () => {
  const session = new Session().pass(1500);
  for (let i = 0; i < 5; i++) session.read(6400 * K);
  assert.equal(session.counters, '0 5 0 0 0 0 0');
  session.pass(1600).read(6400 * K);
  assert.equal(session.counters, '0 6 0 0 0 1 0');
  session.read(6464 * K).read(6528 * K);
  assert.equal(session.counters, '0 8 0 0 0 3 0');
  session.write(32000 * K).write(32000 * K);
  session.write(32000 * K);
  assert.equal(session.counters, '0 8 2 1 0 4 1');
});

test('writethrough promotes in the background and leaves nothing dirty (scenario 14)', () => {
  const session = new Session({ mode: 'writethrough' });
  session.pass(1500).write(0, BLOCK);
  assert.equal(session.counters, '0 0 0 1 0 0 0');
  session.pass(2200).write(0, BLOCK);
  assert.equal(session.counters, '0 0 0 2 0 1 0');
  session.write(0, BLOCK).read(0);
  assert.equal(session.counters, '1 0 1 2 0 1 0');
});

test('in a cache that was filled at level 63, misses demote nothing (scenario 39)', () => {
  const session = new Session({ nrCacheBlocks: 16, migrationThreshold: 100_000 }).pass(1500);
  for (let i = 0; i < 16; i++) session.write(i * BLOCK, BLOCK);
  session.pass(2500);
  assert.equal(session.counters, '0 0 0 0 0 16 0');
  for (let round = 0; round < 5; round++) {
    for (let i = 100; i < 108; i++) session.write(i * BLOCK, BLOCK);
    session.pass(1500);
  }
  assert.equal(session.simulator.counters.demotions, 0);
  assert.equal(session.simulator.policy.residency, 16);
});

test('opened again, it demotes the lowest first, at most a quarter at a time (scenario 39)', () => {
  const session = new Session({
    nrCacheBlocks: 16,
    cached: Array.from({ length: 16 }, (_, i) => i),
    hint: 63,
    loadedMs: -50,
  }).pass(1500);
  const { simulator } = session;
  for (let i = 100; i < 107; i++) session.write(i * BLOCK, BLOCK);
  assert.equal(session.counters, '0 0 0 7 0 0 0', 'first they only count as misses');
  let nrResidentMin = 16;
  for (let round = 0; round < 6; round++) {
    session.pass(1100);
    for (let i = 100; i < 107; i++) session.write(i * BLOCK, BLOCK);
    nrResidentMin = Math.min(nrResidentMin, simulator.policy.residency);
  }
  const { demotions, promotions } = simulator.counters;
  assert.ok(demotions > 0 && promotions > 0, session.counters);
  assert.ok(demotions - promotions <= 4);
  assert.ok(nrResidentMin >= 12);
});

test('a demotion that a whole-block write asks for waits for the timer', () => {
  const session = new Session({
    nrCacheBlocks: 16,
    cached: Array.from({ length: 16 }, (_, i) => i),
    hint: 0,
    loadedMs: -50,
  }).pass(1500);
  const { simulator } = session;
  // The hotspot of block 100 is lifted to the top; blocks 101 to 103 are in it.
  session.read(100 * BLOCK).pass(2500);
  session.write(101 * BLOCK, BLOCK);
  assert.equal(simulator.policy.residency, 16);
  assert.equal(simulator.counters.demotions, 0);
  session.pass(100);
  assert.equal(simulator.counters.demotions, 0);
  session.pass(1100);
  assert.equal(simulator.counters.demotions, 1);
  // A read that misses wakes the worker itself.
  const other = new Session({
    nrCacheBlocks: 16,
    cached: Array.from({ length: 16 }, (_, i) => i),
    hint: 0,
    loadedMs: -50,
  }).pass(1500);
  other
    .read(100 * BLOCK)
    .pass(2500)
    .read(101 * BLOCK)
    .pass(20);
  assert.equal(other.simulator.counters.demotions, 1);
});

test('a cleaner that may never copy in idle time cleans one block of sixteen (scenario 40)', () => {
  const cached = Array.from({ length: 16 }, (_, i) => i);
  const options = { policy: 'cleaner', nrCacheBlocks: 16, cached, isCachedDirty: true };
  const session = new Session({ ...options, loadedMs: -50 }).pass(3000);
  assert.equal(session.simulator.dirty.size, 15);
  session.write(0).read(100 * BLOCK);
  assert.equal(session.simulator.dirty.size, 16);
  assert.equal(session.simulator.counters.promotions, 0);
  const allowed = new Session({ ...options, loadedMs: -50, migrationThreshold: 2048 }).pass(3000);
  assert.equal(allowed.simulator.dirty.size, 0);
});

test('hits do not keep a cache from being written back; misses do (scenario 47)', () => {
  const session = new Session({ cached: [0, 1], isCachedDirty: true }).pass(1500);
  const { simulator } = session;
  session.read(6400 * K);
  simulator.migrationThreshold = 2048;
  for (let i = 0; i < 150; i++) session.read((100 + i) * BLOCK).pass(12);
  assert.equal(simulator.dirty.size, 2);
  for (let i = 0; i < 150; i++) session.read(0).pass(12);
  assert.equal(simulator.dirty.size, 0);
  assert.equal(simulator.counters.readHits, 150);
  simulator.migrationThreshold = 0;
  session.write(0);
  simulator.migrationThreshold = 2048;
  for (let i = 0; i < 150; i++) session.write(BLOCK).pass(12);
  assert.ok(!simulator.dirty.has(0), 'it was cleaned');
  assert.ok(simulator.dirty.has(1), 'dirty from its last write');
});
