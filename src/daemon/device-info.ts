/**
 * A mapped device as the control API shows it.
 */
import { divUp, roundDown, SECTOR_SIZE } from '../base/numbers.ts';
import { MAPPED_MAJOR } from '../block/open-devices.ts';
import { MappedDevice } from '../mapper/mapped-device.ts';
import type { Dependency, DeviceInfo } from './api-types.ts';

/** Read-ahead of a device without larger wishes, in sectors. */
const READ_AHEAD_DEFAULT = 256;
const PAGE_SECTORS = 8;

/** What a listing shows of a device. */
export function deviceInfo(device: MappedDevice): DeviceInfo {
  const { live } = device;
  return {
    name: device.dmName,
    uuid: device.uuid,
    major: MAPPED_MAJOR,
    minor: device.minor,
    suspended: device.isSuspended,
    readOnly: device.readOnly,
    deferredRemove: device.deferredRemove,
    liveTable: live !== null,
    inactiveTable: device.inactive !== null,
    hadTable: device.hadTable,
    openCount: device.openCount,
    eventNr: device.events.nr,
    targetCount: live?.nrTargets ?? 0,
    readAheadSectors: readAhead(device),
    sizeSectors: device.sizeSectors,
    targetTypes: [...(live?.rows() ?? [])].map(({ type }) => type.name),
    deps: dependencies(device),
  };
}

/**
 * As asked for, in the kibibytes that are written to sysfs and the whole pages that the kernel
 * makes of them; else twice the best request size, as the block layer sets it.
 */
function readAhead(device: MappedDevice): number {
  const usual = Math.max(READ_AHEAD_DEFAULT, (2 * device.limits.ioOpt) / SECTOR_SIZE);
  if (device.readAhead === null) return usual;
  const wanted = roundDown(2 * divUp(device.readAhead.sectors, 2), PAGE_SECTORS);
  return device.readAhead.minimum === true ? Math.max(usual, wanted) : wanted;
}

function dependencies(device: MappedDevice): Dependency[] {
  const seen = new Set<string>();
  const found: Dependency[] = [];
  for (const used of device.live?.devices ?? []) {
    if (seen.has(used.number)) continue;
    seen.add(used.number);
    const [major = 0, minor = 0] = used.number.split(':').map(Number);
    const name = used.device instanceof MappedDevice ? used.device.dmName : null;
    found.push({ major, minor, name, blkdevname: used.device.name });
  }
  return found;
}
