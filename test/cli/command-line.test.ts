/**
 * Our own command line: help, versions, mistakes, `uri`, and listings as JSON. What is dmsetup's is
 * compared with dmsetup; see test/kernel/transcripts.
 */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { commandHelp } from '../../src/cli/dmsetup/command-help.ts';
import { commands } from '../../src/cli/dmsetup/commands.ts';
import { optionSpecs, ownOptionSpecs } from '../../src/cli/dmsetup/options.ts';
import { DaemonProcess, devmapper } from '../helpers/daemon.ts';
import { repoRoot } from '../helpers/kernel.ts';
import { run } from '../helpers/programs.ts';

const OWN = [
  ...['daemon', 'stop', 'uri', 'parameter', 'thin_check', 'thin_dump', 'replay-log', 'links'],
  ...['attach', 'detach', 'mount', 'unmount', 'attachments'],
];

let daemon: DaemonProcess;
before(async () => {
  daemon = await DaemonProcess.start();
  await daemon.dmsetup('create', 'a', '-u', 'U-a', '--table', '0 8 zero\n8 8 error');
  await daemon.dmsetup('create', 'odd name', '--table', '0 4 linear /dev/mapper/a 2');
  await daemon.dmsetup('create', 'bare', '--notable');
});
after(async () => {
  await daemon.close();
});

const here = (...args: string[]): ReturnType<typeof devmapper> =>
  devmapper([...args, '--state-dir', daemon.dir]);

async function jsonOf<T>(...args: string[]): Promise<T> {
  const { code, stdout, stderr } = await here(...args, '--json');
  assert.deepEqual([code, stderr], [0, ''], args.join(' '));
  return JSON.parse(stdout) as T;
}

// --- help

test('every command has help that fits the screen and names only options that there are', () => {
  const known = [...optionSpecs, ...ownOptionSpecs];
  for (const name of commands.keys()) {
    const help = commandHelp(name);
    assert.match(help, new RegExp(`^Usage: devmapper ${name}( .*)?\n`), name);
    assert.match(help, /\n\n[A-Z]/, `${name} says what it does`);
    assert.match(help, /^ {2}--state-dir DIR/m);
    for (const line of help.split('\n')) assert.ok(line.length <= 100, `${name}: ${line}`);
    for (const [, long = ''] of help.matchAll(/--([a-z-]+)/g)) {
      assert.ok(
        known.some((spec) => spec.long === long),
        `${name}: --${long}`,
      );
    }
    for (const [, short = '', long = ''] of help.matchAll(/-([a-zA-Z]), --([a-z]+)/g)) {
      assert.ok(
        known.some((spec) => spec.long === long && spec.short === short),
        `-${short}`,
      );
    }
  }
});

test('`devmapper help` names every command, and each of them has --help', async () => {
  const all = [...commands.keys(), ...OWN];
  const { code, stdout, stderr } = await devmapper(['help']);
  assert.deepEqual([code, stderr], [0, '']);
  for (const name of all) assert.match(stdout, new RegExp(`\\b${name}\\b`), name);
  for (const args of [['--help'], ['-h']])
    assert.deepEqual(await devmapper(args), { code, stdout, stderr });
  for (const name of [...OWN, 'create', 'status']) {
    const help = await devmapper([name, '--help']);
    assert.equal(help.code, 0, name);
    assert.match(help.stdout, /^Usage: /m, name);
    assert.equal(help.stderr, '');
    assert.deepEqual(await devmapper(['help', name]), help);
  }
});

test('without a command, or with one that there is not, it prints help and fails', async () => {
  const { stdout: help } = await devmapper(['help']);
  assert.deepEqual(await devmapper([]), { code: 1, stdout: '', stderr: help });
  const unknown = { code: 1, stdout: '', stderr: `Unknown command.\n${help}` };
  assert.deepEqual(await devmapper(['nosuch']), unknown);
  assert.deepEqual(await devmapper(['help', 'nosuch']), { code: 0, stdout: help, stderr: '' });
  for (const name of ['constructor', '__proto__', 'toString', '']) {
    assert.deepEqual(await devmapper([name]), unknown, name);
  }
});

