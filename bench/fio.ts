/**
 * One fio run over NBD, and what it measured.
 */
import { spawnSync } from 'node:child_process';

export interface Pattern {
  readonly name: string;
  readonly rw: 'randread' | 'randwrite' | 'randrw' | 'read' | 'write';
  readonly bs: string;
  readonly depth: number;
  /** More of fio's options: a distribution, a mix. */
  readonly extra?: readonly string[];
}

export const patterns: readonly Pattern[] = [
  { name: '4 KiB random read, depth 64', rw: 'randread', bs: '4k', depth: 64 },
  { name: '4 KiB random write, depth 64', rw: 'randwrite', bs: '4k', depth: 64 },
  { name: '4 KiB random read, depth 1', rw: 'randread', bs: '4k', depth: 1 },
  { name: '4 KiB random write, depth 1', rw: 'randwrite', bs: '4k', depth: 1 },
  { name: '128 KiB sequential read, depth 16', rw: 'read', bs: '128k', depth: 16 },
  { name: '128 KiB sequential write, depth 16', rw: 'write', bs: '128k', depth: 16 },
];

interface FioJson {
  jobs: { error: number; read: { iops: number }; write: { iops: number } }[];
}

/** Requests per second of a pattern over `mib` MiB for `seconds`. */
export function measure(uri: string, pattern: Pattern, mib: number, seconds: number): number {
  const args = [
    '--name=bench',
    '--ioengine=nbd',
    `--uri=${uri}`,
    `--rw=${pattern.rw}`,
    `--bs=${pattern.bs}`,
    `--iodepth=${pattern.depth}`,
    `--size=${mib}m`,
    '--randseed=42',
    ...(pattern.extra ?? []),
    `--runtime=${Math.round(seconds * 1000)}ms`,
    '--time_based',
    '--output-format=json',
  ];
  const { status, stdout, stderr } = spawnSync('fio', args, { encoding: 'utf8' });
  if (status !== 0) throw new Error(`fio ${args.join(' ')} exited with ${status}: ${stderr}`);
  const [job] = (JSON.parse(stdout.slice(stdout.indexOf('{'))) as FioJson).jobs;
  if (job === undefined || job.error !== 0) throw new Error(`fio reported an error: ${stdout}`);
  return job.read.iops + job.write.iops;
}
