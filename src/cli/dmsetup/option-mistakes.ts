/**
 * What dmsetup says of option values before it looks at the command (spec: dm-core, 7): of each in
 * the order of the command line, then of options that contradict each other.
 */
import { manglingModes } from './mangling.ts';
import { atoi, octalMistake } from './numbers.ts';
import type { Options } from './options.ts';

/** --readahead of this means automatic; what is below is refused. */
const READ_AHEAD_AUTO = -1;

const checks: Readonly<Record<string, (value: string) => string | null>> = {
  mode: (value) => {
    const mistake = octalMistake(value);
    return mistake === null ? null : `Invalid argument for --mode: ${value}. ${mistake}`;
  },
  manglename: (value) =>
    manglingModes.some((known) => known === value) ? null : 'Unknown name mangling mode.',
  interval: (value) =>
    Number.parseInt(value, 10) > 0 ? null : 'Interval must be a positive integer.',
  readahead: (value) => {
    const sectors = atoi(value);
    if (sectors >= READ_AHEAD_AUTO) return null;
    return `Negative read ahead value (${sectors}) is not understood.`;
  },
};

/** The complaint about the first mistake in the options' values, or null. */
export function optionMistake(options: Options): string | null {
  for (const name of options.names) {
    const mistake = checks[name]?.(options.get(name) ?? '') ?? null;
    if (mistake !== null) return mistake;
  }
  if (options.has('major') !== options.has('minor')) {
    return 'Please specify both major number and minor number.';
  }
  if (options.has('table') && options.has('notable')) {
    return '--table and --notable are incompatible.';
  }
  return null;
}
