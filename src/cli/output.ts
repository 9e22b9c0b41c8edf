/**
 * What commands print, and how they end: results to standard output, everything else to standard
 * error.
 */
import { DaemonError, RequestError } from './client.ts';
import type { ApiError } from '../daemon/api-types.ts';

/** A line to standard output. */
export function print(line: string): void {
  process.stdout.write(`${line}\n`);
}

/** A line to standard error. */
export function complain(line: string): void {
  process.stderr.write(`${line}\n`);
}

/**
 * A command that failed; its lines have been printed already. The message says how it ends: '' with
 * `Command failed.`, 'command line' with `Couldn't process command line.`, 'silent' with neither.
 */
export class CommandFailed extends Error {}

/** dmsetup's form of a failed ioctl. */
export function ioctlFailure(error: ApiError, name: string, uuid: string): string {
  const number = error.number === undefined ? '' : `(${error.number})`;
  return `device-mapper: ${error.op} ioctl on ${name} ${uuid}${number} failed: ${error.text}`;
}

/** Prints JSON for people and programs: two blanks of indent. */
export function printJson(value: unknown): void {
  print(JSON.stringify(value, null, 2));
}

/** The line for a failure that is not dmsetup's to report. */
export function explain(error: unknown): string {
  if (error instanceof DaemonError) return `devmapper: ${error.message}`;
  if (error instanceof RequestError) return `devmapper: ${error.message}`;
  throw error;
}
