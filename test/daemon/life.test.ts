/**
 * A daemon's life as a process: how commands find it and start it, how it ends, what it leaves, and
 * who may not share what with it.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { test } from 'node:test';
import { findStateDir, stateDirAt } from '../../src/daemon/state-dir.ts';
import { assertClean } from '../helpers/check.ts';
import { DaemonProcess, devmapper } from '../helpers/daemon.ts';
import { repoRoot } from '../helpers/kernel.ts';
import { NbdClient } from '../helpers/nbd-client.ts';
import { run, scratchDir } from '../helpers/programs.ts';

const MIB = 1024 * 1024;
const BLOCK = 65536;

/** Runs `body` with a state directory in which commands may start a daemon; ends that one. */
async function inStateDir(body: (dir: string) => Promise<void>): Promise<void> {
  const { dir, remove } = scratchDir();
  try {
    await body(dir);
  } finally {
    await devmapper(['stop', '--state-dir', dir]);
    remove();
  }
}

async function withDaemon(body: (daemon: DaemonProcess) => Promise<void>): Promise<void> {
  const daemon = await DaemonProcess.start();
  try {
    await body(daemon);
  } finally {
    await daemon.close();
  }
}

/** Process ids of the daemons of a state directory. */
function daemonsOf(dir: string): number[] {
  const pids = fs.readdirSync('/proc').filter((name) => /^[0-9]+$/.test(name));
  const isDaemon = (pid: string): boolean => {
    try {
      const words = fs.readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
      return words.includes('daemon') && words.includes(dir);
    } catch {
      return false; // It has ended.
    }
  };
  return pids.filter(isDaemon).map(Number);
}

const readPid = (dir: string): number => Number(fs.readFileSync(`${dir}/daemon.pid`, 'utf8'));

/** Makes a pool `pool` of 32 MiB on files in the state directory, and its volume 0 as `v`. */
async function makePool(daemon: DaemonProcess): Promise<{ meta: string; data: string }> {
  const disks = { meta: daemon.disk('meta', 4 * MIB), data: daemon.disk('data', 32 * MIB) };
  await openPool(daemon, disks, true);
  return disks;
}

async function openPool(
  daemon: DaemonProcess,
  { meta, data }: { meta: string; data: string },
  isNew = false,
): Promise<void> {
  const sectors = (32 * MIB) / 512;
  await daemon.dmsetup('create', 'pool', '--table', `0 ${sectors} thin-pool ${meta} ${data} 128 0`);
  if (isNew) await daemon.dmsetup('message', 'pool', '0', 'create_thin 0');
  await daemon.dmsetup('create', 'v', '--table', `0 ${sectors} thin /dev/mapper/pool 0`);
}

async function connect(daemon: DaemonProcess, name: string): Promise<NbdClient> {
  const client = await NbdClient.connect(daemon.nbdSocket);
  await client.greet();
  await client.go(name);
  return client;
}

// --- finding it

test('the state directory is --state-dir, else $DEVMAPPER_DIR, else one in $XDG_RUNTIME_DIR, else the system’s', () => {
  const { DEVMAPPER_DIR, XDG_RUNTIME_DIR } = process.env;
  const found = (own: string, xdg: string, option?: string): string => {
    process.env['DEVMAPPER_DIR'] = own;
    process.env['XDG_RUNTIME_DIR'] = xdg;
    return findStateDir(option).dir;
  };
  try {
    assert.equal(found('/own', '/xdg', '/option'), '/option');
    assert.equal(found('/own', '/xdg', 'option'), path.resolve('option'));
    assert.equal(found('/own', '/xdg'), '/own');
    assert.equal(found('', '/xdg'), '/xdg/devmapper');
    const isRoot = process.getuid?.() === 0;
    assert.equal(found('', ''), isRoot ? '/run/devmapper' : `/tmp/devmapper-${process.getuid?.()}`);
  } finally {
    process.env['DEVMAPPER_DIR'] = DEVMAPPER_DIR ?? '';
    process.env['XDG_RUNTIME_DIR'] = XDG_RUNTIME_DIR ?? '';
  }
});

