/**
 * The daemon's log: the kernel's lines, with its prefix, through pino; and those lines that a
 * request caused, for the answer to it. Written to standard error.
 */
import { pino, type Logger } from 'pino';
import type { Log, LogLevel } from '../base/log.ts';

export class DaemonLog implements Log {
  readonly pino: Logger;
  readonly #captures = new Set<string[]>();

  constructor(level: string) {
    this.pino = pino(
      { level, base: null, timestamp: pino.stdTimeFunctions.isoTime },
      pino.destination(2),
    );
  }

  write(level: LogLevel, line: string): void {
    this.pino[level](`device-mapper: ${line}`);
    for (const lines of this.#captures) lines.push(`device-mapper: ${line}`);
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
