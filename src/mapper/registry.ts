/**
 * Registry: all mapped devices of a process, by name, uuid and minor; the target types; and the
 * devices that tables may name. Answers to drivers/md/dm-ioctl.c and dm_get_device in dm-table.c
 * (spec: dm-core, 1, 3 and 7).
 *
 * Its methods are the kernel's ioctls. They reject with a DmError; the log has the kernel's lines.
 */
import type { Clock } from '../base/clock.ts';
import { systemClock } from '../base/clock.ts';
import { DmError } from '../base/error.ts';
import type { Log } from '../base/log.ts';
import { MAPPED_MAJOR } from '../block/open-devices.ts';
import { coreMessage } from './core-messages.ts';
import { DeviceLookup } from './device-lookup.ts';
import { MappedDevice, type SuspendOptions } from './mapped-device.ts';
import { Table } from './table.ts';
import type { TableLine } from './table-grammar.ts';
import type { StatusKind, TargetType } from './target.ts';

/** Bytes of a name and of a uuid, and of a target type's name. */
export const NAME_BYTES_MAX = 127;
export const UUID_BYTES_MAX = 128;
/** Minors are 20 bits. */
const MINORS_MAX = 1 << 20;

/** Who is meant by a command: a name, a uuid, or a minor. */
export type DeviceKey =
  | { readonly name: string }
  | { readonly uuid: string }
  | { readonly major: number; readonly minor: number };

export interface RegistryOptions {
  readonly log: Log;
  readonly clock?: Clock;
}

export class Registry {
  readonly log: Log;
  readonly clock: Clock;
  readonly lookup: DeviceLookup;
  /** Type by name; the newest registration last. */
  readonly #types = new Map<string, TargetType>();
  readonly #byMinor = new Map<number, MappedDevice>();
  /** Ends what waits for I/O when everything ends. */
  readonly #closing = new AbortController();
  /** Called whenever names, uuids or live tables have changed. */
  onChange: () => void = () => undefined;

  constructor(options: RegistryOptions) {
    this.log = options.log;
    this.clock = options.clock ?? systemClock;
    this.lookup = new DeviceLookup(this);
  }

  // --- target types

  register(type: TargetType): void {
    this.#types.set(type.name, type);
  }

  targetType(name: string): TargetType | undefined {
    return this.#types.get(name);
  }

  /** The newest registration first, as the kernel lists them. */
  get targetTypes(): TargetType[] {
    return [...this.#types.values()].reverse();
  }

  // --- devices

  /** All devices by name. */
  get devices(): MappedDevice[] {
    return [...this.#byMinor.values()].sort((a, b) => (a.dmName < b.dmName ? -1 : 1));
  }

  find(key: DeviceKey): MappedDevice | undefined {
    if ('minor' in key) {
      return key.major === MAPPED_MAJOR ? this.#byMinor.get(key.minor) : undefined;
    }
    if ('uuid' in key && key.uuid === '') return undefined; // What has none is not found by it.
    for (const device of this.#byMinor.values()) {
      if ('name' in key ? device.dmName === key.name : device.uuid === key.uuid) return device;
    }
    return undefined;
  }

  /** As `find`; ENXIO if there is none. */
  get(key: DeviceKey): MappedDevice {
    const device = this.find(key);
    if (device === undefined) throw new DmError('ENXIO', 'no such device');
    return device;
  }

  /** Makes a device without a table. EBUSY if name or uuid are taken, ENXIO if the minor is. */
  create(name: string, uuid = '', wantedMinor?: number): MappedDevice {
    this.#mustBeOpen();
    if (name === '') this.log.write('error', 'ioctl: name not supplied when creating device');
    checkName(name);
    checkUuid(uuid);
    const minor = wantedMinor ?? this.#freeMinor();
    if (this.#byMinor.has(minor) || minor >= MINORS_MAX) {
      throw new DmError('ENXIO', `minor ${minor} is in use`);
    }
    if (this.find({ name }) !== undefined) throw new DmError('EBUSY', `${name} exists`);
    if (uuid !== '' && this.find({ uuid }) !== undefined) {
      throw new DmError('EBUSY', `a device with uuid ${uuid} exists`);
    }
    const device = new MappedDevice(minor, name, uuid, this.log, this.clock);
    device.onLastClose = () => {
      if (device.deferredRemove) void this.#removeDeferred(device);
    };
    this.#byMinor.set(minor, device);
    return device;
  }

  #freeMinor(): number {
    let minor = 0;
    while (this.#byMinor.has(minor)) minor++;
    return minor;
  }

  /**
   * Removes a device. EBUSY while it is open, unless `deferred`: then it goes when its last user
   * closes it. Resolves to whether it is gone.
   */
  async remove(device: MappedDevice, options: { deferred?: boolean } = {}): Promise<boolean> {
    return device.exclusively(async () => {
      this.#mustExist(device);
      if (device.openCount > 0) {
        if (options.deferred !== true) throw new DmError('EBUSY', `${device.dmName} is in use`);
        device.deferredRemove = true;
        return false;
      }
      await this.#destroy(device);
      return true;
    });
  }

  async #removeDeferred(device: MappedDevice): Promise<void> {
    await device.exclusively(async () => {
      // Opened again, or taken back, before its turn came?
      if (device.deferredRemove && device.openCount === 0) await this.#destroy(device);
    });
  }

  async #destroy(device: MappedDevice, options: SuspendOptions = {}): Promise<void> {
    if (device.isRemoved) return;
    this.#byMinor.delete(device.minor);
    this.onChange();
    await device.destroy(options);
  }

