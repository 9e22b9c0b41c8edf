/**
 * dmsetup's listings (spec: dm-core, 7).
 */
import { spawnSync } from 'node:child_process';
import type { DeviceInfo, TargetVersion } from '../../daemon/api-types.ts';
import { DRIVER_VERSION, LIBRARY_VERSION } from '../../daemon/version.ts';
import { RequestError } from '../client.ts';
import { CommandFailed, complain, print, printJson } from '../output.ts';
import type { Context } from './context.ts';
import { allDevices, eachTarget, fail, noDevices } from './helpers.ts';
import { printInfo } from './info.ts';
import { printReport } from './report.ts';
import { printTree } from './tree.ts';

/** `info`. */
export async function info(context: Context, args: readonly string[]): Promise<void> {
  const { options } = context;
  const devices: DeviceInfo[] = [];
  const showBlocks = !options.columns && !options.has('json');
  if (!context.namedByOption && args.length === 0) {
    devices.push(...(await allDevices(context)));
    if (noDevices(context, devices)) return;
    if (showBlocks) devices.forEach(printInfo);
  } else {
    await eachTarget(context, args, async (device) => {
      const found = await context.callOrMissing<DeviceInfo>(device, '');
      devices.push(found);
      if (showBlocks) printInfo(found);
    });
  }
  if (options.has('json')) printJson(devices);
  else if (options.columns) printReport(options, devices, await allDevices(context));
}

/** `ls`. */
export async function ls(context: Context): Promise<void> {
  const { options } = context;
  const all = await allDevices(context);
  const type = options.get('target');
  const devices = all.filter(({ targetTypes }) => type === undefined || targetTypes.includes(type));
  if (options.has('json')) {
    printJson(devices);
    return;
  }
  const form = options.get('options');
  if (options.has('tree')) {
    if (!noDevices(context, all)) printTree(all, form);
    return;
  }
  if (form !== undefined && !['devno', 'devname', 'blkdevname'].includes(form)) {
    complain(`Option not recognised: ${form}.`);
    throw new CommandFailed('command line');
  }
  const command = options.get('exec');
  if (type === undefined && noDevices(context, all)) return;
  for (const device of devices) {
    if (command === undefined) print(`${device.name}\t(${listed(device, form, type)})`);
    else spawnSync(`${command} /dev/mapper/${device.name}`, { shell: true, stdio: 'inherit' });
  }
}

function listed(device: DeviceInfo, form: string | undefined, type: string | undefined): string {
  if (form === 'devname') return device.name;
  if (form === 'blkdevname') return `dm-${device.minor}`;
  return `${device.major}${type === undefined ? ':' : ', '}${device.minor}`;
}

/** `deps`. */
export async function deps(context: Context, args: readonly string[]): Promise<void> {
  const form = context.options.get('options');
  if (form !== undefined && !['devno', 'devname', 'blkdevname'].includes(form)) {
    complain(`Option not recognised: ${form}.`);
    throw new CommandFailed('command line');
  }
  const single = context.namedByOption || args.length === 1;
  const show = (device: DeviceInfo): void => {
    const used = context.options.has('inactive') ? [] : device.deps;
    const words = used.map((dep) => {
      if (form === 'devname') return `(${dep.name ?? dep.blkdevname})`;
      if (form === 'blkdevname') return `(${dep.blkdevname})`;
      return `(${dep.major}, ${dep.minor})`;
    });
    const line = [`${used.length} dependencies\t:`, ...words].join(' ');
    print(single ? line : `${device.name}: ${line}`);
  };
  if (!context.namedByOption && args.length === 0) {
    const all = await allDevices(context);
    if (noDevices(context, all)) return;
    if (context.options.has('json')) printJson(all.map(({ name, deps: d }) => ({ name, deps: d })));
    else all.forEach(show);
    return;
  }
  await eachTarget(context, args, async (device) => {
    try {
      show(await context.client.call<DeviceInfo>('GET', device.path, device.query));
    } catch (error) {
      if (!(error instanceof RequestError)) throw error;
      throw context.failed({ ...error.error, op: 'deps' }, device);
    }
  });
}

function showVersion({ name, version }: TargetVersion): string {
  return `${name.padEnd(16)} v${version.join('.')}`;
}

/** `targets`. */
export async function targets(context: Context): Promise<void> {
  const types = await context.client.call<TargetVersion[]>('GET', '/v1/targets');
  if (context.options.has('json')) printJson(types);
  else for (const type of types) print(showVersion(type));
}

/** `target-version`. */
export async function targetVersion(context: Context, args: readonly string[]): Promise<void> {
  const types = await context.client.call<TargetVersion[]>('GET', '/v1/targets');
  for (const name of args) {
    const type = types.find((candidate) => candidate.name === name);
    if (type !== undefined) print(showVersion(type));
    else fail(`device-mapper: target-version ioctl on ${name}  failed: Invalid argument`);
  }
}

/** `version`. */
export function printVersion(): void {
  print(`Library version:   ${LIBRARY_VERSION}`);
  print(`Driver version:    ${DRIVER_VERSION}`);
}
