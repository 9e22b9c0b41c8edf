/**
 * Attaching by nbdfuse: a file that leads to our socket, and a loop device on it. `mountFile` gives
 * the file alone, which needs no root.
 *
 *   /dev/loopN ─► DIR/nbd/NAME (nbdfuse) ─► NBD socket
 *
 * What a crash of the daemon leaves: nbdfuse without a server, all of whose requests fail; and the
 * loop device on it. `clearAway` takes both away, when a later daemon starts.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { DmError } from '../../base/error.ts';
import { mustBeUnused, syncDevice } from './block-special.ts';
import { cannotRun, runProgram, type Link, type Subject, type Way } from './way.ts';

/** Until nbdfuse shows its file. */
const MOUNT_TIMEOUT_MS = 10_000;
const POLL_MS = 10;
const FILE_NAME = 'nbd';

/** A file that leads to an NBD export. */
export interface FuseFile {
  readonly path: string;
  /** Rejects with EBUSY while somebody has it open. */
  unmount(): Promise<void>;
  /** Resolves when nbdfuse has ended, whoever ended it. */
  readonly ended: Promise<void>;
  /** Lets this process end before nbdfuse does. */
  leave(): void;
}

/**
 * Mounts a file that leads to `uri` on `mountPoint`: a directory, in which it is called `nbd`, or a
 * file that it then covers. Rejects with DmError; then nothing is mounted.
 */
export async function mountFile(
  mountPoint: string,
  uri: string,
  readOnly: boolean,
): Promise<FuseFile> {
  const isDir = fs.statSync(mountPoint).isDirectory();
  const file = isDir ? path.join(mountPoint, FILE_NAME) : mountPoint;
  const args = [...(readOnly ? ['--readonly'] : []), file, uri];
  // In a process group of its own: Ctrl-C is for the daemon, which then takes it away.
  const child = spawn('nbdfuse', args, { stdio: ['ignore', 'ignore', 'pipe'], detached: true });
  let stderr = '';
  child.stderr?.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  const failed = new Promise<never>((_resolve, reject) => {
    child.once('error', (error) => reject(cannotRun('nbdfuse', error, '')));
    child.once('exit', (code) => {
      reject(cannotRun('nbdfuse', new Error(`exit code ${code}`), stderr));
    });
  });
  failed.catch(() => undefined); // Later on, its end is what `ended` says.
  const ended = new Promise<void>((resolve) => {
    child.once('close', () => resolve());
    child.once('error', () => resolve());
  });
  try {
    await Promise.race([failed, mounted(mountPoint)]);
  } catch (error) {
    child.kill();
    await ended;
    throw error;
  }
  const leave = (): void => {
    child.stderr?.destroy();
    child.unref();
  };
  return { path: file, ended, leave, unmount: () => unmount(mountPoint, child, ended) };
}

/** Resolves when something is mounted on `mountPoint`: it is then another file system's. */
async function mounted(mountPoint: string): Promise<void> {
  const { dev } = await fs.promises.stat(path.dirname(path.resolve(mountPoint)));
  const deadline = Date.now() + MOUNT_TIMEOUT_MS;
  // Asynchronously: this process is the one that answers what nbdfuse asks.
  while ((await fs.promises.stat(mountPoint)).dev === dev) {
    if (Date.now() > deadline) {
      throw new DmError('ETIMEDOUT', `nbdfuse has not mounted within ${MOUNT_TIMEOUT_MS} ms`);
    }
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}

async function unmount(
  mountPoint: string,
  child: ChildProcess,
  ended: Promise<void>,
): Promise<void> {
  if (child.exitCode === null && child.signalCode === null) {
    try {
      await runProgram('fusermount3', ['-u', mountPoint]);
    } catch (cause) {
      const { message } = cause as Error;
      if (/busy/i.test(message)) throw new DmError('EBUSY', `${mountPoint} is in use`, { cause });
      throw cause;
    }
  }
  await ended;
}

async function attach(subject: Subject): Promise<Link> {
  const { dir, uri, readOnly, limits } = subject;
  fs.mkdirSync(dir, { recursive: true, mode: 0o700 });
  const file = await mountFile(dir, uri, readOnly);
  const unmountFile = async (): Promise<void> => {
    await file.unmount();
    fs.rmSync(dir, { recursive: true, force: true });
  };
  let device: string;
  try {
    const sectorSize = String(limits.logicalBlockSize);
    const options = ['--sector-size', sectorSize, ...(readOnly ? ['--read-only'] : [])];
    device = (await runProgram('losetup', ['--find', '--show', ...options, file.path])).trim();
  } catch (error) {
    await unmountFile();
    throw error;
  }
  return {
    path: device,
    undo: async () => {
      await mustBeUnused(device);
      await syncDevice(device);
      await runProgram('losetup', ['--detach', device]);
      await unmountFile();
    },
    leave: () => file.leave(),
  };
}

/** Takes away what a daemon that was killed has left in `dir`. Never rejects. */
export async function clearAway(dir: string): Promise<void> {
  const file = path.join(dir, FILE_NAME);
  const quietly = async (program: string, args: string[]): Promise<string> => {
    try {
      return await runProgram(program, args);
    } catch {
      return ''; // There is nothing of that kind to take away.
    }
  };
  const loops = await quietly('losetup', ['--list', '--noheadings', '--output', 'NAME,BACK-FILE']);
  for (const line of loops.split('\n')) {
    const [name = '', backing = ''] = line.trim().split(/\s+/);
    if (backing === file) await quietly('losetup', ['--detach', name]);
  }
  await quietly('fusermount3', ['-u', '-z', dir]);
  try {
    fs.rmSync(dir, { recursive: true, force: true });
  } catch {
    // Still mounted: in the way of nobody but an attachment of the same name, which says so.
  }
}

export const nbdfuseWay: Way = {
  name: 'nbdfuse',
  whyNot: () => {
    if (!fs.existsSync('/dev/fuse')) return 'there is no /dev/fuse';
    return fs.existsSync('/dev/loop-control') ? null : 'there is no /dev/loop-control';
  },
  attach,
};
