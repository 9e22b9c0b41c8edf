/**
 * dmsetup: its command line, its commands, its exit codes (spec: dm-core, 7).
 *
 * After dmsetup's own text, standard error gets the lines that the kernel would have written to its
 * log.
 */
import { Client } from '../client.ts';
import { getopt, OptionError } from '../getopt.ts';
import { CommandFailed, complain, explain } from '../output.ts';
import { commands, type Command } from './commands.ts';
import { Context } from './context.ts';
import { printVersion } from './listings.ts';
import { Options, optionSpecs, ownOptionSpecs } from './options.ts';
import { usage } from './usage.ts';

/** Runs a command line; resolves to the exit code. `program` is named in mistakes. */
export async function dmsetup(program: string, argv: readonly string[]): Promise<number> {
  let options: Options;
  let args: readonly string[];
  try {
    const parsed = getopt(program, [...optionSpecs, ...ownOptionSpecs], argv);
    options = new Options(parsed);
    args = parsed.args;
  } catch (error) {
    if (!(error instanceof OptionError)) throw error;
    complain(error.message);
    return badCommandLine();
  }
  const mistake = optionMistake(options);
  if (mistake !== null) {
    complain(mistake);
    return badCommandLine();
  }
  return run(options, args);
}

function badCommandLine(): number {
  complain("Couldn't process command line.");
  return 1;
}

function showUsage(): void {
  process.stderr.write(`${usage.trimEnd()}\n\n`);
}

/** Options that contradict each other, or have bad values. */
function optionMistake(options: Options): string | null {
  if (options.has('major') !== options.has('minor')) {
    return 'Please specify both major number and minor number.';
  }
  if (options.has('table') && options.has('notable')) {
    return '--table and --notable are incompatible.';
  }
  const mode = options.get('mode');
  if (mode !== undefined && !/^[0-7]+$/.test(mode)) return `Invalid argument for --mode: ${mode}. `;
  const mangling = options.get('manglename');
  if (mangling !== undefined && !['none', 'hex', 'auto'].includes(mangling)) {
    return 'Unknown name mangling mode.';
  }
  return null;
}

async function run(options: Options, args: readonly string[]): Promise<number> {
  const [word, ...rest] = args;
  if (options.has('version')) {
    printVersion();
    return 0;
  }
  if (options.has('help')) {
    showUsage();
    return 0;
  }
  if (word === undefined) {
    showUsage();
    return 1;
  }
  const command = commands.get(word);
  if (command === undefined) {
    complain('Unknown command.');
    showUsage();
    return 1;
  }
  const named = options.has('uuid') || options.has('minor') ? 1 : 0;
  const min = word === 'create' ? command.min : Math.max(command.min - named, 0);
  if (rest.length < min || rest.length > command.max) {
    complain('Incorrect number of arguments.');
    showUsage();
    return 1;
  }
  return execute(options, command, rest);
}

async function execute(
  options: Options,
  command: Command,
  args: readonly string[],
): Promise<number> {
  const reasons: string[] = [];
  try {
    const context = new Context(new Client(options.get('state-dir')), options, reasons);
    await command.run(context, args);
    return 0;
  } catch (error) {
    if (!(error instanceof CommandFailed)) complain(explain(error));
    if (error instanceof CommandFailed && error.message === 'command line') badCommandLine();
    else if (!(error instanceof CommandFailed && error.message === 'silent')) {
      complain('Command failed.');
    }
    for (const line of reasons) complain(line);
    return 1;
  }
}
