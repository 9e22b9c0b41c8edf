/**
 * A way to give a mapped device a real block device: what each way offers, and running the programs
 * that the ways are made of.
 */
import { execFile } from 'node:child_process';
import { DmError } from '../../base/error.ts';
import type { Limits } from '../../block/device.ts';

/** What is to be attached. */
export interface Subject {
  /** As the NBD server exports it. */
  readonly exportName: string;
  readonly uri: string;
  readonly nbdSocket: string;
  readonly readOnly: boolean;
  readonly limits: Limits;
  /** A directory of its own for what the way needs, made by it and removed with it. */
  readonly dir: string;
}

/** A block device that leads to a mapped device. */
export interface Link {
  /** The path of the block device. */
  readonly path: string;
  /** Takes it away. Rejects with EBUSY, and nothing changes, while it is in use. */
  undo(): Promise<void>;
  /** The daemon ends, and it cannot be undone: whoever uses it meets errors from now on. */
  leave(): void;
}

export interface Way {
  readonly name: WayName;
  /** Why this machine does not have the way; null if it does. */
  whyNot(): string | null;
  /** Rejects with DmError. */
  attach(subject: Subject): Promise<Link>;
}

export const wayNames = ['nbd', 'nbdfuse'] as const;
export type WayName = (typeof wayNames)[number];

/** Packages of the programs that ways need, in Debian. */
const packages: Record<string, string> = {
  'nbd-client': 'nbd-client',
  nbdfuse: 'libnbd-bin',
  fusermount3: 'fuse3',
  losetup: 'mount',
};

/** The failure to run a program: with its package, if it is missing. */
export function cannotRun(program: string, error: NodeJS.ErrnoException, stderr: string): DmError {
  if (error.code === 'ENOENT') {
    const from = `it is in Debian's package ${packages[program] ?? program}`;
    return new DmError('EOPNOTSUPP', `${program} is not installed; ${from}`);
  }
  const said = stderr.trim().split('\n').at(-1) ?? '';
  return new DmError('EIO', `${program} failed: ${said === '' ? error.message : said}`);
}

/** Runs a program; resolves to its output. Rejects with DmError if it cannot be run or fails. */
export function runProgram(program: string, args: readonly string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    execFile(program, args, (error, stdout, stderr) => {
      if (error === null) resolve(stdout);
      else reject(cannotRun(program, error as NodeJS.ErrnoException, stderr));
    });
  });
}
