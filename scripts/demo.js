/**
 * `npm run demo`: a pool on two files, a thin volume with a real ext4 file system in it, a snapshot, a
 * changed origin, and the proof that the snapshot is as it was; then a cache over a slow origin, which
 * gets faster as it fills. Unattended; leaves nothing behind.
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { ensurePrograms } from './programs.js';
import { root, setUp } from './setup.js';

const MIB = 1024 * 1024;
const VOLUME_MIB = 256;

setUp();
const missing = ensurePrograms([
  'nbdcopy',
  'mke2fs',
  'e2fsck',
  'debugfs',
  'thin_check',
  'cache_check',
  'fio',
]);
if (missing.length > 0) {
  console.error(`The demo needs ${missing.join(', ')}.`);
  process.exit(1);
}

const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'devmapper-demo-'));
const file = (name) => path.join(dir, name);
const program = path.join(root, 'bin', 'devmapper.js');
const env = {
  ...process.env,
  DEVMAPPER_DIR: file('state'),
  PATH: `${process.env.PATH}:/usr/sbin:/sbin`,
};

/** Runs a program; shows the command, and its output unless told not to. */
function run(command, args, { quiet = false, shown = [command, ...args] } = {}) {
  const words = shown.map((word) => (/[\s?&]/.test(word) ? `'${word}'` : word)).join(' ');
  console.log(`$ ${words.replaceAll(`${dir}/`, '')}`);
  const { status, stdout, stderr } = spawnSync(command, args, { cwd: dir, env, encoding: 'utf8' });
  if (status !== 0) throw new Error(`${words} failed (${status}):\n${stdout}${stderr}`);
  if (!quiet && stdout !== '') console.log(stdout.replace(/\n+$/, ''));
  return stdout.trim();
}

const devmapper = (...args) =>
  run(process.execPath, [program, ...args], { shown: ['devmapper', ...args] });

function say(text) {
  console.log(`\n— ${text}`);
}

function sparse(name, mib) {
  fs.writeFileSync(file(name), '');
  fs.truncateSync(file(name), mib * MIB);
}

function hash(name) {
  return createHash('sha256')
    .update(fs.readFileSync(file(name)))
    .digest('hex');
}

function usedKib(name) {
  return `${(fs.statSync(file(name)).blocks / 2).toFixed(0)} KiB of ${VOLUME_MIB * 2} MiB`;
}

function demo() {
  say('A thin pool on two sparse files, and a volume');
  sparse('pool.meta', 4);
  sparse('pool.data', VOLUME_MIB * 2);
  const sectors = (VOLUME_MIB * MIB) / 512;
  devmapper('create', 'pool', '--table', `0 ${sectors * 2} thin-pool pool.meta pool.data 128 0`);
  devmapper('message', 'pool', '0', 'create_thin 0');
  devmapper('create', 'vol', '--table', `0 ${sectors} thin /dev/mapper/pool 0`);
  const vol = devmapper('uri', 'vol');

  say('An ext4 file system, made on a file and copied in over NBD');
  fs.mkdirSync(file('tree'));
  for (let i = 0; i < 40; i++) {
    fs.writeFileSync(file(`tree/chapter-${i}`), `chapter ${i}\n`.repeat(5000));
  }
  sparse('fs.img', VOLUME_MIB);
  run('mke2fs', ['-q', '-t', 'ext4', '-d', file('tree'), file('fs.img')]);
  run('nbdcopy', [file('fs.img'), vol]);
  devmapper('status');
  console.log(`pool.data uses ${usedKib('pool.data')}`);

  say('A snapshot: suspend, snapshot, resume');
  devmapper('suspend', 'vol');
  devmapper('message', 'pool', '0', 'create_snap 1 0');
  devmapper('resume', 'vol');
  devmapper('create', 'snap', '--table', `0 ${sectors} thin /dev/mapper/pool 1`);
  const snap = devmapper('uri', 'snap');

  say('The origin changes: a file is removed, another one written');
  fs.copyFileSync(file('fs.img'), file('changed.img'));
  fs.writeFileSync(file('news'), 'this is new\n'.repeat(20000));
  run('debugfs', ['-w', '-R', 'rm chapter-7', file('changed.img')], { quiet: true });
  run('debugfs', ['-w', '-R', `write ${file('news')} news`, file('changed.img')], { quiet: true });
  run('nbdcopy', [file('changed.img'), vol]);
  devmapper('status');
  console.log(`pool.data uses ${usedKib('pool.data')}`);

  say('The snapshot is as it was, the origin as it is; both file systems are sound');
  run('nbdcopy', [snap, file('snap.out')]);
  run('nbdcopy', [vol, file('vol.out')]);
  if (hash('snap.out') !== hash('fs.img')) throw new Error('the snapshot has changed');
  if (hash('vol.out') !== hash('changed.img'))
    throw new Error('the origin is not what was written');
  console.log(`sha256 of the snapshot: ${hash('snap.out')}, as before`);
  for (const name of ['snap.out', 'vol.out']) {
    run('e2fsck', ['-fn', file(name)], { quiet: true });
  }
  run('debugfs', ['-R', 'stat chapter-7', file('snap.out')], { quiet: true });

  say('All is put away, and the metadata checked: by us and by Debian');
  devmapper('remove', 'snap');
  devmapper('remove', 'vol');
  devmapper('remove', 'pool');
  devmapper('stop');
  devmapper('thin_check', file('pool.meta'));
  run('thin_check', [file('pool.meta')], { quiet: true });
  devmapper('thin_dump', '--skip-mappings', file('pool.meta'));
}