  /** Mapped devices whose tables, live or inactive, use `device`. */
  usersOf(device: MappedDevice): MappedDevice[] {
    return this.devices.filter((other) =>
      [other.live, other.inactive].some((table) =>
        table?.devices.some((used) => used.device === device),
      ),
    );
  }

  /**
   * Ends everything: devices that no other uses first. I/O that waits for space or for a resume
   * ends with EIO; what is on its way to a disk finishes.
   */
  async shutDown(): Promise<void> {
    this.#closing.abort();
    for (const device of this.devices) device.abandon();
    // Loaded tables may use devices in circles; live ones do not.
    for (const device of this.devices) await device.exclusively(() => device.clear());
    for (;;) {
      const device = this.devices.find((candidate) => this.usersOf(candidate).length === 0);
      if (device === undefined) return;
      await device.exclusively(() => this.#destroy(device, { noflush: true }));
    }
  }

  /**
   * Replaces the table by one error target of the same size; I/O on the device fails from then on.
   */
  async replaceByError(device: MappedDevice, options: SuspendOptions = {}): Promise<void> {
    const { sizeSectors } = device;
    if (sizeSectors === 0) return;
    const line = { start: 0, length: sizeSectors, type: 'error', params: '' };
    await device.exclusively(async () => {
      this.#mustExist(device);
      const table = await Table.build(this, device, [line], device.readOnly, '/');
      await device.setInactive(table);
      await this.#swap(device, { ...options, noflush: true });
    });
  }

  /** The options of a suspend that ends, too, when everything ends. */
  #interruptible(options: SuspendOptions): SuspendOptions {
    const { signal } = this.#closing;
    const both = options.signal === undefined ? signal : AbortSignal.any([options.signal, signal]);
    return { ...options, signal: both };
  }

  #mustBeOpen(): void {
    if (this.#closing.signal.aborted)
      throw new DmError('ESHUTDOWN', 'the device mapper is stopping');
  }