test('a directory of someone else’s among the temporary ones is not taken for ours', (t) => {
  const { dir, remove } = scratchDir();
  const own = process.getuid?.() ?? 0;
  const other = own + 1;
  const env = { DEVMAPPER_DIR: '', XDG_RUNTIME_DIR: '', TMPDIR: dir };
  const before = { ...process.env };
  Object.assign(process.env, env);
  try {
    t.mock.method(process as { getuid: () => number }, 'getuid', () => other);
    assert.equal(findStateDir(undefined).dir, path.join(dir, `devmapper-${other}`));
    fs.mkdirSync(path.join(dir, `devmapper-${other}`));
    assert.throws(() => findStateDir(undefined), /is not a directory of yours; set DEVMAPPER_DIR/);
    fs.rmdirSync(path.join(dir, `devmapper-${other}`));
    fs.symlinkSync('/etc', path.join(dir, `devmapper-${other}`));
    assert.throws(() => findStateDir(undefined), /is not a directory of yours/);
  } finally {
    for (const name of Object.keys(env)) {
      if (before[name] === undefined) Reflect.deleteProperty(process.env, name);
      else process.env[name] = before[name];
    }
    remove();
  }
});

test('a command starts the daemon that it does not find, in the directory that it would find it in', async () => {
  await inStateDir(async (dir) => {
    const env = { DEVMAPPER_DIR: '', XDG_RUNTIME_DIR: dir };
    const own = path.join(dir, 'devmapper');
    try {
      const made = await devmapper(['create', 'a', '--table', '0 8 zero'], { env });
      assert.deepEqual(made, { code: 0, stdout: '', stderr: '' });
      assert.deepEqual(daemonsOf(own), [readPid(own)]);
      const listed = await devmapper(['ls', '--state-dir', own]);
      assert.equal(listed.stdout, 'a\t(254:0)\n');
    } finally {
      await devmapper(['stop'], { env });
    }
    assert.deepEqual(daemonsOf(own), []);
  });
});

test('ten commands at once start one daemon', async () => {
  await inStateDir(async (dir) => {
    const create = (_: unknown, i: number): ReturnType<typeof devmapper> =>
      devmapper(['create', `d${i}`, '--table', '0 8 zero', '--state-dir', dir]);
    const results = await Promise.all(Array.from({ length: 10 }, create));
    for (const result of results) assert.deepEqual(result, { code: 0, stdout: '', stderr: '' });
    const listed = await devmapper(['ls', '--state-dir', dir]);
    assert.equal(listed.stdout.trim().split('\n').length, 10);
    // The others find it, and end.
    while (daemonsOf(dir).length > 1) await new Promise((resolve) => setTimeout(resolve, 20));
    assert.deepEqual(daemonsOf(dir), [readPid(dir)]);
    const log = fs.readFileSync(path.join(dir, 'daemon.log'), 'utf8');
    assert.equal(log.match(/devmapper daemon started/g)?.length, 1);
  });
});

test('a command says why there is no daemon, and exits with 1', async () => {
  const { dir, remove } = scratchDir();
  try {
    const file = path.join(dir, 'file');
    fs.writeFileSync(file, '');
    const inFile = await devmapper(['ls', '--state-dir', path.join(file, 'sub')]);
    assert.equal(inFile.code, 1);
    assert.match(inFile.stderr, /^devmapper: cannot use the state directory .*ENOTDIR/);
    const tooLong = await devmapper(['ls', '--state-dir', path.join(dir, 'x'.repeat(120))]);
    assert.equal(tooLong.code, 1);
    assert.match(tooLong.stderr, /^devmapper: wanted a path of at most 107 bytes for a socket/);
    const started = await devmapper(['daemon', '--state-dir', path.join(dir, 'x'.repeat(120))]);
    assert.equal(started.code, 1);
    assert.match(started.stderr, /^devmapper daemon: wanted a path of at most 107 bytes .*\n$/);
    fs.mkdirSync(path.join(dir, 'control.sock'));
    const refused = await devmapper(['ls', '--state-dir', dir]);
    assert.equal(refused.code, 1);
    assert.match(refused.stderr, /^devmapper: cannot start a daemon: .*see .*daemon\.log\n/);
    assert.match(fs.readFileSync(path.join(dir, 'daemon.log'), 'utf8'), /control\.sock/);
  } finally {
    remove();
  }
});

test('a state directory whose sockets would have too long paths is refused', () => {
  const most = `/${'d'.repeat(107 - '//control.sock'.length)}`;
  assert.equal(Buffer.byteLength(stateDirAt(most).controlSocket), 107);
  assert.throws(() => stateDirAt(`${most}d`), /choose a shorter state directory/);
});

// --- who may use it

