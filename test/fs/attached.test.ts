/**
 * File systems on attached devices: by nbdfuse and a loop device, mounted by the kernel that the
 * tests run on. Snapshots are taken while they are mounted; the daemon is killed under them.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { assertClean } from '../helpers/check.ts';
import { DaemonProcess, devmapper } from '../helpers/daemon.ts';
import { must, scratchDir, skipWithout } from '../helpers/programs.ts';

const MIB = 1024 * 1024;
const SECTORS = (256 * MIB) / 512;

function whyNot(): string | false {
  if (process.getuid?.() !== 0) return 'needs root';
  const missing = ['/dev/fuse', '/dev/loop-control'].find((file) => !fs.existsSync(file));
  if (missing !== undefined) return `needs ${missing}`;
  const isKnown = /^\text4$/m.test(fs.readFileSync('/proc/filesystems', 'utf8'));
  return isKnown ? false : 'needs a kernel with ext4';
}

const skip = skipWithout('nbdfuse', 'fusermount3', 'losetup', 'mke2fs', 'e2fsck') || whyNot();

/** A machine's mount points, of which none outlives the test. */
class Mounts {
  readonly dir: string;
  readonly #points: string[] = [];

  constructor(dir: string) {
    this.dir = dir;
  }

  async mount(device: string, name: string): Promise<string> {
    const point = path.join(this.dir, name);
    fs.mkdirSync(point, { recursive: true });
    await must('mount', [device, point]);
    this.#points.push(point);
    return point;
  }

  async umount(point: string): Promise<void> {
    await must('umount', [point]);
    this.#points.splice(this.#points.indexOf(point), 1);
  }

