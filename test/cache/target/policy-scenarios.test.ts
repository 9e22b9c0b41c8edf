/**
 * What was seen on a real kernel of caches under smq and cleaner, told again by the target on
 * devices without data (spec: cache, 20).
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Replay, type ReplayOptions } from './replay.ts';

const BLOCK = 65536;
const REQUEST_MS = 0.2;

/** A cache of scenario set-up S, 1024 blocks of 64 KiB, and commands to it one after the other. */
class Session {
  readonly replay: Replay;
  /** When the next request begins; the cache was loaded and resumed in the jiffy at 0. */
  #ms = 0;

  private constructor(replay: Replay) {
    this.replay = replay;
  }

  static async start(options: Partial<ReplayOptions> = {}): Promise<Session> {
    const replay = await Replay.start({
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
    return new Session(replay);
  }

  read(offsetBytes: number, lengthBytes = 4096): Promise<void> {
    return this.#request(false, offsetBytes, lengthBytes);
  }

  write(offsetBytes: number, lengthBytes = 4096): Promise<void> {
    return this.#request(true, offsetBytes, lengthBytes);
  }

  async #request(isWrite: boolean, offsetBytes: number, lengthBytes: number): Promise<void> {
    const [beginMs, endMs] = [this.#ms, this.#ms + REQUEST_MS];
    await this.replay.send([{ isWrite, offsetBytes, lengthBytes, beginMs, endMs }]);
    await this.pass(8);
  }

  async pass(ms: number): Promise<void> {
    this.#ms += ms;
    await this.replay.runUntil(this.#ms);
  }

  /** As the spec writes it: `rh rm wh wm dem pro dirty`. */
  get counters(): string {
    const { readHits, readMisses, writeHits, writeMisses, demotions, promotions } =
      this.replay.counters;
    const words = [readHits, readMisses, writeHits, writeMisses, demotions, promotions];
    return [...words, this.replay.nrDirty].join(' ');
  }
}

const K = 1024;

test('the counters in writeback mode (scenario 11)', async () => {
  const session = await Session.start();
  await session.pass(1500);
  await session.read(6400 * K);
  assert.equal(session.counters, '0 1 0 0 0 0 0');
  await session.pass(2000);
  await session.read(6400 * K);
  assert.equal(session.counters, '0 2 0 0 0 1 0');
  await session.read(6400 * K);
  await session.read(6400 * K);
  assert.equal(session.counters, '2 2 0 0 0 1 0');
  await session.write(6400 * K);
  assert.equal(session.counters, '2 2 1 0 0 1 1');
  await session.write(12800 * K, BLOCK);
  assert.equal(session.counters, '2 2 1 0 0 2 2');
  await session.write(12800 * K, BLOCK);
  assert.equal(session.counters, '2 2 2 0 0 2 2');
});

test('dirty blocks are written back if one may be copied at a time (scenario 12)', async () => {
  const filled = async (migrationThreshold: number): Promise<Replay> => {
    const session = await Session.start({ migrationThreshold });
    await session.pass(1500);
    for (let i = 0; i < 7; i++) await session.write(i * BLOCK, BLOCK);
    await session.pass(2500);
    return session.replay;
  };
  assert.equal((await filled(0)).nrDirty, 7);
  assert.equal((await filled(127)).nrDirty, 7);
  const one = await filled(128);
  assert.equal(one.nrDirty, 0);
  assert.equal(one.nrRunningInIdleMax, 1);
  const all = await filled(2048);
  assert.equal(all.nrDirty, 0);
  assert.ok(all.nrRunningInIdleMax > 1);
});

test('promotion timing (scenario 13)', async () => {
  const session = await Session.start();
  await session.pass(1500);
  for (let i = 0; i < 5; i++) await session.read(6400 * K);
  assert.equal(session.counters, '0 5 0 0 0 0 0');
  await session.pass(1600);
  await session.read(6400 * K);
  assert.equal(session.counters, '0 6 0 0 0 1 0');
  await session.read(6464 * K);
  await session.read(6528 * K);
  assert.equal(session.counters, '0 8 0 0 0 3 0');
  await session.write(32000 * K);
  await session.write(32000 * K);
  await session.write(32000 * K);
  assert.equal(session.counters, '0 8 2 1 0 4 1');
});

test('writethrough promotes in the background and leaves nothing dirty (scenario 14)', async () => {
  const session = await Session.start({ mode: 'writethrough' });
  await session.pass(1500);
  await session.write(0, BLOCK);
  assert.equal(session.counters, '0 0 0 1 0 0 0');
  await session.pass(2200);
  await session.write(0, BLOCK);
  assert.equal(session.counters, '0 0 0 2 0 1 0');
  await session.write(0, BLOCK);
  await session.read(0);
  assert.equal(session.counters, '1 0 1 2 0 1 0');
});

test('in a cache that was filled at level 63, misses demote nothing (scenario 39)', async () => {
  const session = await Session.start({ nrCacheBlocks: 16, migrationThreshold: 100_000 });
  await session.pass(1500);
  for (let i = 0; i < 16; i++) await session.write(i * BLOCK, BLOCK);
  await session.pass(2500);
  assert.equal(session.counters, '0 0 0 0 0 16 0');
  for (let round = 0; round < 5; round++) {
    for (let i = 100; i < 108; i++) await session.write(i * BLOCK, BLOCK);
    await session.pass(1500);
  }
  assert.equal(session.replay.counters.demotions, 0);
  assert.equal(session.replay.policy.residency, 16);
});

test('opened again, it demotes the lowest first, at most a quarter at a time (scenario 39)', async () => {
  const session = await Session.start({
    nrCacheBlocks: 16,
    cached: Array.from({ length: 16 }, (_, i) => i),
    hint: 63,
    loadedMs: -50,
  });
  await session.pass(1500);
  const { replay } = session;
  for (let i = 100; i < 107; i++) await session.write(i * BLOCK, BLOCK);
  assert.equal(session.counters, '0 0 0 7 0 0 0', 'first they only count as misses');
  let nrResidentMin = 16;
  for (let round = 0; round < 6; round++) {
    await session.pass(1100);
    for (let i = 100; i < 107; i++) await session.write(i * BLOCK, BLOCK);
    nrResidentMin = Math.min(nrResidentMin, replay.policy.residency);
  }
  const { demotions, promotions } = replay.counters;
  assert.ok(demotions > 0 && promotions > 0, session.counters);
  assert.ok(demotions - promotions <= 4);
  assert.ok(nrResidentMin >= 12);
});

test('a demotion that a whole-block write asks for waits for the timer', async () => {
  const session = await Session.start({
    nrCacheBlocks: 16,
    cached: Array.from({ length: 16 }, (_, i) => i),
    hint: 0,
    loadedMs: -50,
  });
  await session.pass(1500);
  const { replay } = session;
  // The hotspot of block 100 is lifted to the top; blocks 101 to 103 are in it.
  await session.read(100 * BLOCK);
  await session.pass(2500);
  await session.write(101 * BLOCK, BLOCK);
  assert.equal(replay.policy.residency, 16);
  assert.equal(replay.counters.demotions, 0);
  await session.pass(100);
  assert.equal(replay.counters.demotions, 0);
  await session.pass(1100);
  assert.equal(replay.counters.demotions, 1);
  // A read that misses wakes the worker itself.
  const other = await Session.start({
    nrCacheBlocks: 16,
    cached: Array.from({ length: 16 }, (_, i) => i),
    hint: 0,
    loadedMs: -50,
  });
  await other.pass(1500);
  await other.read(100 * BLOCK);
  await other.pass(2500);
  await other.read(101 * BLOCK);
  await other.pass(20);
  assert.equal(other.replay.counters.demotions, 1);
});

test('a cleaner that may never copy in idle time cleans one block of sixteen (scenario 40)', async () => {
  const cached = Array.from({ length: 16 }, (_, i) => i);
  const options = { policy: 'cleaner', nrCacheBlocks: 16, cached, isCachedDirty: true };
  const session = await Session.start({ ...options, loadedMs: -50 });
  await session.pass(3000);
  assert.equal(session.replay.nrDirty, 15);
  await session.write(0);
  await session.read(100 * BLOCK);
  assert.equal(session.replay.nrDirty, 16);
  assert.equal(session.replay.counters.promotions, 0);
  const allowed = await Session.start({ ...options, loadedMs: -50, migrationThreshold: 2048 });
  await allowed.pass(3000);
  assert.equal(allowed.replay.nrDirty, 0);
});

test('hits do not keep a cache from being written back; misses do (scenario 47)', async () => {
  const session = await Session.start({ cached: [0, 1], isCachedDirty: true });
  await session.pass(1500);
  const { replay } = session;
  await session.read(6400 * K);
  await replay.setMigrationThreshold(2048);
  for (let i = 0; i < 150; i++) {
    await session.read((100 + i) * BLOCK);
    await session.pass(12);
  }
  assert.equal(replay.nrDirty, 2);
  for (let i = 0; i < 150; i++) {
    await session.read(0);
    await session.pass(12);
  }
  assert.equal(replay.nrDirty, 0);
  assert.equal(replay.counters.readHits, 150);
  await replay.setMigrationThreshold(0);
  await session.write(0);
  await replay.setMigrationThreshold(2048);
  for (let i = 0; i < 150; i++) {
    await session.write(BLOCK);
    await session.pass(12);
  }
  assert.ok(!replay.isDirty(0), 'it was cleaned');
  assert.ok(replay.isDirty(1), 'dirty from its last write');
});
