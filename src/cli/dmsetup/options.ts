/**
 * dmsetup's options, in the order of its own table (which decides how ambiguous abbreviations are
 * listed), and what they mean to its commands.
 */
import type { OptionSpec, ParsedOptions } from '../getopt.ts';

export const optionSpecs: readonly OptionSpec[] = [
  { long: 'readonly', short: 'r' },
  { long: 'columns', short: 'c' },
  { short: 'C' },
  { long: 'alias', value: true },
  { long: 'alldevices' },
  { long: 'allprograms' },
  { long: 'allregions' },
  { long: 'area' },
  { long: 'areas', value: true },
  { long: 'areasize', value: true },
  { long: 'bounds', value: true },
  { long: 'checks' },
  { long: 'clear' },
  { long: 'concise' },
  { long: 'count', value: true },
  { long: 'deferred' },
  { long: 'exec', value: true },
  { long: 'filemap' },
  { long: 'follow', value: true },
  { long: 'force', short: 'f' },
  { long: 'foreground' },
  { long: 'gid', short: 'G', value: true },
  { long: 'group' },
  { long: 'groupid', value: true },
  { long: 'help', short: 'h' },
  { long: 'histogram' },
  { long: 'inactive' },
  { long: 'interval', value: true },
  { long: 'length', value: true },
  { long: 'manglename', value: true },
  { long: 'major', short: 'j', value: true },
  { long: 'minor', short: 'm', value: true },
  { long: 'mode', short: 'M', value: true },
  { long: 'nameprefixes' },
  { long: 'nogroup' },
  { long: 'noflush' },
  { long: 'noheadings' },
  { long: 'nolockfs' },
  { long: 'noopencount' },
  { long: 'nosuffix' },
  { long: 'notable', short: 'n' },
  { long: 'notimesuffix' },
  { long: 'nomonitor' },
  { long: 'udevcookie', value: true },
  { long: 'noudevrules' },
  { long: 'noudevsync' },
  { long: 'options', short: 'o', value: true },
  { long: 'precise' },
  { long: 'programid', value: true },
  { long: 'raw' },
  { long: 'readahead', value: true },
  { long: 'region' },
  { long: 'regions', value: true },
  { long: 'regionid', value: true },
  { long: 'relative' },
  { long: 'retry' },
  { long: 'rows' },
  { long: 'select', short: 'S', value: true },
  { long: 'segments' },
  { long: 'separator', value: true },
  { long: 'setuuid' },
  { long: 'showkeys' },
  { long: 'sort', short: 'O', value: true },
  { long: 'start', value: true },
  { long: 'table', value: true },
  { long: 'target', value: true },
  { long: 'tree' },
  { long: 'uid', short: 'U', value: true },
  { long: 'units', value: true },
  { long: 'uuid', short: 'u', value: true },
  { long: 'unbuffered' },
  { long: 'unquoted' },
  { long: 'userdata', value: true },
  { long: 'verbose', short: 'v' },
  { long: 'verifyudev' },
  { long: 'version' },
  { long: 'yes', short: 'y' },
  { long: 'addnodeonresume' },
  { long: 'addnodeoncreate' },
];

/** Our own, accepted by every command. */
export const ownOptionSpecs: readonly OptionSpec[] = [
  { long: 'state-dir', value: true },
  { long: 'json' },
  { long: 'mknodes' },
];

export class Options {
  readonly #values: ReadonlyMap<string, readonly string[]>;

  constructor(parsed: ParsedOptions) {
    this.#values = parsed.values;
  }

  /** The options given, in the order of their first appearance. */
  get names(): Iterable<string> {
    return this.#values.keys();
  }

  has(name: string): boolean {
    return this.#values.has(name);
  }

  /** The last value given. */
  get(name: string): string | undefined {
    return this.#values.get(name)?.at(-1);
  }

  /** How often a flag was given. */
  count(name: string): number {
    return this.#values.get(name)?.length ?? 0;
  }

  /** Listings in columns: -c, -C or --columns. */
  get columns(): boolean {
    return this.has('columns') || this.has('C');
  }
}
