/**
 * Runs scripts inside the real kernel that `../shared/kernel/kernel-run` boots, beside this
 * repository. Where that is absent, the tests that need it skip; with CI=true that is a failure.
 */
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { run, skipWithout } from './programs.ts';

/** The repository's root: this file runs as dist/test/helpers/kernel.js. */
export const repoRoot = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../../..');

const kernelRun = path.resolve(repoRoot, '../shared/kernel/kernel-run');
const qemuRun = path.resolve(repoRoot, '../shared/kernel/qemu-run');

/** Where kernel-run keeps the kernel's modules, for `modprobe -d` in a script. */
export const kernelModules = path.join(
  process.env['XDG_CACHE_HOME'] ?? path.join(os.homedir(), '.cache'),
  'kernel-run',
);

/** What node:test wants to hear: false to run the test, or why it is skipped. */
export function skipWithoutKernel(): string | false {
  if (fs.existsSync(kernelRun)) return false;
  if (process.env['CI'] === 'true') throw new Error(`${kernelRun} is missing`);
  return 'needs ../shared/kernel/kernel-run';
}

export interface KernelResult {
  readonly code: number;
  readonly stdout: string;
  /** The kernel's own lines. */
  readonly stderr: string;
}

/**
 * What node:test wants to hear about `runInMachine`, which `../shared/kernel/qemu-run` does: a
 * kernel with more in it, as its NBD client, in a machine of its own.
 */
export function skipWithoutMachine(): string | false {
  if (!fs.existsSync(qemuRun) && process.env['CI'] !== 'true') {
    return 'needs ../shared/kernel/qemu-run';
  }
  return skipWithout('qemu-system-x86_64', 'busybox', 'cpio', 'nbd-client', 'mke2fs', 'e2fsck');
}

/** Runs `script` (busybox sh) as root in the machine; our 127.0.0.1:PORT is its 10.0.2.2:PORT. */
export function runInMachine(
  script: string,
  options: { port: number; seconds?: number; dir: string },
): Promise<KernelResult> {
  const file = path.join(options.dir, `script-${fs.readdirSync(options.dir).length}.sh`);
  fs.writeFileSync(file, script);
  const args = ['-p', String(options.port), '-t', String(options.seconds ?? 120), file];
  return run(qemuRun, args, { cwd: options.dir });
}

/** Runs `script` (bash) as root in the kernel; `disks` are /dev/ubda, /dev/ubdb, … */
export async function runInKernel(
  script: string,
  options: { disks: readonly string[]; seconds?: number; dir: string },
): Promise<KernelResult> {
  const file = path.join(options.dir, `script-${fs.readdirSync(options.dir).length}.sh`);
  fs.writeFileSync(file, script);
  const args = options.disks.flatMap((disk) => ['-d', disk]);
  args.push('-t', String(options.seconds ?? 300), file);
  const child = spawn(kernelRun, args, { cwd: options.dir, stdio: ['ignore', 'pipe', 'pipe'] });
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  const code = await new Promise<number>((resolve) => child.on('close', (n) => resolve(n ?? 125)));
  return { code, stdout, stderr };
}
