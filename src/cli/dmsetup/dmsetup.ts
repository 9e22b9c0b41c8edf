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

/**
 * Runs a command line; resolves to the exit code. `program` is named in mistakes. With `help`, a
 * text of its own, it is devmapper, which tells more than dmsetup's usage.
 */
export async function dmsetup(
  program: string,
  argv: readonly string[],
  help?: string,
): Promise<number> {
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
  return run(options, args, help);
}

function badCommandLine(): number {
  complain("Couldn't process command line.");
  return 1;
}

/** dmsetup's usage, or what `help` says instead, to standard error. */
async function showUsage(help: string | undefined): Promise<void> {
  if (help === undefined) (await import('./usage.ts')).showUsage();
  else process.stderr.write(help);
}

/** --help, to standard output unless it is dmsetup's. */
async function showHelp(help: string | undefined, word: string | undefined): Promise<void> {
  if (help === undefined) {
    await showUsage(help);
    return;
  }
  const isKnown = word !== undefined && commands.has(word);
  const text = isKnown ? (await import('./command-help.ts')).commandHelp(word) : help;
  process.stdout.write(text);
}

/** After the wrong number of arguments. */
async function showCommandUsage(help: string | undefined, word: string): Promise<void> {
  if (help === undefined) {
    await showUsage(help);
    return;
  }
  process.stderr.write((await import('./command-help.ts')).commandUsage(word));
  complain(`Try 'devmapper ${word} --help'.`);
}

async function run(options: Options, args: readonly string[], help?: string): Promise<number> {
  const [word, ...rest] = args;
  if (options.has('version')) {
    (await import('./versions.ts')).printVersion();
    return 0;
  }
  if (options.has('help')) {
    await showHelp(help, word);
    return 0;
  }
  if (word === undefined) {
    await showUsage(help);
    return 1;
  }
  const command = commands.get(word);
  if (command === undefined) {
    complain('Unknown command.');
    await showUsage(help);
    return 1;
  }
  const named = options.has('uuid') || options.has('minor') ? 1 : 0;
  const min = command.alwaysNamed === true ? command.min : Math.max(command.min - named, 0);
  if (rest.length < min || rest.length > command.max) {
    complain('Incorrect number of arguments.');
    await showCommandUsage(help, word);
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
