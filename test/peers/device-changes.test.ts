/**
 * What happens to clients when the device behind their export changes: read-only, suspended,
 * resized, renamed, replaced, removed; and when the daemon stops.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DaemonProcess } from '../helpers/daemon.ts';
import { writeImage } from '../helpers/image-files.ts';
import { must, run, skipWithout } from '../helpers/programs.ts';
import { QemuIo } from '../helpers/qemu-io.ts';
import { MIB, servedTests, type ServedPool } from '../helpers/served-pool.ts';

const served = servedTests(['nbdinfo', 'nbdcopy', 'qemu-img', 'qemu-io', 'fio', 'nbdkit']);

const BYTES = 16 * MIB;

// --- read-only

/** Each client's way to write. */
const writers: readonly [string, (uri: string, image: string) => [string, string[]]][] = [
  ['nbdcopy', (uri, image) => ['nbdcopy', [image, uri]]],
  [
    'qemu-img convert',
    (uri, image) => ['qemu-img', ['convert', '-n', '-f', 'raw', '-O', 'raw', image, uri]],
  ],
  ['qemu-io', (uri) => ['qemu-io', ['-f', 'raw', '-c', 'write 0 4k', uri]]],
  [
    'fio',
    (uri) => [
      'fio',
      ['--name=w', '--ioengine=nbd', `--uri=${uri}`, '--rw=write', '--size=64k', '--bs=4k'],
    ],
  ],
  [
    "nbdkit's nbd plugin",
    (uri, image) => [
      'nbdkit',
      ['-U', '-', 'nbd', `uri=${uri}`, '--run', `nbdcopy ${image} "$uri"`],
    ],
  ],
];

for (const [name, commandOf] of writers) {
  served.test(`a read-only export refuses the writes of ${name}`, async (pool) => {
    await pool.volume('rw', 0, BYTES);
    await must('qemu-io', ['-f', 'raw', '-c', 'write -P 1 0 1m', await pool.uri('rw')]);
    await pool.remove('rw');
    await pool.create('v', pool.table(0, BYTES), { readOnly: true });
    const image = pool.daemon.file('image');
    writeImage(image, MIB, [[0, MIB]]);
    const [program, args] = commandOf(await pool.uri('v'), image);
    const { code, stdout, stderr } = await run(program, args);
    assert.notEqual(code, 0);
    assert.match(stdout + stderr, /read-only|not permitted|Permission denied/i);
    await must('qemu-io', ['-r', '-f', 'raw', '-c', 'read -P 1 0 1m', await pool.uri('v')]);
    assert.equal(await pool.nrMapped('v'), MIB / pool.blockBytes);
  });
}

served.test(
  'a volume made read-only under its clients refuses from then on, and back',
  async (pool) => {
    const io = await QemuIo.open(await pool.volume('v', 0, BYTES));
    await io.must('write -P 1 0 1m');
    await pool.load('v', pool.table(0, BYTES), { readOnly: true });
    await pool.resume('v');
    for (const command of ['write 0 4k', 'write -z 0 4k', 'write -z -u 0 64k', 'discard 0 64k']) {
      assert.match(await io.command(command), /failed: Operation not permitted/, command);
    }
    await io.must('read -P 1 0 1m');
    await io.must('flush');
    await pool.load('v', pool.table(0, BYTES));
    await pool.resume('v');
    await io.must('write -P 2 0 4k');
    await io.quit();
  },
);

// --- suspended

served.test('while a device is suspended its clients wait, and then go on', async (pool) => {
  const uri = await pool.volume('v', 0, BYTES);
  const [io, other] = [await QemuIo.open(uri), await QemuIo.open(await pool.volume('w', 1, BYTES))];
  await io.must('write -P 1 0 1m');
  await pool.suspend('v');
  let hasEnded = false;
  const written = io.must('write -P 2 512k 1m').then(() => (hasEnded = true));
  const more = await QemuIo.open(uri);
  const read = more.must('read -P 1 0 512k').then(() => (hasEnded = true));
  // Size, flags and map need no I/O.
  assert.equal((await must('nbdinfo', ['--size', uri])).trim(), String(BYTES));
  assert.match(await must('nbdinfo', ['--map', uri]), /data/);
  // Another volume of the pool goes on meanwhile.
  for (let i = 0; i < 20; i++) await other.must(`write -P 3 ${i * 100}k 100k`);
  assert.ok(!hasEnded, 'nothing was answered meanwhile');
  assert.equal((await pool.daemon.tryDmsetup('remove', 'v')).code, 1);
  await pool.resume('v');
  await Promise.all([written, read]);
  await more.must('read -P 2 512k 1m');
  for (const client of [io, more, other]) await client.quit();
});

