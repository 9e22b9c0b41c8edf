/**
 * What must always hold inside an SmqPolicy, and that it stands where the model stands.
 */
import assert from 'node:assert/strict';
import { NR_LEVELS, type MultiQueue } from '../../../src/cache/policy/multi-queue.ts';
import type { EntryPool } from '../../../src/cache/policy/entry-pool.ts';
import { WorkOp } from '../../../src/cache/policy/policy.ts';
import type { SmqPolicy } from '../../../src/cache/policy/smq.ts';
import type { SmqModel } from './smq-model.ts';

/** The elements of a queue; asserts that its counts agree, and that entries know their level. */
function elementsOf(queue: MultiQueue, pool: EntryPool): number[] {
  const found: number[] = [];
  for (let level = 0; level < NR_LEVELS; level++) {
    const entries = queue.entriesOf(level);
    const elements = entries.filter((e) => !pool.isSentinel(e));
    assert.equal(queue.nrInLevel(level), elements.length, `count of level ${level}`);
    for (const e of entries) assert.equal(pool.level[e], level, `level of ${e}`);
    found.push(...elements);
  }
  assert.equal(queue.nrElements, found.length, 'count of the queue');
  return found;
}

/** Asserts that each entry is in exactly one place, and that all counts agree. */
export function checkSmq(policy: SmqPolicy): void {
  const { pool, index, clean, dirty, tracker, hotspots } = policy;
  const free = pool.freeEntries();
  const cleanEntries = elementsOf(clean, pool);
  const dirtyEntries = elementsOf(dirty, pool);
  const pending = tracker.items().map(({ cblock }) => cblock);
  const places = [...free, ...cleanEntries, ...dirtyEntries, ...pending].sort((a, b) => a - b);
  const all = Array.from({ length: pool.nrEntries }, (_, i) => i);
  assert.deepEqual(places, all, 'each entry is in exactly one place');
  for (const e of free) assert.ok(!pool.isAllocated(e), `${e} is free`);
  for (const e of cleanEntries) assert.ok(!pool.isDirty(e), `${e} is clean`);
  for (const e of dirtyEntries) assert.ok(pool.isDirty(e), `${e} is dirty`);
  for (const e of all) assert.equal(pool.isPending(e), pending.includes(e), `${e} is pending`);
  assert.equal(pool.nrFree, free.length);
  assert.equal(policy.residency, pool.nrEntries - free.length);

  const items = tracker.items();
  const reserved = items.filter(({ op }) => op === WorkOp.PROMOTE).map(({ cblock }) => cblock);
  const mapped = all.filter((e) => pool.isAllocated(e) && !reserved.includes(e));
  assert.equal(index.nrEntries, mapped.length, 'what is mapped is in the index');
  for (const e of mapped) assert.equal(index.find(pool.block[e] as number), e, `${e} is found`);
  assert.equal(new Set(items.map(({ oblock }) => oblock)).size, items.length);
  for (const { op, oblock, cblock } of items) {
    if (op !== WorkOp.PROMOTE) assert.equal(pool.block[cblock], oblock);
    else assert.equal(index.find(oblock), -1, 'what is being promoted is not mapped');
  }
  const demotions = items.filter(({ op }) => op === WorkOp.DEMOTE);
  assert.equal(tracker.nrPendingDemotions, demotions.length);

  const known = elementsOf(hotspots.queue, hotspots.pool);
  assert.equal(hotspots.pool.nrAllocated, known.length);
  assert.equal(hotspots.index.nrEntries, known.length);
  for (const e of known) assert.equal(hotspots.index.find(hotspots.pool.block[e] as number), e);
}

type ModelQueue = SmqModel['clean'];

/** A queue of the model in words, empty levels left out. */
function wordsOfModel(queue: ModelQueue, name: 'id' | 'block'): string[] {
  return queue.map((list, level) => {
    const words = list.map((item) => (item.isSentinel ? `s${item.id}` : item[name]));
    return [level, ...words].join(' ');
  });
}

/** Likewise, of the policy; `sentinels` is its first sentinel. */
function wordsOf(queue: MultiQueue, sentinels: number, name: (e: number) => number): string[] {
  return Array.from({ length: NR_LEVELS }, (_, level) => {
    const words = queue.entriesOf(level).map((e) => {
      return e >= sentinels ? `s${e - sentinels < NR_LEVELS ? 0 : 1}` : name(e);
    });
    return [level, ...words].join(' ');
  });
}

/** Asserts that policy and model have the same in the same order everywhere. */
export function assertAlike(policy: SmqPolicy, model: SmqModel): void {
  const { pool, clean, dirty, hotspots, tracker } = policy;
  const cblock = (e: number): number => e;
  const writebackSentinels = pool.nrEntries;
  const demoteSentinels = pool.nrEntries + 2 * NR_LEVELS;
  assert.deepEqual(
    pool.freeEntries(),
    model.free.map(({ id }) => id),
    'free list',
  );
  assert.deepEqual(
    wordsOf(dirty, writebackSentinels, cblock),
    wordsOfModel(model.dirty, 'id'),
    'dirty queue',
  );
  assert.deepEqual(
    wordsOf(clean, demoteSentinels, cblock),
    wordsOfModel(model.clean, 'id'),
    'clean queue',
  );
  assert.deepEqual(
    wordsOf(hotspots.queue, hotspots.pool.nrEntries, (e) => hotspots.pool.block[e] as number),
    wordsOfModel(model.hotspots, 'block'),
    'hotspot queue',
  );
  assert.deepEqual(tracker.items(), model.work, 'work');
  assert.equal(policy.residency, model.residency);
}
