/**
 * Starting a daemon in the background, for the first command that needs one.
 *
 * Several commands may do so at once: the state directory's lock lets one daemon through, the
 * others end, and every command goes on with the one that answers.
 */
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { StateDir } from '../daemon/state-dir.ts';
import { DaemonError } from './failures.ts';

/** How long a daemon may take to start. */
const START_TIMEOUT_MS = 20_000;
const POLL_MS = 15;
/** How long another one may still take, when ours has ended because of it. */
const OTHER_TIMEOUT_MS = 2000;

/** Starts a daemon; resolves when `answers` says so. Rejects with a DaemonError. */
export async function startDaemon(state: StateDir, answers: () => Promise<boolean>): Promise<void> {
  const child = spawnDaemon(state);
  let failure: string | null = null;
  child.once('exit', (code) => (failure = `it ended with exit code ${code}`));
  child.once('error', (error) => (failure = error.message));
  let deadline = Date.now() + START_TIMEOUT_MS;
  let hasFailed = false;
  while (Date.now() < deadline) {
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    if (await answersNow(answers)) return;
    if (failure !== null && !hasFailed) {
      hasFailed = true;
      deadline = Date.now() + OTHER_TIMEOUT_MS;
    }
  }
  const why = failure ?? 'it did not answer in time';
  throw new DaemonError(`cannot start a daemon: ${why}; see ${state.logFile}`);
}

/** A daemon that is just being started, or stopped, may end a connection without an answer. */
async function answersNow(answers: () => Promise<boolean>): Promise<boolean> {
  try {
    return await answers();
  } catch (error) {
    if (error instanceof DaemonError) return false;
    throw error;
  }
}

function spawnDaemon(state: StateDir): ReturnType<typeof spawn> {
  const program = fileURLToPath(new URL('../../../bin/devmapper.js', import.meta.url));
  let log: number;
  try {
    fs.mkdirSync(state.dir, { recursive: true, mode: 0o700 });
    log = fs.openSync(state.logFile, 'a', 0o600);
  } catch (cause) {
    const text = `cannot use the state directory ${state.dir}: ${(cause as Error).message}`;
    throw new DaemonError(text, { cause });
  }
  const child = spawn(process.execPath, [program, 'daemon', '--state-dir', state.dir], {
    detached: true,
    cwd: '/',
    stdio: ['ignore', log, log],
  });
  fs.closeSync(log);
  child.unref();
  return child;
}