test('the state directory, its sockets and its log are the owner’s alone', async () => {
  await inStateDir(async (parent) => {
    const dir = path.join(parent, 'state');
    try {
      await devmapper(['ls', '--state-dir', dir]);
      const modeOf = (name: string): string =>
        (fs.statSync(path.join(dir, name)).mode & 0o777).toString(8);
      assert.equal(modeOf('.'), '700');
      for (const name of ['control.sock', 'nbd.sock', 'daemon.log', 'daemon.lock']) {
        assert.equal(modeOf(name), '600', name);
      }
      assert.equal(fs.statSync(path.join(dir, 'control.sock')).isSocket(), true);
    } finally {
      await devmapper(['stop', '--state-dir', dir]);
    }
  });
});

// A refused daemon used to clean up on its way out: the sockets and the process id that it removed
// were the first one's, which no command could find any more.
test('a second daemon for the same state directory is refused, and the first goes on', async () => {
  await withDaemon(async (first) => {
    const second = await devmapper(['daemon', '--state-dir', first.dir]);
    assert.equal(second.code, 1);
    const why = `devmapper daemon: another daemon has the state directory ${first.dir}\n`;
    assert.equal(second.stderr, why);
    assert.equal(readPid(first.dir), first.pid);
    assert.equal(await first.dmsetup('ls'), 'No devices found\n');
  });
});

test('two daemons cannot write one device; the second says who is in the way', async () => {
  await withDaemon(async (first) => {
    await withDaemon(async (second) => {
      const { meta, data } = await makePool(first);
      for (const [table, reason] of [
        [`0 65536 thin-pool ${meta} ${data} 128 0`, meta],
        [`0 8 linear ${data} 0`, data],
      ] as const) {
        const refused = await second.tryDmsetup('create', 'x', '--table', table);
        assert.equal(refused.code, 1);
        const lines = refused.stderr.split('\n');
        assert.match(
          lines[0] ?? '',
          /reload ioctl on x \(254:0\) failed: Device or resource busy$/,
        );
        assert.equal(lines.at(-2), `devmapper: ${reason} is in use by another process`);
      }
      assert.equal(await second.dmsetup('ls'), 'No devices found\n');
      await first.dmsetup('remove', 'v', 'pool');
      await openPool(second, { meta, data });
    });
  });
});

// --- TCP

/** Whether a connection to `host` and `port` is taken. */
function connects(host: string, port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = net.connect({ host, port });
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}

/** Ports of TCP that a process listens on. */
function tcpPortsOf(pid: number): number[] {
  const fds = fs.readdirSync(`/proc/${pid}/fd`);
  const links = fds.map((fd) => {
    try {
      return fs.readlinkSync(`/proc/${pid}/fd/${fd}`);
    } catch {
      return '';
    }
  });
  const LISTEN = '0A';
  return ['tcp', 'tcp6'].flatMap((file) => {
    const rows = fs.readFileSync(`/proc/${pid}/net/${file}`, 'utf8').trim().split('\n').slice(1);
    return rows
      .map((row) => row.trim().split(/\s+/))
      .filter((words) => words[3] === LISTEN && links.includes(`socket:[${words[9]}]`))
      .map((words) => Number.parseInt(words[1]?.split(':').at(-1) ?? '', 16));
  });
}

async function tcpPort(daemon: DaemonProcess): Promise<number> {
  const line = daemon.log.split('\n').find((text) => text.includes('NBD over TCP')) ?? '{}';
  return (JSON.parse(line) as { port: number }).port;
}

test('without --tcp nothing listens on TCP', async () => {
  await withDaemon(async (daemon) => assert.deepEqual(tcpPortsOf(daemon.pid), []));
});

test('--tcp PORT serves NBD on the loopback address only; --tcp HOST:PORT where it says', async () => {
  for (const [option, elsewhere] of [
    ['0', false],
    ['0.0.0.0:0', true],
  ] as const) {
    const daemon = await DaemonProcess.start({ args: ['--tcp', option] });
    try {
      const port = await tcpPort(daemon);
      assert.deepEqual(tcpPortsOf(daemon.pid), [port]);
      assert.equal(await connects('127.0.0.1', port), true);
      assert.equal(await connects('127.0.0.2', port), elsewhere);
      await daemon.dmsetup('create', 'z', '--table', '0 8 zero');
      const client = new NbdClient(net.connect({ host: '127.0.0.1', port, allowHalfOpen: true }));
      await client.greet();
      await client.go('z');
      assert.equal(client.size, 4096n);
      await client.disconnect();
    } finally {
      await daemon.close();
    }
  }
});

