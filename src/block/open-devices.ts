/**
 * OpenDevices: the files and block special files that this process has open, each once per identity
 * and mode, locked against other processes, and numbered as the kernel numbers devices.
 *
 * A block special file keeps its own major:minor. A regular file, which in the kernel would sit
 * behind a loop device, gets major FILE_MAJOR and the next free minor; it keeps that number as long
 * as the process lives, so that a table printed with it can be loaded again.
 * The lock: O_EXCL for a block special file (which also refuses mounted ones); flock(2) for a
 * regular file, exclusive if anyone writes, shared if all only read. Both vanish with the process.
 * Does not: know mapped devices; the mapper's registry looks those up first.
 */
import fs from 'node:fs';
import path from 'node:path';
import { spawnSync } from 'node:child_process';
import { DmError, present } from '../base/error.ts';
import { errno, errnoOf } from '../base/errno.ts';
import type { BlockDevice } from './device.ts';
import { FileDevice } from './file-device.ts';
import { majorOf, minorOf } from './file-limits.ts';
import { native } from './native.ts';

/** Majors 240 to 254 are for local use; 254 is ours for mapped devices. */
export const FILE_MAJOR = 240;
export const MAPPED_MAJOR = 254;

export interface DeviceNumber {
  readonly major: number;
  readonly minor: number;
}

/** A device in use: release it exactly once. */
export interface OpenDevice {
  readonly device: BlockDevice;
  readonly number: DeviceNumber;
  /** Equal for two handles iff they are the same device. */
  readonly identity: object;
  /** Gives the handle back; resolves when the file is closed, if this was its last user. */
  release(): Promise<void>;
}

/** One file or block special file, however often and in whichever modes it is open. */
class Identity {
  /** See `identityKey`. */
  readonly key: string;
  readonly number: DeviceNumber;
  path: string;
  lock: FileLock | null = null;
  readers: Shared | null = null;
  writers: Shared | null = null;
  constructor(key: string, number: DeviceNumber, devicePath: string) {
    this.key = key;
    this.number = number;
    this.path = devicePath;
  }
}

interface Shared {
  readonly device: FileDevice;
  users: number;
}

export class OpenDevices {
  readonly #byIdentity = new Map<string, Identity>();
  readonly #byNumber = new Map<string, Identity>();
  #nextFileMinor = 0;

  /**
   * Opens the file or block special file at `devicePath`. Throws DmError: ENODEV if it is missing
   * or neither kind (as the kernel), EBUSY if another process has it, EACCES, EROFS, …
   */
  openPath(devicePath: string, readOnly: boolean): OpenDevice {
    let stat: fs.BigIntStats;
    try {
      stat = fs.statSync(devicePath, { bigint: true });
    } catch (cause) {
      const name = errnoOf(cause) === 'EACCES' ? 'EACCES' : 'ENODEV';
      throw new DmError(name, `${devicePath}: wanted a file or block device, found none`, {
        cause,
      });
    }
    if (!stat.isFile() && !stat.isBlockDevice()) {
      const message = `${devicePath}: wanted a regular file or a block device, found another kind`;
      throw new DmError('ENODEV', message);
    }
    return this.#open(this.#identify(devicePath, stat), readOnly);
  }

  /** Opens the device that has number `major:minor` here, if any. */
  openNumber(major: number, minor: number, readOnly: boolean): OpenDevice | null {
    const identity = this.#byNumber.get(`${major}:${minor}`);
    if (identity === undefined) return null;
    const isOpen = (readOnly ? identity.readers : identity.writers) !== null;
    // Where the file was, there may be none by now, or another one.
    if (!isOpen && keyAt(identity.path) !== identity.key) return null;
    return this.#open(identity, readOnly);
  }

  /** The path that a number was given for, if any. */
  pathOf(major: number, minor: number): string | undefined {
    return this.#byNumber.get(`${major}:${minor}`)?.path;
  }

  #identify(devicePath: string, stat: fs.BigIntStats): Identity {
    const special = stat.isBlockDevice();
    const key = identityKey(stat);
    let identity = this.#byIdentity.get(key);
    if (identity === undefined) {
      identity = new Identity(
        key,
        this.#numberFor(special, Number(stat.rdev)),
        path.resolve(devicePath),
      );
      this.#byIdentity.set(key, identity);
      this.#byNumber.set(`${identity.number.major}:${identity.number.minor}`, identity);
    }
    identity.path = path.resolve(devicePath);
    return identity;
  }

  #numberFor(special: boolean, rdev: number): DeviceNumber {
    const major = majorOf(rdev);
    if (special && major !== FILE_MAJOR && major !== MAPPED_MAJOR) {
      return { major, minor: minorOf(rdev) };
    }
    return { major: FILE_MAJOR, minor: this.#nextFileMinor++ };
  }

  #open(identity: Identity, readOnly: boolean): OpenDevice {
    const mode = readOnly ? 'readers' : 'writers';
    let shared = identity[mode];
    if (shared === null) {
      shared = { device: openLocked(identity, readOnly), users: 0 };
      identity[mode] = shared;
    }
    shared.users++;
    const { device } = shared;
    let released = false;
    return {
      device,
      number: identity.number,
      identity,
      release: async () => {
        if (released) return;
        released = true;
        await this.#release(identity, mode);
      },
    };
  }

  async #release(identity: Identity, mode: 'readers' | 'writers'): Promise<void> {
    const shared = present(identity[mode], 'a released device is open');
    if (--shared.users > 0) return;
    identity[mode] = null;
    await shared.device.close();
    // Opened again meanwhile, it goes on under the same lock.
    if (identity.readers !== null || identity.writers !== null) return;
    identity.lock?.release();
    identity.lock = null;
  }
}

