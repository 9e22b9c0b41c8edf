/**
 * DeviceLookup: what the words of a table name: mapped devices, files, block special files, and
 * devices made known by name. Answers to dm_get_device in drivers/md/dm-table.c (spec: dm-core, 2).
 */
import fs from 'node:fs';
import path from 'node:path';
import { DmError } from '../base/error.ts';
import type { BlockDevice } from '../block/device.ts';
import { MAPPED_MAJOR, OpenDevices, type OpenDevice } from '../block/open-devices.ts';
import type { MappedDevice } from './mapped-device.ts';
import type { DeviceKey } from './registry.ts';
import type { UsedDevice } from './target.ts';

/** A used device, to be released exactly once. */
export interface UsedHandle extends UsedDevice {
  readonly readOnly: boolean;
  release(): Promise<void>;
  /** Releases without waiting: for a handle that a table turns out to have already. */
  releaseSoon(): void;
}

interface SharedOpen {
  users: number;
}

/** Where mapped devices are found. */
interface MappedDevices {
  find(key: DeviceKey): MappedDevice | undefined;
}

export class DeviceLookup {
  readonly #mapped: MappedDevices;
  readonly #files = new OpenDevices();
  /** Devices by path that are neither files nor mapped: in memory, simulated. */
  readonly #named = new Map<string, { device: BlockDevice; number: string }>();
  /** The mapped devices that each one's tables have open, by device and mode: once each. */
  readonly #opened = new WeakMap<MappedDevice, Map<string, SharedOpen>>();

  constructor(mapped: MappedDevices) {
    this.#mapped = mapped;
  }

  /** Makes `device` known to tables as `devicePath` and `number`: for memory and simulation. */
  add(devicePath: string, device: BlockDevice, number: string): void {
    this.#named.set(devicePath, { device, number });
  }

  /** The mapped device that a path under /dev/mapper, or /dev/dm-N, names. */
  findByPath(devicePath: string): MappedDevice | undefined {
    const name = /^\/dev\/mapper\/([^/]+)$/.exec(devicePath)?.[1];
    if (name !== undefined) return this.#mapped.find({ name });
    const minor = /^\/dev\/dm-([0-9]+)$/.exec(devicePath)?.[1];
    if (minor === undefined) return undefined;
    return this.#mapped.find({ major: MAPPED_MAJOR, minor: Number(minor) });
  }

  /**
   * Opens what a table word names: a path (relative to `cwd`), or `major:minor`, for the table of
   * `user`. Throws ENODEV for a path and ENXIO for a number that is no device, EBUSY for a file
   * that another process has.
   */
  use(reference: string, readOnly: boolean, cwd: string, user: MappedDevice | null): UsedHandle {
    const number = /^([0-9]+):([0-9]+)$/.exec(reference);
    if (/\/\.?$/.test(reference)) throw new DmError('ENODEV', `${reference} is no device`);
    const absolute = path.resolve(cwd, reference);
    const mapped =
      number !== null
        ? this.#mapped.find({ major: Number(number[1]), minor: Number(number[2]) })
        : this.findByPath(absolute);
    if (mapped !== undefined) return this.#useMapped(mapped, readOnly, user);
    for (const [namedPath, named] of this.#named) {
      if (namedPath === absolute || named.number === reference) return useNamed(named, readOnly);
    }
    if (number === null) return useFile(this.#files.openPath(absolute, readOnly), readOnly);
    return this.#useNumber(Number(number[1]), Number(number[2]), readOnly);
  }

  /**
   * A word by which `major:minor` can be found by another process, too: a path, or
   * /dev/mapper/NAME; undefined if no device that this process knows has that number.
   */
  lastingName(major: number, minor: number): string | undefined {
    const mapped = this.#mapped.find({ major, minor });
    return mapped === undefined ? this.#files.pathOf(major, minor) : `/dev/mapper/${mapped.dmName}`;
  }

  /** A device's live and inactive table share one opening of what both use, as in the kernel. */
  #useMapped(device: MappedDevice, readOnly: boolean, user: MappedDevice | null): UsedHandle {
    const opened = user === null ? new Map<string, SharedOpen>() : this.#openedBy(user);
    const key = `${device.minor} ${readOnly}`;
    let shared = opened.get(key);
    if (shared === undefined) {
      device.open();
      shared = { users: 0 };
      opened.set(key, shared);
    }
    shared.users++;
    let released = false;
    const release = (): void => {
      if (released) return;
      released = true;
      if (--shared.users > 0) return;
      opened.delete(key);
      device.close();
    };
    return {
      device,
      number: device.number,
      identity: device,
      readOnly,
      release: async () => release(),
      releaseSoon: release,
    };
  }

  #openedBy(user: MappedDevice): Map<string, SharedOpen> {
    let opened = this.#opened.get(user);
    if (opened === undefined) {
      opened = new Map();
      this.#opened.set(user, opened);
    }
    return opened;
  }

  #useNumber(major: number, minor: number, readOnly: boolean): UsedHandle {
    const known = this.#files.openNumber(major, minor, readOnly);
    if (known !== null) return useFile(known, readOnly);
    const node = blockSpecialPath(major, minor);
    if (major === MAPPED_MAJOR || node === null) {
      throw new DmError('ENXIO', `${major}:${minor}: no such device`);
    }
    return useFile(this.#files.openPath(node, readOnly), readOnly);
  }
}

function useNamed(named: { device: BlockDevice; number: string }, readOnly: boolean): UsedHandle {
  return {
    device: named.device,
    number: named.number,
    identity: named.device,
    readOnly,
    release: async () => undefined,
    releaseSoon: () => undefined,
  };
}

function useFile(open: OpenDevice, readOnly: boolean): UsedHandle {
  return {
    device: open.device,
    number: `${open.number.major}:${open.number.minor}`,
    identity: open.identity,
    readOnly,
    release: () => open.release(),
    // The table holds the same file, so nothing is closed here and nothing can fail.
    releaseSoon: () => void open.release(),
  };
}

/** The node of a block device that this process has not opened yet. */
function blockSpecialPath(major: number, minor: number): string | null {
  try {
    const uevent = fs.readFileSync(`/sys/dev/block/${major}:${minor}/uevent`, 'utf8');
    const name = /^DEVNAME=(.+)$/m.exec(uevent)?.[1];
    return name === undefined ? null : `/dev/${name}`;
  } catch {
    return null;
  }
}
