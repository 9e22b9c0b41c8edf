/**
 * `ls`: names and numbers, or a tree (spec: dm-core, 7.3).
 */
import { spawnSync } from 'node:child_process';
import type { DeviceInfo } from '../../daemon/api-types.ts';
import { print } from '../output.ts';
import type { Context } from './context.ts';
import { allDevices, checkForm, noDevices, printDevices } from './helpers.ts';
import { decode } from './mangling.ts';

/** `ls`. */
export async function ls(context: Context): Promise<void> {
  const { options } = context;
  const type = options.get('target');
  const form = options.get('options') ?? '';
  const isTree = options.has('tree') && type === undefined;
  const tree = isTree ? await import('./tree.ts') : null;
  if (tree !== null) tree.checkTreeOptions(form);
  else checkForm(form);
  const all = await allDevices(context);
  const devices = all.filter(({ targetTypes }) => type === undefined || targetTypes.includes(type));
  if (options.has('json')) {
    printDevices(context, devices);
    return;
  }
  if (noDevices(context, all)) return;
  if (tree !== null) {
    tree.printTree(context.mangling, all, form);
    return;
  }
  const command = options.get('exec');
  for (const device of devices) {
    if (command === undefined) {
      const name = context.mangling.shown(device.name, 'name');
      print(`${name}\t(${listed(device, form, type)})`);
    } else {
      const path = `/dev/mapper/${decode(device.name)}`;
      const [program = '', ...words] = command.split(/\s+/).filter((word) => word !== '');
      spawnSync(program, [...words, path], { stdio: 'inherit' });
    }
  }
}

function listed(device: DeviceInfo, form: string, type: string | undefined): string {
  if (type !== undefined) return `${device.major}, ${device.minor}`;
  // A device that never had a table has no node, and is known by its number only.
  if (form === 'devname' && device.hadTable) return device.name;
  if (form === 'blkdevname' && device.hadTable) return `dm-${device.minor}`;
  return `${device.major}:${device.minor}`;
}