test('a port that is taken, and one that is none, are refused', async () => {
  const taken = net.createServer();
  await new Promise<void>((resolve) => taken.listen(0, '127.0.0.1', resolve));
  const { port } = taken.address() as net.AddressInfo;
  await inStateDir(async (dir) => {
    const busy = await devmapper(['daemon', '--state-dir', dir, '--tcp', String(port)]);
    assert.equal(busy.code, 1);
    assert.match(busy.stderr, /^devmapper daemon: cannot listen: .*EADDRINUSE/m);
    assert.deepEqual(fs.readdirSync(dir), ['daemon.lock'], 'nothing is left behind');
    for (const text of ['65536', 'x', '1.2.3.4', '-1', 'host:', '']) {
      const bad = await devmapper(['daemon', '--state-dir', dir, `--tcp=${text}`]);
      assert.equal(bad.code, 2, text);
      assert.match(bad.stderr, /--tcp: wanted \[HOST:\]PORT, found/);
    }
  });
  taken.close();
});

// --- how it ends

test('`stop` returns when the daemon is gone; without one it says so', async () => {
  await inStateDir(async (dir) => {
    await devmapper(['create', 'a', '--state-dir', dir, '--table', '0 8 zero']);
    const pid = readPid(dir);
    const stopped = await devmapper(['stop', '--state-dir', dir]);
    assert.deepEqual(stopped, { code: 0, stdout: '', stderr: '' });
    assert.throws(() => process.kill(pid, 0), { code: 'ESRCH' });
    assert.deepEqual(fs.readdirSync(dir).sort(), ['daemon.lock', 'daemon.log', 'tables']);
    const again = await devmapper(['stop', '--state-dir', dir]);
    assert.deepEqual(again, { code: 0, stdout: '', stderr: 'devmapper: no daemon is running\n' });
  });
});

test('several commands may stop it at once', async () => {
  await inStateDir(async (dir) => {
    await devmapper(['create', 'a', '--state-dir', dir, '--table', '0 8 zero']);
    const pid = readPid(dir);
    const stop = (): ReturnType<typeof devmapper> => devmapper(['stop', '--state-dir', dir]);
    for (const { code, stdout, stderr } of await Promise.all([1, 2, 3, 4, 5].map(stop))) {
      assert.deepEqual([code, stdout], [0, '']);
      assert.match(stderr, /^(devmapper: no daemon is running\n)?$/);
    }
    assert.throws(() => process.kill(pid, 0), { code: 'ESRCH' });
  });
});

for (const signal of ['SIGTERM', 'SIGINT'] as const) {
  test(`${signal} while I/O runs: what was acknowledged is there, the metadata committed and sound`, async () => {
    const daemon = await DaemonProcess.start();
    const disks = await makePool(daemon);
    const client = await connect(daemon, 'v');
    const acknowledged = new Map<number, number>();
    const ENOUGH = 200;
    let reachedEnough = (): void => undefined;
    const enough = new Promise<void>((resolve) => (reachedEnough = resolve));
    const write = async (): Promise<void> => {
      for (let i = 0; ; i++) {
        const block = (i * 7) % 512;
        const byte = 1 + (i % 255);
        await client.writeAt(block * BLOCK, Buffer.alloc(BLOCK, byte));
        acknowledged.set(block, byte);
        if (i === ENOUGH) reachedEnough();
      }
    };
    const over = assert.rejects(write());
    await enough;
    assert.equal(await daemon.stop(signal), 0, daemon.log);
    await over;
    client.destroy();
    assert.match(daemon.log, new RegExp(`${signal}: shutting down`));
    assert.match(daemon.log, /devmapper daemon stopped/);
    assert.deepEqual(fs.readdirSync(daemon.dir).sort(), ['daemon.lock', 'data', 'meta', 'tables']);
    await assertClean(disks.meta);

    const next = await DaemonProcess.start({ dir: daemon.dir });
    try {
      await openPool(next, disks);
      const reader = await connect(next, 'v');
      for (const [block, byte] of acknowledged) {
        const found = await reader.readAt(block * BLOCK, BLOCK);
        // One more write may have been carried out than was answered.
        if (found[0] !== byte) assert.equal(block, (acknowledged.size * 7) % 512);
        else assert.ok(found.equals(Buffer.alloc(BLOCK, byte)), `block ${block}`);
      }
      await reader.disconnect();
    } finally {
      await next.stop();
      await daemon.close();
    }
  });
}

