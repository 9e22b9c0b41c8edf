/**
 * Keys and values of a cache: its own, and its policy's (spec: cache, 8 and 10).
 */
import type { Log } from '../../base/log.ts';
import { parseDecimal, U64_MAX } from '../../base/numbers.ts';
import type { Policy } from '../policy/policy.ts';

export const MIGRATION_THRESHOLD_DEFAULT = 2048n;

/** Sets one value; false, with a line in the log, if the key or the value is bad. */
export function setConfigValue(
  policy: Policy,
  log: Log,
  key: string,
  value: string,
  setThreshold: (sectors: bigint) => void,
): boolean {
  if (key.toLowerCase() === 'migration_threshold') {
    const sectors = parseDecimal(value, U64_MAX);
    if (sectors !== undefined) {
      setThreshold(sectors);
      return true;
    }
  } else if (policy.setConfigValue(key, value)) {
    return true;
  }
  log.write('warn', `cache: bad config value for ${key}: ${value}`);
  return false;
}
