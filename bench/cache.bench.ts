/**
 * Caches over NBD: ours, the bare origin through us, nbdkit's cache filter over the same origin,
 * and qemu-nbd on it. All hits and all misses over an origin as fast as the cache show what a cache
 * costs; a zipf mix over an origin that takes 2 ms shows what it brings.
 */
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { measure, type Pattern } from './fio.ts';
import { answers, ended, fill, must, program, sparse, type RunningServer } from './servers.ts';

export interface CacheParameters {
  readonly mib: number;
  readonly seconds: number;
  readonly rounds: number;
  /** Of a zipf mix, before it is measured. */
  readonly warmUpSeconds: number;
}

export const realCache: CacheParameters = { mib: 256, seconds: 2, rounds: 3, warmUpSeconds: 30 };
/** Enough to see that everything still runs. */
export const smokeCache: CacheParameters = { mib: 16, seconds: 0.3, rounds: 1, warmUpSeconds: 1 };

const ORIGIN_DELAY_MS = 2;
/** Mixes over a slow origin are measured so much longer. */
const SLOW_TIMES = 5;

/** What is measured: whether the cache holds all, nothing, what it chose, or what is used. */
type Case = 'all hits' | 'all misses' | 'zipf' | 'zipf that fits';

/** Cases with an origin that takes its time. */
const isSlow = (kind: Case): boolean => kind === 'zipf' || kind === 'zipf that fits';

interface Subject {
  readonly name: string;
  readonly cases: readonly Case[];
  start(dir: string, mib: number, kind: Case): Promise<RunningServer>;
}

function zipfMix(size: string): Pattern {
  return {
    name: `zipf 1.1, 70 % reads, depth 16, origin of ${ORIGIN_DELAY_MS} ms, ${size}`,
    rw: 'randrw',
    bs: '4k',
    depth: 16,
    extra: ['--random_distribution=zipf:1.1', '--rwmixread=70'],
  };
}

const patternOf: Record<Case, Pattern> = {
  'all hits': { name: 'all hits, depth 64', rw: 'randread', bs: '4k', depth: 64 },
  'all misses': { name: 'all misses, depth 64', rw: 'randread', bs: '4k', depth: 64 },
  zipf: zipfMix('cache of a tenth'),
  'zipf that fits': zipfMix('cache of all that is used'),
};

/** What a cache can reach: everything is in it from the beginning. */
const allHits = 'all hits';

/** A daemon of ours with a device `top`. */
function ours(
  name: string,
  cases: readonly Case[],
  make: (run: (...args: string[]) => string, dir: string, mib: number, kind: Case) => void,
): Subject {
  return {
    name,
    cases,
    async start(dir, mib, kind) {
      const env = { DEVMAPPER_DIR: path.join(dir, 'state') };
      const run = (...args: string[]): string => must(process.execPath, [program, ...args], env);
      sparse(path.join(dir, 'origin'), mib);
      const sectors = mib * 2048;
      const origin = path.join(dir, 'origin');
      const isFast = !isSlow(kind) || name === allHits;
      const table = isFast
        ? `0 ${sectors} linear ${origin} 0`
        : `0 ${sectors} delay ${origin} 0 ${ORIGIN_DELAY_MS}`;
      run('create', 'origin', '--table', table);
      make(run, dir, mib, kind);
      const uri = run('uri', 'top');
      return { uri, stop: async () => void run('stop') };
    },
  };
}

/** Longest time to wait for a cache to write everything back. */
const CLEAN_TRIES = 600;
/** Word of a cache's status line: dirty blocks. */
const DIRTY = 13;

function makeCache(run: (...args: string[]) => string, dir: string, mib: number, kind: Case): void {
  sparse(path.join(dir, 'meta'), 8);
  sparse(path.join(dir, 'fast'), kind === 'zipf' ? Math.ceil(mib / 10) : mib);
  const devices = `${path.join(dir, 'meta')} ${path.join(dir, 'fast')} /dev/mapper/origin`;
  const table = (policy: string): string =>
    `0 ${mib * 2048} cache ${devices} 128 2 metadata2 writeback ${policy}`;
  // A cleaner promotes nothing.
  const policy = kind === 'all misses' ? 'cleaner 0' : 'smq 0';
  run('create', 'top', '--table', table(policy));
}

/** Writes of whole blocks are promoted at once as long as there is room; then they are clean. */
function fillCache(run: (...args: string[]) => string, mib: number): void {
  fill(run('uri', 'top'), mib);
  for (let left = CLEAN_TRIES; run('status', 'top').split(' ')[DIRTY] !== '0'; left--) {
    if (left === 0) throw new Error('the cache is not written back');
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 100);
  }
}

const all = ['all hits', 'all misses', 'zipf', 'zipf that fits'] as const;

const cache = ours('devmapper cache', all, (run, dir, mib, kind) => {
  makeCache(run, dir, mib, kind);
  if (kind === 'all hits') fillCache(run, mib);
});

