/**
 * Policy fidelity: the same trace through the kernel's cache and ours, with the same sizes. The
 * kernel's request times are taken; then the mean read hit ratio must agree within 2 percentage
 * points, promotions and demotions within 10 %. On a quiet machine most traces agree to the last
 * request: what is left is a race now and then between a migration and the next request.
 *
 * One boot runs all traces. DM_POLICY_SECONDS makes them longer than the 20 seconds that they take
 * otherwise, so that the periods of a minute end, too.
 */
import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import { CacheSimulator } from '../cache/policy/simulator.ts';
import { makeHitsTrace, makeTrace, traceKinds, type TraceKind } from '../cache/policy/traces.ts';
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

const runs: Run[] = traceKinds.flatMap((kind) =>
  ways.map((way, i) => {
    const seed = firstSeed + i;
    const trace = { ...geometry, ...way, ...makeTrace(kind, { ...shape, seed }) };
    const name = `${kind} ${way.mode} ${way.migrationThreshold} seed ${seed}`;
    return { name, kind, trace: { ...trace, isCachedDirty: false } };
  }),
);
for (const isCachedDirty of [false, true]) {
  const trace = makeHitsTrace({ ...shape, seed: firstSeed });
  const way = { mode: 'writeback', migrationThreshold: 0 } as const;
  const name = `hits seed ${firstSeed}`;
  runs.push({ name, kind: 'hits', trace: { ...geometry, ...way, ...trace, isCachedDirty } });
}

/** What one side's cache was like at the end, and its dirty blocks at each look. */
interface Outcome {
  readonly counters: Omit<CacheStatus, 'dirty' | 'resident'>;
  readonly dirty: readonly number[];
}

interface Compared extends Run {
  readonly kernel: Outcome;
  readonly ours: Outcome;
  readonly simulator: CacheSimulator;
  readonly dump: string;
}

const compared: Compared[] = [];
const skip = skipWithoutKernel() || skipWithout('perl', 'cache_dump');

before(async () => {
  if (skip !== false) return;
  const { dir, remove } = scratchDir();
  try {
    const traces = runs.map(({ trace }) => trace);
    const records = await recordTraces(traces, dir, SECONDS * 2 + SPARE_SECONDS);
    for (const [i, run] of runs.entries()) {
      const record = records[i] as RecordedTrace;
      const dump = await must('cache_dump', [record.metadata]);
      compared.push({ ...run, dump, ...compare(run.trace, record) });
    }
  } finally {
    remove();
  }
});

function compare(
  trace: KernelTrace,
  record: RecordedTrace,
): Pick<Compared, 'kernel' | 'ours' | 'simulator'> {
  const options = { ...trace, ...record, copyMs: COPY_MS, commitMs: COMMIT_MS };
  const simulator = new CacheSimulator(options);
  const dirty: number[] = [];
  let next = 0;
  for (const { atMs } of record.status) {
    const end = record.requests.findIndex(({ beginMs }) => beginMs > atMs);
    const upTo = end < 0 ? record.requests.length : end;
    simulator.send(record.requests.slice(next, upTo));
    simulator.runUntil(atMs);
    dirty.push(simulator.dirty.size);
    next = upTo;
  }
  const last = record.status.at(-1) as CacheStatus;
  const { readHits, readMisses, writeHits, writeMisses, demotions, promotions } = last;
  const counters = { readHits, readMisses, writeHits, writeMisses, demotions, promotions };
  return {
    kernel: { counters, dirty: record.status.map((status) => status.dirty) },
    ours: { counters: simulator.counters, dirty },
    simulator,
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
    const found = compared.filter((run) => run.kind === kind);
    const kernel = found.map((run) => run.kernel);
    const ours = found.map((run) => run.ours);
    for (const run of found) {
      t.diagnostic(`${run.name}: kernel ${words(run.kernel)}, ours ${words(run.ours)}`);
    }
    const percent = meanHitPercent(kernel);
    const oursPercent = meanHitPercent(ours);
    const difference = `read hits: kernel ${percent}, ours ${oursPercent}`;
    assert.ok(Math.abs(oursPercent - percent) <= HIT_POINTS_MAX, difference);
    for (const key of ['promotions', 'demotions'] as const) {
      const nr = sum(kernel, key);
      assert.ok(nr > 100, `the kernel’s cache made ${nr} ${key}`);
      const ratio = sum(ours, key) / nr;
      assert.ok(Math.abs(ratio - 1) <= MOVES_DEVIATION_MAX, `${key}: ${ratio} of the kernel’s`);
    }
  });
}

test('in idle time nothing is written back where migration_threshold forbids it', { skip }, () => {
  const found = compared.filter(
    ({ trace }) => trace.migrationThreshold === FORBIDDING_THRESHOLD && trace.mode === 'writeback',
  );
  assert.equal(found.length, traceKinds.length);
  for (const { name, kernel, ours, simulator } of found) {
    for (const { dirty } of [kernel, ours]) {
      for (let i = 0; i + 1 < dirty.length; i += 2) {
        assert.ok((dirty[i] as number) > 0, `${name}: something is dirty`);
        assert.equal(dirty[i + 1], dirty[i], `${name}: as much before a rest as after it`);
      }
    }
    assert.equal(simulator.nrRunningInIdleMax, 0);
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
    assert.equal(found.length, traceKinds.length);
    for (const { name, kernel, ours, simulator } of found) {
      for (const { dirty } of [kernel, ours]) {
        for (let i = 0; i + 1 < dirty.length; i += 2) {
          assert.ok((dirty[i] as number) > 0, `${name}: something is dirty`);
          assert.equal(dirty[i + 1], 0, `${name}: all is clean after a rest`);
        }
      }
      assert.ok(simulator.nrRunningInIdleMax <= 2048 / BLOCK_SECTORS);
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
      const { kernel, ours, trace, simulator, dump } = found;
      assert.deepEqual(ours, kernel);
      assert.equal(kernel.counters.readMisses + kernel.counters.writeMisses, 0);
      const { dirty, policy } = simulator;
      const expected = trace.cached.map(
        (oblock, cblock) => `${cblock} ${oblock} ${dirty.has(cblock)} ${policy.getHint(cblock)}`,
      );
      assert.deepEqual(blocksOf(dump), expected);
    },
  );
}
