/**
 * Metadata files: what the metadata tools accept as input, and how they keep out of the way of a
 * running device mapper.
 *
 * A block special file is opened with O_EXCL, a regular file is locked (see open-devices.ts): both
 * fail while a device mapper has it. Reading through a metadata snapshot needs neither, because
 * what a snapshot refers to does not change.
 * Does not: look into the metadata, beyond saying that a text file is none.
 */
import fs from 'node:fs';
import path from 'node:path';
import { DmError } from '../base/error.ts';
import { errnoOf } from '../base/errno.ts';
import { FileDevice } from '../block/file-device.ts';
import { lockFile, type FileLock } from '../block/open-devices.ts';
import { BLOCK_SIZE } from './block.ts';

/** What is done with the file, which decides who must not have it open. */
export type MetadataAccess = 'read' | 'write' | 'read while in use';

export interface MetadataFile {
  readonly device: FileDevice;
  close(): Promise<void>;
}

/**
 * Opens the metadata in `filePath`. Throws DmError, whose message is for the user: ENOENT, EINVAL
 * if it cannot be metadata, EBUSY if it is in use, …
 */
export function openMetadataFile(filePath: string, access: MetadataAccess): MetadataFile {
  const special = statInput(filePath).isBlockDevice();
  let lock: FileLock | null = null;
  let fd = -1;
  try {
    if (access !== 'read while in use' && !special) lock = lockFile(filePath, access === 'write');
    const { O_RDWR, O_RDONLY, O_EXCL } = fs.constants;
    const exclusive = special && access !== 'read while in use' ? O_EXCL : 0;
    fd = fs.openSync(filePath, (access === 'write' ? O_RDWR : O_RDONLY) | exclusive);
    const device = new FileDevice(fd, filePath, path.basename(filePath), access !== 'write');
    if (device.sizeSectors * 512 < BLOCK_SIZE) {
      throw new DmError('EINVAL', 'Metadata device/file too small.  Is this binary metadata?');
    }
    return {
      device,
      close: async () => {
        await device.close();
        lock?.release();
      },
    };
  } catch (cause) {
    if (fd >= 0) fs.closeSync(fd);
    lock?.release();
    throw complaint(filePath, cause);
  }
}

function statInput(filePath: string): fs.Stats {
  let stat: fs.Stats;
  try {
    stat = fs.statSync(filePath);
  } catch (cause) {
    const name = errnoOf(cause);
    if (name !== 'ENOENT') throw complaint(filePath, cause);
    throw new DmError('ENOENT', `Couldn't find input file '${filePath}'`, { cause });
  }
  if (stat.isFile() || stat.isBlockDevice()) return stat;
  throw new DmError('EINVAL', `Not a block device or regular file '${filePath}'.`);
}

function complaint(filePath: string, cause: unknown): DmError {
  if (cause instanceof DmError && cause.errno !== 'EBUSY') return cause;
  const name = cause instanceof DmError ? cause.errno : errnoOf(cause);
  const texts: Record<string, string> = {
    EBUSY: `'${filePath}' is in use; a live pool can be read through a metadata snapshot`,
    EACCES: `Permission denied to open '${filePath}'`,
  };
  const text = texts[name] ?? `Couldn't open '${filePath}': ${(cause as Error).message}`;
  return new DmError(name, text, { cause });
}

/** How the beginning of an XML file may look. */
const XML_BEGINNINGS = ['<superblock', '?xml', '<!DOCTYPE', '<?xml'];

/** Throws EINVAL if the file holds a dump instead of metadata: an easy mistake to make. */
export function refuseXml(file: MetadataFile): void {
  const sector = new Uint8Array(512);
  if (file.device.readSync(0, 1, sector, 0) !== 0) return;
  const text = Buffer.from(sector).toString('latin1').trimStart();
  if (!XML_BEGINNINGS.some((beginning) => text.startsWith(beginning))) return;
  throw new DmError(
    'EINVAL',
    'This looks like XML.  This tool only supports the binary metadata format.',
  );
}
