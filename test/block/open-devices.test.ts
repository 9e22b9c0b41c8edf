/**
 * Files and block devices in use: each once, under its number, and locked against other processes,
 * whatever the path it is called by.
 */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { test, type TestContext } from 'node:test';
import type { DmError } from '../../src/base/error.ts';
import { FILE_MAJOR, OpenDevices, type OpenDevice } from '../../src/block/open-devices.ts';
import { OtherProcess } from '../helpers/other-process.ts';
import { must, runSync, skipWithout } from '../helpers/programs.ts';
import { fill, read, runs } from '../helpers/stack.ts';
import { attachLoop, skipWithoutLoop } from '../helpers/subjects.ts';

const skipUnlessRoot = process.getuid?.() !== 0 && 'needs root';

function scratch(t: TestContext): string {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'dm-open-'));
  fs.chmodSync(dir, 0o755);
  t.after(() => fs.rmSync(dir, { recursive: true }));
  return dir;
}

function newFile(dir: string, name = 'disk'): string {
  const file = path.join(dir, name);
  fs.writeFileSync(file, Buffer.alloc(65536));
  return file;
}

function otherProcess(
  t: TestContext,
  options: ConstructorParameters<typeof OtherProcess>[0] = {},
): OtherProcess {
  const other = new OtherProcess(options);
  t.after(() => other.end());
  return other;
}

/** The errno name with which opening fails, or `ok`; what is opened is closed again. */
async function opening(devices: OpenDevices, file: string, mode: 'ro' | 'rw'): Promise<string> {
  try {
    await devices.openPath(file, mode === 'ro').release();
    return 'ok';
  } catch (error) {
    return (error as DmError).errno;
  }
}

const nrOpenFiles = (): number => fs.readdirSync('/proc/self/fd').length;

// --- locks

test('a file that another process writes cannot be opened', async (t) => {
  const file = newFile(scratch(t));
  const other = otherProcess(t);
  const devices = new OpenDevices();
  assert.equal(await other.open(file, 'rw'), 'ok');
  const before = nrOpenFiles();
  assert.equal(await opening(devices, file, 'rw'), 'EBUSY');
  assert.equal(await opening(devices, file, 'ro'), 'EBUSY');
  assert.equal(nrOpenFiles(), before, 'nothing is left open');
  assert.throws(() => devices.openPath(file, false), {
    errno: 'EBUSY',
    message: `${file} is in use by another process`,
  });
  await other.closeAll();
  assert.equal(await opening(devices, file, 'rw'), 'ok');
});

test('a file that other processes only read can be read, not written', async (t) => {
  const file = newFile(scratch(t));
  const [first, second] = [otherProcess(t), otherProcess(t)];
  const devices = new OpenDevices();
  assert.equal(await first.open(file, 'ro'), 'ok');
  assert.equal(await second.open(file, 'ro'), 'ok');
  assert.equal(await opening(devices, file, 'ro'), 'ok');
  assert.equal(await opening(devices, file, 'rw'), 'EBUSY');
  await first.closeAll();
  assert.equal(await opening(devices, file, 'rw'), 'EBUSY');
  await second.closeAll();
  assert.equal(await opening(devices, file, 'rw'), 'ok');
});

test('a lock holds for every name of a file: links, symbolic links, relative paths', async (t) => {
  const dir = scratch(t);
  const file = newFile(dir);
  const hard = path.join(dir, 'hard');
  const symbolic = path.join(dir, 'symbolic');
  fs.linkSync(file, hard);
  fs.symlinkSync('disk', symbolic);
  const names = [file, hard, symbolic, path.relative(process.cwd(), file), `${dir}/./x/../disk`];
  fs.mkdirSync(path.join(dir, 'x'));
  const other = otherProcess(t);
  const devices = new OpenDevices();
  for (const theirs of [hard, symbolic]) {
    assert.equal(await other.open(theirs, 'rw'), 'ok');
    for (const name of names) assert.equal(await opening(devices, name, 'rw'), 'EBUSY', name);
    await other.closeAll();
  }
  for (const name of names) {
    const open = devices.openPath(name, false);
    assert.equal(await other.open(file, 'rw'), 'EBUSY', name);
    await open.release();
  }
});

test('a lock vanishes with its process, however that ends', async (t) => {
  const file = newFile(scratch(t));
  const devices = new OpenDevices();
  for (const signal of [undefined, 'SIGKILL'] as const) {
    const other = otherProcess(t);
    assert.equal(await other.open(file, 'rw'), 'ok');
    assert.equal(await opening(devices, file, 'rw'), 'EBUSY');
    await other.end(signal);
    assert.equal(await opening(devices, file, 'rw'), 'ok', signal);
  }
});

