/**
 * Policy fidelity: the same trace through the kernel's cache and ours, with the same sizes. The
 * kernel's request times are taken; then the mean read hit ratio must agree within 2 percentage
 * points, promotions and demotions within 10 %. On a quiet machine most traces agree to the last
 * request: what is left is a race now and then between a migration and the next request.
 *
 * One boot runs all traces. A machine that is busy makes more of those races, and an early look-up
 * decides how the policy judges a whole second: where a kind of trace is outside these bounds, all
 * are run again with other seeds, twice at most, and what counts is the mean over all.
 * DM_POLICY_SECONDS makes them longer than the 20 seconds that they take otherwise, so that the
 * periods of a minute end, too.
 */
import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import { Replay } from '../cache/target/replay.ts';
import { makeHitsTrace, makeTrace, traceKinds, type TraceKind } from '../cache/target/traces.ts';
import {
  recordTraces,
  type CacheStatus,
  type KernelTrace,
  type RecordedTrace,
} from '../helpers/cache-trace.ts';
import { skipWithoutKernel } from '../helpers/kernel.ts';
import { must, scratchDir, skipWithout } from '../helpers/programs.ts';
import { seedOf } from '../helpers/random.ts';

const BLOCK_SECTORS = 128;
const NR_CACHE_BLOCKS = 2048;
const NR_ORIGIN_BLOCKS = 16384;
const SECONDS = Number(process.env['DM_POLICY_SECONDS'] ?? 20);
/** For the boot, for filling caches, and in case the machine is busy. */
const SPARE_SECONDS = 120;
/** Devices that keep no data are quick. */
const COPY_MS = 0.1;
const COMMIT_MS = 0.1;

const HIT_POINTS_MAX = 2;
const MOVES_DEVIATION_MAX = 0.1;

/** One block less than may be copied in idle time. */
const FORBIDDING_THRESHOLD = BLOCK_SECTORS - 1;
const ways = [
  { mode: 'writeback', migrationThreshold: 2048 },
  { mode: 'writethrough', migrationThreshold: 2048 },
  { mode: 'writeback', migrationThreshold: FORBIDDING_THRESHOLD },
] as const;

interface Run {
  readonly name: string;
  readonly kind: TraceKind | 'hits';
  readonly trace: KernelTrace;
}

const firstSeed = seedOf(1);
const shape = {
  seconds: SECONDS,
  blockBytes: BLOCK_SECTORS * 512,
  nrOriginBlocks: NR_ORIGIN_BLOCKS,
  nrCacheBlocks: NR_CACHE_BLOCKS,
};
const geometry = {
  nrCacheBlocks: NR_CACHE_BLOCKS,
  blockSectors: BLOCK_SECTORS,
  originSectors: NR_ORIGIN_BLOCKS * BLOCK_SECTORS,
};

const ROUNDS_MAX = 3;

function runsOf(round: number): Run[] {
  return traceKinds.flatMap((kind) =>
    ways.map((way, i) => {
      const seed = firstSeed + round * ways.length + i;
      const trace = { ...geometry, ...way, ...makeTrace(kind, { ...shape, seed }) };
      const name = `${kind} ${way.mode} ${way.migrationThreshold} seed ${seed}`;
      return { name, kind, trace: { ...trace, isCachedDirty: false } };
    }),
  );
}

const hitsRuns: Run[] = [false, true].map((isCachedDirty) => {
  const trace = makeHitsTrace({ ...shape, seed: firstSeed });
  const way = { mode: 'writeback', migrationThreshold: 0 } as const;
  const name = `hits seed ${firstSeed}`;
  return { name, kind: 'hits', trace: { ...geometry, ...way, ...trace, isCachedDirty } };
});

/** What one side's cache was like at the end, and its dirty blocks at each look. */
interface Outcome {
  readonly counters: Omit<CacheStatus, 'dirty' | 'resident'>;
  readonly dirty: readonly number[];
}

interface Compared extends Run {
  readonly kernel: Outcome;
  readonly ours: Outcome;
  readonly replay: Replay;
  readonly dump: string;
}

const compared: Compared[] = [];
const skip = skipWithoutKernel() || skipWithout('perl', 'cache_dump');

before(async () => {
  if (skip !== false) return;
  await record([...runsOf(0), ...hitsRuns]);
  for (let round = 1; round < ROUNDS_MAX; round++) {
    if (traceKinds.every((kind) => difference(kind) === null)) return;
    await record(runsOf(round));
  }
});

async function record(runs: readonly Run[]): Promise<void> {
  const { dir, remove } = scratchDir();
  try {
    const traces = runs.map(({ trace }) => trace);
    const records = await recordTraces(traces, dir, SECONDS * 2 + SPARE_SECONDS);
    for (const [i, run] of runs.entries()) {
      const found = records[i] as RecordedTrace;
      const dump = await must('cache_dump', [found.metadata]);
      compared.push({ ...run, dump, ...(await compare(run.trace, found)) });
    }
  } finally {
    remove();
  }
}

async function compare(
  trace: KernelTrace,
  record: RecordedTrace,
): Promise<Pick<Compared, 'kernel' | 'ours' | 'replay'>> {
  const options = { ...trace, ...record, copyMs: COPY_MS, commitMs: COMMIT_MS };
  const replay = await Replay.start(options);
  const dirty: number[] = [];
  let next = 0;
  for (const { atMs } of record.status) {
    const end = record.requests.findIndex(({ beginMs }) => beginMs > atMs);
    const upTo = end < 0 ? record.requests.length : end;
    await replay.send(record.requests.slice(next, upTo));
    await replay.runUntil(atMs);
    dirty.push(replay.nrDirty);
    next = upTo;
  }
  const last = record.status.at(-1) as CacheStatus;
  const { readHits, readMisses, writeHits, writeMisses, demotions, promotions } = last;
  const counters = { readHits, readMisses, writeHits, writeMisses, demotions, promotions };
  return {
    kernel: { counters, dirty: record.status.map((status) => status.dirty) },
    ours: { counters: replay.counters, dirty },
    replay,
  };
}

