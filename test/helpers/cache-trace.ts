/**
 * Traces of requests to caches in a real kernel: when each request began and ended, and what the
 * cache's status was at the end. All caches of a boot run at the same time, each on devices of its
 * own that keep no data (dm-zero), because only the policy's decisions are looked at.
 */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import type { CacheGeometry, TimedRequest } from '../cache/target/replay.ts';
import { STATUS, type Access, type Step } from '../cache/target/traces.ts';
import { kernelModules, repoRoot, runInKernel } from './kernel.ts';

export interface KernelTrace extends CacheGeometry {
  readonly mode: 'writeback' | 'writethrough';
  readonly migrationThreshold: number;
  /** Oblocks that are cached from cblock 0 on, without hints. */
  readonly cached: readonly number[];
  readonly isCachedDirty: boolean;
  readonly steps: readonly Step[];
}

/** The figures of a status line that a policy has to do with. */
export interface CacheStatus {
  readonly resident: number;
  readonly readHits: number;
  readonly readMisses: number;
  readonly writeHits: number;
  readonly writeMisses: number;
  readonly demotions: number;
  readonly promotions: number;
  readonly dirty: number;
}

export interface TimedStatus extends CacheStatus {
  readonly atMs: number;
}

export interface RecordedTrace {
  readonly loadedMs: number;
  readonly resumedMs: number;
  readonly requests: readonly TimedRequest[];
  readonly status: readonly TimedStatus[];
  /** File with the metadata as the cache left it at its removal. */
  readonly metadata: string;
}

const METADATA_SECTORS = 8192;
/** Longer than it takes until a cache counts as idle, and to write all of it back. */
const CLEANING_SECONDS = 3;

/** Runs traces, all at once, in one boot; `seconds` is more than they take. */
export async function recordTraces(
  traces: readonly KernelTrace[],
  dir: string,
  seconds: number,
): Promise<RecordedTrace[]> {
  const script = [
    'set -e',
    'mount -t tmpfs none /mnt',
    `truncate -s ${traces.length * METADATA_SECTORS * 512} /mnt/metadata`,
    `modprobe -d ${kernelModules} loop`,
    'losetup /dev/loop0 /mnt/metadata',
    ...traces.flatMap((trace, i) => linesFor(trace, i, dir)),
    'wait',
  ];
  const text = script.join('\n');
  const { code, stdout, stderr } = await runInKernel(text, { disks: [], dir, seconds });
  assert.equal(code, 0, `${stdout}${stderr}`);
  return traces.map((trace, i) => {
    const [filled, said] = ['filled', 'said'].map((name) =>
      fs.readFileSync(path.join(dir, `${name}-${i}`), 'utf8'),
    ) as [string, string];
    assertFilled(trace, filled);
    return { ...recordOf(trace, said), metadata: path.join(dir, `metadata-${i}`) };
  });
}

function linesFor(trace: KernelTrace, i: number, dir: string): string[] {
  const { nrCacheBlocks, blockSectors, originSectors, mode, migrationThreshold } = trace;
  const blockBytes = blockSectors * 512;
  const fill = trace.cached.map((block) => `w ${block * blockBytes} ${blockBytes}`);
  const thenClean = trace.isCachedDirty ? [] : [`p ${CLEANING_SECONDS}`];
  fs.writeFileSync(path.join(dir, `fill-${i}`), [...fill, ...thenClean, 's'].join('\n'));
  const steps = trace.steps.map((step) => lineOf(step));
  fs.writeFileSync(path.join(dir, `plan-${i}`), [...steps, 's'].join('\n'));
  const devices = [
    `meta${i},,,rw,0 ${METADATA_SECTORS} linear /dev/loop0 ${i * METADATA_SECTORS}`,
    `fast${i},,,rw,0 ${nrCacheBlocks * blockSectors} zero`,
    `slow${i},,,rw,0 ${originSectors} zero`,
  ];
  const names = ['meta', 'fast', 'slow'].map((name) => `/dev/mapper/${name}${i}`);
  const table = `0 ${originSectors} cache ${names.join(' ')} ${blockSectors}`;
  const program = `perl ${path.join(repoRoot, 'test/kernel/cache-trace.pl')} cache${i}`;
  return [
    `dmsetup create --concise "${devices.join(';')}"`,
    '{',
    // A policy of another name, so that its hints are not used.
    `${program} "${table} 1 writeback mq 0" ${dir}/fill-${i} >${dir}/filled-${i}`,
    `dmsetup remove cache${i}`,
    `${program} "${table} 1 ${mode} smq 2 migration_threshold ${migrationThreshold}" ` +
      `${dir}/plan-${i} >${dir}/said-${i}`,
    `dmsetup remove cache${i}`,
    `dd if=/dev/mapper/meta${i} of=${dir}/metadata-${i} bs=1M status=none`,
    '} &',
  ];
}

function lineOf(step: Step): string {
  if (step === STATUS) return 's';
  if (typeof step === 'number') return `p ${step}`;
  return `q\n${step.isWrite ? 'w' : 'r'} ${step.offsetBytes} ${step.lengthBytes}`;
}

function assertFilled(trace: KernelTrace, said: string): void {
  const words = /^s (.*)$/m.exec(said)?.[1]?.split(' ') ?? [];
  const { resident, dirty } = statusOf(words.slice(1));
  assert.equal(resident, trace.cached.length, said.slice(-500));
  assert.equal(dirty, trace.isCachedDirty ? resident : 0);
}

function recordOf(trace: KernelTrace, said: string): Omit<RecordedTrace, 'metadata'> {
  assert.match(said, /finished\n$/);
  const accesses = trace.steps.filter((step) => typeof step === 'object');
  const requests: TimedRequest[] = [];
  const status: TimedStatus[] = [];
  let made: readonly number[] = [];
  for (const line of said.split('\n')) {
    const [op, ...words] = line.split(' ');
    if (op === 'made') made = words.map(Number);
    if (op === 's') status.push({ atMs: Number(words[0]), ...statusOf(words.slice(1)) });
    if (op !== 'r' && op !== 'w') continue;
    const [beginMs = NaN, endMs = NaN] = words.map(Number);
    requests.push({ ...(accesses[requests.length] as Access), beginMs, endMs });
  }
  assert.equal(requests.length, accesses.length);
  const [loadedMs = NaN, resumedMs = NaN] = made;
  return { loadedMs, resumedMs, requests, status };
}

/** The figures of a status line, from the metadata block size on. */
export function statusOf(words: readonly string[]): CacheStatus {
  const number = (i: number): number => parseInt(words[i] ?? '', 10);
  return {
    resident: number(3),
    readHits: number(4),
    readMisses: number(5),
    writeHits: number(6),
    writeMisses: number(7),
    demotions: number(8),
    promotions: number(9),
    dirty: number(10),
  };
}
