/**
 * dmsetup's commands that change and show tables and states (spec: dm-core, 7).
 */
import type { DeviceInfo, DeviceLines } from '../../daemon/api-types.ts';
import { print, printJson } from '../output.ts';
import type { Context } from './context.ts';
import {
  eachTarget,
  fail,
  noDevices,
  oneTarget,
  readTable,
  tableFailure,
  verbose,
} from './helpers.ts';
import { printInfo } from './info.ts';

/** `load` and `reload`. */
export async function load(context: Context, args: readonly string[]): Promise<void> {
  if (context.options.has('notable')) fail('--notable only available when creating new device.');
  const [device, [file]] = await oneTarget(context, args, 'Please specify device.');
  const { text, source } = readTable(context, file);
  const body = { table: text, readOnly: context.options.has('readonly'), cwd: process.cwd() };
  try {
    const info = await context.client.call<DeviceInfo>(
      'PUT',
      `${device.path}/table`,
      device.query,
      body,
    );
    verbose(context, info);
  } catch (error) {
    throw tableFailure(context, error, device, source);
  }
}

/** `clear`. */
export async function clear(context: Context, args: readonly string[]): Promise<void> {
  await eachTarget(context, args, async (device) => {
    verbose(context, await context.call<DeviceInfo>(device, 'DELETE', '/table'));
  });
}

/** `suspend` and `resume`. */
export async function changeState(
  context: Context,
  args: readonly string[],
  op: 'suspend' | 'resume',
): Promise<void> {
  const body = { noflush: context.options.has('noflush') };
  await eachTarget(context, args, async (device) => {
    verbose(context, await context.call<DeviceInfo>(device, 'POST', `/${op}`, {}, body));
  });
}

/** `status` and `table`. */
export async function showLines(
  context: Context,
  args: readonly string[],
  resource: 'status' | 'table',
): Promise<void> {
  const { options } = context;
  const query = {
    noflush: options.has('noflush') ? true : undefined,
    inactive: options.has('inactive') ? true : undefined,
    target: options.get('target'),
  };
  const single = context.namedByOption || args.length === 1;
  if (!single && args.length === 0) {
    const all = await context.client.call<DeviceLines[]>('GET', `/v1/${resource}`, query);
    if (noDevices(context, all)) return;
    if (options.has('json')) printJson(all);
    else for (const found of all) printLines(context, found, true);
    return;
  }
  await eachTarget(context, args, async (device) => {
    const found =
      resource === 'status'
        ? await context.callOrMissing<DeviceLines>(device, '/status', query)
        : await context.call<DeviceLines>(device, 'GET', '/table', query);
    if (options.has('json')) printJson(found);
    else printLines(context, found, !single);
  });
}

function printLines(context: Context, { device, lines }: DeviceLines, many: boolean): void {
  const { options } = context;
  const filtered = options.has('target');
  if (filtered && lines.length === 0) return;
  const isVerbose = options.has('verbose');
  if (isVerbose) printInfo(device);
  const prefix = many && !isVerbose ? `${device.name}: ` : '';
  if (lines.length === 0) print(prefix);
  for (const line of lines) print(`${prefix}${line}`);
  if (isVerbose && many) print('');
}
