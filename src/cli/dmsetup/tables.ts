/**
 * dmsetup's commands that show tables, drop or wipe them, and change states (spec: dm-core, 7).
 */
import type { DeviceInfo, DeviceLines } from '../../daemon/api-types.ts';
import { CommandFailed, fail, print, printJson } from '../output.ts';
import type { Context } from './context.ts';
import { asShown, eachTarget, noDevices, verbose } from './helpers.ts';
import { addNode } from './nodes.ts';

/** `clear`. */
export async function clear(context: Context, args: readonly string[]): Promise<void> {
  await eachTarget(context, args, async (device) => {
    await verbose(context, await context.call<DeviceInfo>(device, 'DELETE', '/table'));
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
    const info = await context.call<DeviceInfo>(device, 'POST', `/${op}`, {}, body);
    if (op === 'resume') await addNode(context, info);
    await verbose(context, info);
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
  const found: DeviceLines[] = [];
  const isConcise = resource === 'table' && options.has('concise');
  const isListed = !isConcise && !options.has('json');
  const many = !context.namedByOption && args.length !== 1;
  if (!context.namedByOption && args.length === 0) {
    found.push(...(await context.request<DeviceLines[]>('GET', `/v1/${resource}`, query)));
    if (noDevices(context, found)) return;
    if (isListed) for (const one of found) await printLines(context, one, true);
  } else {
    await eachTarget(context, args, async (device) => {
      const one =
        resource === 'status'
          ? await context.callOrMissing<DeviceLines>(device, '/status', query)
          : await context.call<DeviceLines>(device, 'GET', '/table', query);
      found.push(one);
      if (isListed) await printLines(context, one, many);
    });
  }
  if (options.has('json')) {
    const { mangling } = context;
    printJson(found.map(({ device, lines }) => ({ device: asShown(mangling, device), lines })));
  } else if (isConcise) {
    const shown = options.has('target') ? found.filter(({ lines }) => lines.length > 0) : found;
    const { escapeConcise } = await import('../../daemon/concise.ts');
    const { mangling } = context;
    const entries = shown.map(({ device, lines }) => {
      const name = escapeConcise(mangling.shown(device.name, 'name'));
      const uuid = escapeConcise(mangling.shown(device.uuid, 'uuid'));
      return [name, uuid, device.minor, device.readOnly ? 'ro' : 'rw', ...lines].join(',');
    });
    print(entries.join(';'));
  }
}

async function printLines(
  context: Context,
  { device, lines }: DeviceLines,
  many: boolean,
): Promise<void> {
  const { options } = context;
  const filtered = options.has('target');
  if (filtered && lines.length === 0) return;
  const isVerbose = options.has('verbose');
  await verbose(context, device);
  const name = context.mangling.shown(device.name, 'name');
  const prefix = many && !isVerbose ? `${name}: ` : '';
  if (lines.length === 0) print(prefix);
  for (const line of lines) print(`${prefix}${line}`);
  if (isVerbose && many) print('');
}

/** `wipe_table`: I/O on the device fails from then on. */
export async function wipeTable(context: Context, names: readonly string[]): Promise<void> {
  if (names.length === 0) fail('No device specified.');
  const state = { noflush: context.options.has('noflush') };
  for (const name of names) {
    const device = await context.targetByName(name);
    let size = 0;
    try {
      const found = await context.call<DeviceLines>(device, 'GET', '/table');
      size = found.device.sizeSectors;
    } catch (error) {
      // The load that follows says so once more.
      if (!(error instanceof CommandFailed)) throw error;
    }
    const load = { table: `0 ${size} error` };
    await context.call(device, 'PUT', '/table', {}, load);
    await context.call(device, 'POST', '/suspend', {}, state);
    await context.call(device, 'POST', '/resume', {}, state);
  }
}
