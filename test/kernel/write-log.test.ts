/**
 * A log of ours is the kernel's, byte for byte: the same I/O goes through LoggedDevice here and
 * through a log-writes target in a real kernel, where also a dmsetup status is asked for now and
 * then; write-log.sh has the words of that side. One boot serves all tests.
 */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { before, test } from 'node:test';
import { errno } from '../../src/base/errno.ts';
import { BioOp, type Bio } from '../../src/block/bio.ts';
import type { BlockDevice } from '../../src/block/device.ts';
import { LoggedDevice } from '../../src/block/logged-device.ts';
import { MemoryDevice } from '../../src/block/memory-device.ts';
import { WriteLogReader } from '../../src/block/write-log-reader.ts';
import { WriteLog } from '../../src/block/write-log.ts';
import { imageOf, writeBytes } from '../helpers/edit-blocks.ts';
import { FaultyDevice } from '../helpers/faulty-device.ts';
import { HeldDevice } from '../helpers/held-device.ts';
import { kernelModules, repoRoot, runInKernel, skipWithoutKernel } from '../helpers/kernel.ts';
import { scratchDir } from '../helpers/programs.ts';
import { Random, seedOf } from '../helpers/random.ts';
import { discard, fill, flush } from '../helpers/stack.ts';

const SECTOR = 512;
/** Sectors of the logged device. */
const SECTORS = 4096;
/** Sectors of the largest log. */
const LOG_SECTORS_MAX = 4096;
/** What is written is made of these. */
const BYTES = Array.from({ length: 16 }, (_, i) => i);

type Step =
  | { readonly op: 'w'; byte: number; sector: number; nrSectors: number; sync: boolean }
  | { readonly op: 'f' }
  | { readonly op: 'd'; sector: number; nrSectors: number }
  | { readonly op: 'm'; text: string }
  | { readonly op: 'st' }
  | { readonly op: 'swap'; which: 'E' | 'L'; to: 'good' | 'bad' };

interface Scenario {
  readonly name: string;
  readonly blockSize: number;
  readonly logSectors: number;
  readonly steps: readonly Step[];
}

const w = (byte: number, sector: number, nrSectors: number, sync = false): Step => ({
  op: 'w',
  byte,
  sector,
  nrSectors,
  sync,
});
const f: Step = { op: 'f' };
const d = (sector: number, nrSectors: number): Step => ({ op: 'd', sector, nrSectors });
const m = (text: string): Step => ({ op: 'm', text });
const st: Step = { op: 'st' };
const swap = (which: 'E' | 'L', to: 'good' | 'bad'): Step => ({ op: 'swap', which, to });

/** Steps of all kinds, on blocks of `unit` sectors. */
function randomSteps(random: Random, count: number, unit: number): Step[] {
  const steps: Step[] = [];
  while (steps.length < count) {
    const nrSectors = unit * random.between(1, 64 / unit);
    const sector = unit * random.below((SECTORS - nrSectors) / unit);
    const roll = random.next();
    if (roll < 0.6) steps.push(w(random.pick(BYTES), sector, nrSectors, random.chance(0.3)));
    else if (roll < 0.75) steps.push(f);
    else if (roll < 0.85) steps.push(d(sector, nrSectors));
    else if (roll < 0.95) steps.push(m(`mark-${steps.length}`));
    else steps.push(st);
  }
  return [...steps, st];
}

const seed = seedOf(30);