/*
 * flock(2) gives up a shared lock before it asks for an exclusive one. After a failed attempt to
 * open a file for writing that it read, a process had no lock at all: another could then write,
 * below a pool that had the file as its external origin.
 */
test('who fails to open for writing what he reads keeps it locked for reading', async (t) => {
  const file = newFile(scratch(t));
  const [reader, writer] = [otherProcess(t), otherProcess(t)];
  const devices = new OpenDevices();
  const open = devices.openPath(file, true);
  assert.equal(await reader.open(file, 'ro'), 'ok');
  assert.equal(await opening(devices, file, 'rw'), 'EBUSY');
  await reader.closeAll();
  assert.equal(await writer.open(file, 'rw'), 'EBUSY');
  assert.equal(await opening(devices, file, 'rw'), 'ok', 'it becomes exclusive when it can');
  await open.release();
  assert.equal(await writer.open(file, 'rw'), 'ok');
});

test('a file stays locked until its last user has released it, and each releases once', async (t) => {
  const file = newFile(scratch(t));
  const other = otherProcess(t);
  const devices = new OpenDevices();
  const open = [file, file].map((name) => devices.openPath(name, false));
  open.push(devices.openPath(file, true));
  for (const one of open) {
    assert.equal(await other.open(file, 'rw'), 'EBUSY');
    await one.release();
    await one.release();
  }
  assert.equal(await other.open(file, 'rw'), 'ok');
});

test('a file that is opened again while it is being closed stays open and locked', async (t) => {
  const file = newFile(scratch(t));
  const other = otherProcess(t);
  const devices = new OpenDevices();
  const first = devices.openPath(file, false);
  const released = first.release();
  const second = devices.openPath(file, false);
  await released;
  await fill(second.device, 0, 4096, 0x11);
  assert.equal(await other.open(file, 'rw'), 'EBUSY');
  await second.release();
  assert.equal(await other.open(file, 'rw'), 'ok');
});

test('without koffi the locks are the same', { skip: skipWithout('flock') }, async (t) => {
  const dir = scratch(t);
  const file = newFile(dir);
  const portable = otherProcess(t, { env: { DEVMAPPER_NO_FFI: '1' } });
  const devices = new OpenDevices();
  assert.equal(await portable.open(file, 'rw'), 'ok');
  assert.equal(await opening(devices, file, 'ro'), 'EBUSY');
  await portable.closeAll();
  const shared = devices.openPath(file, true);
  assert.equal(await portable.open(file, 'ro'), 'ok');
  assert.equal(await portable.open(file, 'rw'), 'EBUSY');
  await portable.closeAll();
  await shared.release();
  const exclusive = devices.openPath(file, false);
  assert.equal(await portable.open(file, 'ro'), 'EBUSY');
  await exclusive.release();
  assert.equal(await portable.open(file, 'rw'), 'ok');
});

test('without koffi and without the program flock nothing is opened unlocked', async (t) => {
  const file = newFile(scratch(t));
  const env = { DEVMAPPER_NO_FFI: '1', PATH: '/nonexistent' };
  const helpless = otherProcess(t, { env });
  assert.equal(await helpless.open(file, 'rw'), 'EOPNOTSUPP');
});

test(
  'a block device has one user, by any node that leads to it',
  {
    skip: skipWithoutLoop,
  },
  async (t) => {
    const dir = scratch(t);
    const loop = attachLoop(newFile(dir));
    assert.ok(loop !== null);
    try {
      const devices = new OpenDevices();
      const open = devices.openPath(loop.node, false);
      const [major = '', minor = ''] = fs
        .readFileSync(`/sys/class/block/${path.basename(loop.node)}/dev`, 'utf8')
        .trim()
        .split(':');
      assert.deepEqual(open.number, { major: Number(major), minor: Number(minor) });
      const node = path.join(dir, 'node');
      await must('mknod', [node, 'b', major, minor]);
      const other = otherProcess(t);
      for (const name of [loop.node, node]) {
        assert.equal(await other.open(name, 'rw'), 'EBUSY', name);
        assert.equal(await other.open(name, 'ro'), 'EBUSY', name);
      }
      const again = devices.openPath(node, false);
      assert.equal(again.device, open.device, 'it is the same device here');
      await again.release();
      await open.release();
      assert.equal(await other.open(node, 'rw'), 'ok');
      assert.equal(await opening(devices, loop.node, 'rw'), 'EBUSY');
      await other.end('SIGKILL');
      assert.equal(await opening(devices, loop.node, 'rw'), 'ok');
    } finally {
      loop.detach();
    }
  },
);

