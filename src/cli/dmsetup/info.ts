/**
 * `info`: blocks, or columns with -c (spec: dm-core, 7.1 and 7.2).
 */
import type { DeviceInfo } from '../../daemon/api-types.ts';
import { failCommandLine, print } from '../output.ts';
import type { Context } from './context.ts';
import { allDevices, eachTarget, namesNone, noDevices, printDevices } from './helpers.ts';
import { printInfo } from './info-block.ts';
import { atoi } from './numbers.ts';

/** `info`. */
export async function info(context: Context, args: readonly string[]): Promise<void> {
  const { options } = context;
  if (options.columns) {
    await infoInColumns(context, args);
    return;
  }
  const form = options.get('options');
  if (form !== undefined) failCommandLine(`Option not recognised: ${form}.`);
  const devices: DeviceInfo[] = [];
  const isJson = options.has('json');
  if (namesNone(context, args)) {
    devices.push(...(await allDevices(context)));
    if (noDevices(context, devices)) return;
    if (!isJson) for (const device of devices) printInfo(context, device);
  } else {
    await eachTarget(context, args, async (device) => {
      const found = await context.callOrMissing<DeviceInfo>(device, '');
      devices.push(found);
      if (!isJson) printInfo(context, found);
    });
  }
  if (isJson) printDevices(context, devices);
}

/** `info -c`: once, or as often as --count says, --interval seconds apart. */
async function infoInColumns(context: Context, args: readonly string[]): Promise<void> {
  const { options } = context;
  const { Report } = await import('./report.ts');
  const report = new Report(options, context.mangling);
  const intervalMs = Number(options.get('interval') ?? 1) * 1000;
  const count = options.has('count') ? atoi(options.get('count') ?? '') || Infinity : 1;
  const times = options.has('interval') && !options.has('count') ? Infinity : count;
  for (let left = times; ; left--) {
    const devices: DeviceInfo[] = [];
    const all = await allDevices(context);
    if (namesNone(context, args)) {
      if (noDevices(context, all)) return;
      devices.push(...all);
    } else {
      await eachTarget(context, args, async (device) => {
        devices.push(await context.callOrMissing<DeviceInfo>(device, ''));
      });
    }
    if (options.has('json')) printDevices(context, devices);
    else report.print(devices, all);
    if (left <= 1) return;
    print('');
    await new Promise((resolve) => setTimeout(resolve, intervalMs));
  }
}
