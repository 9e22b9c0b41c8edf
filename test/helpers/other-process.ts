/**
 * Another process that opens devices, for the tests of locks. Started as a program, this file does
 * what lines on its standard input say: `open PATH ro|rw` and `close`, answered by `ok` or an errno
 * name each; it ends with its input.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { DmError } from '../../src/base/error.ts';
import { OpenDevices, type OpenDevice } from '../../src/block/open-devices.ts';

export class OtherProcess {
  readonly #child: ChildProcess;
  readonly #answers: AsyncIterableIterator<string>;

  /** With `env`, a variable or two more; with `uid`, as another user. */
  constructor(options: { env?: Record<string, string>; uid?: number } = {}) {
    this.#child = spawn(process.execPath, [fileURLToPath(import.meta.url)], {
      stdio: ['pipe', 'pipe', 'inherit'],
      env: { ...process.env, ...options.env },
      ...(options.uid !== undefined && { uid: options.uid, gid: options.uid }),
    });
    const { stdout } = this.#child;
    if (stdout === null) throw new Error('the process has an output');
    this.#answers = createInterface({ input: stdout })[Symbol.asyncIterator]();
  }

  async #ask(line: string): Promise<string> {
    this.#child.stdin?.write(`${line}\n`);
    const { value, done } = (await this.#answers.next()) as IteratorResult<string, undefined>;
    return done === true ? 'ended' : value;
  }

  /** Opens a path there, and keeps it open; resolves to `ok` or an errno name. */
  open(devicePath: string, mode: 'ro' | 'rw'): Promise<string> {
    return this.#ask(`open ${devicePath} ${mode}`);
  }

  /** Closes all that is open there. */
  closeAll(): Promise<string> {
    return this.#ask('close');
  }

  /** Ends the process; resolves when it is gone. */
  async end(signal?: NodeJS.Signals): Promise<void> {
    const child = this.#child;
    const gone = new Promise((resolve) => child.once('close', resolve));
    if (child.exitCode !== null || child.signalCode !== null) return;
    if (signal === undefined) child.stdin?.end();
    else child.kill(signal);
    await gone;
  }
}

async function serve(): Promise<void> {
  const devices = new OpenDevices();
  const open: OpenDevice[] = [];
  for await (const line of createInterface({ input: process.stdin })) {
    const [word, devicePath = '', mode] = line.split(' ');
    let answer = 'ok';
    try {
      if (word === 'open') open.push(devices.openPath(devicePath, mode === 'ro'));
      else for (const device of open.splice(0)) await device.release();
    } catch (error) {
      if (!(error instanceof DmError)) throw error;
      answer = error.errno;
    }
    process.stdout.write(`${answer}\n`);
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await serve();