const filled = ours(allHits, ['zipf that fits'], (run, dir, mib, kind) => {
  makeCache(run, dir, mib, kind);
  fillCache(run, mib);
});

const bare = ours('the origin alone', all, (run, _dir, mib) => {
  run('create', 'top', '--table', `0 ${mib * 2048} linear /dev/mapper/origin 0`);
});

function served(name: string, cases: readonly Case[], command: Command): Subject {
  return {
    name,
    cases,
    async start(dir, mib, kind) {
      const [origin, socket] = [path.join(dir, 'origin'), path.join(dir, 'peer.sock')];
      sparse(origin, mib);
      const [first, args] = command(origin, socket, kind);
      const child = spawn(first, args, { stdio: 'ignore', env: { ...process.env, TMPDIR: dir } });
      await answers(socket);
      const uri = `nbd+unix:///?socket=${socket}`;
      if (kind === 'all hits') fill(uri, mib);
      const stop = async (): Promise<void> => {
        child.kill();
        await ended(child);
      };
      return { uri, stop };
    },
  };
}

type Command = (origin: string, socket: string, kind: Case) => [string, string[]];

const nbdkitCache = served('nbdkit --filter=cache', all, (origin, socket, kind) => {
  const delays = [`rdelay=${ORIGIN_DELAY_MS}ms`, `wdelay=${ORIGIN_DELAY_MS}ms`];
  const filters = ['--filter=cache', ...(isSlow(kind) ? ['--filter=delay'] : [])];
  const size = fs.statSync(origin).size;
  const settings = [
    'cache=writeback',
    `cache-on-read=${kind !== 'all misses'}`,
    ...(kind === 'zipf' ? [`cache-max-size=${Math.ceil(size / 10)}`] : []),
  ];
  const more = [...settings, ...(isSlow(kind) ? delays : [])];
  return ['nbdkit', ['-f', '-U', socket, ...filters, 'file', origin, ...more]];
});

const qemu = served('qemu-nbd raw', ['all hits', 'all misses'], (origin, socket) => [
  'qemu-nbd',
  ['-t', '--shared=8', '--cache=writeback', '-k', socket, '-f', 'raw', origin],
]);

const subjects: readonly Subject[] = [cache, filled, bare, nbdkitCache, qemu];

export interface CacheRow {
  readonly pattern: string;
  /** Requests per second by subject, the median of the rounds. */
  readonly iops: ReadonlyMap<string, number>;
}

async function once(subject: Subject, kind: Case, p: CacheParameters): Promise<number> {
  const base = fs.existsSync('/dev/shm') ? '/dev/shm' : os.tmpdir();
  const dir = fs.mkdtempSync(path.join(base, 'dm-bench-'));
  try {
    const running = await subject.start(dir, p.mib, kind);
    try {
      if (isSlow(kind)) measure(running.uri, patternOf[kind], p.mib, p.warmUpSeconds);
      // What is written back now and then takes its share: it must not matter when that is.
      const seconds = isSlow(kind) ? p.seconds * SLOW_TIMES : p.seconds;
      return measure(running.uri, patternOf[kind], p.mib, seconds);
    } finally {
      await running.stop();
    }
  } finally {
    fs.rmSync(dir, { recursive: true });
  }
}

/** Measures everything; `report` hears of each row. */
export async function runCache(
  p: CacheParameters,
  report: (row: CacheRow) => void,
): Promise<CacheRow[]> {
  const rows: CacheRow[] = [];
  for (const kind of all) {
    const results = new Map<string, number[]>();
    // Warming up takes so long that one round has to do.
    for (let round = 0; round < (isSlow(kind) ? 1 : p.rounds); round++) {
      for (const subject of subjects.filter(({ cases }) => cases.includes(kind))) {
        const list = results.get(subject.name) ?? [];
        list.push(await once(subject, kind, p));
        results.set(subject.name, list);
      }
    }
    const median = (list: readonly number[]): number =>
      [...list].sort((a, b) => a - b)[Math.floor(list.length / 2)] ?? NaN;
    const iops = new Map([...results].map(([name, list]) => [name, median(list)]));
    const row = { pattern: patternOf[kind].name, iops };
    rows.push(row);
    report(row);
  }
  return rows;
}

const peers = subjects.slice(1);

/** A line of the table: our figure, and how many times each peer's it is. */
export function formatCache({ pattern, iops }: CacheRow): string {
  const figure = iops.get(cache.name) ?? NaN;
  const ratios = peers.map(({ name }) => {
    const other = iops.get(name);
    return other === undefined ? '–' : (figure / other).toFixed(2);
  });
  return `| ${pattern} | ${Math.round(figure)} | ${ratios.join(' | ')} |`;
}

export const cacheHeading = [
  `| 4 KiB requests | requests/s | ${peers.map(({ name }) => `÷ ${name}`).join(' | ')} |`,
  `|---|---:|${'---:|'.repeat(peers.length)}`,
].join('\n');
