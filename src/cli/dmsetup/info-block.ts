/**
 * The info block of a device (spec: dm-core, 7.1).
 */
import type { DeviceInfo } from '../../daemon/api-types.ts';
import { complain, print } from '../output.ts';
import type { Context } from './context.ts';

/** Prints the block, an empty line after it. */
export function printInfo({ mangling }: Context, device: DeviceInfo): void {
  // A device that never had a table is no disk yet.
  if (!device.hadTable) {
    complain(`/dev/mapper/${device.name}: open failed: No such file or directory`);
  }
  const readOnly = device.readOnly ? ' (READ-ONLY)' : '';
  const deferred = device.deferredRemove ? ' (DEFERRED REMOVE)' : '';
  const rows: [string, string | number][] = [
    ['Name:', mangling.shown(device.name, 'name')],
    ['State:', `${device.suspended ? 'SUSPENDED' : 'ACTIVE'}${readOnly}${deferred}`],
    ...(device.hadTable ? ([['Read Ahead:', device.readAheadSectors]] as [string, number][]) : []),
    ['Tables present:', tablesPresent(device)],
    ['Open count:', device.openCount],
    ['Event number:', device.eventNr],
    ['Major, minor:', `${device.major}, ${device.minor}`],
    ['Number of targets:', device.targetCount],
  ];
  for (const [label, value] of rows) print(`${label.padEnd(19)}${value}`);
  if (device.uuid !== '') print(`UUID: ${mangling.shown(device.uuid, 'uuid')}`);
  print('');
}

function tablesPresent(device: DeviceInfo): string {
  if (device.liveTable) return device.inactiveTable ? 'LIVE & INACTIVE' : 'LIVE';
  return device.inactiveTable ? 'INACTIVE' : 'None';
}
