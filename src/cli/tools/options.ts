/**
 * Command lines of the metadata tools: options declared once, from which come the parser, the texts
 * for mistakes and the help.
 *
 * Not getopt.ts: scripts that call these tools know the words and rules of their newest version
 * (no abbreviations, an option that takes no value twice is a mistake, optional values only after
 * `=`), which differ from getopt_long's.
 */
import { U64_MAX } from '../../base/numbers.ts';

export interface ToolOption {
  readonly long: string;
  readonly short?: string;
  /** Name of the value in texts; without one the option is a flag. */
  readonly value?: string;
  /** The value may be missing, and is given with `=` only. */
  readonly optionalValue?: boolean;
  readonly repeatable?: boolean;
  /** Values to choose from; otherwise any text, or a number where `max` is given. */
  readonly choices?: readonly string[];
  /** The value is a decimal number up to this. */
  readonly max?: bigint;
  /** Long names of options that it cannot be used with. */
  readonly conflicts?: readonly string[];
  readonly required?: boolean;
  /** In the help; an option without is not shown there. */
  readonly help?: string;
}

export interface ToolUsage {
  readonly program: string;
  /** One sentence. */
  readonly about: string;
  readonly options: readonly ToolOption[];
  /** The positional argument, if the tool takes one. */
  readonly positional?: { readonly name: string; readonly help: string };
}

/** A mistake in the command line; the message is the whole text for standard error. */
export class UsageError extends Error {}

/** What a command line says. */
export class ToolArguments {
  readonly #values: ReadonlyMap<string, readonly string[]>;
  readonly positional: string;

  constructor(values: ReadonlyMap<string, readonly string[]>, positional: string) {
    this.#values = values;
    this.positional = positional;
  }

  has(long: string): boolean {
    return this.#values.has(long);
  }

  text(long: string): string | undefined {
    return this.#values.get(long)?.at(-1);
  }

  /** Numbers above 2^53 - 1 saturate: nothing that tools count or address is that large. */
  number(long: string): number | undefined {
    const value = this.big(long);
    if (value === undefined) return undefined;
    return Number(value > BigInt(Number.MAX_SAFE_INTEGER) ? Number.MAX_SAFE_INTEGER : value);
  }

  big(long: string): bigint | undefined {
    const text = this.text(long);
    return text === undefined || text === '' ? undefined : BigInt(text);
  }

  numbers(long: string): number[] {
    return (this.#values.get(long) ?? []).map(Number);
  }
}

/** Options that every tool has. */
export const COMMON_OPTIONS: readonly ToolOption[] = [
  { long: 'help', short: 'h', help: 'Print help' },
  { long: 'version', short: 'V', help: 'Print version' },
  { long: 'io-engine', value: 'TYPE' },
  { long: 'verbose', short: 'v', repeatable: true },
];

const MORE = "For more information, try '--help'.";

/** As the word stands in texts: `--output <FILE>`. */
function nameOf(option: ToolOption): string {
  if (option.value === undefined) return `--${option.long}`;
  if (option.optionalValue === true) return `--${option.long}[=<${option.value}>]`;
  return `--${option.long} <${option.value}>`;
}

class Parser {
  readonly #usage: ToolUsage;
  readonly #options: readonly ToolOption[];
  readonly #values = new Map<string, string[]>();
  readonly #rest: string[];
  #positional: string | null = null;

  constructor(usage: ToolUsage, argv: readonly string[]) {
    this.#usage = usage;
    this.#options = [...usage.options, ...COMMON_OPTIONS];
    this.#rest = [...argv];
  }

