/**
 * Command-line options as getopt_long(3) reads them: options and arguments in any order,
 * unambiguous abbreviations of long names, `--` ends the options, and glibc's texts for mistakes.
 *
 * Not node:util's parseArgs: it knows no abbreviations and has texts of its own, and scripts
 * written for dmsetup see both.
 */

export interface OptionSpec {
  readonly long?: string;
  readonly short?: string;
  /** Takes an argument. */
  readonly value?: boolean;
}

/** A mistake in the command line; the message is what glibc prints. */
export class OptionError extends Error {}

export interface ParsedOptions {
  /**
   * Values in order of appearance by long name (short, where there is no long one); '' for flags.
   */
  readonly values: ReadonlyMap<string, readonly string[]>;
  readonly args: readonly string[];
}

/** Parses `argv` (without program name); `program` is named in mistakes. */
export function getopt(
  program: string,
  specs: readonly OptionSpec[],
  argv: readonly string[],
): ParsedOptions {
  const values = new Map<string, string[]>();
  const args: string[] = [];
  const rest = [...argv];
  const record = (spec: OptionSpec, value: string): void => {
    const name = spec.long ?? spec.short ?? '';
    const list = values.get(name) ?? [];
    list.push(value);
    values.set(name, list);
  };
  for (let word = rest.shift(); word !== undefined; word = rest.shift()) {
    if (word === '--') {
      args.push(...rest);
      break;
    }
    if (word.startsWith('--')) longOption(program, specs, word.slice(2), rest, record);
    else if (word.startsWith('-') && word !== '-') {
      shortOptions(program, specs, word.slice(1), rest, record);
    } else args.push(word);
  }
  return { values, args };
}

type Recorder = (spec: OptionSpec, value: string) => void;

function longOption(
  program: string,
  specs: readonly OptionSpec[],
  text: string,
  rest: string[],
  record: Recorder,
): void {
  const equals = text.indexOf('=');
  const name = equals < 0 ? text : text.slice(0, equals);
  const spec = findLong(program, specs, name);
  if (spec.value !== true) {
    if (equals >= 0) {
      throw new OptionError(`${program}: option '--${spec.long}' doesn't allow an argument`);
    }
    record(spec, '');
    return;
  }
  const value = equals < 0 ? rest.shift() : text.slice(equals + 1);
  if (value === undefined) {
    throw new OptionError(`${program}: option '--${spec.long}' requires an argument`);
  }
  record(spec, value);
}

function findLong(program: string, specs: readonly OptionSpec[], name: string): OptionSpec {
  const exact = specs.find(({ long }) => long === name);
  if (exact !== undefined) return exact;
  const candidates = specs.filter(({ long }) => long?.startsWith(name));
  const [first] = candidates;
  if (first === undefined) throw new OptionError(`${program}: unrecognized option '--${name}'`);
  if (candidates.length > 1) {
    const names = candidates.map(({ long }) => `'--${long}'`).join(' ');
    const text = `option '--${name}' is ambiguous; possibilities: ${names}`;
    throw new OptionError(`${program}: ${text}`);
  }
  return first;
}

function shortOptions(
  program: string,
  specs: readonly OptionSpec[],
  letters: string,
  rest: string[],
  record: Recorder,
): void {
  for (let i = 0; i < letters.length; i++) {
    const letter = letters.charAt(i);
    const spec = specs.find(({ short }) => short === letter);
    if (spec === undefined) throw new OptionError(`${program}: invalid option -- '${letter}'`);
    if (spec.value !== true) {
      record(spec, '');
      continue;
    }
    const attached = letters.slice(i + 1);
    const value = attached === '' ? rest.shift() : attached;
    if (value === undefined) {
      throw new OptionError(`${program}: option requires an argument -- '${letter}'`);
    }
    record(spec, value);
    return;
  }
}