test('a mounted block device is refused', { skip: skipWithoutLoop }, async (t) => {
  const dir = scratch(t);
  const file = path.join(dir, 'fs');
  fs.writeFileSync(file, '');
  fs.truncateSync(file, 8 * 1024 * 1024);
  await must('mke2fs', ['-q', file]);
  const loop = attachLoop(file);
  assert.ok(loop !== null);
  const mountPoint = path.join(dir, 'mnt');
  fs.mkdirSync(mountPoint);
  try {
    if (runSync('mount', ['-t', 'ext2', loop.node, mountPoint]).code !== 0) {
      t.skip('mount does not work here');
      return;
    }
    try {
      assert.equal(await opening(new OpenDevices(), loop.node, 'rw'), 'EBUSY');
    } finally {
      runSync('umount', ['-l', mountPoint]);
    }
    assert.equal(await opening(new OpenDevices(), loop.node, 'rw'), 'ok');
  } finally {
    loop.detach();
  }
});

// --- what is no device

test('what is neither a file nor a block device is no device', async (t) => {
  const dir = scratch(t);
  const fifo = path.join(dir, 'fifo');
  await must('mkfifo', [fifo]);
  const socket = path.join(dir, 'socket');
  const server = net.createServer().listen(socket);
  await new Promise((resolve) => server.once('listening', resolve));
  t.after(() => server.close());
  fs.symlinkSync('nowhere', path.join(dir, 'dangling'));
  fs.symlinkSync('loop', path.join(dir, 'loop'));
  const names = ['.', 'fifo', 'socket', 'dangling', 'loop', 'missing', 'fifo/x', 'no/such/dir'];
  const paths = [...names.map((name) => path.join(dir, name)), '/dev/null', '/dev/tty', '/'];
  const devices = new OpenDevices();
  const before = nrOpenFiles();
  for (const name of paths) {
    for (const mode of ['ro', 'rw'] as const) {
      assert.equal(await opening(devices, name, mode), 'ENODEV', name);
    }
  }
  assert.equal(nrOpenFiles(), before, 'nothing is left open');
});

test('what may not be opened is refused with the reason', { skip: skipUnlessRoot }, async (t) => {
  const dir = scratch(t);
  const nobody = otherProcess(t, { uid: 65534 });
  const secret = newFile(dir, 'secret');
  fs.chmodSync(secret, 0o600);
  const readable = newFile(dir, 'readable');
  fs.chmodSync(readable, 0o644);
  const closedDir = path.join(dir, 'closed');
  fs.mkdirSync(closedDir, { mode: 0o700 });
  const inside = newFile(closedDir);
  assert.equal(await nobody.open(secret, 'ro'), 'EACCES');
  assert.equal(await nobody.open(inside, 'ro'), 'EACCES');
  assert.equal(await nobody.open(readable, 'rw'), 'EACCES');
  assert.equal(await opening(new OpenDevices(), readable, 'rw'), 'ok', 'no lock is left');
  assert.equal(await nobody.open(readable, 'ro'), 'ok');
});

test(
  'on a read-only file system a file can be read only',
  {
    skip: skipUnlessRoot,
  },
  async (t) => {
    const dir = scratch(t);
    const [mountPoint, real] = [path.join(dir, 'mnt'), path.join(dir, 'real')];
    for (const one of [mountPoint, real]) fs.mkdirSync(one);
    newFile(real);
    const mount = (...args: string[]): boolean =>
      runSync('mount', [...args, mountPoint]).code === 0;
    const isMounted = mount('--bind', real);
    try {
      if (!isMounted || !mount('-o', 'remount,bind,ro')) {
        t.skip('mount does not work here');
        return;
      }
      const devices = new OpenDevices();
      const before = nrOpenFiles();
      const file = path.join(mountPoint, 'disk');
      assert.equal(await opening(devices, file, 'rw'), 'EROFS');
      assert.equal(await opening(devices, file, 'ro'), 'ok');
      assert.equal(nrOpenFiles(), before, 'nothing is left open');
    } finally {
      if (isMounted) runSync('umount', ['-l', mountPoint]);
    }
  },
);

