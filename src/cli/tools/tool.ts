/**
 * What all metadata tools have in common on the command line: help and version, exit codes, quiet,
 * and how failures are told (spec: tools, 1).
 *
 *   0 success · 2 a mistake in the command line · 64 failure
 *
 * Results go to standard output, everything else to standard error; quiet silences both.
 */
import { DmError } from '../../base/error.ts';
import { complain, print } from '../output.ts';
import {
  helpText,
  parseToolArguments,
  UsageError,
  type ToolArguments,
  type ToolUsage,
} from './options.ts';

/** The release of the tools whose options, texts and exit codes these are. */
const TOOLS_VERSION = '1.3.3';

export const ExitCode = { SUCCESS: 0, USAGE: 2, FAILURE: 64 } as const;

/** Findings and failures beyond this many lines are only counted, unless asked for with -v. */
const LINES_MAX = 100;

export interface Tool {
  readonly usage: ToolUsage;
  /** Resolves to the exit code; a DmError it rejects with is a failure to report. */
  run(args: ToolArguments, output: ToolOutput): Promise<number>;
}

export class ToolOutput {
  readonly #quiet: boolean;
  readonly #verbose: boolean;
  #nrDetails = 0;

  constructor(args: ToolArguments) {
    this.#quiet = args.has('quiet');
    this.#verbose = args.has('verbose');
  }

  /** A line of the result. */
  result(line: string): void {
    if (!this.#quiet) print(line);
  }

  /** A line for people. */
  say(line: string): void {
    if (!this.#quiet) complain(line);
  }

  /** Names a phase of long work. On a terminal a progress bar has this place. */
  phase(name: string): void {
    if (process.stderr.isTTY !== true) this.say(name);
  }

  /** A line of which there may be very many. */
  detail(line: string): void {
    if (this.#nrDetails++ < LINES_MAX || this.#verbose) this.say(line);
  }

  /** Says how many details were left out. */
  endDetails(): void {
    if (this.#verbose || this.#nrDetails <= LINES_MAX) return;
    this.say(`... and ${this.#nrDetails - LINES_MAX} more (-v shows all)`);
  }
}

/** Runs a tool with `argv` (without its name); resolves to the exit code. */
export async function runTool(tool: Tool, argv: readonly string[]): Promise<number> {
  let args: ToolArguments;
  try {
    args = parseToolArguments(tool.usage, argv);
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    complain(error.message);
    return ExitCode.USAGE;
  }
  if (args.has('help')) {
    process.stdout.write(helpText(tool.usage));
    return ExitCode.SUCCESS;
  }
  if (args.has('version')) {
    print(TOOLS_VERSION);
    return ExitCode.SUCCESS;
  }
  const output = new ToolOutput(args);
  try {
    return await tool.run(args, output);
  } catch (error) {
    const text = failureText(error);
    if (text !== '') output.say(text);
    return ExitCode.FAILURE;
  }
}

/** The line for a failure; '' for a reader of our output that has gone. A bug is thrown on. */
function failureText(error: unknown): string {
  if (error instanceof DmError) return error.message;
  const code = (error as NodeJS.ErrnoException).code;
  if (code === undefined || !(error instanceof Error) || !('syscall' in error)) throw error;
  return code === 'EPIPE' ? '' : error.message;
}