  parse(): ToolArguments {
    for (let word = this.#rest.shift(); word !== undefined; word = this.#rest.shift()) {
      if (word === '--') {
        for (const argument of this.#rest.splice(0)) this.#argument(argument);
      } else if (word.startsWith('--')) this.#long(word.slice(2));
      else if (word.startsWith('-') && word !== '-') this.#short(word.slice(1));
      else this.#argument(word);
      if (this.#values.has('help')) return this.#done();
    }
    this.#checkCombination();
    return this.#done();
  }

  #done(): ToolArguments {
    return new ToolArguments(this.#values, this.#positional ?? '');
  }

  #argument(word: string): void {
    if (this.#usage.positional === undefined || this.#positional !== null) {
      this.#fail(`unexpected argument '${word}' found`, usageLine(this.#usage));
    }
    this.#positional = word;
  }

  #long(text: string): void {
    const equals = text.indexOf('=');
    const name = equals < 0 ? text : text.slice(0, equals);
    const option = this.#options.find(({ long }) => long === name);
    if (option === undefined) this.#unknown(`--${name}`);
    this.#take(option, equals < 0 ? null : text.slice(equals + 1), true);
  }

  #short(letters: string): void {
    for (let i = 0; i < letters.length; i++) {
      const letter = letters.charAt(i);
      const option = this.#options.find(({ short }) => short === letter);
      if (option === undefined) this.#unknown(`-${letter}`);
      const attached = letters.slice(i + 1);
      const takesRest = option.value !== undefined && option.optionalValue !== true;
      if (attached.startsWith('=') || (takesRest && attached !== '')) {
        this.#take(option, attached.replace(/^=/, ''), attached.startsWith('='));
        return;
      }
      this.#take(option, null, false);
    }
  }

  /** `given` is the value in the same word, null if there is none. */
  #take(option: ToolOption, given: string | null, explicit: boolean): void {
    if (option.value === undefined) {
      if (given !== null && explicit) {
        const text = `unexpected value '${given}' for '--${option.long}' found`;
        this.#fail(`${text}; no more were expected`, this.#usageWith([option]));
      }
      this.#record(option, '');
      return;
    }
    if (option.optionalValue === true && given === null) {
      this.#record(option, '');
      return;
    }
    const next = this.#rest[0];
    const separate = given === null && next !== undefined && !/^-./.test(next);
    const value = separate ? this.#rest.shift() : (given ?? undefined);
    const empty = value === '' && option.choices !== undefined;
    if (value === undefined || empty) {
      const text = `a value is required for '${nameOf(option)}' but none was supplied`;
      this.#fail(`${text}${choicesOf(option)}`);
    }
    this.#checkValue(option, value);
    this.#record(option, value);
  }

  #checkValue(option: ToolOption, value: string): void {
    const complaint = complaintAbout(option, value);
    if (complaint === null) return;
    this.#fail(`invalid value '${value}' for '${nameOf(option)}'${complaint}`);
  }

  #record(option: ToolOption, value: string): void {
    const list = this.#values.get(option.long) ?? [];
    if (list.length > 0 && option.repeatable !== true) {
      const text = `the argument '${nameOf(option)}' cannot be used multiple times`;
      this.#fail(text, usageLine(this.#usage));
    }
    list.push(value);
    this.#values.set(option.long, list);
  }

  #checkCombination(): void {
    const used = [...this.#values.keys()];
    if (this.#values.has('version')) {
      if (used.length === 1 && this.#positional === null) return;
      const others = 'one or more of the other specified arguments';
      const text = `the argument '--version' cannot be used with ${others}`;
      this.#fail(text, usageLine(this.#usage));
    }
    for (const option of this.#given()) this.#checkConflicts(option);
    const missing = this.#options
      .filter((option) => option.required === true && !this.#values.has(option.long))
      .map(nameOf);
    const { positional } = this.#usage;
    if (positional !== undefined && this.#positional === null) missing.push(`<${positional.name}>`);
    if (missing.length === 0) return;
    const list = missing.map((name) => `\n  ${name}`).join('');
    const text = `the following required arguments were not provided:${list}`;
    this.#fail(text, this.#usageWith(this.#given()));
  }

  /** The options that were given, in that order. */
  #given(): ToolOption[] {
    return [...this.#values.keys()].flatMap((name) =>
      this.#options.filter(({ long }) => long === name),
    );
  }

  #checkConflicts(option: ToolOption): void {
    const given = this.#given();
    const others = given.filter((other) => conflict(option, other));
    const [first] = others;
    if (first === undefined) return;
    const list =
      others.length === 1
        ? ` '${nameOf(first)}'`
        : `:${others.map((other) => `\n  ${nameOf(other)}`).join('')}`;
    const text = `the argument '${nameOf(option)}' cannot be used with${list}`;
    this.#fail(text, this.#usageWith(given.filter((other) => !others.includes(other))));
  }

  #unknown(word: string): never {
    const tip = `  tip: to pass '${word}' as a value, use '-- ${word}'`;
    const text = `unexpected argument '${word}' found`;
    const hasPositional = this.#usage.positional !== undefined;
    this.#fail(hasPositional ? `${text}\n\n${tip}` : text, usageLine(this.#usage));
  }

  /** The usage line with `options`, what is required, and the positional argument. */
  #usageWith(options: readonly ToolOption[]): string {
    const required = this.#usage.options.filter((option) => option.required === true);
    const names = [...new Set([...options, ...required])].map(nameOf);
    const { program, positional } = this.#usage;
    const tail = positional === undefined ? [] : [`<${positional.name}>`];
    return `Usage: ${[program, ...names, ...tail].join(' ')}`;
  }

  #fail(text: string, usage?: string): never {
    const middle = usage === undefined ? '' : `\n\n${usage}`;
    throw new UsageError(`error: ${text}${middle}\n\n${MORE}`);
  }
}