const ORIGIN_MIB = 64;
const ORIGIN_DELAY_MS = 2;
const ROUNDS = 5;
const ROUND_SECONDS = 4;

/** Random reads, a few blocks being much more popular than the rest; the mean latency. */
function fioRound(uri, nr) {
  const pattern = ['--rw=randread', '--bs=4k', '--random_distribution=zipf:1.1', '--randseed=7'];
  const time = ['--time_based', `--runtime=${ROUND_SECONDS}`, '--output-format=json'];
  const args = ['--name=zipf', '--ioengine=nbd', `--uri=${uri}`, `--size=${ORIGIN_MIB}m`];
  const { status, stdout, stderr } = spawnSync('fio', [...args, ...pattern, ...time], {
    cwd: dir,
    env,
    encoding: 'utf8',
  });
  if (status !== 0) throw new Error(`fio failed (${status}): ${stderr}`);
  const [{ read }] = JSON.parse(stdout.slice(stdout.indexOf('{'))).jobs;
  const meanMs = read.clat_ns.mean / 1e6;
  return { nr, requests: read.total_ios, meanMs };
}

function cacheDemo() {
  say(`A cache over an origin that takes ${ORIGIN_DELAY_MS} ms for each read`);
  sparse('slow.img', ORIGIN_MIB);
  sparse('fast.img', ORIGIN_MIB / 4);
  sparse('cache.meta', 4);
  const sectors = (ORIGIN_MIB * MIB) / 512;
  devmapper('create', 'slow', '--table', `0 ${sectors} delay slow.img 0 ${ORIGIN_DELAY_MS}`);
  const devices = 'cache.meta fast.img /dev/mapper/slow';
  const table = `0 ${sectors} cache ${devices} 128 2 metadata2 writeback smq 0`;
  devmapper('create', 'cached', '--table', table);
  const uri = devmapper('uri', 'cached');
  console.log(`${ROUNDS} rounds of 4 KiB reads, a few blocks read often (zipf 1.1):`);
  let before = { hits: 0, misses: 0 };
  const results = [];
  for (let nr = 1; nr <= ROUNDS; nr++) {
    const { requests, meanMs } = fioRound(uri, nr);
    const words = quietStatus('cached').split(' ');
    const now = { hits: Number(words[7]), misses: Number(words[8]) };
    const hits = now.hits - before.hits;
    const percent = (100 * hits) / (hits + now.misses - before.misses);
    before = now;
    results.push({ percent, meanMs });
    const figures = `${percent.toFixed(0)} % hits, ${meanMs.toFixed(2)} ms a read`;
    console.log(`  round ${nr}: ${requests} reads, ${figures}`);
  }
  const [first, last] = [results[0], results.at(-1)];
  if (last.percent <= first.percent || last.meanMs >= first.meanMs) {
    throw new Error('the cache has not helped');
  }
  devmapper('status', 'cached');
  devmapper('remove', 'cached');
  devmapper('remove', 'slow');
  devmapper('stop');
  run('cache_check', [file('cache.meta')], { quiet: true });
}

function quietStatus(name) {
  const args = [program, 'status', name];
  return spawnSync(process.execPath, args, { cwd: dir, env, encoding: 'utf8' }).stdout;
}

let failed = false;
try {
  demo();
  cacheDemo();
  say('Done');
} catch (error) {
  failed = true;
  console.error(error.message);
} finally {
  spawnSync(process.execPath, [program, 'stop'], { env });
  fs.rmSync(dir, { recursive: true });
}
process.exit(failed ? 1 : 0);