served.test('fio verifies through suspends and resumes, snapshots included', async (pool) => {
  const uri = await pool.volume('v', 0, BYTES);
  let isRunning = true;
  const fio = must('fio', [
    ...['--name=job', '--ioengine=nbd', `--uri=${uri}`, '--rw=randwrite', '--size=8m'],
    ...['--bsrange=1k-64k', '--iodepth=8', '--verify=crc32c', '--loops=3', '--numjobs=2'],
    '--offset_increment=8m',
    '--verify_state_save=0',
  ]).finally(() => (isRunning = false));
  let nrSnapshots = 0;
  while (isRunning) {
    await pool.suspend('v');
    if (nrSnapshots < 20) await pool.message('pool', `create_snap ${++nrSnapshots} 0`);
    await pool.resume('v');
    await pool.suspend('pool');
    await pool.resume('pool');
  }
  await fio;
  assert.ok(nrSnapshots > 3, `${nrSnapshots} snapshots`);
});

// --- removed, replaced, renamed

served.test(
  'a device that a client has open is not removed: Device or resource busy',
  async (pool) => {
    const io = await QemuIo.open(await pool.volume('v', 0, BYTES));
    await io.must('write -P 1 0 4k');
    const refused = await pool.daemon.tryDmsetup('remove', 'v');
    assert.equal(refused.code, 1);
    assert.equal(
      refused.stderr,
      'device-mapper: remove ioctl on v  failed: Device or resource busy\nCommand failed.\n',
    );
    await io.must('read -P 1 0 4k');
    await io.quit();
    await pool.daemon.dmsetup('remove', '--retry', 'v');
  },
);

served.test('a program that has ended no longer keeps the device open', async (pool) => {
  // nbdcopy's exit is all that a script waits for.
  for (let i = 0; i < 10; i++) {
    const image = pool.daemon.file('image');
    writeImage(image, MIB, [[0, MIB]]);
    await must('nbdcopy', ['--connections=4', image, await pool.volume(`v${i}`, i, BYTES)]);
    await pool.remove(`v${i}`);
  }
});

served.test('a deferred removal takes effect when the last client goes', async (pool) => {
  const uri = await pool.volume('v', 0, BYTES);
  const [io, more] = [await QemuIo.open(uri), await QemuIo.open(uri)];
  await pool.daemon.dmsetup('remove', '--deferred', 'v');
  await io.must('write -P 1 0 1m');
  await io.quit();
  await more.must('read -P 1 0 1m');
  assert.equal((await pool.info('v')).openCount, 1);
  await more.kill();
  while ((await pool.daemon.dmsetup('ls')).includes('v\t')) continue;
  assert.notEqual((await run('nbdinfo', ['--size', uri])).code, 0);
});

served.test(
  'a forced removal turns the export into errors and leaves it to its clients',
  async (pool) => {
    const uri = await pool.volume('v', 0, BYTES);
    const io = await QemuIo.open(uri);
    await io.must('write -P 1 0 1m');
    const { code } = await pool.daemon.tryDmsetup('remove', '--force', 'v');
    assert.equal(code, 1, 'it is still open');
    for (const command of ['read 0 4k', 'write 0 4k', 'write -z 0 4k', 'flush']) {
      const said = await io.command(command);
      // The error target takes an empty flush.
      if (command !== 'flush') assert.match(said, /failed: Input\/output error/, command);
    }
    await io.quit();
    await pool.daemon.dmsetup('remove', '--retry', 'v');
    await pool.create('v', pool.table(0, BYTES));
    await must('qemu-io', ['-f', 'raw', '-c', 'read -P 1 0 1m', uri]);
  },
);

served.test(
  'a forced removal of everything leaves what clients have open, as errors',
  async (pool) => {
    // The pool goes before the volume that stands on it: its clients must neither wait for ever nor
    // keep the daemon from stopping.
    const io = await QemuIo.open(await pool.volume('v', 0, BYTES));
    await pool.volume('unused', 1, BYTES);
    await io.must('write -P 1 0 1m');
    const refused = await pool.daemon.tryDmsetup('remove_all', '--force');
    assert.equal(refused.stderr, 'Unable to remove 1 device(s).\nCommand failed.\n');
    assert.equal(await pool.daemon.dmsetup('table'), 'v: 0 32768 error \n');
    for (const command of ['read 0 4k', 'write 0 4k']) {
      assert.match(await io.command(command), /failed: Input\/output error/, command);
    }
    await io.quit();
  },
);