test('SIGTERM ends a daemon whose I/O waits for space and for a resume, and those who wait for events', async () => {
  const daemon = await DaemonProcess.start();
  const meta = daemon.disk('meta', 4 * MIB);
  const data = daemon.disk('data', MIB);
  await daemon.dmsetup('create', 'pool', '--table', `0 2048 thin-pool ${meta} ${data} 128 0`);
  await daemon.dmsetup('message', 'pool', '0', 'create_thin 0');
  await daemon.dmsetup('create', 'v', '--table', '0 65536 thin /dev/mapper/pool 0');
  await daemon.dmsetup('create', 'z', '--table', '0 2048 zero');
  const full = await connect(daemon, 'v');
  for (let block = 0; block < 16; block++)
    await full.writeAt(block * BLOCK, Buffer.alloc(BLOCK, 1));
  const waitsForSpace = assert.rejects(full.writeAt(16 * BLOCK, Buffer.alloc(BLOCK, 1)));
  const event = daemon.tryDmsetup('wait', 'z', '0');
  const suspended = await connect(daemon, 'z');
  await daemon.dmsetup('suspend', 'z');
  const waitsForResume = assert.rejects(suspended.readAt(0, 512));
  const outOfSpace = async (): Promise<boolean> =>
    / out_of_data_space /.test(await daemon.dmsetup('status', 'pool'));
  while (!(await outOfSpace()));
  assert.equal(await daemon.stop(), 0, daemon.log);
  assert.equal((await event).code, 0);
  await Promise.all([waitsForSpace, waitsForResume]);
  await assertClean(meta);
  await daemon.close();
});

test('after SIGKILL the next command starts a daemon over the stale sockets, and flushed data is there', async () => {
  await inStateDir(async (dir) => {
    const sparse = (name: string, bytes: number): string => {
      fs.writeFileSync(path.join(dir, name), '');
      fs.truncateSync(path.join(dir, name), bytes);
      return path.join(dir, name);
    };
    const meta = sparse('meta', 4 * MIB);
    const data = sparse('data', 32 * MIB);
    const dm = async (...args: string[]): Promise<string> => {
      const { code, stdout, stderr } = await devmapper([...args, '--state-dir', dir]);
      assert.equal(code, 0, `${args.join(' ')}: ${stderr}`);
      return stdout;
    };
    const open = async (): Promise<NbdClient> => {
      await dm('create', 'pool', '--table', `0 65536 thin-pool ${meta} ${data} 128 0`);
      if ((await dm('status', 'pool')).includes(' 0/512 ')) {
        await dm('message', 'pool', '0', 'create_thin 0');
      }
      await dm('create', 'v', '--table', '0 65536 thin /dev/mapper/pool 0');
      const client = await NbdClient.connect(path.join(dir, 'nbd.sock'));
      await client.greet();
      await client.go('v');
      return client;
    };
    for (let life = 1; life <= 3; life++) {
      const client = await open();
      for (let earlier = 1; earlier < life; earlier++) {
        const found = await client.readAt(earlier * BLOCK, 4096);
        assert.ok(found.equals(Buffer.alloc(4096, earlier)), `what life ${earlier} has flushed`);
      }
      await client.writeAt(life * BLOCK, Buffer.alloc(4096, life));
      await client.flush();
      const pid = readPid(dir);
      process.kill(pid, 'SIGKILL');
      await client.closed;
      client.destroy();
      for (const name of ['control.sock', 'nbd.sock', 'daemon.pid']) {
        assert.ok(fs.existsSync(path.join(dir, name)), `${name} is stale`);
      }
      await assertClean(meta);
      assert.notEqual(await dm('ls').then(() => readPid(dir)), pid);
    }
  });
});

test('a command whose daemon ends without a whole answer says so and fails', async () => {
  const { dir, remove } = scratchDir();
  const head = 'HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n';
  let answer = '';
  const dying = net.createServer((socket) => {
    socket.on('error', () => undefined).once('data', () => socket.end(answer));
  });
  await new Promise<void>((resolve) => dying.listen(path.join(dir, 'control.sock'), resolve));
  for (answer of ['', 'HTTP/1.1 200 OK\r\n', `${head}[]`, 'nonsense\r\n\r\n']) {
    const { code, stdout, stderr } = await devmapper(['ls', '--state-dir', dir]);
    assert.deepEqual([code, stdout], [1, '']);
    assert.equal(stderr, 'devmapper: the daemon ended without an answer\nCommand failed.\n');
  }
  answer = `${head}this is no JSON text`;
  const { stderr } = await devmapper(['ls', '--state-dir', dir]);
  assert.match(stderr, /^devmapper: unreadable answer from the daemon: this is no JSON text\n/);
  dying.close();
  remove();
});

