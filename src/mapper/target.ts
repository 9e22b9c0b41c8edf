/**
 * The target interface: what the mapper core asks of a kind of mapping, and what it offers in
 * return. Answers to struct target_type and struct dm_target (include/linux/device-mapper.h).
 *
 * A target maps a range of a mapped device. `map` gets a clone of each bio (or piece of one) in
 * that range, with the sector still the device's; it remaps and hands it back, or keeps it and ends
 * it later.
 */
import type { Log } from '../base/log.ts';
import type { Clock } from '../base/clock.ts';
import { BioPool, type Bio } from '../block/bio.ts';
import type { BlockDevice, ExtentVisitor, Limits } from '../block/device.ts';
import { DmError } from '../base/error.ts';
import { errno } from '../base/errno.ts';
import type { MappedDevice } from './mapped-device.ts';

/**
 * Opens a device for a constructor; whatever is wrong with it, `complaint` is the kernel's text.
 */
export function openDevice(
  context: TargetContext,
  reference: string,
  readOnly: boolean,
  complaint: string,
): UsedDevice {
  try {
    return context.getDevice(reference, readOnly);
  } catch (error) {
    if (error instanceof DmError) throw new DmError(error.errno, complaint, { cause: error });
    throw error;
  }
}

/** What `map` did with a bio. */
export const MapResult = {
  /** The target ends it, now or later. */
  SUBMITTED: 0,
  /** The core submits it to `bio.device`. */
  REMAPPED: 1,
  /** The core queues it until resume (only while suspending without flush). */
  REQUEUE: 2,
  /** The core ends it with EIO. */
  KILL: 4,
} as const;
export type MapResult = (typeof MapResult)[keyof typeof MapResult];

export type Version = readonly [major: number, minor: number, patch: number];

/** A device that a table uses; the table releases it when it is destroyed. */
export interface UsedDevice {
  readonly device: BlockDevice;
  /** `major:minor`, as table lines show it. */
  readonly number: string;
  /** Equal for two uses iff they are the same device, whatever it was called. */
  readonly identity: object;
}

/** What a constructor is given. */
export interface TargetContext {
  readonly begin: number;
  readonly length: number;
  /** The table was loaded read-only. */
  readonly readOnly: boolean;
  /** The device whose table this is. */
  readonly owner: MappedDevice;
  readonly log: Log;
  readonly clock: Clock;
  /** Opens a device that an argument names, for as long as the table lives. Throws DmError. */
  getDevice(reference: string, readOnly: boolean): UsedDevice;
}

export interface TargetType {
  readonly name: string;
  readonly version: Version;
  /** Must be the only target of its table. */
  readonly singleton?: boolean;
  /** May not be in a read-only table. */
  readonly alwaysWriteable?: boolean;
  /** A live table of this type is replaced only by one of the same type. */
  readonly immutable?: boolean;
  /** Throws or rejects with a DmError whose message is the kernel's text. */
  construct(context: TargetContext, args: readonly string[]): Target | Promise<Target>;
}

export type StatusKind = 'INFO' | 'TABLE';

/** One target of a table. Methods left as they are here mean "nothing to do". */
export abstract class Target {
  readonly begin: number;
  readonly length: number;
  /** Pieces never cross a multiple of this, counted from `begin`; 0: no such limit. */
  maxIoSectors = 0;
  /** Copies of each flush, discard and write-zeroes that the target wants; 0: not supported. */
  nrFlushBios = 0;
  nrDiscardBios = 0;
  nrWriteZeroesBios = 0;
  /** Clones for this target; each keeps its per-bio data. */
  readonly bios: BioPool;

  constructor(context: { begin: number; length: number }, makePerBio?: () => unknown) {
    this.begin = context.begin;
    this.length = context.length;
    this.bios = new BioPool(makePerBio);
  }

  /** Maps a clone; its sector is the mapped device's. Hot path. */
  abstract map(bio: Bio): MapResult;

  /** A clone ended with `bio.status`; the status to give to the piece. Hot path. */
  endIo(bio: Bio): number {
    return bio.status;
  }

  /** Whether `endIo` does anything: the core skips the call otherwise. */
  readonly hasEndIo: boolean = false;

  /** Frees what the target holds; its devices are released by the table. */
  destroy(): void | Promise<void> {}

  presuspend(): void | Promise<void> {}
  presuspendUndo(): void {}
  postsuspend(): void | Promise<void> {}
  /** Throws or rejects with a DmError to refuse the resume. */
  preresume(): void | Promise<void> {}
  resume(): void {}

  /** The part of a status or table line after the type. */
  abstract status(kind: StatusKind, noflush: boolean): string | Promise<string>;

  /**
   * Null: the target takes no messages. Resolves to the answer, '' for none. Rejects with DmError.
   */
  message: ((args: readonly string[]) => string | Promise<string>) | null = null;

  /** Calls `visit` for each underlying device and the area of it that is used. */
  iterateDevices(_visit: (used: UsedDevice, begin: number, length: number) => void): void {}

  /** Adjusts the limits stacked from the underlying devices. */
  ioHints(_limits: Limits): void {}

  /** As BlockDevice.readSync, with the mapped device's sectors; EIO where it cannot be done. */
  readSync(_sector: number, _nrSectors: number, _data: Uint8Array, _dataOffset: number): number {
    return errno.EIO;
  }

  /** As BlockDevice.blockStatus, with the mapped device's sectors. */
  blockStatus(_sector: number, nrSectors: number, visit: ExtentVisitor): boolean {
    return visit(nrSectors, 0);
  }
}
