/**
 * Programs that tests run beside us. A test that needs a missing one is skipped by name; with
 * CI=true that is a failure.
 */
import { spawn, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';

/** Where system programs are that a user's PATH may not have. */
const PATH = `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin`;

function find(program: string): string | undefined {
  if (program.includes('/')) return fs.existsSync(program) ? program : undefined;
  return PATH.split(':')
    .map((dir) => path.join(dir, program))
    .find((file) => fs.existsSync(file));
}

/** What node:test wants to hear: false to run the test, or why it is skipped. */
export function skipWithout(...programs: string[]): string | false {
  const missing = programs.filter((program) => find(program) === undefined);
  if (missing.length === 0) return false;
  const reason = `needs ${missing.join(', ')}`;
  if (process.env['CI'] === 'true') throw new Error(`a test ${reason}`);
  return reason;
}

/**
 * The newest upstream pdata_tools that scripts/test.js could fetch; see scripts/newest-tools.js.
 */
export const newestTools = process.env['DM_NEWEST_TOOLS'];

/**
 * As skipWithout, for tests that compare with the newest tools, which not every machine can have.
 */
export const skipWithoutNewestTools: string | false =
  newestTools === undefined ? 'needs the newest thin-provisioning-tools' : false;

export interface ProgramResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a program to its end. */
export async function run(
  program: string,
  args: readonly string[],
  options: { cwd?: string; input?: string; env?: Record<string, string> } = {},
): Promise<ProgramResult> {
  const child = spawn(find(program) ?? program, args, {
    cwd: options.cwd,
    env: { ...process.env, PATH, ...options.env },
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  child.stdin.on('error', () => undefined);
  child.stdin.end(options.input ?? '');
  const code = await new Promise<number>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (n) => resolve(n ?? 128));
  });
  return { code, stdout, stderr };
}

/** As `run`, for a program that must succeed; resolves to its output. */
export async function must(program: string, args: readonly string[]): Promise<string> {
  const { code, stdout, stderr } = await run(program, args);
  if (code === 0) return stdout;
  throw new Error(`${program} ${args.join(' ')} exited with ${code}:\n${stdout}${stderr}`);
}

/** As `run`, before returning; for checks after every step of a long test. */
export function runSync(program: string, args: readonly string[]): ProgramResult {
  const env = { ...process.env, PATH };
  const { status, stdout, stderr } = spawnSync(find(program) ?? program, args, {
    env,
    encoding: 'utf8',
  });
  return { code: status ?? 128, stdout, stderr };
}

/** A directory of a test's own, removed by `remove`. Unix sockets fit into its path. */
export function scratchDir(): { dir: string; remove: () => void } {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'dm-'));
  return { dir, remove: () => fs.rmSync(dir, { recursive: true, force: true }) };
}
