/**
 * The names under which a device that somebody calls NAME may be stored.
 */
import { Mangling } from './dmsetup/mangling.ts';

/** As it is, and as dmsetup stores it. */
export function deviceNames(name: string): string[] {
  return [...new Set([name, new Mangling('hex').stored(name, 'name')])];
}