  #mustExist(device: MappedDevice): void {
    this.#mustBeOpen();
    if (device.isRemoved) throw new DmError('ENXIO', 'no such device');
  }

  /** The device to rename; ENXIO, with the kernel's line, if there is none. */
  getToRename(key: DeviceKey, newName: string): MappedDevice {
    const device = this.find(key);
    if (device !== undefined) return device;
    const old = 'name' in key ? key.name : '';
    const text = `Unable to rename non-existent device, ${old} to ${newName}`;
    this.log.write('error', `ioctl: ${text}`);
    throw new DmError('ENXIO', text);
  }

  rename(device: MappedDevice, name: string): void {
    checkName(name);
    if (this.find({ name }) !== undefined) {
      const text = `mapped device ${device.dmName} to one that already exists: ${name}`;
      this.log.write('error', `ioctl: Unable to change name on ${text}`);
      throw new DmError('EBUSY', `${name} exists`);
    }
    device.dmName = name;
    raiseEvent(device);
    this.onChange();
  }

  /** Gives a uuid to a device that has none. */
  setUuid(device: MappedDevice, uuid: string): void {
    if (uuid === '') {
      const text = 'Invalid new mapped device name or uuid string supplied.';
      this.log.write('error', `ioctl: ${text}`);
      throw new DmError('EINVAL', text);
    }
    checkUuid(uuid);
    if (this.find({ uuid }) !== undefined) {
      const text = `mapped device ${device.dmName} to one that already exists: ${uuid}`;
      this.log.write('error', `ioctl: Unable to change uuid on ${text}`);
      throw new DmError('EBUSY', `a device with uuid ${uuid} exists`);
    }
    if (device.uuid !== '') {
      const text = `mapped device ${device.dmName} to ${uuid} because uuid is already set to`;
      this.log.write('error', `ioctl: Unable to change uuid of ${text} ${device.uuid}`);
      throw new DmError('EINVAL', `${device.dmName} has a uuid`);
    }
    device.uuid = uuid;
    raiseEvent(device);
    this.onChange();
  }

  // --- tables

  /** Loads an inactive table; on any failure nothing changes. */
  load(
    device: MappedDevice,
    lines: readonly TableLine[],
    options: { readOnly?: boolean; cwd?: string } = {},
  ): Promise<void> {
    return device.exclusively(async () => {
      this.#mustExist(device);
      const immutable = device.live?.immutableType ?? null;
      const cwd = options.cwd ?? '/';
      // As the kernel, the whole table is built before its type is compared.
      const table = await Table.build(this, device, lines, options.readOnly === true, cwd);
      try {
        if (immutable !== null && immutable !== table.firstType) {
          const text = `can't replace immutable target type ${immutable.name}`;
          this.log.write('error', `ioctl: ${text}`);
          throw new DmError('EINVAL', text);
        }
        if (!device.hadTable) this.#firstLimits(table);
      } catch (error) {
        await table.destroy();
        throw error;
      }
      await device.setInactive(table);
    });
  }

  /** On the first load of a device the areas of the underlying devices are checked at once. */
  #firstLimits(table: Table): void {
    try {
      table.calculateLimits(this.log);
    } catch (error) {
      this.log.write('error', 'core: Cannot calculate initial queue limits');
      this.log.write('error', 'ioctl: unable to set up device queue for new table.');
      throw error;
    }
  }

  clear(device: MappedDevice): Promise<void> {
    return device.exclusively(async () => {
      this.#mustExist(device);
      await device.clear();
    });
  }

  suspend(device: MappedDevice, options: SuspendOptions = {}): Promise<void> {
    return device.exclusively(async () => {
      this.#mustExist(device);
      await device.suspend(this.#interruptible(options));
    });
  }

  resume(device: MappedDevice, options: SuspendOptions = {}): Promise<void> {
    return device.exclusively(async () => {
      this.#mustExist(device);
      await this.#swap(device, options);
    });
  }

  /** Resumes; also if that fails there may be another live table. */
  async #swap(device: MappedDevice, options: SuspendOptions): Promise<void> {
    try {
      await device.resume(this.#interruptible(options));
    } finally {
      this.onChange();
    }
  }

  /** Status or table lines of the live table, or of the inactive one. */
  async lines(
    device: MappedDevice,
    kind: StatusKind,
    options: { noflush?: boolean; inactive?: boolean; target?: string } = {},
  ): Promise<string[]> {
    const table = options.inactive === true ? device.inactive : device.live;
    // A suspended target shows what it has without making it durable first.
    const noflush = options.noflush === true || device.isSuspended;
    return (await table?.lines(kind, noflush, options.target)) ?? [];
  }

  /** Sends a message to the target at `sector`; resolves to its answer. */
  async message(device: MappedDevice, sector: number, args: readonly string[]): Promise<string> {
    const refuse = (text: string): DmError => {
      this.log.write('warn', `ioctl: ${text}`);
      return new DmError('EINVAL', text);
    };
    const [first] = args;
    if (first === undefined || first === '') throw refuse('Empty message received.');
    if (first.startsWith('@')) return coreMessage(device, args, this.log);
    const table = device.live;
    if (table === null) return '';
    const target = table.findOrNull(sector);
    if (target === null) throw refuse('Target message sector outside device.');
    if (target.message === null) throw refuse('Target type does not support messages');
    return target.message(args);
  }
}

/** Events are the live table's: without one there are none. */
function raiseEvent(device: MappedDevice): void {
  if (device.live !== null) device.events.raise();
}

function checkName(name: string): void {
  if (name === '' || /[/\0]/.test(name) || Buffer.byteLength(name) > NAME_BYTES_MAX) {
    const wanted = `a name of 1 to ${NAME_BYTES_MAX} bytes, none of them / or 0`;
    throw new DmError('EINVAL', `wanted ${wanted}, found '${name}'`);
  }
}

function checkUuid(uuid: string): void {
  if (uuid.includes('\0') || Buffer.byteLength(uuid) > UUID_BYTES_MAX) {
    const wanted = `a uuid of at most ${UUID_BYTES_MAX} bytes, none of them 0`;
    throw new DmError('EINVAL', `wanted ${wanted}, found '${uuid}'`);
  }
}