/** Whether either says that it cannot be used with the other. */
function conflict(a: ToolOption, b: ToolOption): boolean {
  return a.conflicts?.includes(b.long) === true || b.conflicts?.includes(a.long) === true;
}

function choicesOf(option: ToolOption): string {
  if (option.choices === undefined) return '';
  return `\n  [possible values: ${option.choices.join(', ')}]`;
}

function complaintAbout(option: ToolOption, value: string): string | null {
  if (option.choices !== undefined) {
    return option.choices.includes(value) ? null : choicesOf(option);
  }
  if (option.max === undefined) return null;
  if (value === '') return ': cannot parse integer from empty string';
  if (!/^\+?[0-9]+$/.test(value)) return ': invalid digit found in string';
  if (BigInt(value) > option.max) return ': number too large to fit in target type';
  return null;
}

/** `Usage: thin_check [OPTIONS] <INPUT>`. */
function usageLine({ program, options, positional }: ToolUsage): string {
  const required = options.filter((option) => option.required === true).map(nameOf);
  const tail = positional === undefined ? [] : [`<${positional.name}>`];
  return `Usage: ${[program, '[OPTIONS]', ...required, ...tail].join(' ')}`;
}

/** Parses `argv` (without the program's name). Throws UsageError. */
export function parseToolArguments(usage: ToolUsage, argv: readonly string[]): ToolArguments {
  return new Parser(usage, argv).parse();
}

/** The text of `--help`. */
export function helpText(usage: ToolUsage): string {
  const lines = [usage.about, '', usageLine(usage), ''];
  const { positional } = usage;
  if (positional !== undefined) {
    lines.push('Arguments:', `  <${positional.name}>  ${positional.help}`, '');
  }
  const shown = [...usage.options, ...COMMON_OPTIONS]
    .filter(({ help }) => help !== undefined)
    .sort((a, b) => (a.long < b.long ? -1 : 1));
  const width = Math.max(...shown.map((option) => nameOf(option).length));
  lines.push('Options:');
  for (const option of shown) {
    const short = option.short === undefined ? '    ' : `-${option.short}, `;
    lines.push(`  ${short}${nameOf(option).padEnd(width)}  ${option.help}${choicesInHelp(option)}`);
  }
  return `${lines.join('\n')}\n`;
}

function choicesInHelp({ choices }: ToolOption): string {
  return choices === undefined ? '' : ` [possible values: ${choices.join(', ')}]`;
}

/** Limits of numbers in options. */
export const OPTION_U64 = U64_MAX;
export const OPTION_U32 = 0xffff_ffffn;
