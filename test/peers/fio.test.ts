/**
 * fio's nbd engine (libnbd below it) on volumes, every block verified by its checksum.
 */
import assert from 'node:assert/strict';
import { seedOf } from '../helpers/random.ts';
import { must, run } from '../helpers/programs.ts';
import { KIB, MIB, servedTests } from '../helpers/served-pool.ts';

const served = servedTests(['fio', 'qemu-io']);

const SEED = seedOf(1);

/** Options that all jobs share. */
const BASE = ['--ioengine=nbd', '--verify_state_save=0', '--output-format=json'];

interface Job {
  readonly jobname: string;
  readonly error: number;
  readonly read: { readonly total_ios: number };
  readonly write: { readonly total_ios: number };
  readonly trim: { readonly total_ios: number };
}

/** Runs fio; every job must be without error. */
async function fio(...args: string[]): Promise<Job[]> {
  const { code, stdout, stderr } = await run('fio', [...BASE, `--randseed=${SEED}`, ...args]);
  const where = `DM_SEED=${SEED}: fio ${args.join(' ')}:\n${stderr}${stdout.slice(0, 600)}`;
  assert.equal(code, 0, where);
  const { jobs } = JSON.parse(stdout.slice(stdout.indexOf('{'))) as { jobs: Job[] };
  for (const job of jobs) assert.equal(job.error, 0, where);
  return jobs;
}

for (const [name, blockSectors, options] of [
  ['whole blocks', 128, ['--bs=64k']],
  ['4 KiB', 128, ['--bs=4k']],
  ['mixed sizes, in order', 128, ['--bsrange=512-200k', '--rw=write']],
  ['mixed sizes, not aligned to anything', 128, ['--bsrange=100-150k', '--bs_unaligned=1']],
  ['mixed sizes over large blocks', 2048, ['--bsrange=512-3m', '--bs_unaligned=1']],
] as const) {
  served.test(
    `random writes verify: ${name}`,
    async (pool) => {
      const uri = await pool.volume('v', 0, 32 * MIB);
      const job = ['--name=job', `--uri=${uri}`, '--rw=randwrite', '--size=12m', '--verify=crc32c'];
      const [done] = await fio(...job, '--iodepth=16', '--verify_fatal=1', ...options);
      assert.ok((done as Job).write.total_ios > 10 && (done as Job).read.total_ios > 10);
    },
    { blockSectors },
  );
}

served.test('several jobs at once, each on its own connection and region', async (pool) => {
  const uri = await pool.volume('v', 0, 64 * MIB);
  const jobs = await fio(
    '--name=job',
    `--uri=${uri}`,
    '--rw=randrw',
    '--bsrange=100-100k',
    '--bs_unaligned=1',
    '--size=6m',
    // Regions touch each other inside of blocks.
    '--offset_increment=6333333',
    '--numjobs=6',
    '--iodepth=8',
    '--verify=crc32c',
    '--fsync=50',
  );
  assert.equal(jobs.length, 6);
});

served.test('jobs on an origin and on its snapshot do not see each other', async (pool) => {
  const bytes = 16 * MIB;
  const origin = await pool.volume('origin', 0, bytes);
  await must('qemu-io', ['-f', 'raw', '-c', 'write -P 1 0 16m', origin]);
  const snap = await pool.snapshot('snap', 1, { name: 'origin', id: 0, bytes });
  const common = ['--rw=randwrite', '--bsrange=4k-100k', '--bs_unaligned=1', '--verify=crc32c'];
  const shared = [...common, '--iodepth=8', '--size=8m'];
  await fio(
    ...shared,
    '--name=origin',
    `--uri=${origin}`,
    ...['--name=snap', `--uri=${snap}`, ...shared],
  );
  for (const uri of [origin, snap]) {
    await must('qemu-io', ['-f', 'raw', '-c', 'read -P 1 8m 8m', uri]);
  }
});

served.test('trims among reads and writes, and writes into what was trimmed', async (pool) => {
  const uri = await pool.volume('v', 0, 32 * MIB);
  const job = [`--uri=${uri}`, '--size=16m', '--iodepth=16'];
  const [trimmed] = await fio('--name=t', ...job, '--rw=randtrim', '--bs=64k');
  assert.ok((trimmed as Job).trim.total_ios === 256);
  assert.equal(await pool.nrMapped('v'), 0);
  const mixed = ['--rw=trimwrite', '--bs=128k'];
  const [both] = await fio('--name=tw', ...job, ...mixed);
  assert.ok((both as Job).trim.total_ios > 0 && (both as Job).write.total_ios > 0);
  // While one job writes and verifies, another trims and reads beside it.
  await fio(
    ...['--name=verify', ...job, '--rw=randwrite', '--bsrange=1k-90k', '--bs_unaligned=1'],
    ...['--verify=crc32c', '--verify_fatal=1'],
    ...['--name=trims', ...job, '--offset=16m', '--rw=randtrim', '--bs=64k', '--loops=4'],
  );
  assert.ok((await pool.nrMapped('v')) <= (16 * MIB) / (64 * KIB) + 1);
});

served.test(
  'a volume over an external origin, in blocks of 192 KiB',
  async (pool) => {
    const file = pool.daemon.disk('base', 16 * MIB);
    await must('qemu-io', ['-f', 'raw', '-c', 'write -P 5 0 16m', file]);
    await pool.create('base', `0 ${(16 * MIB) / 512} linear ${file} 0`);
    await pool.message('pool', 'create_thin 0');
    await pool.create('v', pool.table(0, 32 * MIB, '/dev/mapper/base'));
    const uri = await pool.uri('v');
    const job = ['--name=job', `--uri=${uri}`, '--rw=randwrite', '--size=8m', '--offset=10m'];
    await fio(...job, '--bsrange=512-64k', '--bs_unaligned=1', '--verify=crc32c', '--iodepth=8');
    await must('qemu-io', ['-f', 'raw', '-c', 'read -P 5 0 10m', '-c', 'read -P 0 18m 14m', uri]);
    await must('qemu-io', ['-f', 'raw', '-r', '-c', 'read -P 5 0 16m', await pool.uri('base')]);
  },
  { blockSectors: 384 },
);
