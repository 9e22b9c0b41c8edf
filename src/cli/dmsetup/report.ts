/**
 * `info -c`: devices in columns (spec: dm-core, 7.2). Answers to libdevmapper's dm_report.
 *
 * Widths are bytes, as in the C locale.
 */
import type { DeviceInfo } from '../../daemon/api-types.ts';
import { print } from '../output.ts';
import { chooseFields, type Cell, type Field, type Row } from './fields.ts';
import type { Mangling } from './mangling.ts';
import type { Options } from './options.ts';
import { parseSelection } from './select.ts';

const DEFAULT_FIELDS = 'name,major,minor,attr,open,segments,events,uuid';

/** A report: what to show of devices, and how, as the options say. */
export class Report {
  readonly #options: Options;
  readonly #mangling: Mangling;
  readonly #fields: readonly Field[];
  readonly #sortKeys: readonly { field: Field; descending: boolean }[];
  readonly #selects: (row: Row) => boolean;

  /** Fails with dmsetup's lines if the options name no fields, keys or selection. */
  constructor(options: Options, mangling: Mangling, fields = DEFAULT_FIELDS) {
    this.#options = options;
    this.#mangling = mangling;
    const wanted = options.get('options') ?? fields;
    const text = wanted.startsWith('+') ? `${fields},${wanted.slice(1)}` : wanted;
    this.#fields = text === '' || text === 'all' ? [] : chooseFields(text);
    this.#sortKeys = sortKeys(options.get('sort') ?? '');
    this.#selects = parseSelection(options.get('select') ?? '');
  }

  /** Prints `devices`; `all` are those that may refer to them. */
  print(devices: readonly DeviceInfo[], all: readonly DeviceInfo[]): void {
    const showsAll = this.#fields.some(({ name }) => name === 'selected');
    const rows: Row[] = [];
    for (const device of devices) {
      const row = { device, all, mangling: this.#mangling, isSelected: true };
      const isSelected = this.#selects(row);
      if (isSelected || showsAll) rows.push({ ...row, isSelected });
    }
    if (rows.length === 0 || this.#options.get('options') === 'all') return;
    this.#sort(rows);
    const cells = rows.map((row) => this.#fields.map((field) => field.value(row)));
    if (this.#options.has('rows')) this.#printTransposed(cells);
    else if (this.#options.has('nameprefixes')) this.#printPrefixed(cells);
    else if (this.#hasSeparator) this.#printSeparated(cells);
    else this.#printPadded(cells);
  }

  #sort(rows: Row[]): void {
    rows.sort((a, b) => {
      for (const { field, descending } of this.#sortKeys) {
        const [x, y] = [field.value(a), field.value(b)];
        if (x !== y) return x < y === descending ? 1 : -1;
      }
      return 0;
    });
  }

  get #noHeadings(): boolean {
    return this.#options.has('noheadings');
  }

  get #hasSeparator(): boolean {
    return this.#noHeadings || this.#options.has('separator');
  }

  get #separator(): string {
    return this.#options.get('separator') ?? (this.#noHeadings ? ':' : ' ');
  }

  get #headings(): string[] {
    return this.#fields.map(({ heading }) => heading.trim());
  }

  #printPadded(rows: readonly Cell[][]): void {
    const widths = this.#fields.map(({ width, heading }, i) =>
      Math.max(width, heading.length, ...rows.map((row) => byteLength(row[i]))),
    );
    print(this.#fields.map(({ heading }, i) => heading.padEnd(widths[i] ?? 0)).join(' '));
    for (const row of rows) {
      const cells = row.map((cell, i) => {
        const padding = ' '.repeat((widths[i] ?? 0) - byteLength(cell));
        return typeof cell === 'number' ? `${padding}${cell}` : `${cell}${padding}`;
      });
      print(cells.join(' '));
    }
  }

  #printSeparated(rows: readonly Cell[][]): void {
    if (!this.#noHeadings) print(this.#headings.join(this.#separator));
    for (const row of rows) print(row.join(this.#separator));
  }

  #printTransposed(rows: readonly Cell[][]): void {
    for (const [i, heading] of this.#headings.entries()) {
      const first = this.#noHeadings ? [] : [heading];
      const cells = rows.map((row) => this.#named(row, i));
      print([...first, ...cells].join(this.#separator));
    }
  }

  /** A cell, with its name if --nameprefixes says so. */
  #named(row: readonly Cell[], i: number): string {
    const cell = String(row[i]);
    if (!this.#options.has('nameprefixes')) return cell;
    const quote = this.#options.has('unquoted') ? '' : "'";
    return `DM_${(this.#fields[i]?.name ?? '').toUpperCase()}=${quote}${cell}${quote}`;
  }

  #printPrefixed(rows: readonly Cell[][]): void {
    if (!this.#noHeadings) print(this.#headings.join(this.#separator));
    for (const row of rows) print(row.map((_cell, i) => this.#named(row, i)).join(this.#separator));
  }
}

function byteLength(cell: Cell | undefined): number {
  return Buffer.byteLength(String(cell));
}

function sortKeys(text: string): { field: Field; descending: boolean }[] {
  if (text === '') return [];
  return text.split(',').flatMap((key) => {
    const descending = key.startsWith('-');
    const name = key.replace(/^[+-]/, '');
    return chooseFields(name, 'dm_report: Unrecognised field: ').map((field) => ({
      field,
      descending,
    }));
  });
}