const scenarios: readonly Scenario[] = [
  {
    name: `writes, flushes, FUA writes, discards and marks are logged as the kernel logs them (seed ${seed})`,
    blockSize: 512,
    logSectors: LOG_SECTORS_MAX,
    steps: randomSteps(new Random(seed), 60, 1),
  },
  {
    name: `and so they are for logical blocks of 4096 bytes (seed ${seed})`,
    blockSize: 4096,
    logSectors: LOG_SECTORS_MAX,
    steps: randomSteps(new Random(seed + 1), 30, 8),
  },
  {
    name: 'writes that no flush has covered are logged when the device is removed, before the end mark',
    blockSize: 512,
    logSectors: LOG_SECTORS_MAX,
    steps: [w(1, 8, 8), f, w(2, 0, 8), d(8, 8), m('in-between'), w(3, 8, 1), st],
  },
  {
    name: 'a mark that does not fit into a sector is cut off',
    blockSize: 512,
    logSectors: 64,
    steps: [479, 480, 481, 2000].map((n) => m('x'.repeat(n))),
  },
  ...[30, 31, 32, 33].map((logSectors) => ({
    name: `a log of ${logSectors} sectors that is full is given up where the kernel gives it up`,
    blockSize: 512,
    logSectors,
    steps: [w(1, 0, 8), w(2, 8, 8, true), st, m('a'), w(3, 16, 8), f, st, m('b'), f, st, f, st],
  })),
  {
    name: 'and so is one of 4096-byte sectors',
    blockSize: 4096,
    logSectors: 104,
    steps: [w(1, 0, 32, true), ...['a', 'b', 'c', 'd', 'e', 'f', 'g'].flatMap((t) => [m(t), st])],
  },
  {
    name: 'I/O that fails is logged all the same',
    blockSize: 512,
    logSectors: LOG_SECTORS_MAX,
    steps: [
      w(1, 0, 8),
      swap('E', 'bad'),
      w(2, 8, 8),
      w(3, 16, 8, true),
      m('one'),
      f,
      d(24, 8),
      w(4, 32, 8),
      m('two'),
      st,
      swap('E', 'good'),
      w(5, 40, 8),
      f,
      st,
    ],
  },
  {
    name: 'a log that cannot be written is given up for good, and I/O goes on',
    blockSize: 512,
    logSectors: LOG_SECTORS_MAX,
    steps: [
      w(1, 0, 8),
      f,
      m('one'),
      swap('L', 'bad'),
      w(2, 8, 8, true),
      st,
      m('two'),
      swap('L', 'good'),
      w(3, 16, 8),
      f,
      m('three'),
      st,
    ],
  },
];

// --- here

class Here {
  readonly #device: FaultyDevice;
  readonly #logDevice: FaultyDevice;
  readonly log: WriteLog;
  readonly logged: LoggedDevice;
  readonly statuses: string[] = [];

