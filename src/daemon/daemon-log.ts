/**
 * The daemon's log: the kernel's lines, with its prefix, through pino; and those lines that a
 * request caused, for the answer to it. Written to standard error.
 */
import { pino, type Logger } from 'pino';
import type { Log, LogLevel } from '../base/log.ts';

/** Lines kept for one request: it may wait for long while others are logged. */
const CAPTURED_LINES_MAX = 200;

export class DaemonLog implements Log {
  readonly pino: Logger;
  readonly #captures = new Set<string[]>();

  constructor(level: string) {
    this.pino = pino(
      { level, base: null, timestamp: pino.stdTimeFunctions.isoTime },
      // What a killed daemon has written must be there.
      pino.destination({ dest: 2, sync: true }),
    );
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
