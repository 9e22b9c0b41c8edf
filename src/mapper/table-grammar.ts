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

/** A line that cannot be split; dmsetup's text needs the number and where the table came from. */
export class TableFormatError extends Error {
  readonly line: number;
  constructor(line: number) {
    super(`Invalid format on line ${line}`);
    this.line = line;
  }
}

/** The longest table text accepted: the kernel's ioctl buffer has a limit of the same kind. */
export const TABLE_TEXT_MAX = 1024 * 1024;

const LINE = /^\s*([+-]?[0-9]+)\s*([+-]?[0-9]+)\s+(\S+)\s*(.*)$/;

/**
 * Splits table text; empty lines and lines that start with `#` do not count. Throws
 * TableFormatError.
 */
export function parseTable(text: string): TableLine[] {
  const lines: TableLine[] = [];
  for (const [index, raw] of text.split('\n').entries()) {
    const line = raw.replace(/\r$/, '');
    if (/^\s*(#|$)/.test(line)) continue;
    const match = LINE.exec(line);
    if (match === null) throw new TableFormatError(index + 1);
    const [, start = '', length = '', type = '', params = ''] = match;
    lines.push({ start: wrap(start), length: wrap(length), type, params });
  }
  return lines;
}

/**
 * As sscanf's %llu: a negative number becomes huge. Beyond 2^53 it is rounded: too large anyway.
 */
function wrap(text: string): number {
  return Number(BigInt.asUintN(64, BigInt(text.replace(/^\+/, ''))));
}

/** Splits parameters at white space; a backslash makes the next character literal. */
export function splitArgs(params: string): string[] {
  const args: string[] = [];
  let word: string | null = null;
  for (let i = 0; i < params.length; i++) {
    let c = params.charAt(i);
    if (/\s/.test(c)) {
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