  constructor(blockSize: number, logSectors: number, below?: BlockDevice) {
    const limits = { logicalBlockSize: blockSize };
    this.#device = new FaultyDevice(below ?? new MemoryDevice('E', SECTORS, { limits }));
    this.#logDevice = new FaultyDevice(new MemoryDevice('L', logSectors));
    this.log = new WriteLog(this.#logDevice, blockSize);
    this.logged = new LoggedDevice(this.#device, this.log);
  }

  async run(steps: readonly Step[]): Promise<void> {
    for (const step of steps) await this.#step(step).catch(() => undefined);
  }

  async #step(step: Step): Promise<void> {
    switch (step.op) {
      case 'w':
        await fill(
          this.logged,
          step.sector * SECTOR,
          step.nrSectors * SECTOR,
          step.byte,
          step.sync,
        );
        if (step.sync) await flush(this.logged); // As Linux does for O_DSYNC.
        break;
      case 'f':
        await flush(this.logged);
        break;
      case 'd':
        await discard(this.logged, step.sector * SECTOR, step.nrSectors * SECTOR);
        break;
      case 'm':
        this.log.mark(step.text);
        break;
      case 'st':
        await this.log.written();
        this.statuses.push(this.log.status);
        break;
      case 'swap': {
        await this.log.written();
        const fail = ({ op }: Bio): number => (op === BioOp.READ ? 0 : errno.EIO);
        const device = step.which === 'E' ? this.#device : this.#logDevice;
        device.failBio = step.to === 'bad' ? fail : () => 0;
        break;
      }
    }
  }

  async close(): Promise<Buffer> {
    this.logged.close();
    await this.log.close();
    return imageOf(this.#logDevice);
  }
}

interface Result {
  readonly image: Buffer;
  readonly statuses: readonly string[];
}

async function runHere(scenario: Scenario): Promise<Result> {
  const here = new Here(scenario.blockSize, scenario.logSectors);
  await here.run(scenario.steps);
  return { image: await here.close(), statuses: here.statuses };
}

/**
 * Completions out of order. E is three segments of 1024 sectors in the kernel, S0 to S2: what is
 * sent to a suspended one waits, and so does every flush, which goes to all. Here a device holds
 * everything, and `release` lets one go.
 */
async function runOrderHere(): Promise<Result> {
  const below = new HeldDevice(new MemoryDevice('E', 3072));
  const here = new Here(512, LOG_SECTORS_MAX, below);
  const step = (...steps: Step[]): Promise<void> => here.run(steps);
  const [a, b, c] = [step(w(1, 2048, 8)), step(w(2, 1024, 8)), step(w(3, 0, 8))];
  below.release(2);
  await c;
  below.release(1);
  await b;
  const flushed = step(f);
  await step(m('during'), st);
  below.release(); // It ends while the flush is under way, which does not cover it.
  below.release();
  await Promise.all([a, flushed]);
  below.holding = false;
  await step(f, m('second'));
  below.holding = true;
  const late = step(w(4, 0, 8));
  const synced = step(w(5, 1024, 8, true));
  below.release(1);
  await below.whenHeld(2); // The late write, and the flush that follows FUA.
  await step(st);
  below.holding = false;
  await step(d(2048, 8), w(6, 2048, 8));
  below.release();
  below.release();
  await Promise.all([late, synced]);
  await step(f);
  return { image: await here.close(), statuses: here.statuses };
}

const orderScript = (statuses: readonly string[], logBegin: number): string => `
echo scenario order
for i in 0 1 2; do dmsetup create S$i --table "0 1024 linear /dev/ubda $((i * 1024))"; done
dmsetup create L --table "0 4096 linear /dev/ubdb ${logBegin}"
dmsetup create E <<END
0 1024 linear /dev/mapper/S0 0
1024 1024 linear /dev/mapper/S1 0
2048 1024 linear /dev/mapper/S2 0
END
dmsetup create l --table "0 3072 log-writes /dev/mapper/E /dev/mapper/L"
number=$(dmsetup info -c --noheadings -o devno E)
hold() { dmsetup suspend --nolockfs $1; }
go() { dmsetup resume $1; }
hold S0; hold S1; hold S2
w 1 2048 8 & a=$!; w 2 1024 8 & b=$!; w 3 0 8 & c=$!
inflight $number 3
go S0; wait $c
go S1; wait $b
f & flush=$!
inflight $number 2
m during
st "${statuses[0]}"
go S2; wait $a $flush
f
m second
hold S0
w 4 0 8 & late=$!
inflight $number 1
w 5 1024 8 ,dsync & synced=$!
st "${statuses[1]}"
inflight $number 2
d 2048 8
w 6 2048 8
go S0; wait $late $synced
f
close
`;

// --- there

function lineOf(step: Step, statuses: string[]): string {
  switch (step.op) {
    case 'w':
      return `w ${step.byte} ${step.sector} ${step.nrSectors}${step.sync ? ' ,dsync' : ''}`;
    case 'f':
      return 'f';
    case 'd':
      return `d ${step.sector} ${step.nrSectors}`;
    case 'm':
      return `m ${step.text}`;
    case 'st':
      return `st "${statuses.shift()}"`;
    case 'swap':
      return `swap ${step.which} ${step.to}`;
  }
}

/** What the kernel is to do; it waits for the statuses that we have, and says what it has. */
function script(bytes: string): string {
  const words = path.join(repoRoot, 'test/kernel/write-log.sh');
  const lines = [`MODULES=${kernelModules}`, `BYTES=${bytes}`, `. ${words}`, 'loops'];
  for (const [i, { blockSize, logSectors, steps }] of scenarios.entries()) {
    const statuses = [...(ours.get(`${i}`) as Result).statuses];
    const [disk, logDisk] = blockSize === SECTOR ? ['ubda', 'ubdb'] : ['loop0', 'loop1'];
    const begin = i * LOG_SECTORS_MAX;
    lines.push(`echo scenario ${i}`);
    lines.push(`open /dev/${disk} ${SECTORS} /dev/${logDisk} ${begin} ${logSectors}`);
    lines.push(...steps.map((step) => lineOf(step, statuses)), 'close');
  }
  const { statuses } = ours.get('order') as Result;
  const order = orderScript(statuses, scenarios.length * LOG_SECTORS_MAX);
  return [...lines, order, 'losetup -D', 'echo finished', ''].join('\n');
}

const ours = new Map<string, Result>();
/** What the kernel printed, and its logs, one behind the other. */
let printed: readonly string[] = [];
let logs = Buffer.alloc(0);
const skip = skipWithoutKernel();

before(async () => {
  if (skip !== false) return;
  for (const [i, scenario] of scenarios.entries()) ours.set(`${i}`, await runHere(scenario));
  ours.set('order', await runOrderHere());
  const { dir, remove } = scratchDir();
  try {
    const [device, logDevice, bytes] = ['device', 'log', 'bytes'].map((s) => path.join(dir, s)) as [
      string,
      string,
      string,
    ];
    fs.writeFileSync(device, Buffer.alloc(SECTORS * SECTOR));
    fs.writeFileSync(logDevice, Buffer.alloc((scenarios.length + 1) * LOG_SECTORS_MAX * SECTOR));
    fs.writeFileSync(bytes, Buffer.concat(BYTES.map((byte) => Buffer.alloc(65536, byte))));
    const { stdout, stderr } = await runInKernel(script(bytes), {
      disks: [device, logDevice],
      dir,
    });
    assert.match(stdout, /finished\n$/, `${stdout.slice(-2000)}\n${stderr.slice(-2000)}`);
    printed = stdout.trim().split('\n');
    logs = fs.readFileSync(logDevice);
  } finally {
    remove();
  }
});

/** What the kernel has of a scenario: the statuses, and the log with what is behind it. */
function theirs(name: string): Result {
  const begin = printed.indexOf(`scenario ${name}`) + 1;
  const end = printed.findIndex((line, i) => i >= begin && /^(scenario|finished)/.test(line));
  const statuses = printed.slice(begin, end).filter((line) => line.startsWith('status '));
  const at = (name === 'order' ? scenarios.length : Number(name)) * LOG_SECTORS_MAX * SECTOR;
  const image = logs.subarray(at, at + LOG_SECTORS_MAX * SECTOR);
  return { image, statuses: statuses.map((line) => line.replace('status ', '')) };
}

/** The entries of a log, a line each, to look at when two logs differ. */
function linesOf(image: Uint8Array): string[] {
  const device = new MemoryDevice('log', image.length / SECTOR);
  writeBytes(device, 0, image);
  return [...WriteLogReader.open(device).entries()].map(
    ({ flags, sector, nrSectors, logSector, text }) =>
      `@${logSector}: ${sector}+${nrSectors} flags ${flags} ${text}`,
  );
}

/** Compares what both sides have of a scenario; the entries. */
function compare(name: string): string[] {
  const mine = ours.get(name) as Result;
  const kernels = theirs(name);
  assert.deepEqual(mine.statuses, kernels.statuses);
  const lines = linesOf(kernels.image);
  assert.deepEqual(linesOf(mine.image), lines);
  const { length } = mine.image;
  assert.ok(mine.image.equals(kernels.image.subarray(0, length)), 'every byte is the same');
  assert.ok(
    kernels.image.subarray(length).every((byte) => byte === 0),
    'and nothing is behind',
  );
  return lines;
}

for (const [i, { name }] of scenarios.entries()) test(name, { skip }, () => void compare(`${i}`));

test(
  'what ends out of order is logged in the order in which it ended, and behind the flush that did not cover it',
  { skip },
  () => {
    const entries = compare('order').map((line) => line.replace(/@\d+: /, '').trim());
    assert.deepEqual(entries, [
      '0+0 flags 8 during',
      '0+8 flags 0',
      '1024+8 flags 0',
      '0+0 flags 1',
      '2048+8 flags 0',
      '0+0 flags 1',
      '0+0 flags 8 second',
      '1024+8 flags 2',
      '0+0 flags 1',
      '2048+8 flags 4',
      '2048+8 flags 0',
      '0+8 flags 0',
      '0+0 flags 1',
      '0+0 flags 8 dm-log-writes-end',
    ]);
  },
);
