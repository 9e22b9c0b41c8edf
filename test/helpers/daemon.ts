/**
 * A daemon as a process of its own, with a state directory in which a test may make its disks, and
 * the commands that speak to it.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import fs from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { repoRoot } from './kernel.ts';
import { must, run, scratchDir, type ProgramResult } from './programs.ts';

const program = path.join(repoRoot, 'bin', 'devmapper.js');
const START_TIMEOUT_MS = 20_000;
const STOP_TIMEOUT_MS = 20_000;

export interface DaemonProcessOptions {
  /** The state directory of an earlier daemon, to start another one in; else one is made. */
  readonly dir?: string;
  /** More arguments for `devmapper daemon`. */
  readonly args?: readonly string[];
  /** Arguments for node itself. */
  readonly nodeArgs?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
}

/** Runs `devmapper ARGS`; a daemon that it starts must be stopped by the test. */
export function devmapper(
  args: readonly string[],
  options: { env?: Record<string, string>; cwd?: string; input?: string } = {},
): Promise<ProgramResult> {
  return run(process.execPath, [program, ...args], options);
}

/** Daemons that must not outlive this process. */
const alive = new Set<ChildProcess>();
process.on('exit', () => {
  for (const child of alive) child.kill('SIGKILL');
});

export class DaemonProcess {
  readonly dir: string;
  readonly #child: ChildProcess;
  readonly #exited: Promise<number>;
  readonly #removeDir: () => void;
  #log = '';
  #isRunning = true;

  private constructor(options: DaemonProcessOptions) {
    const scratch =
      options.dir === undefined ? scratchDir() : { dir: options.dir, remove: () => undefined };
    this.dir = scratch.dir;
    this.#removeDir = scratch.remove;
    const args = [...(options.nodeArgs ?? []), program, 'daemon', '--state-dir', this.dir];
    this.#child = spawn(process.execPath, [...args, ...(options.args ?? [])], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, ...options.env },
    });
    alive.add(this.#child);
    const append = (text: string): string => (this.#log += text);
    this.#child.stdout?.setEncoding('utf8').on('data', append);
    this.#child.stderr?.setEncoding('utf8').on('data', append);
    this.#exited = new Promise((resolve) => {
      this.#child.on('close', (code) => {
        this.#isRunning = false;
        alive.delete(this.#child);
        resolve(code ?? 128);
      });
    });
  }

  /** Starts a daemon; resolves when it answers. */
  static async start(options: DaemonProcessOptions = {}): Promise<DaemonProcess> {
    const daemon = new DaemonProcess(options);
    const deadline = Date.now() + START_TIMEOUT_MS;
    while (!(await answers(path.join(daemon.dir, 'control.sock')))) {
      if (!daemon.#isRunning || Date.now() > deadline) {
        await daemon.kill();
        throw new Error(`the daemon does not start:\n${daemon.log}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    return daemon;
  }

  /** What it has written to its standard output and error so far. */
  get log(): string {
    return this.#log;
  }

  get pid(): number {
    return this.#child.pid as number;
  }

  get nbdSocket(): string {
    return path.join(this.dir, 'nbd.sock');
  }

  /** The NBD URI of an export. */
  uri(name: string): string {
    return `nbd+unix:///${encodeURIComponent(name)}?socket=${this.nbdSocket}`;
  }

  /** A path in the state directory. */
  file(name: string): string {
    return path.join(this.dir, name);
  }

  /** Makes a sparse file in the state directory to use as a disk; resolves to its path. */
  disk(name: string, bytes: number): string {
    const file = this.file(name);
    fs.writeFileSync(file, '');
    fs.truncateSync(file, bytes);
    return file;
  }

  /** Runs `dmsetup ARGS` with this daemon; it must succeed. Resolves to its output. */
  async dmsetup(...args: string[]): Promise<string> {
    this.#mustRun();
    return must(process.execPath, [program, 'dmsetup', '--state-dir', this.dir, ...args]);
  }

  /** As `dmsetup`, whatever it exits with. */
  async tryDmsetup(...args: string[]): Promise<ProgramResult> {
    this.#mustRun();
    return run(process.execPath, [program, 'dmsetup', '--state-dir', this.dir, ...args]);
  }

  /** A command without a daemon would start one that no test stops. */
  #mustRun(): void {
    if (!this.#isRunning) throw new Error(`the daemon has ended:\n${this.#log}`);
  }

  /** Stops it as a service manager would (SIGTERM); resolves to its exit code. */
  async stop(signal: 'SIGTERM' | 'SIGINT' = 'SIGTERM'): Promise<number> {
    this.#child.kill(signal);
    const late = setTimeout(() => this.#child.kill('SIGKILL'), STOP_TIMEOUT_MS);
    const code = await this.#exited;
    clearTimeout(late);
    return code;
  }

  /** Kills it without warning. */
  async kill(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.#exited;
  }

  /** Stops it and removes the state directory, if it was made for it. */
  async close(): Promise<void> {
    await this.stop();
    this.#removeDir();
  }
}

function answers(socketPath: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = net.connect(socketPath);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}
