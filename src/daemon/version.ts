/**
 * Versions: our own, and those whose behaviour we follow.
 */
import fs from 'node:fs';

/** libdevmapper's version that `dmsetup version` prints. */
export const LIBRARY_VERSION = '1.02.185 (2022-05-18)';
/** The device-mapper driver's version of Linux 6.1. */
export const DRIVER_VERSION = '4.47.0';

/** The version in package.json. */
export function packageVersion(): string {
  const url = new URL('../../../package.json', import.meta.url);
  return (JSON.parse(fs.readFileSync(url, 'utf8')) as { version: string }).version;
}