// --- what it says

test('the kernel’s reason follows dmsetup’s own text, and is in the daemon’s log', async () => {
  await inStateDir(async (dir) => {
    const table = '0 8 linear /nosuch/file 0';
    const failed = await devmapper(['create', 'x', '--table', table, '--state-dir', dir]);
    assert.equal(failed.code, 1);
    assert.deepEqual(failed.stderr.trim().split('\n'), [
      'device-mapper: reload ioctl on x (254:0) failed: No such device',
      'Command failed.',
      'device-mapper: table: 254:0: linear: Device lookup failed (-ENODEV)',
      'device-mapper: ioctl: error adding target to table',
      'devmapper: /nosuch/file: wanted a file or block device, found none',
    ]);
    const lines = fs.readFileSync(path.join(dir, 'daemon.log'), 'utf8').trim().split('\n');
    const logged = lines.map((line) => (JSON.parse(line) as { msg: string }).msg);
    assert.ok(
      logged.includes('device-mapper: table: 254:0: linear: Device lookup failed (-ENODEV)'),
    );
  });
});

// A daemon whose log could not be written used to die of it: of a full disk, at the very line that
// said that a pool on that disk was full.
test('a log that cannot be written costs lines, not the daemon', async () => {
  const { dir, remove } = scratchDir();
  const program = path.join(repoRoot, 'bin', 'devmapper.js');
  const ended: number[] = [];
  for (const stderr of ['/dev/full', '>(head -c 1 >/dev/null)']) {
    const daemon = `exec ${process.execPath} ${program} daemon --state-dir ${dir} 2> ${stderr}`;
    const running = run('bash', ['-c', daemon]).then(({ code }) => ended.push(code));
    while (!fs.existsSync(path.join(dir, 'control.sock'))) {
      assert.deepEqual(ended, []);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    for (let i = 0; i < 3; i++) {
      const table = '0 8 nosuch';
      const refused = await devmapper(['create', 'x', '--table', table, '--state-dir', dir]);
      assert.match(refused.stderr, /^device-mapper: table: 254:0: nosuch: unknown target type$/m);
    }
    assert.equal((await devmapper(['stop', '--state-dir', dir])).code, 0);
    await running;
    assert.deepEqual(ended.splice(0), [0]);
  }
  remove();
});

test('--log-level decides what is logged, and must be one', async () => {
  const daemon = await DaemonProcess.start({ args: ['--log-level', 'warn'] });
  await daemon.dmsetup('create', 'z', '--table', '0 8 zero');
  await daemon.tryDmsetup('message', 'z', '0', 'hello');
  await daemon.close();
  assert.doesNotMatch(daemon.log, /daemon started/);
  assert.match(daemon.log, /Target type does not support messages/);
  await inStateDir(async (dir) => {
    const { code, stderr } = await devmapper(['daemon', '--state-dir', dir, '--log-level', 'loud']);
    assert.equal(code, 2);
    assert.match(
      stderr,
      /--log-level: wanted fatal, error, warn, info, debug or trace, found 'loud'/,
    );
  });
});

test('the link named dmsetup behaves as dmsetup', async () => {
  await inStateDir(async (dir) => {
    const link = path.join(dir, 'dmsetup');
    fs.symlinkSync(path.resolve('bin/devmapper.js'), link);
    const env = { ...process.env, DEVMAPPER_DIR: dir };
    const dmsetup = (...args: string[]): string =>
      spawnSync(process.execPath, [link, ...args], { env, encoding: 'utf8' }).stdout;
    assert.match(dmsetup('version'), /^Library version: {3}1\.02\.185 \(2022-05-18\)\nDriver/);
    assert.equal(dmsetup('ls'), 'No devices found\n');
    const wrong = spawnSync(process.execPath, [link, '--nosuch'], { env, encoding: 'utf8' });
    const text = "dmsetup: unrecognized option '--nosuch'\nCouldn't process command line.\n";
    assert.deepEqual([wrong.status, wrong.stderr], [1, text]);
  });
});
