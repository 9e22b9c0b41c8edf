/**
 * dmsetup's commands about udev: they answer as where there is no udev, which never is here (spec:
 * dm-core, 7). Scripts use them around others.
 */
import fs from 'node:fs';
import { complain, fail, print } from '../output.ts';
import type { Context } from './context.ts';

const COOKIES = 'semaphores with keys prefixed by 3405 (0xd4d)';
const PREFIX = 'a prefix 3405 (0xd4d).';

/** Names of the flags in a cookie, from bit 16 on. */
const FLAGS = [
  'DM_UDEV_DISABLE_DM_RULES_FLAG',
  'DM_UDEV_DISABLE_SUBSYSTEM_RULES_FLAG',
  'DM_UDEV_DISABLE_DISK_RULES_FLAG',
  'DM_UDEV_DISABLE_OTHER_RULES_FLAG',
  'DM_UDEV_LOW_PRIORITY_FLAG',
  'DM_UDEV_DISABLE_LIBRARY_FALLBACK_FLAG',
  'DM_UDEV_PRIMARY_SOURCE_FLAG',
  'DM_UDEV_FLAG7',
  ...Array.from({ length: 8 }, (_, i) => `DM_SUBSYSTEM_UDEV_FLAG${i}`),
];
const FLAG_SHIFT = 16;

/** A cookie: 32 bits in C's notation, not 0. */
function cookie(text: string): number {
  const isNumber = /^(0x[0-9a-f]+|[0-9]+)$/i.test(text);
  const isOctal = /^0[0-7]+$/.test(text);
  const value = isNumber ? BigInt(isOctal ? `0o${text.slice(1)}` : text) : 0n;
  if (value === 0n || value > 0xffff_ffffn) fail('Incorrect cookie value.');
  return Number(value);
}

/** `udevcreatecookie`: none is needed. */
export function createCookie(): void {}

/** `udevcookies`. */
export function cookies(): void {
  print('Cookie       Semid      Value      Last semop time           Last change time');
}

/** `udevflags`. */
export function flags(_context: Context, [text = '']: readonly string[]): void {
  const value = cookie(text);
  for (const [i, name] of FLAGS.entries()) {
    if (((value >>> (FLAG_SHIFT + i)) & 1) === 1) print(`${name}='1'`);
  }
}

/** `udevcomplete`. */
export function complete(_context: Context, [text = '']: readonly string[]): void {
  print(`DM_COOKIE_COMPLETED=${`0x${cookie(text).toString(16)}`.padEnd(12)}`);
}

/** `udevreleasecookie`. */
export function releaseCookie(_context: Context, [text]: readonly string[]): void {
  if (text === undefined) fail('No udev transaction cookie given.');
  cookie(text);
}

/** `udevcomplete_all`: asks first, unless -y is given. */
export function completeAll(context: Context, [age]: readonly string[]): void {
  if (age !== undefined && !/^[0-9]+$/.test(age)) {
    fail('Failed to read age_in_minutes parameter.');
  }
  const older = age === undefined ? '' : ` older than ${age} minutes`;
  if (!context.options.has('yes') && !confirms(older)) {
    print(`Semaphores with keys prefixed by 3405 (0xd4d) NOT destroyed.`);
    return;
  }
  print(`0 ${COOKIES} destroyed. 0 skipped.`);
}

/** Whether the answer is yes; there may be none. */
function confirms(older: string): boolean {
  complain(
    `WARNING: This operation will destroy all semaphores${older} with keys that have ${PREFIX}`,
  );
  for (const line of fs.readFileSync(0, 'utf8').split('\n')) {
    process.stdout.write('Do you really want to continue? [y/n]: ');
    if (line === 'y' || line === 'n') return line === 'y';
  }
  print('');
  return false;
}