test('a device that fails to be looked at is neither open nor locked', async (t) => {
  const file = newFile(scratch(t));
  const devices = new OpenDevices();
  const before = nrOpenFiles();
  const broken = t.mock.method(fs, 'statfsSync', () => {
    throw Object.assign(new Error('no such call'), { code: 'ENOMEM' });
  });
  assert.equal(await opening(devices, file, 'rw'), 'ENOMEM');
  assert.equal(nrOpenFiles(), before);
  broken.mock.restore();
  assert.equal(await opening(devices, file, 'rw'), 'ok');
});

// --- identities and numbers

test('one file is one device in this process, whatever its name; reading it is another', async (t) => {
  const dir = scratch(t);
  const file = newFile(dir);
  fs.linkSync(file, path.join(dir, 'hard'));
  fs.symlinkSync(file, path.join(dir, 'symbolic'));
  const devices = new OpenDevices();
  const open = ['disk', 'hard', 'symbolic'].map((name) =>
    devices.openPath(path.join(dir, name), false),
  );
  const reader = devices.openPath(file, true);
  const stranger = devices.openPath(newFile(dir, 'other'), false);
  const [first] = open as [OpenDevice];
  for (const one of open) assert.equal(one.device, first.device);
  assert.equal(reader.identity, first.identity);
  assert.notEqual(reader.device, first.device);
  assert.ok(reader.device.readOnly);
  assert.notEqual(stranger.identity, first.identity);
  await fill(first.device, 0, 4096, 0x11);
  assert.equal(runs(await read(reader.device, 0, 8192)), '4096x11 4096x00');
  for (const one of [...open, reader, stranger]) await one.release();
});

test('a file keeps its number while the process lives', async (t) => {
  const dir = scratch(t);
  const [a, b] = [newFile(dir, 'a'), newFile(dir, 'b')];
  const devices = new OpenDevices();
  const numberOf = async (file: string): Promise<string> => {
    const open = devices.openPath(file, false);
    await open.release();
    return `${open.number.major}:${open.number.minor}`;
  };
  assert.equal(await numberOf(a), `${FILE_MAJOR}:0`);
  assert.equal(await numberOf(b), `${FILE_MAJOR}:1`);
  assert.equal(await numberOf(a), `${FILE_MAJOR}:0`);
  const open = devices.openNumber(FILE_MAJOR, 0, false);
  assert.ok(open !== null);
  await fill(open.device, 0, 4096, 0x11);
  await open.release();
  assert.equal(fs.readFileSync(a)[0], 0x11);
  fs.renameSync(a, path.join(dir, 'c'));
  assert.equal(await numberOf(path.join(dir, 'c')), `${FILE_MAJOR}:0`, 'renamed or not');
  assert.equal(devices.pathOf(FILE_MAJOR, 0), path.join(dir, 'c'));
  assert.equal(devices.openNumber(FILE_MAJOR, 7, false), null);
});

/*
 * A number led to whatever was at the path that it had been given for. After a file was replaced,
 * as editors and `cp` do, a table that named its number got the new file under the old one's lock;
 * after it was removed, the daemon answered with an internal error.
 */
test('the number of a file that was removed or replaced names no device', async (t) => {
  const dir = scratch(t);
  const file = newFile(dir);
  const devices = new OpenDevices();
  const open = devices.openPath(file, false);
  const { major, minor } = open.number;
  fs.renameSync(newFile(dir, 'new'), file);
  const same = devices.openNumber(major, minor, false);
  assert.equal(same?.device, open.device, 'open, it is what it was');
  await same?.release();
  await open.release();
  assert.equal(devices.openNumber(major, minor, false), null);
  fs.rmSync(file);
  assert.equal(devices.openNumber(major, minor, false), null);
});

/*
 * Inode numbers have 64 bits. Read as doubles, two that differ in their last bits only are one: two
 * files of such a file system would have been one device, each overwritten with the other's data.
 */
test('files are told apart by all bits of their inode numbers', async (t) => {
  const dir = scratch(t);
  const devices = new OpenDevices();
  const [a, b] = [newFile(dir, 'a'), newFile(dir, 'b')];
  const real = fs.statSync;
  t.mock.method(fs, 'statSync', (name: string, options?: { bigint: boolean }) => {
    const ino = 2n ** 60n + (name === a ? 1n : 2n);
    return options?.bigint === true
      ? Object.assign(real(name, { bigint: true }), { ino })
      : Object.assign(real(name), { ino: Number(ino) });
  });
  const open = [a, b].map((file) => devices.openPath(file, false));
  assert.notEqual(open[0]?.device, open[1]?.device);
  for (const one of open) await one.release();
});