test('a command with too few or too many words shows how it is called', async () => {
  const { code, stdout, stderr } = await devmapper(['rename']);
  assert.deepEqual([code, stdout], [1, '']);
  assert.equal(
    stderr,
    `Incorrect number of arguments.
Usage: devmapper rename <device> <new_name>
       devmapper rename <device> --setuuid <uuid>
Try 'devmapper rename --help'.
`,
  );
});

test('as dmsetup it prints dmsetup’s usage instead', async () => {
  const usage = await devmapper(['dmsetup', 'help']);
  assert.deepEqual([usage.code, usage.stdout], [0, '']);
  assert.match(usage.stderr, /^Usage:\n\ndmsetup\n/);
  assert.deepEqual(await devmapper(['dmsetup', 'create', '--help']), usage);
  const unknown = await devmapper(['dmsetup', 'nosuch']);
  assert.deepEqual(unknown, { code: 1, stdout: '', stderr: `Unknown command.\n${usage.stderr}` });
});

test('--version is ours, `version` dmsetup’s and the kernel’s', async () => {
  const text = fs.readFileSync(path.join(repoRoot, 'package.json'), 'utf8');
  const { version } = JSON.parse(text) as { version: string };
  const ours = { code: 0, stdout: `devmapper ${version}\n`, stderr: '' };
  assert.deepEqual(await devmapper(['--version']), ours);
  assert.deepEqual(await devmapper(['-V']), ours);
  const theirs = 'Library version:   1.02.185 (2022-05-18)\nDriver version:    4.47.0\n';
  assert.deepEqual(await devmapper(['version']), { code: 0, stdout: theirs, stderr: '' });
});

test('mistakes in our own commands’ options exit with 2 and say where help is', async () => {
  for (const [args, text] of [
    [['daemon', '--nosuch'], "devmapper daemon: unrecognized option '--nosuch'"],
    [['stop', '-x'], "devmapper stop: invalid option -- 'x'"],
    [['uri', '--state-dir'], "devmapper uri: option '--state-dir' requires an argument"],
  ] as const) {
    const { code, stdout, stderr } = await devmapper(args);
    assert.deepEqual([code, stdout], [2, '']);
    assert.equal(stderr, `${text}\nTry 'devmapper ${args[0]} --help'.\n`);
  }
  assert.deepEqual(
    (await devmapper(['daemon', 'x'])).stderr,
    "devmapper daemon: wanted no arguments, found 'x'\n",
  );
});

test('a reader that goes away ends a listing quietly', async () => {
  const program = path.join(repoRoot, 'bin', 'devmapper.js');
  const line = `${process.execPath} ${program} help | true; echo \${PIPESTATUS[0]}`;
  const { stderr } = await run('bash', ['-c', line]);
  assert.equal(stderr, '');
});

test('a command works in a directory that has been removed', async () => {
  const program = path.join(repoRoot, 'bin', 'devmapper.js');
  const gone = daemon.file('gone');
  fs.mkdirSync(gone);
  const command = `rmdir "$PWD"; exec ${process.execPath} ${program} create g --table '0 8 zero'`;
  const env = { DEVMAPPER_DIR: daemon.dir };
  const made = await run('bash', ['-c', command], { cwd: gone, env });
  assert.deepEqual(made, { code: 0, stdout: '', stderr: '' });
  await daemon.dmsetup('remove', 'g');
});