function meanHitPercent(outcomes: readonly Outcome[]): number {
  const percents = outcomes.map(
    ({ counters: { readHits, readMisses } }) => (100 * readHits) / (readHits + readMisses),
  );
  return percents.reduce((sum, percent) => sum + percent, 0) / percents.length;
}

function sum(outcomes: readonly Outcome[], key: 'promotions' | 'demotions'): number {
  return outcomes.reduce((total, { counters }) => total + counters[key], 0);
}

const words = ({ counters, dirty }: Outcome): string =>
  [...Object.values(counters), 'dirty', ...dirty].join(' ');

for (const kind of traceKinds) {
  test(`hit ratio, promotions and demotions are the kernel’s: ${kind}`, { skip }, (t) => {
    for (const run of compared.filter((each) => each.kind === kind)) {
      t.diagnostic(`${run.name}: kernel ${words(run.kernel)}, ours ${words(run.ours)}`);
    }
    assert.equal(difference(kind), null);
  });
}

/** What differs too much between the two sides' runs of a kind, on the whole; null if nothing. */
function difference(kind: TraceKind): string | null {
  const found = compared.filter((run) => run.kind === kind);
  const kernel = found.map((run) => run.kernel);
  const ours = found.map((run) => run.ours);
  const percent = meanHitPercent(kernel);
  const oursPercent = meanHitPercent(ours);
  if (Math.abs(oursPercent - percent) > HIT_POINTS_MAX) {
    return `read hits: kernel ${percent}, ours ${oursPercent}`;
  }
  for (const key of ['promotions', 'demotions'] as const) {
    const nr = sum(kernel, key);
    assert.ok(nr > 100, `the kernel’s cache made ${nr} ${key}`);
    const ratio = sum(ours, key) / nr;
    if (Math.abs(ratio - 1) > MOVES_DEVIATION_MAX) return `${key}: ${ratio} of the kernel’s`;
  }
  return null;
}

test('in idle time nothing is written back where migration_threshold forbids it', { skip }, () => {
  const found = compared.filter(
    ({ trace }) => trace.migrationThreshold === FORBIDDING_THRESHOLD && trace.mode === 'writeback',
  );
  assert.ok(found.length >= traceKinds.length);
  for (const { name, kernel, ours, replay } of found) {
    for (const { dirty } of [kernel, ours]) {
      for (let i = 0; i + 1 < dirty.length; i += 2) {
        assert.ok((dirty[i] as number) > 0, `${name}: something is dirty`);
        assert.equal(dirty[i + 1], dirty[i], `${name}: as much before a rest as after it`);
      }
    }
    assert.equal(replay.nrRunningInIdleMax, 0);
  }
});

test(
  'in idle time everything is written back where migration_threshold allows it',
  { skip },
  () => {
    const found = compared.filter(
      ({ trace, kind }) =>
        kind !== 'hits' && trace.migrationThreshold === 2048 && trace.mode === 'writeback',
    );
    assert.ok(found.length >= traceKinds.length);
    for (const { name, kernel, ours, replay } of found) {
      for (const { dirty } of [kernel, ours]) {
        for (let i = 0; i + 1 < dirty.length; i += 2) {
          assert.ok((dirty[i] as number) > 0, `${name}: something is dirty`);
          assert.equal(dirty[i + 1], 0, `${name}: all is clean after a rest`);
        }
      }
      assert.ok(replay.nrRunningInIdleMax <= 2048 / BLOCK_SECTORS);
    }
  },
);

/** By cblock: oblock, dirty flag and level, of a cache_dump. */
function blocksOf(dump: string): string[] {
  const levels = new Map<string, number>();
  for (const [, cblock = '', data = ''] of dump.matchAll(
    /<hint cache_block="(\d+)" data="(.*)"/g,
  )) {
    levels.set(cblock, Buffer.from(data, 'base64').readUInt32LE());
  }
  return [...dump.matchAll(/<mapping cache_block="(\d+)" origin_block="(\d+)" dirty="(\w+)"/g)].map(
    ([, cblock = '', oblock, dirty]) => `${cblock} ${oblock} ${dirty} ${levels.get(cblock)}`,
  );
}

for (const isCachedDirty of [false, true]) {
  const what = isCachedDirty ? 'dirty' : 'clean';
  test(
    `hits on a cache that was loaded ${what} leave every block at the kernel’s level`,
    { skip },
    () => {
      const found = compared.find(
        ({ kind, trace }) => kind === 'hits' && trace.isCachedDirty === isCachedDirty,
      ) as Compared;
      const { kernel, ours, trace, replay, dump } = found;
      assert.deepEqual(ours, kernel);
      assert.equal(kernel.counters.readMisses + kernel.counters.writeMisses, 0);
      const { policy } = replay;
      const expected = trace.cached.map(
        (oblock, cblock) =>
          `${cblock} ${oblock} ${replay.isDirty(cblock)} ${policy.getHint(cblock)}`,
      );
      assert.deepEqual(blocksOf(dump), expected);
    },
  );
}
