/**
 * Table text: one target a line, `<start> <length> <type> <parameters>` (spec: dm-core, 2).
 * Answers to dmsetup's table parser and the kernel's dm_split_args.
 */

export interface TableLine {
  readonly start: number;
  readonly length: number;
  readonly type: string;
  readonly params: string;
}

/** Text that cannot be split into lines; dmsetup says where it came from, too. */
export class TableFormatError extends Error {
  /** The line that is wrong, for a text that shows it. */
  readonly line: number | undefined;
  constructor(message: string, line?: number) {
    super(message);
    this.line = line;
  }
}

/** Bytes of a target type's name. */
const TYPE_BYTES_MAX = 15;

/** The longest table text accepted: the kernel's ioctl buffer has a limit of the same kind. */
export const TABLE_TEXT_MAX = 1024 * 1024;

const BLANK = '[ \\t\\v\\f\\r]';
/** As sscanf("%llu %llu %s"): blanks may be missing where the next word shows by itself. */
const LINE = new RegExp(
  `^${BLANK}*([+-]?\\d+)(?:${BLANK}+|(?=[+-]))([+-]?\\d+)(?!\\d)${BLANK}*(\\S+)${BLANK}*([^]*)$`,
);
const U64_MAX = 2n ** 64n - 1n;

/**
 * Splits table text; empty lines and lines that start with `#` do not count. Throws
 * TableFormatError.
 */
export function parseTable(text: string): TableLine[] {
  if (text.length > TABLE_TEXT_MAX) {
    const wanted = `wanted at most ${TABLE_TEXT_MAX} bytes of table text`;
    throw new TableFormatError(`${wanted}, found ${text.length}`);
  }
  const lines: TableLine[] = [];
  for (const [index, line] of text.split('\n').entries()) {
    if (/^\s*(#|$)/.test(line)) continue;
    const match = LINE.exec(line);
    if (match === null) {
      throw new TableFormatError(`Invalid format on line ${index + 1}`, index + 1);
    }
    const [, start = '', length = '', type = '', params = ''] = match;
    if (Buffer.byteLength(type) > TYPE_BYTES_MAX) {
      throw new TableFormatError(`Target type name ${type} is too long.`);
    }
    lines.push({ start: sscanfU64(start), length: sscanfU64(length), type, params });
  }
  return lines;
}

/**
 * As sscanf's %llu: what is too large saturates, a negative number becomes huge. Beyond 2^53 it is
 * rounded: too large anyway.
 */
function sscanfU64(text: string): number {
  const value = BigInt(text.replace(/^[+-]/, ''));
  if (value > U64_MAX) return Number(U64_MAX);
  return Number(text.startsWith('-') ? BigInt.asUintN(64, -value) : value);
}

/** What the kernel's isspace says of ASCII. */
const BLANKS = ' \t\n\v\f\r';

/** Splits parameters at white space; a backslash makes the next character literal. */
export function splitArgs(params: string): string[] {
  const args: string[] = [];
  let word: string | null = null;
  for (let i = 0; i < params.length; i++) {
    let c = params.charAt(i);
    if (BLANKS.includes(c)) {
      if (word !== null) args.push(word);
      word = null;
      continue;
    }
    if (c === '\\' && i + 1 < params.length) c = params.charAt(++i);
    word = (word ?? '') + c;
  }
  if (word !== null) args.push(word);
  return args;
}

/**
 * A sector as the kernel's sscanf("%llu") reads it: digits and nothing else. Saturates at 2^53 - 1,
 * which is beyond every device.
 */
export function parseSector(text: string): number | undefined {
  if (!/^[0-9]+$/.test(text)) return undefined;
  return Math.min(Number(text), Number.MAX_SAFE_INTEGER);
}
