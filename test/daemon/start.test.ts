/**
 * `npm start`: the pool and the volume that it shows are there, stay, survive being killed at any
 * time while they are made, and the commands that it prints work.
 */
import assert from 'node:assert/strict';
import { spawn, type ChildProcess } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { after, test } from 'node:test';
import { assertClean } from '../helpers/check.ts';
import { repoRoot } from '../helpers/kernel.ts';
import { NbdClient } from '../helpers/nbd-client.ts';
import { devmapper } from '../helpers/daemon.ts';
import { run, scratchDir, skipWithout } from '../helpers/programs.ts';
import { Random, seedOf } from '../helpers/random.ts';

const GIB = 1024 ** 3;
const STOP_TIMEOUT_MS = 20_000;

/** What a test that fails leaves behind. */
const alive = new Set<ChildProcess>();
after(() => {
  for (const child of alive) child.kill('SIGKILL');
});

/** `npm start` in a state directory. */
class Start {
  readonly child: ChildProcess;
  readonly exited: Promise<number | null>;
  output = '';
  errors = '';
  #heard: () => void = () => undefined;

  constructor(dir: string, command = [process.execPath, 'scripts/start.js']) {
    const [program = '', ...args] = command;
    this.child = spawn(program, [...args, '--state-dir', dir], {
      cwd: repoRoot,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    alive.add(this.child);
    this.child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      this.output += text;
      this.#heard();
    });
    this.child.stderr?.setEncoding('utf8').on('data', (text: string) => (this.errors += text));
    this.exited = new Promise((resolve) => {
      this.child.on('close', (code) => {
        alive.delete(this.child);
        this.#heard();
        resolve(code);
      });
    });
  }

