/**
 * What dmsetup's commands have in common: naming devices, reading tables, reporting failures.
 */
import fs from 'node:fs';
import type { DeviceInfo } from '../../daemon/api-types.ts';
import { RequestError } from '../client.ts';
import { CommandFailed, complain, print } from '../output.ts';
import type { Context, Target } from './context.ts';
import { printInfo } from './info.ts';

const NAME_BYTES_MAX = 127;

/** Fails with a line of its own. */
export function fail(text: string): never {
  complain(text);
  throw new CommandFailed();
}

/** The devices that a command names, by arguments or by option; fails if there is none. */
export async function eachTarget(
  context: Context,
  names: readonly string[],
  act: (device: Target) => Promise<void>,
): Promise<void> {
  if (context.namedByOption) {
    await act(context.targetByOption());
    return;
  }
  if (names.length === 0) fail('No device specified.');
  for (const name of names) await act(await context.targetByName(name));
}

/** One device and the arguments that are left. */
export async function oneTarget(
  context: Context,
  args: readonly string[],
  complaint: string,
): Promise<[Target, readonly string[]]> {
  if (context.namedByOption) return [context.targetByOption(), args];
  const [name, ...rest] = args;
  if (name === undefined) fail(complaint);
  return [await context.targetByName(name), rest];
}

/** Refuses a name that no device can have. */
export function checkName(name: string): void {
  if (name.includes('/')) fail(`Name "${name}" invalid. It contains "/".`);
  if (Buffer.byteLength(name) > NAME_BYTES_MAX) fail(`Name "${name}" too long.`);
}

/** Table text from --table, a file or standard input; and what dmsetup calls its source. */
export function readTable(
  context: Context,
  file: string | undefined,
): { text: string; source: string } {
  const given = context.options.get('table');
  if (given !== undefined) return { text: given, source: '' };
  if (file === undefined) return { text: fs.readFileSync(0, 'utf8'), source: 'on stdin' };
  try {
    return { text: fs.readFileSync(file, 'utf8'), source: file };
  } catch {
    return fail(`Couldn't open '${file}' for reading.`);
  }
}

/** Reports a failed create or load; a table that cannot be split has a text of its own. */
export function tableFailure(
  context: Context,
  error: unknown,
  device: Target,
  source: string,
): unknown {
  if (!(error instanceof RequestError)) return error;
  if (error.error.errno !== 'FORMAT') return context.failed(error.error, device);
  complain(`Invalid format on line ${error.error.line} of table ${source}.`);
  return new CommandFailed();
}

/** With -v, the info block of a device that was changed. */
export function verbose(context: Context, info: DeviceInfo): void {
  if (context.options.has('verbose')) printInfo(info);
}

/** All devices, by name. */
export function allDevices(context: Context): Promise<DeviceInfo[]> {
  return context.client.call<DeviceInfo[]>('GET', '/v1/devices');
}

/** Says so if there is nothing to list. */
export function noDevices(context: Context, devices: readonly unknown[]): boolean {
  if (devices.length > 0 || context.options.has('json')) return false;
  print('No devices found');
  return true;
}
