/**
 * What dmsetup's commands have in common: naming devices, and what they print of them.
 */
import type { DeviceInfo } from '../../daemon/api-types.ts';
import { fail, failCommandLine, print, printJson } from '../output.ts';
import { NAME_BYTES_MAX, type Context, type Target } from './context.ts';
import type { Mangling } from './mangling.ts';

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

/** The name of a new device as it is stored; refuses one that no device can have. */
export function newName(context: Context, name: string): string {
  if (name.includes('/')) fail(`Name "${name}" invalid. It contains "/".`);
  if (Buffer.byteLength(name) > NAME_BYTES_MAX) fail(`Name "${name}" too long.`);
  return context.mangling.stored(name, 'name');
}

/** With -v, the info block of a device that was changed. */
export async function verbose(context: Context, info: DeviceInfo): Promise<void> {
  if (!context.options.has('verbose')) return;
  const { printInfo } = await import('./info-block.ts');
  printInfo(context, info);
}

/** Whether a command names no device at all. */
export function namesNone(context: Context, args: readonly string[]): boolean {
  return !context.namedByOption && args.length === 0;
}

const FORMS = ['', 'devno', 'devname', 'blkdevname'];

/** Fails for a form of naming devices, in -o, that there is not. */
export function checkForm(form: string): void {
  if (!FORMS.includes(form)) failCommandLine(`Option not recognised: ${form}.`);
}

/** All devices, by name. */
export function allDevices(context: Context): Promise<DeviceInfo[]> {
  return context.request<DeviceInfo[]>('GET', '/v1/devices');
}

/** Prints devices as JSON, with names and uuids as dmsetup shows them. */
export function printDevices({ mangling }: Context, devices: readonly DeviceInfo[]): void {
  printJson(devices.map((device) => asShown(mangling, device)));
}

/** A device with names and uuids as dmsetup shows them. */
export function asShown(mangling: Mangling, device: DeviceInfo): DeviceInfo {
  const deps = device.deps.map((dep) => ({
    ...dep,
    name: dep.name === null ? null : mangling.shown(dep.name, 'name'),
  }));
  const name = mangling.shown(device.name, 'name');
  return { ...device, name, uuid: mangling.shown(device.uuid, 'uuid'), deps };
}

/** Says so if there is nothing to list. */
export function noDevices(context: Context, devices: readonly unknown[]): boolean {
  if (devices.length > 0 || context.options.has('json')) return false;
  print('No devices found');
  return true;
}