test('paths in tables start from the directory of the command, not of the daemon', async () => {
  daemon.disk('disk', 8192);
  const program = path.join(repoRoot, 'bin', 'devmapper.js');
  const args = [program, 'create', 'rel', '--table', '0 16 linear ./disk 0'];
  const env = { DEVMAPPER_DIR: daemon.dir };
  const made = await run(process.execPath, args, { cwd: daemon.dir, env });
  assert.deepEqual(made, { code: 0, stdout: '', stderr: '' });
  const printed = await daemon.dmsetup('table', 'rel');
  assert.match(printed, /^0 16 linear 240:0 0\n$/);
  await daemon.dmsetup('remove', 'rel');
  // The number stands for the file as long as the daemon lives.
  await daemon.dmsetup('create', 'rel', '--table', printed);
  assert.equal(await daemon.dmsetup('table', 'rel'), printed);
  await daemon.dmsetup('remove', 'rel');
});

// --- uri

test('`uri` prints where a device is served, and says so if there is none', async () => {
  const uri = `nbd+unix:///a?socket=${daemon.nbdSocket}`;
  assert.deepEqual(await here('uri', 'a'), { code: 0, stdout: `${uri}\n`, stderr: '' });
  assert.deepEqual(await jsonOf('uri', 'a'), { name: 'a', uri });
  const odd = await here('uri', 'odd name');
  assert.match(odd.stdout, /^nbd\+unix:\/\/\/odd%5Cx20name\?socket=/);
  const none = { code: 1, stdout: '', stderr: "devmapper uri: there is no device 'nosuch'\n" };
  assert.deepEqual(await here('uri', 'nosuch'), none);
  for (const args of [['uri'], ['uri', 'a', 'b']]) {
    const wanted = { code: 2, stdout: '', stderr: 'devmapper uri: wanted one device name\n' };
    assert.deepEqual(await here(...args), wanted);
  }
});

// --- JSON

test('--json lists devices with all that is known of them', async () => {
  interface Listed {
    name: string;
    uuid: string;
    minor: number;
    openCount: number;
    sizeSectors: number;
    targetTypes: string[];
    liveTable: boolean;
  }
  const listed = await jsonOf<Listed[]>('ls');
  assert.deepEqual(
    listed.map(({ name, minor, openCount, sizeSectors, targetTypes, liveTable }) => {
      return [name, minor, openCount, sizeSectors, targetTypes.join(), liveTable];
    }),
    [
      ['a', 0, 1, 16, 'zero,error', true],
      ['bare', 2, 0, 0, '', false],
      ['odd name', 1, 0, 4, 'linear', true],
    ],
  );
  assert.deepEqual(await jsonOf('info'), listed);
  assert.deepEqual(await jsonOf('info', '-c'), listed);
  assert.deepEqual(await jsonOf('ls', '--target', 'zero'), [listed[0]]);
  assert.deepEqual(await jsonOf('info', '-u', 'U-a'), [listed[0]]);
});

test('--json shows tables, status, dependencies and targets', async () => {
  interface Lines {
    device: { name: string };
    lines: string[];
  }
  const tables = await jsonOf<Lines[]>('table');
  assert.deepEqual(
    tables.map(({ device, lines }) => [device.name, lines]),
    [
      ['a', ['0 8 zero ', '8 8 error ']],
      ['bare', []],
      ['odd name', ['0 4 linear 254:0 2']],
    ],
  );
  const [status] = await jsonOf<Lines[]>('status', 'a', '--target', 'error');
  assert.deepEqual(status?.lines, ['8 8 error ']);
  const used = { major: 254, minor: 0, name: 'a', blkdevname: 'dm-0' };
  assert.deepEqual(await jsonOf('deps', 'odd name'), [{ name: 'odd name', deps: [used] }]);
  const targets = await jsonOf<{ name: string; version: number[] }[]>('targets');
  assert.deepEqual(targets.find(({ name }) => name === 'linear')?.version, [1, 4, 0]);
});

test('--json of nothing is an empty list', async () => {
  const empty = await DaemonProcess.start();
  try {
    for (const command of ['ls', 'info', 'status', 'table', 'deps']) {
      const { stdout } = await devmapper([command, '--json', '--state-dir', empty.dir]);
      assert.equal(stdout, '[]\n', command);
    }
  } finally {
    await empty.close();
  }
});
