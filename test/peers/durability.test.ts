/**
 * What clients have been promised, after the daemon has been killed: what a flush or a FUA write
 * answered is there, mapping included, whichever connection it went over.
 *
 * The daemon is killed as soon as the promise is given, well before it would commit by itself. A
 * killed process loses nothing that it wrote to a file, so data is lost by losing its mapping.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DaemonProcess } from '../helpers/daemon.ts';
import { QemuIo } from '../helpers/qemu-io.ts';
import { must, scratchDir, skipWithout } from '../helpers/programs.ts';
import { KIB, MIB, servedTests, type ServedPool } from '../helpers/served-pool.ts';

const served = servedTests(['qemu-io', 'nbdcopy', 'fio']);

const BYTES = 16 * MIB;

/** The volume of device `id`, in the daemon after the crash. */
async function reopen(pool: ServedPool, id = 0): Promise<string> {
  await pool.create(`again${id}`, pool.table(id, BYTES));
  return pool.uri(`again${id}`);
}

async function assertReads(uri: string, ...commands: string[]): Promise<void> {
  const io = await QemuIo.open(uri);
  for (const command of commands) await io.must(command);
  await io.quit();
}

served.test(
  'a FUA write is there after a crash: a whole block, a part of one, a part of a sector',
  async (pool) => {
    const promises = [
      ['write -f -P 1 0 64k', 'read -P 1 0 64k'],
      ['write -f -P 2 100k 1k', 'read -P 2 100k 1k'],
      ['write -f -P 3 150001 77', 'read -P 3 150001 77'],
    ] as const;
    await pool.volume('v', 0, BYTES);
    let uri = await pool.uri('v');
    for (const [write, read] of promises) {
      const io = await QemuIo.open(uri);
      await io.must(write);
      await pool.crash();
      await io.kill();
      uri = await reopen(pool);
      await assertReads(uri, read);
    }
  },
);

served.test('a flush covers what another client wrote, and a third on a snapshot', async (pool) => {
  const uri = await pool.volume('v', 0, BYTES);
  const origin = { name: 'v', id: 0, bytes: BYTES };
  const first = await QemuIo.open(uri);
  await first.must('write -P 1 0 256k');
  const snap = await QemuIo.open(await pool.snapshot('snap', 1, origin));
  const second = await QemuIo.open(uri);
  await first.must('write -P 2 64k 64k');
  await first.must('write -P 3 500k 100k');
  await snap.must('write -P 4 128k 64k');
  await first.must('discard 192k 64k');
  await second.must('flush');
  await pool.crash();
  for (const io of [first, second, snap]) await io.kill();
  await assertReads(
    await reopen(pool, 0),
    'read -P 1 0 64k',
    'read -P 2 64k 64k',
    'read -P 1 128k 64k',
    'read -P 0 192k 64k',
    'read -P 3 500k 100k',
  );
  // One commit covers the pool.
  const commands = ['read -P 1 0 128k', 'read -P 4 128k 64k', 'read -P 1 192k 64k'];
  await assertReads(await reopen(pool, 1), ...commands);
});

test(
  'the volume of npm start is there at the next start, which complains of nothing',
  {
    skip: skipWithout('qemu-io'),
  },
  async () => {
    const { dir, remove } = scratchDir();
    for (const command of ['write -P 1 1g 1m', 'read -P 1 1g 1m', 'read -P 1 1g 1m']) {
      const daemon = await DaemonProcess.start({
        dir,
        args: ['--with-default-pool', '--log-level', 'warn'],
      });
      while (!daemon.log.includes('Ctrl-C')) await new Promise((resolve) => setTimeout(resolve, 5));
      await assertReads(daemon.uri('vol0'), command);
      assert.equal(await daemon.stop(), 0);
      assert.doesNotMatch(daemon.log, /"level"/);
    }
    remove();
  },
);

served.test('a copy with --flush over four connections is there after a crash', async (pool) => {
  const file = pool.daemon.disk('image', BYTES);
  await must('qemu-io', ['-f', 'raw', '-c', 'write -P 7 0 10m', '-c', 'write -P 8 12m 1', file]);
  const uri = await pool.volume('v', 0, BYTES);
  await must('nbdcopy', ['--connections=4', '--flush', file, uri]);
  await pool.crash();
  await assertReads(await reopen(pool), 'read -P 7 0 10m', 'read -P 8 12m 1', 'read -P 0 13m 3m');
});

served.test('writes that nobody flushed are whole sectors, old or new', async (pool) => {
  const uri = await pool.volume('v', 0, BYTES);
  const io = await QemuIo.open(uri);
  await io.must('write -P 1 0 4m');
  await io.must('flush');
  await io.must('write -P 2 1m 2m');
  await io.must('write -P 2 8m 1m');
  await pool.crash();
  await io.kill();
  const out = pool.daemon.file('out');
  await must('nbdcopy', [await reopen(pool), out]);
  await pool.close();
  const content = await pool.content(0, BYTES);
  const allowed = (sector: number): number[] => {
    if (sector < (4 * MIB) / 512) return [1, 2];
    return [0, 2];
  };
  for (let sector = 0; sector < BYTES / 512; sector++) {
    const bytes = content.subarray(sector * 512, sector * 512 + 512);
    const [first = -1] = bytes;
    assert.ok(allowed(sector).includes(first), `sector ${sector} begins with ${first}`);
    assert.ok(bytes.equals(Buffer.alloc(512, first)), `sector ${sector} is whole`);
  }
  assert.ok(
    content.subarray(0, MIB).every((byte) => byte === 1),
    'nobody wrote to it again',
  );
});

served.test('fio with fsync and a crash in between: what was synced verifies', async (pool) => {
  const uri = await pool.volume('v', 0, BYTES);
  const fio = (...args: string[]): Promise<string> =>
    must('fio', [
      '--name=job',
      '--ioengine=nbd',
      `--uri=${pool.daemon.uri('v')}`,
      '--rw=randwrite',
      '--bsrange=512-128k',
      '--bs_unaligned=1',
      `--size=${8 * MIB}`,
      '--verify=crc32c',
      '--randseed=7',
      '--verify_state_save=0',
      ...args,
    ]);
  assert.equal(uri, pool.daemon.uri('v'));
  await fio('--do_verify=0', '--end_fsync=1', '--iodepth=8', '--norandommap=0');
  await pool.crash();
  await pool.create('v', pool.table(0, BYTES));
  await fio('--verify_only=1');
  assert.ok((await pool.nrMapped('v')) >= (8 * MIB) / (64 * KIB) - 1);
});
