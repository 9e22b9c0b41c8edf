/**
 * How clients find an export: odd names, odd paths, the URI that `devmapper uri` prints, TCP, a
 * socket that is passed on, and servers that stand between.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { DaemonProcess } from '../helpers/daemon.ts';
import { repoRoot } from '../helpers/kernel.ts';
import { must, run, scratchDir, skipWithout } from '../helpers/programs.ts';
import { MIB, servedTests, type ServedPool } from '../helpers/served-pool.ts';

const served = servedTests(
  ['nbdinfo', 'nbdcopy', 'qemu-img', 'qemu-io', 'qemu-nbd', 'nbdkit', 'nbd-client'],
  {
    args: ['--tcp', '0'],
  },
);
const program = path.join(repoRoot, 'bin', 'devmapper.js');

/** What the kernel takes as a name: anything without a slash. */
const NAMES = [
  'plain',
  'with space',
  'a&b=c',
  'a?b#c',
  '100%',
  'a%2fb%20c',
  'x+y',
  "it's",
  '"quoted"',
  '(v)!*~',
  'back\\slash',
  'semi;colon,comma',
  'pipe|<angle>',
  'tilde~$HOME`id`',
  'a:b@c',
  '[::1]',
  '-dash',
  '--list',
  '.',
  '..',
  '...',
  'ünï☃𝔡',
  'tab\there',
  'line\nbreak',
  '\u0001\u007f',
  'n'.repeat(127),
  '☃'.repeat(42),
];

served.test('libnbd and QEMU reach every name by the URI that is printed for it', async (pool) => {
  // A size of its own tells each volume from the others.
  for (const [i, name] of NAMES.entries()) await pool.create(name, `0 ${i + 1} zero`);
  const sizes = async (name: string): Promise<number[]> => {
    const uri = await pool.uri(name);
    const [bySize, byInfo] = await Promise.all([
      must('nbdinfo', ['--size', uri]),
      must('qemu-img', ['info', '-f', 'raw', '--output=json', uri]),
    ]);
    const { 'virtual-size': size } = JSON.parse(byInfo) as { 'virtual-size': number };
    return [Number(bySize), size];
  };
  for (const [i, name] of NAMES.entries()) {
    const wanted = (i + 1) * 512;
    assert.deepEqual(await sizes(name), [wanted, wanted], JSON.stringify(name));
  }
  const listing = await must('nbdinfo', [
    '--list',
    '--json',
    `nbd+unix:///?socket=${pool.daemon.nbdSocket}`,
  ]);
  // nbdinfo does not escape control characters in its JSON.
  for (const [i, name] of NAMES.entries()) {
    if (/^[\w .:%+~-]*$/.test(name)) assert.ok(listing.includes(`"export-name": "${name}"`), name);
    assert.ok(listing.includes(`"export-size": ${(i + 1) * 512}`));
  }
});

served.test(
  'devmapper uri takes a name as it was given to create, and as it is stored',
  async (pool) => {
    const { daemon } = pool;
    const uri = (name: string): ReturnType<typeof run> =>
      run(process.execPath, [program, 'uri', '--state-dir', daemon.dir, name]);
    await daemon.dmsetup('create', 'my disk', '--table', '0 8 zero');
    const stored = `nbd+unix:///my%5Cx20disk?socket=${daemon.nbdSocket}\n`;
    assert.equal((await uri('my disk')).stdout, stored);
    assert.equal((await uri('my\\x20disk')).stdout, stored);
    assert.equal((await must('nbdinfo', ['--size', stored.trim()])).trim(), '4096');
    const missing = await uri('your disk');
    assert.equal(missing.code, 1);
    assert.equal(missing.stderr, "devmapper uri: there is no device 'your disk'\n");
    const long = await uri(`x${' '.repeat(126)}`);
    assert.equal(long.code, 1);
    assert.match(long.stderr, /too long/);
  },
);