served.test(
  'a renamed device keeps its clients, and has new ones by the new name',
  async (pool) => {
    const uri = await pool.volume('old', 0, BYTES);
    const io = await QemuIo.open(uri);
    await pool.daemon.dmsetup('rename', 'old', 'new');
    await io.must('write -P 1 0 1m');
    await must('qemu-io', ['-f', 'raw', '-c', 'read -P 1 0 1m', await pool.uri('new')]);
    assert.notEqual((await run('nbdinfo', ['--size', uri])).code, 0);
    await io.quit();
  },
);

// --- resized

const sizeOf = async (pool: ServedPool): Promise<number> =>
  Number(await must('nbdinfo', ['--size', await pool.uri('v')]));

served.test(
  'a volume that grows serves its clients on, and new ones see the new size',
  async (pool) => {
    const uri = await pool.volume('v', 0, BYTES);
    const io = await QemuIo.open(uri);
    await io.must('write -P 1 15m 1m');
    await pool.load('v', pool.table(0, 2 * BYTES));
    assert.equal(await sizeOf(pool), BYTES, 'loaded is not yet live');
    await pool.resume('v');
    assert.equal(await sizeOf(pool), 2 * BYTES);
    await io.must('read -P 1 15m 1m');
    await io.must('write -P 2 0 1m');
    const late = await QemuIo.open(uri);
    await late.must('write -P 3 31m 1m');
    await late.must('read -P 2 0 1m');
    for (const client of [io, late]) await client.quit();
  },
);

served.test('a volume that shrinks refuses what lies beyond its end', async (pool) => {
  const uri = await pool.volume('v', 0, BYTES);
  const io = await QemuIo.open(uri);
  await io.must('write -P 1 0 16m');
  await pool.load('v', pool.table(0, BYTES / 2));
  await pool.resume('v');
  assert.match(await io.command('read 8m 4k'), /failed: Invalid argument/);
  assert.match(await io.command('read 8191k 4k'), /failed: Invalid argument/);
  assert.match(await io.command('write 12m 4k'), /failed: No space left on device/);
  assert.match(await io.command('write -z -u 8m 1m'), /failed: No space left on device/);
  await io.must('read -P 1 0 8m');
  assert.equal(await sizeOf(pool), BYTES / 2);
  await pool.load('v', pool.table(0, BYTES));
  await pool.resume('v');
  await io.must('read -P 1 8m 8m');
  await io.quit();
});

served.test('a client that does I/O all along does not notice reloads', async (pool) => {
  const uri = await pool.volume('v', 0, BYTES);
  let isRunning = true;
  const fio = must('fio', [
    ...['--name=job', '--ioengine=nbd', `--uri=${uri}`, '--rw=randwrite', '--size=16m'],
    ...['--bsrange=1k-64k', '--iodepth=8', '--verify=crc32c', '--loops=3'],
    '--verify_state_save=0',
  ]).finally(() => (isRunning = false));
  for (let i = 0; isRunning; i++) {
    await pool.load('v', pool.table(0, BYTES + (i % 7) * MIB));
    await pool.resume('v');
  }
  await fio;
});

// --- the daemon stops

test(
  'a daemon that stops answers its clients, and what they wrote is there',
  {
    skip: skipWithout('qemu-io', 'thin_check'),
  },
  async () => {
    const daemon = await DaemonProcess.start();
    const [meta, data] = [daemon.disk('meta', 4 * MIB), daemon.disk('data', 64 * MIB)];
    const pool = `0 131072 thin-pool ${meta} ${data} 128 0`;
    await daemon.dmsetup('create', 'pool', '--table', pool);
    await daemon.dmsetup('message', 'pool', '0', 'create_thin 0');
    await daemon.dmsetup('create', 'v', '--table', '0 32768 thin /dev/mapper/pool 0');
    const io = await QemuIo.open(daemon.uri('v'));
    await io.must('write -P 1 0 4m');
    assert.equal(await daemon.stop(), 0);
    // Without its server, QEMU would wait for it to come back if it were told to; it is not.
    assert.match(await io.command('read 0 4k'), /failed: Input\/output error|failed: .*shutdown/i);
    await io.kill();
    const again = await DaemonProcess.start({ dir: daemon.dir });
    await again.dmsetup('create', 'pool', '--table', pool);
    await again.dmsetup('create', 'v', '--table', '0 32768 thin /dev/mapper/pool 0');
    await must('qemu-io', ['-f', 'raw', '-c', 'read -P 1 0 4m', again.uri('v')]);
    assert.equal(await again.stop(), 0);
    await must('thin_check', [meta]);
    await daemon.close();
  },
);
