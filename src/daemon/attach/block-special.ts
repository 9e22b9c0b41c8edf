/**
 * Block special files that lead to this very process: whether somebody uses one, and what is in the
 * page cache for it. Never synchronously: even a close may write, and we are to answer.
 */
import fs from 'node:fs';
import { DmError } from '../../base/error.ts';
import { errnoOf } from '../../base/errno.ts';

/**
 * Rejects with EBUSY if `devicePath` is mounted, or otherwise claimed. Who merely has it open, as
 * dd has, is not seen.
 */
export async function mustBeUnused(devicePath: string): Promise<void> {
  try {
    const { O_RDONLY, O_EXCL } = fs.constants;
    const handle = await fs.promises.open(devicePath, O_RDONLY | O_EXCL);
    await handle.close();
  } catch (cause) {
    if (errnoOf(cause) !== 'EBUSY') return; // Gone, or ours no more: nobody uses it.
    throw new DmError('EBUSY', `${devicePath} is in use`, { cause });
  }
}

/** Makes what was written to `devicePath` leave the page cache. Rejects with DmError. */
export async function syncDevice(devicePath: string): Promise<void> {
  try {
    const handle = await fs.promises.open(devicePath, 'r+');
    try {
      await handle.sync();
    } finally {
      await handle.close();
    }
  } catch (cause) {
    const errno = errnoOf(cause);
    // What is read-only has nothing to write.
    if (errno === 'EROFS' || errno === 'EACCES') return;
    throw new DmError(errno, `${devicePath} cannot be synced: ${(cause as Error).message}`);
  }
}
