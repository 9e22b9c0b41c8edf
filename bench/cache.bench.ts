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
  /** Of the zipf mix, before it is measured. */
  readonly warmUpSeconds: number;
}

export const realCache: CacheParameters = { mib: 256, seconds: 2, rounds: 3, warmUpSeconds: 30 };
/** Enough to see that everything still runs. */
export const smokeCache: CacheParameters = { mib: 16, seconds: 0.3, rounds: 1, warmUpSeconds: 1 };

const ORIGIN_DELAY_MS = 2;

/** What is measured: whether the cache holds all, nothing, or what it chose. */
type Case = 'all hits' | 'all misses' | 'zipf';

interface Subject {
  readonly name: string;
  readonly cases: readonly Case[];
  start(dir: string, mib: number, kind: Case): Promise<RunningServer>;
}

const patternOf: Record<Case, Pattern> = {
  'all hits': { name: 'all hits, depth 64', rw: 'randread', bs: '4k', depth: 64 },
  'all misses': { name: 'all misses, depth 64', rw: 'randread', bs: '4k', depth: 64 },
  zipf: {
    name: `zipf 1.1, 70 % reads, depth 16, origin of ${ORIGIN_DELAY_MS} ms, cache of a tenth`,
    rw: 'randrw',
    bs: '4k',
    depth: 16,
    extra: ['--random_distribution=zipf:1.1', '--rwmixread=70'],
  },
};

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
      const table =
        kind === 'zipf'
          ? `0 ${sectors} delay ${origin} 0 ${ORIGIN_DELAY_MS}`
          : `0 ${sectors} linear ${origin} 0`;
      run('create', 'origin', '--table', table);
      make(run, dir, mib, kind);
      const uri = run('uri', 'top');
      return { uri, stop: async () => void run('stop') };
    },
  };
}

const cache = ours('devmapper cache', ['all hits', 'all misses', 'zipf'], (run, dir, mib, kind) => {
  sparse(path.join(dir, 'meta'), 8);
  sparse(path.join(dir, 'fast'), kind === 'zipf' ? Math.ceil(mib / 10) : mib);
  const devices = `${path.join(dir, 'meta')} ${path.join(dir, 'fast')} /dev/mapper/origin`;
  const table = (policy: string): string =>
    `0 ${mib * 2048} cache ${devices} 128 2 metadata2 writeback ${policy}`;
  // A cleaner promotes nothing.
  const policy = kind === 'all misses' ? 'cleaner 0' : 'smq 2 migration_threshold 20480';
  run('create', 'top', '--table', table(policy));
  // Writes of whole blocks are promoted at once as long as there is room.
  if (kind === 'all hits') fill(run('uri', 'top'), mib);
});

const bare = ours('the origin alone', ['all hits', 'all misses', 'zipf'], (run, _dir, mib) => {
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

const nbdkitCache = served(
  'nbdkit --filter=cache',
  ['all hits', 'all misses', 'zipf'],
  (origin, socket, kind) => {
    const delays = [`rdelay=${ORIGIN_DELAY_MS}ms`, `wdelay=${ORIGIN_DELAY_MS}ms`];
    const isSlow = kind === 'zipf';
    const filters = ['--filter=cache', ...(isSlow ? ['--filter=delay'] : [])];
    const settings = ['cache=writeback', `cache-on-read=${kind !== 'all misses'}`];
    const more = [...settings, ...(isSlow ? delays : [])];
    return ['nbdkit', ['-f', '-U', socket, ...filters, 'file', origin, ...more]];
  },
);

const qemu = served('qemu-nbd raw', ['all hits', 'all misses'], (origin, socket) => [
  'qemu-nbd',
  ['-t', '--shared=8', '--cache=writeback', '-k', socket, '-f', 'raw', origin],
]);

const subjects: readonly Subject[] = [cache, bare, nbdkitCache, qemu];

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
      if (kind === 'zipf') measure(running.uri, patternOf.zipf, p.mib, p.warmUpSeconds);
      return measure(running.uri, patternOf[kind], p.mib, p.seconds);
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
  for (const kind of ['all hits', 'all misses', 'zipf'] as const) {
    const results = new Map<string, number[]>();
    // Warming up takes so long that one round has to do.
    for (let round = 0; round < (kind === 'zipf' ? 1 : p.rounds); round++) {
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
