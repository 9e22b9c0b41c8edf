/**
 * Attaching by the kernel's NBD client: a device /dev/nbdN, connected to our socket by nbd-client.
 */
import fs from 'node:fs';
import { DmError } from '../../base/error.ts';
import { mustBeUnused, syncDevice } from './block-special.ts';
import { runProgram, type Link, type Subject, type Way } from './way.ts';

const SYSFS = '/sys/block';
/** Seconds after which the kernel gives a request up; 0 is never: writes may wait for space. */
const TIMEOUT_SECONDS = 0;

/** Devices that no client has connected, in the order of their numbers. */
function freeDevices(): string[] {
  const names = fs.existsSync(SYSFS) ? fs.readdirSync(SYSFS) : [];
  return names
    .filter((name) => /^nbd[0-9]+$/.test(name) && !fs.existsSync(`${SYSFS}/${name}/pid`))
    .sort((a, b) => Number(a.slice(3)) - Number(b.slice(3)))
    .map((name) => `/dev/${name}`);
}

async function attach(subject: Subject): Promise<Link> {
  const { nbdSocket, exportName, limits, readOnly } = subject;
  const [device] = freeDevices();
  if (device === undefined) throw new DmError('EBUSY', 'all of /dev/nbd* are in use');
  await runProgram('nbd-client', [
    '-unix',
    nbdSocket,
    device,
    '-name',
    exportName,
    '-block-size',
    String(limits.logicalBlockSize),
    '-timeout',
    String(TIMEOUT_SECONDS),
    ...(readOnly ? ['-readonly'] : []),
  ]);
  return {
    path: device,
    undo: async () => {
      await mustBeUnused(device);
      await syncDevice(device);
      await runProgram('nbd-client', ['-d', device]);
    },
    leave: () => undefined,
  };
}

export const nbdWay: Way = {
  name: 'nbd',
  whyNot: () =>
    fs.existsSync('/dev/nbd0')
      ? null
      : "there is no /dev/nbd0: the kernel's module nbd is not loaded",
  attach,
};