  /** Resolves when it has said everything; rejects if it ends before. */
  async ready(): Promise<this> {
    while (!this.output.includes('Ctrl-C')) {
      assert.ok(alive.has(this.child), `it has ended: ${this.output}${this.errors}`);
      await new Promise<void>((resolve) => (this.#heard = resolve));
    }
    return this;
  }

  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<number | null> {
    this.child.kill(signal);
    const late = setTimeout(() => this.child.kill('SIGKILL'), STOP_TIMEOUT_MS);
    const code = await this.exited;
    clearTimeout(late);
    return code;
  }
}

async function inDir(body: (dir: string) => Promise<void>): Promise<void> {
  const { dir, remove } = scratchDir();
  try {
    await body(dir);
  } finally {
    remove();
  }
}

async function open(dir: string): Promise<NbdClient> {
  const client = await NbdClient.connect(path.join(dir, 'nbd.sock'));
  await client.greet();
  await client.go('vol0');
  return client;
}

const status = async (dir: string): Promise<string> =>
  (await devmapper(['status', '--state-dir', dir])).stdout;

/** The URI and the commands in what it prints. */
function printed(output: string): { uri: string; commands: string[] } {
  const [intro = '', tries = ''] = output.split('\nTry');
  const uri = /^ {2}(\S+)$/m.exec(intro)?.[1] ?? '';
  return { uri, commands: [...tries.matchAll(/^ {2}(.+)$/gm)].map(([, text = '']) => text) };
}

test('it makes a pool on two sparse files and a volume of 10 GiB, which keep what is written', async () => {
  await inDir(async (parent) => {
    const dir = path.join(parent, 'state');
    const first = await new Start(dir).ready();
    const made = await status(dir);
    assert.match(made, /^pool: 0 41943040 thin-pool \d \d+\/16384 0\/327680 - rw /);
    assert.match(made, /^vol0: 0 20971520 thin 0 -$/m);
    const client = await open(dir);
    assert.equal(client.size, BigInt(10 * GIB));
    const written = Buffer.alloc(65536, 7);
    await client.writeAt(5 * GIB, written);
    await client.disconnect();
    assert.equal(await first.stop('SIGINT'), 0, first.errors);
    assert.equal(first.errors, '');
    for (const name of ['pool.data', 'pool.metadata']) {
      const { size, blocks, mode } = fs.statSync(path.join(dir, name));
      assert.ok(blocks * 512 < size / 4, `${name} is sparse`);
      assert.equal(mode & 0o777, 0o600, `${name} is the owner's alone`);
    }
    await assertClean(path.join(dir, 'pool.metadata'));

    const second = await new Start(dir).ready();
    assert.equal(second.output, first.output);
    const again = await open(dir);
    assert.ok((await again.readAt(5 * GIB, 65536)).equals(written));
    await again.disconnect();
    assert.match(await status(dir), /^vol0: 0 20971520 thin 128 /m);
    assert.equal(await second.stop(), 0);
    assert.equal(second.errors, '');
  });
});

const clients = skipWithout('nbdinfo', 'qemu-img');

test(
  'the URI and the three commands that it prints work as they stand',
  { skip: clients },
  async () => {
    await inDir(async (parent) => {
      const dir = path.join(parent, "it's a state dir & more");
      const started = await new Start(dir).ready();
      const { uri, commands } = printed(started.output);
      assert.equal(commands.length, 3);
      const said: string[] = [];
      for (const command of commands) {
        const { code, stdout, stderr } = await run('bash', ['-c', command], { cwd: repoRoot });
        assert.equal(code, 0, `${command}: ${stdout}${stderr}`);
        assert.equal(stderr, '', command);
        said.push(stdout);
      }
      const [info = '', image = '', lines = ''] = said;
      assert.match(info, /export-size: 10737418240 /);
      assert.ok(info.includes(`uri: ${uri}`) || info.includes('uri: nbd+unix:'), info);
      assert.match(image, /virtual size: 10 GiB/);
      assert.equal(lines, await status(dir));
      assert.equal(await started.stop(), 0);
    });
  },
);

test('npm passes SIGTERM on, and a second one in the same place is refused', async () => {
  await inDir(async (dir) => {
    const npm = await new Start(dir, ['npm', 'start', '--silent', '--']).ready();
    const other = new Start(dir);
    assert.equal(await other.exited, 1);
    assert.equal(other.errors, `devmapper daemon: another daemon has the state directory ${dir}\n`);
    assert.match(await status(dir), /^vol0: /m);
    // Without `exec` in package.json, a shell between the two would end, and leave the daemon.
    assert.equal(await npm.stop(), 0, npm.errors);
    assert.deepEqual(fs.readdirSync(dir).sort(), [
      'daemon.lock',
      'pool.data',
      'pool.metadata',
      'tables',
    ]);
    await assertClean(path.join(dir, 'pool.metadata'));
  });
});

test('what an earlier start has left half-made is completed', async () => {
  const stages: ((dir: string) => void)[] = [
    (dir) => fs.writeFileSync(path.join(dir, 'pool.metadata'), ''),
    (dir) => fs.writeFileSync(path.join(dir, 'pool.data'), ''),
    (dir) => fs.truncateSync(path.join(dir, 'pool.metadata'), 4096),
    (dir) => fs.truncateSync(path.join(dir, 'pool.data'), 512),
  ];
  await inDir(async (dir) => {
    for (const stage of stages.slice(0, 2)) stage(dir);
    for (const stage of stages.slice(2)) stage(dir);
    const started = await new Start(dir).ready();
    assert.match(await status(dir), /^pool: 0 41943040 thin-pool .* rw [^]*^vol0: /m);
    assert.equal(await started.stop(), 0);
    await assertClean(path.join(dir, 'pool.metadata'));
  });
});

test('killed at any time while it starts, it starts the next time', async (t) => {
  const seed = seedOf(Date.now() % 1_000_000);
  t.diagnostic(`DM_SEED=${seed}`);
  const random = new Random(seed);
  await inDir(async (dir) => {
    const begin = performance.now();
    const whole = await new Start(path.join(dir, 'first')).ready();
    const wholeMs = performance.now() - begin;
    await whole.stop();
    for (let life = 0; life < 5; life++) {
      const killed = new Start(path.join(dir, 'second'));
      await new Promise((resolve) => setTimeout(resolve, wholeMs * (0.4 + 0.6 * random.next())));
      killed.child.kill('SIGKILL');
      await killed.exited;
    }
    const second = path.join(dir, 'second');
    const last = await new Start(second).ready();
    assert.match(await status(second), /^pool: 0 41943040 thin-pool .* rw [^]*^vol0: /m);
    assert.equal(await last.stop(), 0);
    await assertClean(path.join(second, 'pool.metadata'));
  });
});

test('SIGTERM while it starts is a clean end, too', async (t) => {
  const seed = seedOf(Date.now() % 1_000_000);
  t.diagnostic(`DM_SEED=${seed}`);
  const random = new Random(seed);
  await inDir(async (dir) => {
    for (let life = 0; life < 4; life++) {
      const started = new Start(dir);
      while (!fs.existsSync(path.join(dir, 'control.sock'))) {
        await new Promise((resolve) => setTimeout(resolve, 2));
      }
      await new Promise((resolve) => setTimeout(resolve, random.below(40)));
      // Before it listens to signals one kills it; after that it exits by itself.
      const code = await started.stop();
      assert.ok(code === 0 || code === null, `${code}: ${started.errors}`);
      assert.doesNotMatch(started.errors, /Error|stack|at /);
      for (const name of ['control.sock', 'nbd.sock', 'daemon.pid']) {
        fs.rmSync(path.join(dir, name), { force: true });
      }
    }
    const last = await new Start(dir).ready();
    assert.equal(await last.stop(), 0);
    await assertClean(path.join(dir, 'pool.metadata'));
  });
});
