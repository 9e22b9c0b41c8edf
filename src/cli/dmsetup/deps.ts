/**
 * `deps`: the devices that a device uses (spec: dm-core, 7).
 */
import type { Dependency, DeviceInfo } from '../../daemon/api-types.ts';
import { RequestError } from '../failures.ts';
import { print, printJson } from '../output.ts';
import type { Context } from './context.ts';
import { allDevices, asShown, checkForm, eachTarget, namesNone, noDevices } from './helpers.ts';

/** `deps`. */
export async function deps(context: Context, args: readonly string[]): Promise<void> {
  const { options, mangling } = context;
  const form = options.get('options') ?? '';
  checkForm(form);
  const single = context.namedByOption || args.length === 1;
  const found: { name: string; deps: readonly Dependency[] }[] = [];
  const isInactive = options.has('inactive');
  const show = (device: DeviceInfo): void => {
    if (options.has('json')) {
      const shown = asShown(mangling, device);
      found.push({ name: shown.name, deps: isInactive ? [] : shown.deps });
      return;
    }
    const used = isInactive ? [] : device.deps;
    const words = used.map((dep) => `(${word(dep, form)})`);
    const line = [`${used.length} dependencies\t:`, ...words].join(' ');
    print(single ? line : `${mangling.shown(device.name, 'name')}: ${line}`);
  };
  if (namesNone(context, args)) {
    const all = await allDevices(context);
    if (noDevices(context, all)) return;
    all.forEach(show);
  } else {
    await eachTarget(context, args, async (device) => {
      try {
        show(await context.request<DeviceInfo>('GET', device.path, device.query));
      } catch (error) {
        if (!(error instanceof RequestError)) throw error;
        throw context.failed({ ...error.error, op: 'deps' }, device);
      }
    });
  }
  if (options.has('json')) printJson(found);
}

function word(dep: Dependency, form: string): string {
  if (form === 'devname') return dep.name ?? dep.blkdevname;
  if (form === 'blkdevname') return dep.blkdevname;
  return `${dep.major}, ${dep.minor}`;
}
