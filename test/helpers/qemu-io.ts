/**
 * QemuIo: a qemu-io that stays connected and takes one command after the other, so that a test can
 * do something between two of them, or kill it.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { after } from 'node:test';

const PROMPT = 'qemu-io> ';

/** What a test that fails leaves behind. */
const alive = new Set<ChildProcess>();
after(() => {
  for (const child of alive) child.kill('SIGKILL');
});

export class QemuIo {
  readonly #child: ChildProcess;
  readonly #ended: Promise<void>;
  #hasEnded = false;
  /** Printed since the last prompt that was waited for. */
  #said = '';
  #heard: () => void = () => undefined;

  private constructor(uri: string, args: readonly string[]) {
    this.#child = spawn('qemu-io', ['-f', 'raw', ...args, uri], {
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    alive.add(this.#child);
    const hear = (text: string): void => {
      this.#said += text;
      this.#heard();
    };
    this.#child.stdout?.setEncoding('utf8').on('data', hear);
    this.#child.stderr?.setEncoding('utf8').on('data', hear);
    this.#child.stdin?.on('error', () => undefined);
    this.#ended = new Promise((resolve) => {
      this.#child.on('close', () => {
        alive.delete(this.#child);
        this.#hasEnded = true;
        this.#heard();
        resolve();
      });
    });
  }

  /** Connects; rejects with what it says if it cannot. */
  static async open(uri: string, ...args: string[]): Promise<QemuIo> {
    const io = new QemuIo(uri, args);
    await io.#untilPrompt();
    return io;
  }

  /** What a command prints; rejects if qemu-io ends meanwhile. */
  async command(text: string): Promise<string> {
    this.#child.stdin?.write(`${text}\n`);
    return this.#untilPrompt();
  }

  /** As `command`, for one that must succeed. */
  async must(text: string): Promise<void> {
    const said = await this.command(text);
    if (/failed|error|mismatch/i.test(said)) throw new Error(`${text}: ${said}`);
  }

  async #untilPrompt(): Promise<string> {
    while (!this.#said.endsWith(PROMPT)) {
      if (this.#hasEnded) throw new Error(`qemu-io has ended: ${this.#said}`);
      await new Promise<void>((resolve) => (this.#heard = resolve));
    }
    const said = this.#said.slice(0, -PROMPT.length);
    this.#said = '';
    return said;
  }

  /** Disconnects, which flushes. */
  async quit(): Promise<void> {
    this.#child.stdin?.end('quit\n');
    await this.#ended;
  }

  /** Kills it: nothing is flushed, and the protocol says no goodbye. */
  async kill(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.#ended;
  }
}
