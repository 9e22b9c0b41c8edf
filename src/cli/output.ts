/**
 * What commands print, and how they end: results to standard output, everything else to standard
 * error.
 */
import { DaemonError, RequestError } from './failures.ts';

/** A line to standard output. */
export function print(line: string): void {
  process.stdout.write(`${line}\n`);
}

/** A line to standard error. */
export function complain(line: string): void {
  process.stderr.write(`${line}\n`);
}

/** Prints JSON for people and programs: two blanks of indent. */
export function printJson(value: unknown): void {
  print(JSON.stringify(value, null, 2));
}

/** How a failed command ends after its own lines. */
export type Ending = 'Command failed.' | "Couldn't process command line." | '';

/** A command that failed; its lines have been printed already. */
export class CommandFailed extends Error {
  readonly ending: Ending;
  constructor(ending: Ending = 'Command failed.') {
    super(ending);
    this.ending = ending;
  }
}

/** Help has been shown instead of what was asked for. */
export class HelpShown extends Error {}

/** Fails with lines of its own. */
export function fail(...lines: string[]): never {
  for (const line of lines) complain(line);
  throw new CommandFailed();
}

/** As `fail`, for a mistake in the command line. */
export function failCommandLine(...lines: string[]): never {
  for (const line of lines) complain(line);
  throw new CommandFailed("Couldn't process command line.");
}

/** The line for a failure that is not dmsetup's to report. */
export function explain(error: unknown): string {
  if (error instanceof DaemonError) return `devmapper: ${error.message}`;
  if (error instanceof RequestError) return `devmapper: ${error.message}`;
  throw error;
}