  /** Whatever is still mounted. */
  clear(): void {
    for (const point of this.#points.reverse()) spawnSync('umount', ['-l', point]);
  }
}

interface Setting {
  readonly dir: string;
  readonly mounts: Mounts;
  readonly open: (...args: string[]) => Promise<DaemonProcess>;
  readonly run: (...args: string[]) => Promise<string>;
}

async function inSetting(body: (setting: Setting) => Promise<void>): Promise<void> {
  const { dir, remove } = scratchDir();
  const mounts = new Mounts(path.join(dir, 'mnt'));
  let daemon: DaemonProcess | null = null;
  const run = async (...args: string[]): Promise<string> => {
    const { code, stdout, stderr } = await devmapper([...args, '--state-dir', dir]);
    assert.equal(code, 0, `${args.join(' ')}: ${stderr}`);
    return stdout.trim();
  };
  const open = async (...args: string[]): Promise<DaemonProcess> =>
    (daemon = await DaemonProcess.start({ dir, args }));
  try {
    await body({ dir, mounts, open, run });
  } finally {
    mounts.clear();
    await (daemon as DaemonProcess | null)?.stop();
    remove();
  }
}

async function makeVolume(daemon: DaemonProcess): Promise<void> {
  const [meta, data] = [daemon.disk('meta', 4 * MIB), daemon.disk('data', 512 * MIB)];
  const pool = `0 ${(512 * MIB) / 512} thin-pool ${meta} ${data} 128 0`;
  await daemon.dmsetup('create', 'pool', '--table', pool);
  await daemon.dmsetup('message', 'pool', '0', 'create_thin 0');
  await daemon.dmsetup('create', 'v', '--table', `0 ${SECTORS} thin /dev/mapper/pool 0`);
}

/** Data blocks that the pool has in use. */
async function used(daemon: DaemonProcess): Promise<number> {
  const status = await daemon.dmsetup('status', 'pool');
  return Number(/ (\d+)\/\d+ - /.exec(status)?.[1]);
}

test('a device is attached once, and detached unless it is in use', { skip }, async () => {
  await inSetting(async ({ mounts, open, run }) => {
    const daemon = await open();
    await makeVolume(daemon);
    const device = await run('attach', 'v', '--via', 'nbdfuse');
    assert.match(device, /^\/dev\/loop\d+$/);
    assert.equal(await run('attach', 'v'), device);
    assert.equal((await must('blockdev', ['--getsz', device])).trim(), String(SECTORS));
    await must('mke2fs', ['-q', '-t', 'ext4', device]);
    const point = await mounts.mount(device, 'v');
    const refused = await devmapper(['detach', 'v', '--state-dir', daemon.dir]);
    assert.equal(refused.code, 1);
    assert.match(refused.stderr, /loop\d+ is in use/);
    fs.writeFileSync(path.join(point, 'file'), 'still there');
    await mounts.umount(point);
    await run('detach', 'v');
    await run('detach', 'v');
    assert.equal(await run('attachments'), '');
    const again = await run('attach', 'v');
    const other = await mounts.mount(again, 'v');
    assert.equal(fs.readFileSync(path.join(other, 'file'), 'utf8'), 'still there');
    await mounts.umount(other);
    assert.equal(await daemon.stop(), 0);
    const loops = await must('losetup', ['--list', '--noheadings', '--output', 'BACK-FILE']);
    assert.ok(!loops.includes(daemon.dir), 'it went with the daemon');
  });
});

// It used to wait for nbdfuse, which waited for whoever had the device mounted.
test(
  'a daemon that is stopped under a mounted device ends, and says what is lost',
  { skip },
  async () => {
    await inSetting(async ({ mounts, open, run }) => {
      const daemon = await open();
      await makeVolume(daemon);
      const device = await run('attach', 'v');
      await must('mke2fs', ['-q', '-t', 'ext4', device]);
      await mounts.mount(device, 'v');
      assert.equal(await daemon.stop(), 0);
      assert.match(daemon.log, /cannot detach v: \/dev\/loop\d+ is in use; what its users/);
      mounts.clear();
      const next = await open('--restore');
      assert.match(await run('attach', 'v'), /^\/dev\/loop\d+$/);
      await run('detach', 'v');
      assert.equal(await next.stop(), 0);
    });
  },
);

test('a read-only device is attached read-only', { skip }, async () => {
  await inSetting(async ({ open, run }) => {
    const daemon = await open();
    await daemon.dmsetup('create', 'r', '-r', '--table', '0 8192 zero');
    const device = await run('attach', 'r');
    assert.equal((await must('blockdev', ['--getro', device])).trim(), '1');
    await run('detach', 'r');
  });
});

test('ext4: a snapshot while it is mounted, fstrim, and a killed daemon', { skip }, async () => {
  await inSetting(async ({ dir, mounts, open, run }) => {
    const first = await open();
    await makeVolume(first);
    const device = await run('attach', 'v');
    await must('mke2fs', ['-q', '-t', 'ext4', device]);
    const point = await mounts.mount(device, 'v');
    const big = path.join(point, 'big');
    fs.writeFileSync(big, Buffer.alloc(32 * MIB, 0x55));
    fs.writeFileSync(path.join(point, 'kept'), 'before the snapshot');
    await must('sync', ['-f', point]);
    await must('fsfreeze', ['--freeze', point]);
    await first.dmsetup('suspend', 'v');
    await first.dmsetup('message', 'pool', '0', 'create_snap 1 0');
    await first.dmsetup('resume', 'v');
    await must('fsfreeze', ['--unfreeze', point]);
    fs.writeFileSync(path.join(point, 'kept'), 'after the snapshot');
    await first.dmsetup('create', 's', '--table', `0 ${SECTORS} thin /dev/mapper/pool 1`);
    const snapshot = await mounts.mount(await run('attach', 's'), 's');
    assert.equal(fs.readFileSync(path.join(snapshot, 'kept'), 'utf8'), 'before the snapshot');
    await mounts.umount(snapshot);
    await must('e2fsck', ['-fn', await run('attach', 's')]);
    await run('detach', 's');
    await first.dmsetup('remove', 's');
    await first.dmsetup('message', 'pool', '0', 'delete 1');

    const before = await used(first);
    fs.rmSync(big);
    await must('sync', ['-f', point]);
    await must('fstrim', [point]);
    assert.ok((await used(first)) < before - 400, 'what was trimmed is free');

    // What was synced survives the daemon; what comes after may not.
    const file = fs.openSync(path.join(point, 'synced'), 'w');
    fs.writeSync(file, 'durable');
    fs.fsyncSync(file);
    fs.closeSync(file);
    await first.kill();
    mounts.clear();
    const second = await open('--restore');
    assert.match(second.log, /restored 2 of 2 devices/);
    const restored = await run('attach', 'v');
    const replayed = await mounts.mount(restored, 'again');
    assert.equal(fs.readFileSync(path.join(replayed, 'synced'), 'utf8'), 'durable');
    assert.equal(fs.readFileSync(path.join(replayed, 'kept'), 'utf8'), 'after the snapshot');
    await mounts.umount(replayed);
    await must('e2fsck', ['-fn', restored]);
    await run('detach', 'v');
    assert.equal(await second.stop(), 0);
    await assertClean(path.join(dir, 'meta'));
  });
});

test('a device as a file, without a block device', { skip }, async () => {
  await inSetting(async ({ dir, open, run }) => {
    const daemon = await open();
    await makeVolume(daemon);
    const file = path.join(dir, 'v.img');
    assert.equal(await run('mount', 'v', file), file);
    assert.equal((await fs.promises.stat(file)).size, 256 * MIB);
    await must('mke2fs', ['-q', '-t', 'ext4', '-F', file]);
    await must('e2fsck', ['-fn', file]);
    await run('unmount', file);
    assert.ok(!fs.existsSync(file), 'it was made for this');
  });
});

test('with nodes, a script for dmsetup finds its devices under /dev/mapper', { skip }, async () => {
  await inSetting(async ({ dir, mounts, open }) => {
    const daemon = await open();
    await makeVolume(daemon);
    const dev = path.join(dir, 'dev');
    const env = { DEVMAPPER_NODES: '1', DM_DEV_DIR: dev, DEVMAPPER_DIR: dir };
    const dmsetup = async (...args: string[]): Promise<string> => {
      const { code, stdout, stderr } = await devmapper(['dmsetup', ...args], { env });
      return `${stdout}${stderr}${code === 0 ? '' : `rc=${code}`}`;
    };
    const nodes = (): string[] => (fs.existsSync(dev) ? fs.readdirSync(`${dev}/mapper`) : []);
    assert.equal(await dmsetup('mknodes', 'v'), '');
    assert.deepEqual(nodes(), ['v']);
    await must('mke2fs', ['-q', '-t', 'ext4', `${dev}/mapper/v`]);
    const point = await mounts.mount(`${dev}/mapper/v`, 'v');
    assert.match(
      await dmsetup('remove', 'v'),
      /remove ioctl on v {2}failed: Device or resource busy/,
    );
    assert.equal(await dmsetup('rename', 'v', 'w'), '');
    assert.deepEqual(nodes(), ['w']);
    await mounts.umount(point);
    assert.equal(await dmsetup('message', 'pool', '0', 'create_snap 1 0'), '');
    const table = `0 ${SECTORS} thin /dev/mapper/pool 1`;
    assert.equal(await dmsetup('create', 's', '--table', table), '');
    assert.deepEqual(nodes(), ['s', 'w']);
    await must('e2fsck', ['-fn', `${dev}/mapper/s`]);
    assert.equal(await dmsetup('remove', 's', 'w'), '');
    assert.deepEqual(nodes(), []);
    assert.equal(await dmsetup('create', 'n', '--notable'), '');
    assert.equal(await dmsetup('load', 'n', '--table', '0 8192 zero'), '');
    assert.deepEqual(nodes(), [], 'a node comes with the resume');
    assert.equal(await dmsetup('resume', 'n'), '');
    assert.deepEqual(nodes(), ['n']);
    fs.writeFileSync(`${dev}/mapper/x`, 'mine');
    assert.match(
      await dmsetup('create', 'x', '--table', '0 8 zero'),
      /found another file\n.*rc=1/s,
    );
    assert.equal(fs.readFileSync(`${dev}/mapper/x`, 'utf8'), 'mine');
    assert.equal(await dmsetup('remove_all'), '');
    assert.deepEqual(nodes(), ['x']);
    await daemon.dmsetup('ls');
  });
});
