/**
 * What the kernel would write to its log. Lines are the kernel's, without its prefix
 * `device-mapper: `; the daemon adds the prefix, keeps them, and shows a command those that it
 * caused.
 */

export type LogLevel = 'error' | 'warn' | 'info';

export interface Log {
  /** Takes one line; must not throw. */
  write(level: LogLevel, line: string): void;
}

/** Discards everything. */
export const silentLog: Log = { write: () => undefined };

/** Keeps lines in memory, for tests and for showing the lines of one command. */
export class MemoryLog implements Log {
  readonly lines: string[] = [];
  write(_level: LogLevel, line: string): void {
    this.lines.push(line);
  }
  /** The lines so far; the log is empty afterwards. */
  take(): string[] {
    return this.lines.splice(0);
  }
}
