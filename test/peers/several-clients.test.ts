/**
 * Several real clients of one volume at once: what one writes the others see, and one that is
 * killed takes nothing with it.
 */
import assert from 'node:assert/strict';
import { spawn, type ChildProcess } from 'node:child_process';
import fs from 'node:fs';
import { writeImage } from '../helpers/image-files.ts';
import { must } from '../helpers/programs.ts';
import { QemuIo } from '../helpers/qemu-io.ts';
import { Random, seedOf } from '../helpers/random.ts';
import { KIB, MIB, servedTests, type ServedPool } from '../helpers/served-pool.ts';

const served = servedTests(['qemu-io', 'nbdcopy', 'fio', 'qemu-img']);

/** A program that runs until it ends or is killed. */
function start(
  program: string,
  args: readonly string[],
): { child: ChildProcess; ended: Promise<void> } {
  const child = spawn(program, args, { stdio: 'ignore' });
  return { child, ended: new Promise((resolve) => child.once('close', () => resolve())) };
}

async function until(what: () => Promise<boolean>): Promise<void> {
  while (!(await what())) await new Promise((resolve) => setTimeout(resolve, 3));
}

const isOpenBy = (pool: ServedPool, name: string, users: number): Promise<void> =>
  until(async () => (await pool.info(name)).openCount === users);

served.test(
  'what one client has written the others read, after a flush and before',
  async (pool) => {
    const uri = await pool.volume('v', 0, 64 * MIB);
    const clients = await Promise.all(Array.from({ length: 5 }, () => QemuIo.open(uri)));
    assert.equal((await pool.info('v')).openCount, 5);
    for (const [i, writer] of clients.entries()) {
      // Parts of the same blocks, and whole ones.
      await writer.must(`write -P ${i + 1} ${i * 1000} 1000`);
      await writer.must(`write -P ${i + 1} ${(i + 1) * 8}M 1M`);
      if (i % 2 === 0) await writer.must('flush');
      for (const reader of clients) {
        await reader.must(`read -P ${i + 1} ${i * 1000} 1000`);
        await reader.must(`read -P ${i + 1} ${(i + 1) * 8}M 1M`);
      }
    }
    for (const client of clients) await client.quit();
    await isOpenBy(pool, 'v', 0);
  },
);

served.test('clients that write parts of the same sectors do not undo each other', async (pool) => {
  const uri = await pool.volume('v', 0, MIB);
  const clients = await Promise.all(Array.from({ length: 4 }, () => QemuIo.open(uri)));
  // Client i has every fourth byte run: each write is a read, a change and a write of a sector.
  const RUN = 100;
  await Promise.all(
    clients.map(async (client, i) => {
      for (let round = 0; round < 100; round++) {
        await client.command(`aio_write -q -P ${i + 1} ${(round * 4 + i) * RUN} ${RUN}`);
      }
      await client.must('aio_flush');
      await client.must('flush');
    }),
  );
  const copy = pool.daemon.file('parts');
  await must('nbdcopy', [uri, copy]);
  const found = fs.readFileSync(copy);
  for (let run = 0; run < 400; run++) {
    const part = found.subarray(run * RUN, (run + 1) * RUN);
    assert.ok(part.equals(Buffer.alloc(RUN, (run % 4) + 1)), `run ${run}`);
  }
  for (const client of clients) await client.quit();
});

served.test(
  'different programs at once on one volume, its snapshot and its neighbour',
  async (pool) => {
    const bytes = 32 * MIB;
    const image = pool.daemon.file('image');
    const content = writeImage(image, bytes, [[0, bytes]]);
    const origin = await pool.volume('v', 0, bytes);
    await must('nbdcopy', [image, origin]);
    const snap = await pool.snapshot('snap', 1, { name: 'v', id: 0, bytes });
    const neighbour = await pool.volume('w', 2, bytes);
    const [out, compared] = [pool.daemon.file('out'), pool.daemon.file('compared')];
    const fio = (uri: string, ...more: string[]): Promise<string> =>
      must('fio', [
        ...['--name=job', '--ioengine=nbd', `--uri=${uri}`, '--rw=randwrite', '--verify=crc32c'],
        ...['--bsrange=1k-100k', '--iodepth=8', '--verify_state_save=0', '--size=8m', ...more],
      ]);
    await Promise.all([
      fio(origin),
      fio(origin, '--offset=16m'),
      fio(neighbour),
      must('nbdcopy', ['--connections=4', snap, out]),
      must('qemu-img', ['convert', '-f', 'raw', '-O', 'raw', snap, compared]),
      must('qemu-img', ['bench', '-f', 'raw', '-c', '300', '-s', '4096', neighbour]),
    ]);
    for (const file of [out, compared]) assert.ok(fs.readFileSync(file).equals(content), file);
    await must('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', snap, image]);
  },
);

