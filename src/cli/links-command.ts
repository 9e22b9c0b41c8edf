/**
 * `devmapper links DIR`: links to this program under the names of the commands that it stands for,
 * so that scripts which call dmsetup or thin_check find ours.
 */
import fs from 'node:fs';
import path from 'node:path';
import { getopt, OptionError, type ParsedOptions } from './getopt.ts';
import { complain, print, printJson } from './output.ts';

const HELP = `Usage: devmapper links DIR [--force] [--json]

Makes links named dmsetup, thin_check and so on in DIR, and DIR if it is missing; each behaves as
the program of that name. Put DIR first in $PATH to use them.

  --force   replace what has such a name there
  --json    list the links as JSON
`;

/** A command that makes links named `names`; resolves to the exit code. */
export function linksCommand(
  names: readonly string[],
): (argv: readonly string[]) => Promise<number> {
  return async (argv) => {
    let parsed: ParsedOptions;
    try {
      parsed = getopt('devmapper links', OPTIONS, argv);
    } catch (error) {
      if (!(error instanceof OptionError)) throw error;
      complain(error.message);
      complain("Try 'devmapper links --help'.");
      return 2;
    }
    const { args, values } = parsed;
    if (values.has('help')) {
      process.stdout.write(HELP);
      return 0;
    }
    const [dir, ...more] = args;
    if (dir === undefined || more.length > 0) {
      complain(`devmapper links: wanted one directory, found ${args.length}`);
      return 2;
    }
    return makeLinks(dir, names, values.has('force'), values.has('json'));
  };
}

const OPTIONS = [
  { long: 'force', short: 'f' },
  { long: 'json' },
  { long: 'help', short: 'h' },
  // Every command takes it; here it means nothing.
  { long: 'state-dir', value: true },
] as const;

function makeLinks(dir: string, names: readonly string[], force: boolean, json: boolean): number {
  const program = fs.realpathSync(process.argv[1] as string);
  try {
    fs.mkdirSync(dir, { recursive: true });
    const links = names.map((name) => path.join(dir, name));
    // All or none.
    const taken = links.filter((link) => !force && isTaken(link, program));
    if (taken.length > 0) {
      complain(`devmapper links: ${taken.join(', ')}: there already (--force replaces)`);
      return 1;
    }
    for (const link of links) {
      if (fs.lstatSync(link, { throwIfNoEntry: false }) !== undefined) fs.unlinkSync(link);
      fs.symlinkSync(program, link);
    }
    if (json) printJson(links.map((link) => ({ link, program })));
    else for (const link of links) print(link);
    return 0;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).syscall === undefined) throw error;
    complain(`devmapper links: ${(error as Error).message}`);
    return 1;
  }
}

/** Whether there is something else than our link. */
function isTaken(link: string, program: string): boolean {
  const stat = fs.lstatSync(link, { throwIfNoEntry: false });
  if (stat === undefined) return false;
  return !stat.isSymbolicLink() || fs.readlinkSync(link) !== program;
}
