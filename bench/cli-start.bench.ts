/**
 * What a command costs beyond Node's own start: scripts call commands by the hundred. Each is run
 * in turn with a bare Node, many times; the figure is the ratio of the medians.
 */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const program = fileURLToPath(new URL('../../bin/devmapper.js', import.meta.url));

export interface StartParameters {
  readonly rounds: number;
}

export const realStart: StartParameters = { rounds: 60 };

/** Enough to see that everything still runs. */
export const smokeStart: StartParameters = { rounds: 1 };

export interface StartRow {
  readonly command: string;
  /** The median time of a run, in milliseconds. */
  readonly ms: number;
  /** How many times a bare Node's. */
  readonly ratio: number;
}

/** Commands, each as a script would call it; the daemon that they speak to runs already. */
const commands: readonly (readonly string[])[] = [
  ['version'],
  ['status', 'a'],
  ['ls'],
  ['info', '-c'],
  ['message', 'a', '0', '@cancel_deferred_remove'],
  ['create', '--notable', 'b'],
  ['remove', 'b'],
];

function runOnce(args: readonly string[], env: NodeJS.ProcessEnv): number {
  const begin = performance.now();
  const { status, stderr } = spawnSync(process.execPath, args, { env, encoding: 'utf8' });
  if (status !== 0) throw new Error(`${args.join(' ')} exited with ${status}: ${stderr}`);
  return performance.now() - begin;
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? NaN;
}

/** Measures everything, a bare Node before each command. */
export function runStart(p: StartParameters): StartRow[] {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'dm-bench-'));
  const env = { ...process.env, DEVMAPPER_DIR: dir };
  const nothing = path.join(dir, 'nothing.mjs');
  fs.writeFileSync(nothing, '');
  try {
    runOnce([program, 'create', 'a', '--table', '0 8 zero'], env);
    const bare: number[] = [];
    const times = commands.map((): number[] => []);
    for (let round = 0; round < p.rounds; round++) {
      for (const [i, command] of commands.entries()) {
        bare.push(runOnce([nothing], env));
        times[i]?.push(runOnce([program, ...command], env));
      }
    }
    return commands.map((command, i) => {
      const ms = median(times[i] ?? []);
      return { command: command.join(' '), ms, ratio: ms / median(bare) };
    });
  } finally {
    runOnce([program, 'stop'], env);
    fs.rmSync(dir, { recursive: true });
  }
}

/** A line of the table. */
export function formatStart({ command, ms, ratio }: StartRow): string {
  return `| devmapper ${command} | ${ms.toFixed(0)} | ${ratio.toFixed(2)} |`;
}

export const startHeading = '| command | ms | ÷ bare Node |\n|---|---:|---:|';