test(
  'a state directory of any name is in the URI so that clients understand it',
  {
    skip: skipWithout('nbdinfo', 'qemu-img'),
  },
  async () => {
    const { dir: parent, remove } = scratchDir();
    for (const name of ['a b&c=d%20?e#f', '+ü\'"\\:@;,']) {
      const dir = path.join(parent, name);
      const daemon = await DaemonProcess.start({ dir });
      await daemon.dmsetup('create', 'v', '--table', '0 8 zero');
      const uri = (await must(process.execPath, [program, 'uri', '--state-dir', dir, 'v'])).trim();
      assert.equal((await must('nbdinfo', ['--size', uri])).trim(), '4096', name);
      await must('qemu-img', ['info', '-f', 'raw', uri]);
      assert.equal(await daemon.stop(), 0);
    }
    remove();
  },
);

/** The port on which the daemon serves NBD. */
function portOf(pool: ServedPool): string {
  return /"port":([0-9]+),"msg":"NBD over TCP"/.exec(pool.daemon.log)?.[1] ?? '';
}

served.test('the default export is the one device that no other stands on', async (pool) => {
  const uri = `nbd+unix:///?socket=${pool.daemon.nbdSocket}`;
  await pool.volume('v', 0, MIB);
  assert.equal((await must('nbdinfo', ['--size', uri])).trim(), String(MIB));
  await pool.create('other', '0 8 zero');
  const { code, stderr } = await run('nbdinfo', ['--size', uri]);
  assert.notEqual(code, 0);
  assert.match(stderr, /no export named ''|No such file/);
});

served.test('nbd-client lists the exports, and agrees on one over either socket', async (pool) => {
  await pool.volume('a disk', 0, 16 * MIB);
  const port = portOf(pool);
  const list = await must('nbd-client', ['-l', '127.0.0.1', port]);
  assert.match(list, /^a disk: thin 254:1\npool: thin-pool 254:0$/m);
  // There is no kernel to hand the connection to: what it has agreed on is all that it can tell.
  const device = pool.daemon.disk('no-nbd', 0);
  for (const where of [
    ['-unix', pool.daemon.nbdSocket, device],
    ['127.0.0.1', port, device],
  ]) {
    const agreed = await run('nbd-client', [...where, '-N', 'a disk']);
    assert.match(agreed.stdout, /size = 16MB/);
    const refused = await run('nbd-client', [...where, '-N', 'another']);
    assert.match(refused.stderr, /there is no export named 'another'/);
  }
});

served.test('qemu-nbd lists the exports with what each can do', async (pool) => {
  await pool.volume('v', 0, 16 * MIB);
  await pool.create('ro', pool.table(0, 16 * MIB), { readOnly: true });
  const list = await must('qemu-nbd', ['--list', `--socket=${pool.daemon.nbdSocket}`]);
  const found = list.split(/^ export: /m).slice(1);
  const [, ro = '', v = ''] = found.sort();
  assert.match(ro, /^'ro'\n[^]*flags: 0x[0-9a-f]+ \( readonly flush fua df multi cache \)/);
  assert.match(
    v,
    /^'v'\n[^]*size: +16777216\n[^]*\( flush fua trim zeroes df multi cache fast-zero \)/,
  );
  assert.match(v, /min block: 1\n +opt block: 65536\n +max block: 33554432\n/);
  assert.match(v, /available meta contexts: 1\n +base:allocation\n/);
});

served.test('over TCP the same exports, to libnbd and QEMU', async (pool) => {
  await pool.volume('a disk', 0, 16 * MIB);
  const uri = `nbd://127.0.0.1:${portOf(pool)}/a%20disk`;
  assert.equal((await must('nbdinfo', ['--size', uri])).trim(), String(16 * MIB));
  await must('qemu-io', ['-f', 'raw', '-c', 'write -P 3 1m 8m', '-c', 'read -P 3 1m 8m', uri]);
  const [byTcp, bySocket] = [pool.daemon.file('tcp.raw'), pool.daemon.file('unix.raw')];
  await must('nbdcopy', ['--connections=4', uri, byTcp]);
  await must('nbdcopy', [await pool.uri('a disk'), bySocket]);
  const content = fs.readFileSync(byTcp);
  assert.ok(content.equals(fs.readFileSync(bySocket)));
  assert.ok(content.subarray(MIB, 9 * MIB).every((byte) => byte === 3));
});