served.test(
  'a client killed in the middle of its writes leaves no lock and no session',
  async (pool) => {
    const seed = seedOf(1);
    const random = new Random(seed);
    const bytes = 128 * MIB;
    const image = pool.daemon.file('image');
    const content = writeImage(image, 32 * MIB, [[0, 32 * MIB]]);
    const uri = await pool.volume('v', 0, bytes);
    const other = await QemuIo.open(uri);
    await other.must('write -P 9 64m 4m');
    for (let round = 0; round < 8; round++) {
      const way = random.pick([
        ['--connections=4'],
        ['--synchronous'],
        ['--request-size=33554432'],
      ]);
      const { child, ended } = start('nbdcopy', ['--allocated', ...way, image, uri]);
      const blocks = random.between(1, 300);
      const before = await pool.nrMapped('v');
      await until(
        async () => child.exitCode !== null || (await pool.nrMapped('v')) >= before + blocks,
      );
      child.kill('SIGKILL');
      await ended;
      // The other client goes on, also in the very blocks.
      await other.must(`write -P ${round + 1} 0 1m`);
      await other.must(`read -P ${round + 1} 0 1m`);
      await other.must('read -P 9 64m 4m');
      await other.must('discard 0 32m');
    }
    await isOpenBy(pool, 'v', 1);
    const { ended } = start('nbdcopy', [image, uri]);
    await ended;
    await other.must('read -P 0 100m 1m');
    await other.quit();
    await pool.close();
    assert.ok((await pool.content(0, 32 * MIB)).equals(content), `seed ${seed}`);
  },
);

served.test(
  'clients killed while their writes wait for space: the writes end, and others go on',
  async (pool) => {
    const uri = await pool.volume('v', 0, 64 * MIB);
    const image = pool.daemon.file('image');
    const content = writeImage(image, 16 * MIB, [[0, 16 * MIB]]);
    const other = await QemuIo.open(uri);
    await other.must('write -P 9 32m 1m');
    const { child, ended } = start('nbdcopy', ['--connections=4', image, uri]);
    const full = (8 * MIB) / pool.blockBytes;
    await until(async () => (await pool.nrMapped('v')) === full);
    child.kill('SIGKILL');
    await ended;
    await other.must('read -P 9 32m 1m');
    await other.must('write -P 8 32m 1m');
    // Waits for space, too.
    const waiting = other.command('write -P 7 0 8m');
    await pool.grow(64 * MIB);
    assert.match(await waiting, /wrote 8388608/);
    await other.must('read -P 8 32m 1m');
    await isOpenBy(pool, 'v', 1);
    await must('nbdcopy', ['--flush', image, uri]);
    await other.quit();
    await pool.close();
    assert.ok((await pool.content(0, 16 * MIB)).equals(content));
  },
  { dataBytes: 8 * MIB },
);

served.test(
  'a client killed while its volume is suspended is gone after the resume',
  async (pool) => {
    const uri = await pool.volume('v', 0, 16 * MIB);
    const [killed, other] = [await QemuIo.open(uri), await QemuIo.open(uri)];
    const elsewhere = await QemuIo.open(await pool.volume('w', 1, MIB));
    await other.must('write -P 1 0 4m');
    await pool.suspend('v');
    for (const command of ['aio_write -P 2 64001 7', 'aio_write -P 2 1m 1m', 'aio_read 2m 1m']) {
      await killed.command(command);
    }
    // The daemon has read what came before this.
    await elsewhere.must('read 0 512');
    await killed.kill();
    assert.equal((await pool.info('v')).openCount, 2, 'its I/O keeps the volume open');
    await pool.resume('v');
    await isOpenBy(pool, 'v', 1);
    await other.must('write -P 3 0 2m');
    await other.must('read -P 3 0 2m');
    await other.must('read -P 1 2m 2m');
    for (const io of [other, elsewhere]) await io.quit();
  },
);

served.test('a hundred clients come and go', async (pool) => {
  const uri = await pool.volume('v', 0, 16 * MIB);
  const before = fs.readdirSync(`/proc/${pool.daemon.pid}/fd`).length;
  for (let round = 0; round < 5; round++) {
    await Promise.all(
      Array.from({ length: 20 }, async (_, i) => {
        const at = (round * 20 + i) * 100 * KIB;
        const io = await QemuIo.open(uri);
        await io.must(`write -P ${i + 1} ${at} 100k`);
        await io.must(`read -P ${i + 1} ${at} 100k`);
        if (i % 3 === 0) await io.kill();
        else await io.quit();
      }),
    );
  }
  await isOpenBy(pool, 'v', 0);
  await until(async () => fs.readdirSync(`/proc/${pool.daemon.pid}/fd`).length <= before + 1);
});
