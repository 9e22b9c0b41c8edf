/**
 * Errno names, their Linux numbers and glibc's texts: the words in which every floor reports
 * failure.
 *
 * A bio ends with the number (0 is success); an exception carries the name (see error.ts); dmsetup
 * prints the text. Numbers are Linux's on every platform, because they travel over NBD and into
 * logs.
 */

export const errno = {
  EPERM: 1,
  ENOENT: 2,
  EINTR: 4,
  EIO: 5,
  ENXIO: 6,
  EBADF: 9,
  EAGAIN: 11,
  ENOMEM: 12,
  EACCES: 13,
  ENOTBLK: 15,
  EBUSY: 16,
  EEXIST: 17,
  ENODEV: 19,
  ENOTDIR: 20,
  EISDIR: 21,
  EINVAL: 22,
  EFBIG: 27,
  ENOSPC: 28,
  EROFS: 30,
  ERANGE: 34,
  ENAMETOOLONG: 36,
  ENODATA: 61,
  EOVERFLOW: 75,
  EILSEQ: 84,
  EOPNOTSUPP: 95,
  ETIMEDOUT: 110,
  ESHUTDOWN: 108,
} as const;

export type ErrnoName = keyof typeof errno;

const texts: Record<ErrnoName, string> = {
  EPERM: 'Operation not permitted',
  ENOENT: 'No such file or directory',
  EINTR: 'Interrupted system call',
  EIO: 'Input/output error',
  ENXIO: 'No such device or address',
  EBADF: 'Bad file descriptor',
  EAGAIN: 'Resource temporarily unavailable',
  ENOMEM: 'Cannot allocate memory',
  EACCES: 'Permission denied',
  ENOTBLK: 'Block device required',
  EBUSY: 'Device or resource busy',
  EEXIST: 'File exists',
  ENODEV: 'No such device',
  ENOTDIR: 'Not a directory',
  EISDIR: 'Is a directory',
  EINVAL: 'Invalid argument',
  EFBIG: 'File too large',
  ENOSPC: 'No space left on device',
  EROFS: 'Read-only file system',
  ERANGE: 'Numerical result out of range',
  ENAMETOOLONG: 'File name too long',
  ENODATA: 'No data available',
  EOVERFLOW: 'Value too large for defined data type',
  EILSEQ: 'Invalid or incomplete multibyte or wide character',
  EOPNOTSUPP: 'Operation not supported',
  ETIMEDOUT: 'Connection timed out',
  ESHUTDOWN: 'Cannot send after transport endpoint shutdown',
};

const nameOfNumber = new Map<number, ErrnoName>(
  Object.entries(errno).map(([name, number]) => [number, name as ErrnoName]),
);

/** glibc's strerror(3) text for `name`. */
export function strerror(name: ErrnoName): string {
  return texts[name];
}

/** The name of a Linux errno number; EIO for a number that this project never uses. */
export function errnoName(number: number): ErrnoName {
  return nameOfNumber.get(Math.abs(number)) ?? 'EIO';
}

/** Narrows a system error's `code` ('ENOSPC', …) to a name known here; EIO for any other. */
export function errnoOf(cause: unknown): ErrnoName {
  const code = (cause as { code?: unknown } | null)?.code;
  if (code === 'ENOTSUP') return 'EOPNOTSUPP';
  return typeof code === 'string' && code in errno ? (code as ErrnoName) : 'EIO';
}
