/**
 * The daemon's log: the kernel's lines, with its prefix, through pino; and those lines that a
 * request caused, for the answer to it. Written to standard error.
 */
import fs from 'node:fs';
import { pino, type Logger } from 'pino';
import type { Log, LogLevel } from '../base/log.ts';

const STDERR = 2;
/** Lines kept for one request: it may wait for long while others are logged. */
const CAPTURED_LINES_MAX = 200;

export class DaemonLog implements Log {
  readonly pino: Logger;
  readonly #captures = new Set<string[]>();
  /** Lines that could not be written since the last one that could. */
  #nrLost = 0;

  constructor(level: string) {
    const options = { level, base: null, timestamp: pino.stdTimeFunctions.isoTime };
    this.pino = pino(options, { write: (line) => this.#writeLine(line) });
  }

  /**
   * Writes at once: what a killed daemon has said must be there. A full disk or a reader that has
   * gone costs lines, not the daemon.
   */
  #writeLine(line: string): void {
    try {
      if (this.#nrLost > 0)
        fs.writeSync(STDERR, `{"level":40,"msg":"${this.#nrLost} lines lost"}\n`);
      this.#nrLost = 0;
      fs.writeSync(STDERR, line);
    } catch {
      this.#nrLost++;
    }
  }

  write(level: LogLevel, line: string): void {
    this.pino[level](`device-mapper: ${line}`);
    for (const lines of this.#captures) {
      if (lines.length < CAPTURED_LINES_MAX) lines.push(`device-mapper: ${line}`);
    }
  }

  /** Runs `work`; every line written meanwhile goes to `lines`, too. */
  async capture<T>(lines: string[], work: () => Promise<T>): Promise<T> {
    this.#captures.add(lines);
    try {
      return await work();
    } finally {
      this.#captures.delete(lines);
    }
  }
}
