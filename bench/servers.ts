/**
 * The NBD servers that benchmarks compare: ours, and the peers that users would run instead. Each
 * serves one volume over a unix socket, from files in a directory given to it (tmpfs), in one of
 * three states.
 */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import fs from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

/** Our command. */
export const program = fileURLToPath(new URL('../../bin/devmapper.js', import.meta.url));

/** What has happened to a volume before it is measured. */
export type VolumeState = 'provisioned' | 'unprovisioned' | 'snapshotted';

export interface RunningServer {
  readonly uri: string;
  stop(): Promise<void>;
}

export interface Server {
  readonly name: string;
  /** States that the server has a notion of. */
  readonly states: readonly VolumeState[];
  /** Serves a fresh volume of `mib` MiB in `state`. */
  start(dir: string, mib: number, state: VolumeState): Promise<RunningServer>;
}

/** Runs a program that must succeed; its output. */
export function must(command: string, args: readonly string[], env?: NodeJS.ProcessEnv): string {
  const options = { encoding: 'utf8', env: { ...process.env, ...env } } as const;
  const { status, stdout, stderr } = spawnSync(command, args, options);
  if (status === 0) return stdout.trim();
  throw new Error(`${command} ${args.join(' ')} exited with ${status}: ${stderr}`);
}

/** Resolves when something listens on `socket`. */
export async function answers(socket: string): Promise<void> {
  for (let tries = 0; tries < 500; tries++) {
    const ok = await new Promise<boolean>((resolve) => {
      const probe = net.connect(socket, () => {
        probe.destroy();
        resolve(true);
      });
      probe.once('error', () => resolve(false));
    });
    if (ok) return;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  throw new Error(`nothing answers on ${socket}`);
}

/** Resolves when `child` has ended. */
export async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  await new Promise((resolve) => child.once('exit', resolve));
}

/** Fills a volume through its server, so that every block has its place. */
export function fill(uri: string, mib: number): void {
  const fio = ['--name=fill', '--ioengine=nbd', `--uri=${uri}`, '--rw=write', '--bs=256k'];
  must('fio', [...fio, '--iodepth=8', `--size=${mib}m`, '--output-format=terse']);
}

/** Makes a sparse file. */
export function sparse(file: string, mib: number): void {
  fs.writeFileSync(file, '');
  fs.truncateSync(file, mib * 1024 * 1024);
}

/** Ours: a thin volume with 64 KiB blocks, zeroing on. */
export const devmapper: Server = {
  name: 'devmapper thin',
  states: ['provisioned', 'unprovisioned', 'snapshotted'],
  async start(dir, mib, state) {
    const env = { DEVMAPPER_DIR: path.join(dir, 'state') };
    const run = (...args: string[]): string => must(process.execPath, [program, ...args], env);
    sparse(path.join(dir, 'meta'), 64);
    sparse(path.join(dir, 'data'), mib * 2 + 64);
    const sectors = mib * 2048;
    const devices = `${path.join(dir, 'meta')} ${path.join(dir, 'data')}`;
    run('create', 'pool', '--table', `0 ${sectors * 2 + 131072} thin-pool ${devices} 128 0`);
    run('message', 'pool', '0', 'create_thin 0');
    run('create', 'vol', '--table', `0 ${sectors} thin /dev/mapper/pool 0`);
    const uri = run('uri', 'vol');
    if (state !== 'unprovisioned') fill(uri, mib);
    if (state === 'snapshotted') {
      run('suspend', 'vol');
      run('message', 'pool', '0', 'create_snap 1 0');
      run('resume', 'vol');
    }
    return { uri, stop: async () => void run('stop') };
  },
};

function peer(
  name: string,
  states: readonly VolumeState[],
  prepare: (dir: string, mib: number) => void,
  command: (dir: string, socket: string) => [string, string[]],
  snapshot?: (dir: string) => void,
): Server {
  return {
    name,
    states,
    async start(dir, mib, state) {
      prepare(dir, mib);
      const serve = async (): Promise<RunningServer> => {
        const socket = path.join(dir, 'peer.sock');
        fs.rmSync(socket, { force: true });
        const [program_, args] = command(dir, socket);
        const child = spawn(program_, args, { stdio: 'ignore' });
        await answers(socket);
        return {
          uri: `nbd+unix:///?socket=${socket}`,
          stop: async () => {
            child.kill();
            await ended(child);
          },
        };
      };
      let server = await serve();
      if (state !== 'unprovisioned') fill(server.uri, mib);
      if (state === 'snapshotted') {
        await server.stop();
        snapshot?.(dir);
        server = await serve();
      }
      return server;
    },
  };
}

const RAW: readonly VolumeState[] = ['provisioned', 'unprovisioned'];

/** The limit: a server that maps nothing. */
export const nbdkitFile = peer(
  'nbdkit file',
  RAW,
  (dir, mib) => sparse(path.join(dir, 'raw'), mib),
  (dir, socket) => ['nbdkit', ['-f', '-U', socket, 'file', path.join(dir, 'raw')]],
);

export const qemuRaw = peer(
  'qemu-nbd raw',
  RAW,
  (dir, mib) => sparse(path.join(dir, 'raw'), mib),
  (dir, socket) => ['qemu-nbd', [...QEMU, '-k', socket, '-f', 'raw', path.join(dir, 'raw')]],
);

const QEMU = ['-t', '--shared=8', '--cache=writeback', '--discard=unmap'];
const QCOW = ['create', '-q', '-f', 'qcow2', '-o', 'cluster_size=64k'];

/** What people use for thin volumes and snapshots in user space today. */
export const qemuQcow2 = peer(
  'qemu-nbd qcow2',
  ['provisioned', 'unprovisioned', 'snapshotted'],
  (dir, mib) => void must('qemu-img', [...QCOW, path.join(dir, 'top.qcow2'), `${mib}M`]),
  (dir, socket) => [
    'qemu-nbd',
    [...QEMU, '-k', socket, '-f', 'qcow2', path.join(dir, 'top.qcow2')],
  ],
  (dir) => {
    const [top, base] = [path.join(dir, 'top.qcow2'), path.join(dir, 'base.qcow2')];
    fs.renameSync(top, base);
    must('qemu-img', [...QCOW, '-b', base, '-F', 'qcow2', top]);
  },
);

export const servers: readonly Server[] = [devmapper, nbdkitFile, qemuRaw, qemuQcow2];
