/**
 * Table text: where `create` and `load` take it from, and what dmsetup says of a mistake in it.
 */
import fs from 'node:fs';
import { RequestError } from '../failures.ts';
import { complain, CommandFailed, fail } from '../output.ts';
import type { Context, Target } from './context.ts';

/** Table text from --table, a file or standard input; and what dmsetup calls its source. */
export function readTable(
  context: Context,
  file: string | undefined,
): { text: string; source: string } {
  const given = context.options.get('table');
  if (given !== undefined) return { text: asKernelText(given), source: '' };
  if (file === undefined) {
    return { text: asKernelText(fs.readFileSync(0, 'utf8')), source: 'on stdin' };
  }
  try {
    return { text: asKernelText(fs.readFileSync(file, 'utf8')), source: file };
  } catch {
    return fail(`Couldn't open '${file}' for reading.`);
  }
}

/** Start, length and type of a line, which have no escapes, and the parameters. */
const LINE = /^([^\S\n]*[+-]?\d+[^\S\n]*[+-]?\d+[^\S\n]*\S+)(.*)$/gm;

/**
 * Table text as the kernel wants it: to dmsetup `#` begins a comment, also behind parameters, and a
 * backslash there is a character like any other, as in the paths of mangled names; to the kernel it
 * makes the next character literal.
 */
export function asKernelText(text: string): string {
  if (!/[#\\\0]/.test(text)) return text;
  const lines = text.replace(/\0.*/g, '');
  return lines.replace(LINE, (_line, head: string, params: string) => {
    return head + params.replace(/#.*/, '').replaceAll('\\', '\\\\');
  });
}

/** Reports a failed create or load; a table that cannot be split has a text of its own. */
export function tableFailure(
  context: Context,
  error: unknown,
  device: Target,
  source: string,
): unknown {
  if (!(error instanceof RequestError)) return error;
  const { errno, line, message } = error.error;
  if (errno !== 'FORMAT') return context.failed(error.error, device);
  complain(line === undefined ? message : `Invalid format on line ${line} of table ${source}.`);
  return new CommandFailed();
}

/** What relative paths in a table start from; a directory that has been removed has no name. */
export function workingDir(): string {
  try {
    return process.cwd();
  } catch {
    return '/';
  }
}