test(
  'libnbd starts a daemon on a socket of its own, which ends with it',
  {
    skip: skipWithout('nbdinfo', 'nbdcopy'),
  },
  async () => {
    const { dir, remove } = scratchDir();
    const daemon = [process.execPath, program, 'daemon', '--state-dir', path.join(dir, 's')];
    const list = await must('nbdinfo', ['--list', '--', '[', ...daemon, ']']);
    assert.match(list, /protocol: newstyle-fixed/);
    assert.deepEqual(
      fs.readdirSync(path.join(dir, 's')).filter((name) => name.endsWith('.pid')),
      [],
      'the daemon has stopped cleanly',
    );
    remove();
  },
);

/** Runs `body` while a server that is a client of ours listens on `socket`. */
async function between(
  command: readonly string[],
  socket: string,
  body: () => Promise<void>,
): Promise<void> {
  const [name = '', ...args] = command;
  const child = spawn(name, args, { stdio: 'inherit' });
  const ended = new Promise((resolve) => child.once('close', resolve));
  try {
    while (!fs.existsSync(socket)) {
      assert.equal(child.exitCode, null, `${name} listens`);
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    await body();
  } finally {
    child.kill();
    await ended;
  }
}

for (const [name, command] of [
  [
    'qemu-nbd',
    (socket: string, uri: string) => [
      'qemu-nbd',
      '-t',
      '-e',
      '4',
      '-f',
      'raw',
      '-k',
      socket,
      '--discard=unmap',
      '--detect-zeroes=unmap',
      uri,
    ],
  ],
  [
    'nbdkit nbd',
    (socket: string, uri: string) => ['nbdkit', '-f', '-U', socket, 'nbd', `uri=${uri}`],
  ],
  [
    'nbdkit nbd with filters',
    (socket: string, uri: string) => [
      'nbdkit',
      '-f',
      '-U',
      socket,
      '--filter=cow',
      '--filter=cache',
      'nbd',
      `uri=${uri}`,
    ],
  ],
] as const) {
  served.test(`${name} serves a volume on, and writes come through`, async (pool) => {
    const bytes = 16 * MIB;
    const uri = await pool.volume('v', 0, bytes);
    const socket = pool.daemon.file(`between-${name.replaceAll(' ', '-')}.sock`);
    const other = `nbd+unix:///?socket=${socket}`;
    const isCow = name.includes('filters');
    await between(command(socket, uri), socket, async () => {
      const commands = ['write -P 1 1m 3m', 'discard 2m 1m', 'write -z -u 3m 64k', 'flush'];
      await must('qemu-io', ['-f', 'raw', ...commands.flatMap((c) => ['-c', c]), other]);
      await must('qemu-io', [
        '-f',
        'raw',
        '-c',
        'read -P 1 1m 1m',
        '-c',
        'read -P 0 2m 1088k',
        other,
      ]);
      assert.equal((await must('nbdinfo', ['--size', other])).trim(), String(bytes));
      const copy = pool.daemon.file('between.raw');
      await must('nbdcopy', [other, copy]);
      const content = fs.readFileSync(copy);
      assert.ok(content.subarray(MIB, 2 * MIB).every((byte) => byte === 1));
    });
    await pool.close();
    // 1 MiB, and 3 MiB + 64 KiB to 4 MiB; all of it stays above where writes are caught on the way.
    assert.equal((await pool.mappings(0)).size, isCow ? 0 : 16 + 15);
  });
}
