/**
 * Thin volumes over NBD beside the servers that people would use instead, all in one run: for each
 * state of a volume and each pattern the median of several alternating runs, and its ratio to each
 * peer.
 *
 * Files lie on tmpfs, so that what is measured is the servers. Volumes are fresh for every run that
 * changes them.
 */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { measure, patterns, type Pattern } from './fio.ts';
import { devmapper, servers, type Server, type VolumeState } from './servers.ts';

export interface Parameters {
  readonly mib: number;
  readonly seconds: number;
  readonly rounds: number;
  readonly patterns: readonly Pattern[];
  readonly states: readonly VolumeState[];
}

export const real: Parameters = {
  mib: 512,
  seconds: 2,
  rounds: 3,
  patterns,
  states: ['provisioned', 'unprovisioned', 'snapshotted'],
};

/** Enough to see that everything still runs. */
export const smoke: Parameters = {
  mib: 16,
  seconds: 0.3,
  rounds: 1,
  patterns: patterns.slice(1, 2),
  states: ['provisioned', 'snapshotted'],
};

export interface Row {
  readonly state: VolumeState;
  readonly pattern: string;
  /** Requests per second by server, the median of the rounds. */
  readonly iops: ReadonlyMap<string, number>;
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? NaN;
}

/** The servers that a state is measured on; a peer without snapshots shows its plain speed. */
function comparable(state: VolumeState): { server: Server; state: VolumeState }[] {
  return servers.map((server) => ({
    server,
    state: server.states.includes(state) ? state : 'provisioned',
  }));
}

async function once(
  server: Server,
  state: VolumeState,
  p: Parameters,
  pattern: Pattern,
): Promise<number> {
  const base = fs.existsSync('/dev/shm') ? '/dev/shm' : os.tmpdir();
  const dir = fs.mkdtempSync(path.join(base, 'dm-bench-'));
  try {
    const running = await server.start(dir, p.mib, state);
    try {
      return measure(running.uri, pattern, p.mib, p.seconds);
    } finally {
      await running.stop();
    }
  } finally {
    fs.rmSync(dir, { recursive: true });
  }
}

/** Measures everything; `report` hears of each row. */
export async function run(p: Parameters, report: (row: Row) => void): Promise<Row[]> {
  const rows: Row[] = [];
  for (const state of p.states) {
    for (const pattern of p.patterns) {
      const results = new Map<string, number[]>();
      for (let round = 0; round < p.rounds; round++) {
        for (const subject of comparable(state)) {
          const list = results.get(subject.server.name) ?? [];
          list.push(await once(subject.server, subject.state, p, pattern));
          results.set(subject.server.name, list);
        }
      }
      const iops = new Map([...results].map(([name, list]) => [name, median(list)]));
      const row = { state, pattern: pattern.name, iops };
      rows.push(row);
      report(row);
    }
  }
  return rows;
}

/** A line of the table: our figure, and how many times each peer's it is. */
export function format({ state, pattern, iops }: Row): string {
  const ours = iops.get(devmapper.name) ?? NaN;
  const ratios = servers.slice(1).map(({ name }) => (ours / (iops.get(name) ?? NaN)).toFixed(2));
  return `| ${state} | ${pattern} | ${Math.round(ours)} | ${ratios.join(' | ')} |`;
}

export const heading = [
  `| volume | pattern | requests/s | ${servers
    .slice(1)
    .map(({ name }) => `÷ ${name}`)
    .join(' | ')} |`,
  `|---|---|---:|${'---:|'.repeat(servers.length - 1)}`,
].join('\n');
