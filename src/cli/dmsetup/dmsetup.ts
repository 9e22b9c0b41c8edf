/**
 * dmsetup: its command line, its commands, its exit codes (spec: dm-core, 7).
 *
 * After dmsetup's own text, standard error gets the lines that the kernel would have written to its
 * log.
 */
import { getopt, OptionError } from '../getopt.ts';
import { CommandFailed, complain, explain, HelpShown } from '../output.ts';
import { commands, type Command } from './commands.ts';
import { Context } from './context.ts';
import { optionMistake } from './option-mistakes.ts';
import { Options, optionSpecs, ownOptionSpecs } from './options.ts';

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

async function showUsage(): Promise<void> {
  (await import('./usage.ts')).showUsage();
}

async function run(options: Options, args: readonly string[]): Promise<number> {
  const [word, ...rest] = args;
  if (options.has('version')) {
    (await import('./versions.ts')).printVersion();
    return 0;
  }
  if (options.has('help')) {
    await showUsage();
    return 0;
  }
  if (word === undefined) {
    await showUsage();
    return 1;
  }
  const command = commands.get(word);
  if (command === undefined) {
    complain('Unknown command.');
    await showUsage();
    return 1;
  }
  const named = options.has('uuid') || options.has('minor') ? 1 : 0;
  const min = word === 'create' ? command.min : Math.max(command.min - named, 0);
  if (rest.length < min || rest.length > command.max) {
    complain('Incorrect number of arguments.');
    await showUsage();
    return 1;
  }
  return execute(options, command, rest);
}

async function execute(
  options: Options,
  command: Command,
  args: readonly string[],
): Promise<number> {
  let context: Context | null = null;
  try {
    context = new Context(options);
    const run = await command.load();
    await run(context, args);
    return 0;
  } catch (error) {
    if (error instanceof HelpShown) return 0;
    if (!(error instanceof CommandFailed)) complain(explain(error));
    const ending = error instanceof CommandFailed ? error.ending : 'Command failed.';
    if (ending !== '') complain(ending);
    for (const line of context?.reasons ?? []) complain(line);
    return 1;
  }
}
