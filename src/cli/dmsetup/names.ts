/**
 * dmsetup's commands about names: `splitname` and `mangle` (spec: dm-core, 7 and 8).
 */
import type { DeviceInfo } from '../../daemon/api-types.ts';
import { CommandFailed, fail, print } from '../output.ts';
import type { Context, Target } from './context.ts';
import { allDevices, noDevices } from './helpers.ts';
import { decode, type Mangled } from './mangling.ts';
import { Report } from './report.ts';

/** What else a report may show of a name alone. */
const NO_DEVICE: Omit<DeviceInfo, 'name' | 'uuid'> = {
  major: 0,
  minor: 0,
  suspended: false,
  readOnly: false,
  deferredRemove: false,
  liveTable: false,
  inactiveTable: false,
  hadTable: false,
  openCount: 0,
  eventNr: 0,
  targetCount: 0,
  readAheadSectors: 0,
  sizeSectors: 0,
  targetTypes: [],
  deps: [],
};
const SPLIT_FIELDS = 'vg_name,lv_name,lv_layer';

/** `splitname`: shows what a device of that name, and of that subsystem, would be part of. */
export function splitname(
  context: Context,
  [name = '', subsystem = 'LVM']: readonly string[],
): void {
  const report = new Report(context.options, context.mangling, SPLIT_FIELDS);
  report.print([{ ...NO_DEVICE, name, uuid: `${subsystem}-` }], []);
}

/** `mangle`: gives devices the names that the mangling mode would have given them. */
export async function mangle(context: Context, names: readonly string[]): Promise<void> {
  // In the order in which they were made.
  const all = (await allDevices(context)).sort((a, b) => a.minor - b.minor);
  if (names.length === 0 && noDevices(context, all)) return;
  const chosen = names.length === 0 ? all.map(({ name }) => name) : names;
  for (const name of chosen) {
    const device = all.find((candidate) => candidate.name === name);
    if (device === undefined) throw new CommandFailed();
    await mangleOne(context, device);
  }
}

/** As the mode would have stored it: `text` may be mangled already, or not. */
function asMangled({ mangling }: Context, text: string, kind: Mangled): string {
  if (mangling.mode === 'none') return decode(text);
  return mangling.stored(mangling.mode === 'hex' ? decode(text) : text, kind);
}

async function mangleOne(context: Context, { name, uuid }: DeviceInfo): Promise<void> {
  const wanted = asMangled(context, name, 'name');
  if (asMangled(context, uuid, 'uuid') !== uuid) {
    const why = 'Unable to change device UUID. The device must be deactivated first.';
    fail(`${name}: ${uuid}: UUID in incorrect form. `, why);
  }
  if (wanted !== name) {
    print(`${name}: renaming to ${wanted}`);
    const device: Target = {
      path: `/v1/devices/${encodeURIComponent(name)}`,
      query: {},
      shown: { name, uuid: '', number: '' },
    };
    await context.call(device, 'POST', '/rename', {}, { name: wanted });
    return;
  }
  const what = uuid === '' ? 'name' : 'name and UUID';
  print(`${name}: ${uuid === '' ? '[no UUID]' : uuid}: ${what} already in correct form`);
}
