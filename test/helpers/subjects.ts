/**
 * Makers of devices for the suite of block devices: in memory, on files, on loop devices.
 */
import fs from 'node:fs';
import path from 'node:path';
import { FileDevice } from '../../src/block/file-device.ts';
import { MemoryDevice } from '../../src/block/memory-device.ts';
import type { MakeSubject } from './block-device-suite.ts';
import { runSync } from './programs.ts';

const SECTOR = 512;

/** Devices in memory. */
export const memorySubject: MakeSubject = async (nrSectors, readOnly) => {
  const device = new MemoryDevice('memory', nrSectors, { readOnly });
  return {
    device,
    allocatedBytes: () => device.allocatedBytes,
    grow: (n) => device.resize(n),
    close: async () => undefined,
  };
};

function newFile(parent: string, nrSectors: number): { file: string; remove: () => void } {
  const dir = fs.mkdtempSync(path.join(parent, 'dm-block-'));
  const file = path.join(dir, 'disk');
  fs.writeFileSync(file, '');
  fs.truncateSync(file, nrSectors * SECTOR);
  return { file, remove: () => fs.rmSync(dir, { recursive: true }) };
}

const openDevice = (file: string, readOnly: boolean): FileDevice =>
  new FileDevice(fs.openSync(file, readOnly ? 'r' : 'r+'), file, path.basename(file), readOnly);

/** Devices on files in a directory of `parent`. */
export function fileSubject(parent: string): MakeSubject {
  return async (nrSectors, readOnly) => {
    const { file, remove } = newFile(parent, nrSectors);
    const device = openDevice(file, readOnly);
    return {
      device,
      allocatedBytes: () => fs.statSync(file).blocks * 512,
      grow: (n) => fs.truncateSync(file, n * SECTOR),
      close: async () => {
        await device.close();
        remove();
      },
    };
  };
}

/** A loop device on a file, and what takes it away; null where the system gives none. */
export function attachLoop(
  file: string,
  options: readonly string[] = [],
): { node: string; detach: () => void } | null {
  const { code, stdout } = runSync('losetup', ['-f', '--show', ...options, file]);
  const node = stdout.trim();
  if (code !== 0 || !fs.existsSync(node)) return null;
  return {
    node,
    detach: () => {
      runSync('losetup', ['-d', node]);
    },
  };
}

/** Why loop devices cannot be tested here, false if they can. What is missing is no program. */
export const skipWithoutLoop: string | false = (() => {
  if (process.getuid?.() !== 0) return 'needs a loop device, which only root can make';
  const { file, remove } = newFile('/tmp', 64);
  try {
    const loop = attachLoop(file);
    loop?.detach();
    return loop === null ? 'needs a loop device, and losetup makes none here' : false;
  } finally {
    remove();
  }
})();

/** Devices on loop devices on files in a directory of `parent`. */
export function loopSubject(parent: string): MakeSubject {
  return async (nrSectors, readOnly) => {
    const { file, remove } = newFile(parent, nrSectors);
    const loop = attachLoop(file);
    if (loop === null) throw new Error('losetup makes no loop device any more');
    const device = openDevice(loop.node, readOnly);
    return {
      device,
      allocatedBytes: () => fs.statSync(file).blocks * 512,
      grow: (n) => {
        fs.truncateSync(file, n * SECTOR);
        runSync('losetup', ['-c', loop.node]);
      },
      close: async () => {
        await device.close();
        loop.detach();
        remove();
      },
    };
  };
}