/**
 * What is equal for two paths iff they lead to the same file or the same disk. Inode numbers have
 * 64 bits, and some file systems use them all.
 */
function identityKey(stat: fs.BigIntStats): string {
  return stat.isBlockDevice() ? `b${stat.rdev}` : `f${stat.dev}:${stat.ino}`;
}

function keyAt(devicePath: string): string | null {
  try {
    return identityKey(fs.statSync(devicePath, { bigint: true }));
  } catch {
    return null;
  }
}

// --- locks

/** A lock on a file or block device that lasts until released, or until the process ends. */
export interface FileLock {
  exclusive: boolean;
  readonly fd: number;
  release(): void;
}

function openLocked(identity: Identity, readOnly: boolean): FileDevice {
  const devicePath = identity.path;
  const fresh = identity.lock === null;
  let lock = identity.lock;
  let fd = -1;
  try {
    const special = fs.statSync(devicePath).isBlockDevice();
    if (lock === null) lock = special ? lockSpecial(devicePath) : lockFile(devicePath, !readOnly);
    else if (!readOnly && !lock.exclusive) upgrade(lock, devicePath);
    fd = fs.openSync(devicePath, readOnly ? 'r' : 'r+');
    const device = new FileDevice(fd, devicePath, path.basename(devicePath), readOnly);
    identity.lock = lock;
    return device;
  } catch (cause) {
    if (fd >= 0) fs.closeSync(fd);
    if (fresh) lock?.release();
    if (cause instanceof DmError) throw cause;
    throw new DmError(errnoOf(cause), `${devicePath}: ${(cause as Error).message}`, { cause });
  }
}

function lockOf(fd: number, exclusive: boolean): FileLock {
  return { fd, exclusive, release: () => fs.closeSync(fd) };
}

/** Opening with O_EXCL claims a block device, as device-mapper and mount do. */
function lockSpecial(devicePath: string): FileLock {
  return lockOf(fs.openSync(devicePath, fs.constants.O_RDONLY | fs.constants.O_EXCL), true);
}

/** Open flags of the BSDs and macOS that lock the file as flock(2) does. */
const O_SHLOCK = 0x10;
const O_EXLOCK = 0x20;

/** Locks a regular file without waiting. Throws EBUSY if another process has it. */
export function lockFile(filePath: string, exclusive: boolean): FileLock {
  if (process.platform !== 'linux') {
    const flags = fs.constants.O_RDONLY | fs.constants.O_NONBLOCK;
    try {
      return lockOf(fs.openSync(filePath, flags | (exclusive ? O_EXLOCK : O_SHLOCK)), exclusive);
    } catch (cause) {
      if (errnoOf(cause) === 'EAGAIN') throw inUse(filePath);
      throw cause;
    }
  }
  const lock = lockOf(fs.openSync(filePath, 'r'), exclusive);
  try {
    flock(lock.fd, exclusive, filePath);
  } catch (error) {
    lock.release();
    throw error;
  }
  return lock;
}

function upgrade(lock: FileLock, filePath: string): void {
  try {
    flock(lock.fd, true, filePath);
  } catch (error) {
    // flock(2) gives up the lock it has before it asks for the other kind.
    flock(lock.fd, false, filePath);
    throw error;
  }
  lock.exclusive = true;
}

/**
 * flock(2), or without koffi the program of that name on an inherited descriptor: the same lock.
 */
function flock(fd: number, exclusive: boolean, filePath: string): void {
  if (native !== null) {
    const code = native.flock(fd, exclusive);
    if (code === -errno.EAGAIN) throw inUse(filePath);
    if (code < 0) throw new DmError('EIO', `${filePath}: flock failed with errno ${-code}`);
    return;
  }
  const { status, error } = spawnSync('flock', ['-n', exclusive ? '-x' : '-s', '3'], {
    stdio: ['ignore', 'ignore', 'ignore', fd],
  });
  if (error !== undefined) {
    const message = `${filePath}: cannot lock it: neither koffi nor the program flock is here`;
    throw new DmError('EOPNOTSUPP', message, { cause: error });
  }
  if (status !== 0) throw inUse(filePath);
}

function inUse(filePath: string): DmError {
  return new DmError('EBUSY', `${filePath} is in use by another process`);
}
