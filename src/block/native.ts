/**
 * The few system calls that Node lacks, through koffi where it loads: flock, fallocate, preadv2 and
 * three ioctls of block devices. Linux only; elsewhere, without koffi, or with DEVMAPPER_NO_FFI=1,
 * `native` is null and callers take their portable way.
 *
 * Calls return 0 or a count on success and a negative errno number on failure; none throws.
 */
import { createRequire } from 'node:module';
import { U32 } from '../base/numbers.ts';

/** fallocate(2) modes. */
export const FALLOC_FL_KEEP_SIZE = 0x01;
export const FALLOC_FL_PUNCH_HOLE = 0x02;
export const FALLOC_FL_ZERO_RANGE = 0x10;

/** flock(2) operations. */
const LOCK_SH = 1;
const LOCK_EX = 2;
const LOCK_NB = 4;

/** preadv2(2): fail with EAGAIN instead of waiting for the disk. */
const RWF_NOWAIT = 8;

/** ioctl(2) requests of block devices (linux/fs.h). */
const BLKDISCARD = 0x1277;
const BLKSSZGET = 0x1268;
const BLKGETSIZE64 = 0x8008_1272;

export interface Native {
  /**
   * Takes a lock on an open file without waiting: shared, or exclusive. -EAGAIN if another has it.
   */
  flock(fd: number, exclusive: boolean): number;
  /** Starts fallocate(2) on a thread of its own; `done` gets 0 or a negative errno number. */
  fallocate(
    fd: number,
    mode: number,
    offset: number,
    length: number,
    done: (result: number) => void,
  ): void;
  /** As fallocate, before returning: for file systems in memory. */
  fallocateSync(fd: number, mode: number, offset: number, length: number): number;
  /**
   * Reads what the page cache has; the count, or a negative errno number (EAGAIN: nothing cached).
   */
  preadNowait(fd: number, data: Uint8Array, offset: number, length: number, at: number): number;
  /** BLKDISCARD on a thread of its own. */
  blkDiscard(fd: number, offset: number, length: number, done: (result: number) => void): void;
  /** Size in bytes of an open block device, or a negative errno number. */
  blkSizeBytes(fd: number): number;
  /** Logical block size in bytes of an open block device, or a negative errno number. */
  blkLogicalBlockSize(fd: number): number;
}

type AsyncCall = (...args: unknown[]) => void;
interface Call {
  (...args: unknown[]): number;
  async: AsyncCall;
}
interface Koffi {
  load(path: string | null): { func(prototype: string): Call };
  address(view: ArrayBuffer): bigint | number;
  errno(): number;
}

function loadKoffi(): Koffi | null {
  if (process.platform !== 'linux' || process.env['DEVMAPPER_NO_FFI'] === '1') return null;
  try {
    return createRequire(import.meta.url)('koffi') as Koffi;
  } catch {
    return null; // Optional: a platform without a prebuilt koffi takes the portable ways.
  }
}

function bind(koffi: Koffi): Native {
  const libc = koffi.load(null);
  const flock = libc.func('int flock(int fd, int op)');
  const fallocate = libc.func('int fallocate64(int fd, int mode, int64_t off, int64_t len)');
  const preadv2 = libc.func('int64_t preadv64v2(int fd, void *iov, int n, int64_t off, int flags)');
  const ioctl = libc.func('int ioctl(int fd, uint64_t request, void *arg)');

  const result = (value: number): number => (value < 0 ? -koffi.errno() : value);
  // errno is the calling thread's, so it is lost with an asynchronous call: EIO stands for all of
  // them, and whether an operation is supported at all is found out by a synchronous call at open.
  const finish = (done: (value: number) => void) => (error: unknown, value: number) => {
    done(error !== null || value < 0 ? -5 : value);
  };
  const range = (offset: number, length: number): Buffer => {
    const words = Buffer.alloc(16);
    words.writeBigUInt64LE(BigInt(offset), 0);
    words.writeBigUInt64LE(BigInt(length), 8);
    return words;
  };

  // One iovec for all calls: preadNowait is synchronous. Addresses of backing stores do not move.
  const iovec = new DataView(new ArrayBuffer(16));
  const iovecBytes = new Uint8Array(iovec.buffer);
  const addresses = new WeakMap<object, number>();
  const addressOf = (store: ArrayBuffer): number => {
    let address = addresses.get(store);
    if (address === undefined) {
      address = Number(koffi.address(store));
      addresses.set(store, address);
    }
    return address;
  };

  return {
    flock: (fd, exclusive) => result(flock(fd, (exclusive ? LOCK_EX : LOCK_SH) | LOCK_NB)),
    fallocate(fd, mode, offset, length, done) {
      fallocate.async(fd, mode, offset, length, finish(done));
    },
    fallocateSync: (fd, mode, offset, length) => result(fallocate(fd, mode, offset, length)),
    preadNowait(fd, data, offset, length, at) {
      const base = addressOf(data.buffer as ArrayBuffer) + data.byteOffset + offset;
      iovec.setUint32(0, base >>> 0, true);
      iovec.setUint32(4, Math.floor(base / U32), true);
      iovec.setUint32(8, length, true);
      return result(preadv2(fd, iovecBytes, 1, at, RWF_NOWAIT));
    },
    blkDiscard(fd, offset, length, done) {
      ioctl.async(fd, BLKDISCARD, range(offset, length), finish(done));
    },
    blkSizeBytes(fd) {
      const size = Buffer.alloc(8);
      const code = result(ioctl(fd, BLKGETSIZE64, size));
      return code < 0 ? code : Number(size.readBigUInt64LE(0));
    },
    blkLogicalBlockSize(fd) {
      const size = Buffer.alloc(4);
      const code = result(ioctl(fd, BLKSSZGET, size));
      return code < 0 ? code : size.readInt32LE(0);
    },
  };
}

function load(): Native | null {
  const koffi = loadKoffi();
  if (koffi === null) return null;
  try {
    return bind(koffi);
  } catch {
    return null; // A libc without one of the calls (musl has no preadv64v2 before 1.2.5).
  }
}

/** The calls, or null where they cannot be had. */
export const native: Native | null = load();
