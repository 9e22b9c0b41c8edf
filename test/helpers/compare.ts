/**
 * The judge of everything that dmsetup prints: one bash script, run by the real dmsetup in the real
 * kernel and by ours here, step by step.
 *
 * A script calls `x COMMAND...` for each step that is compared: its output, its errors, its exit
 * code and what the kernel logged meanwhile. Its first line may say what the disks $A, $B, … are:
 *   # disks: 4M 256M           their sizes; 256M and 128M if nothing is said
 *   # disks: 4M loop:64M       a disk that can discard
 * A line `# about caches` gives it the words of sides/cache.sh.
 * Steps that do I/O print `ok` or the error:
 *   wr DEVICE SECTOR COUNT BYTE [fua]   one write of that byte, past caches
 *   trim DEVICE SECTOR COUNT, fsync DEVICE
 *   rd DEVICE SECTOR COUNT     prints the sectors read, equal ones counted
 * What takes its time:
 *   logs TEXT COMMAND...       the command, then waits until the log of this step has the text
 *   bg NAME COMMAND...         starts a command
 *   blocks NAME                prints `blocks` if it has not ended after a moment, or its output
 *   ended NAME                 waits for it, prints its output
 *   until_true COMMAND...      repeats the command until it succeeds
 * Others:
 *   messages POOL WORDS BEGIN END   sends `WORDS n` for each n until one is refused
 *   wrs DEVICE SECTOR STEP COUNT   COUNT writes of 4 KiB, STEP sectors (up or down) apart
 *   shape DISK                 the shapes of the trees of metadata that is not in use
 *   no_space_timeout SECONDS, usage DISK (the KiB that a loop disk takes)
 *   $I, a directory of files that both sides see
 * `here COMMAND` and `there COMMAND` run on one side only and are not compared.
 * `differs HEADING COMMAND...` is a step that differs on purpose, for the reason under that heading
 * in docs/differences.md.
 * A line `# power cut` stops the machine there, and kills the daemon here; the disks stay.
 */
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { kernelModules, repoRoot, runInKernel } from './kernel.ts';

/** One step of a script: what `x` saw. */
export interface Step {
  readonly command: string;
  readonly out: readonly string[];
  readonly err: readonly string[];
  readonly code: number;
  /** Lines of the kernel's log, or of our daemon's, from `device-mapper: ` on. */
  readonly log: readonly string[];
  /** The heading in docs/differences.md that says why the two sides differ here. */
  readonly difference: string | null;
}

export interface Transcripts {
  readonly kernel: readonly Step[];
  readonly here: readonly Step[];
}

const LOG_PREFIX = 'device-mapper: ';
const POWER_CUT = /^# power cut$/m;
const ABOUT_CACHES = /^# about caches$/m;

const sides = path.join(repoRoot, 'test', 'kernel', 'sides');
const side = (name: string): string => fs.readFileSync(path.join(sides, `${name}.sh`), 'utf8');

/** What all scripts begin with, or `script` does. */
const beginning = (script: string, own: 'here' | 'there'): string =>
  `${side('common')}${side(own)}${ABOUT_CACHES.test(script) ? side('cache') : ''}`;

/** One of a script's disks. */
interface Disk {
  /** As the kernel calls it: ubda or loop1. */
  readonly name: string;
  readonly bytes: number;
}

/** What a script runs with. */
export interface Setup {
  /** A directory for the disks and scratch files. */
  readonly dir: string;
  /** What the script knows as $I. */
  readonly files?: string;
}

const UNITS: Record<string, number> = { K: 2 ** 10, M: 2 ** 20, G: 2 ** 30 };

/** The disks that a script asks for in its first line. */
function disksOf(script: string): Disk[] {
  const words = /^# disks: (.*)$/m.exec(script)?.[1] ?? '256M 128M';
  return words.split(' ').map((word, i) => {
    const [, loop, number, unit = ''] = /^(loop:)?([0-9]+)([KMG])$/.exec(word) ?? [];
    if (number === undefined) throw new Error(`wanted the size of a disk, found ${word}`);
    const name = loop === undefined ? `ubd${String.fromCharCode(97 + i)}` : `loop${i}`;
    return { name, bytes: Number(number) * (UNITS[unit] as number) };
  });
}

/** Runs `script` on both sides at once, in directories under that of `setup`. */
export async function runBoth(script: string, setup: Setup): Promise<Transcripts> {
  const [kernel, here] = await Promise.all([runThere(script, setup), runHere(script, setup)]);
  return { kernel, here };
}

function makeDisks(disks: readonly Disk[], dir: string): string[] {
  fs.mkdirSync(dir, { recursive: true });
  return disks.map(({ name, bytes }) => {
    const file = path.join(dir, name);
    fs.writeFileSync(file, '');
    fs.truncateSync(file, bytes);
    return file;
  });
}

/** The kernel's side. */
export async function runThere(script: string, { dir, files = '' }: Setup): Promise<Step[]> {
  const own = path.join(dir, 'there');
  const disks = disksOf(script);
  const images = makeDisks(disks, own);
  const names = disks.map(({ name }) => name).join(' ');
  const settings = `DISKS='${names}' MODULES='${kernelModules}' I='${files}' SIDES='${sides}'`;
  const steps: Step[] = [];
  for (const part of script.split(POWER_CUT)) {
    const text = `${settings}\n${beginning(script, 'there')}${part}\nfinish\n`;
    const { code, stdout, stderr } = await runInKernel(text, { disks: images, dir: own });
    if (code !== 0) throw new Error(`the kernel's side ended with ${code}:\n${stdout}${stderr}`);
    steps.push(...parse(stdout, (line) => unescape(/^[^;]*;(.*)$/.exec(line)?.[1] ?? '')));
  }
  return steps.map((step) => ({ ...step, err: withoutStatistics(step.err) }));
}

/** Without the escapes that /dev/kmsg has for backslashes and what is not ASCII. */
function unescape(line: string): string {
  const byte = (_all: string, hex: string): string => String.fromCharCode(parseInt(hex, 16));
  const bytes = line.replace(/\\x([0-9a-f]{2})/g, byte);
  return bytes === line ? line : Buffer.from(bytes, 'latin1').toString();
}

/** Our side. */
export async function runHere(script: string, { dir, files = '' }: Setup): Promise<Step[]> {
  const own = path.join(dir, 'here');
  const disks = disksOf(script);
  const images = makeDisks(disks, own);
  const programs = path.join(repoRoot, 'dist/test/kernel/sides');
  const settings = `W='${own}' FILES='${images.join(' ')}' I='${files}'`;
  const here = `${settings} SIDES='${sides}' PROGRAMS='${programs}'`;
  const parts = script.split(POWER_CUT);
  const steps: Step[] = [];
  for (const [i, part] of parts.entries()) {
    const isLast = i === parts.length - 1;
    const end = `finish ${isLast ? 'stop' : 'kill'}`;
    const text = `${here}\n${beginning(script, 'here')}${part}\n${end}\n`;
    const stdout = await runBash(text, own, disks);
    const asThere = disks.reduce(
      (all, { name }) => all.replaceAll(path.join(own, name), `/dev/${name}`),
      stdout,
    );
    steps.push(...parse(asThere, ourLogText).map((step) => normalise(step, disks)));
  }
  return steps;
}

/** Runs a script of our side; resolves to what it printed. */
async function runBash(script: string, own: string, disks: readonly Disk[]): Promise<string> {
  const bin = path.join(own, 'bin');
  const state = path.join(own, 'state');
  fs.mkdirSync(bin, { recursive: true });
  fs.mkdirSync(state, { recursive: true });
  for (const name of ['dmsetup', 'devmapper']) {
    const link = path.join(bin, name);
    if (fs.existsSync(link)) continue;
    fs.symlinkSync(path.join(repoRoot, 'bin', 'devmapper.js'), link);
  }
  const file = path.join(own, 'script.sh');
  fs.writeFileSync(file, script);
  const discards = disks.some(({ name }) => name.startsWith('loop'));
  const child = spawn('bash', [file], {
    cwd: own,
    env: {
      ...process.env,
      // Without koffi a file cannot discard, as the kernel's disk cannot in units of pool blocks.
      ...(!discards && { DEVMAPPER_NO_FFI: '1' }),
      PATH: `${bin}:${process.env['PATH'] ?? ''}:/usr/sbin:/sbin`,
      DEVMAPPER_DIR: state,
    },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  const code = await new Promise<number>((resolve) => child.on('close', (n) => resolve(n ?? 128)));
  if (code !== 0) throw new Error(`our side ended with ${code}:\n${stdout}${stderr}`);
  return stdout;
}

/** The text of a line of the daemon's log, which is JSON except for our marks. */
function ourLogText(line: string): string {
  if (!line.startsWith('{')) return line;
  return (JSON.parse(line) as { msg?: string }).msg ?? '';
}

/** The numbers of files, as the kernel numbers the disks that they stand for; columns stay. */
function normalise(step: Step, disks: readonly Disk[]): Step {
  const asDisk = (text: string): string =>
    text.replace(/\b240(:|, )(\d+)/g, (_all, between: string, minor: string) => {
      const loop = /^loop(\d+)$/.exec(disks[Number(minor)]?.name ?? '')?.[1];
      return loop === undefined ? `98${between}${Number(minor) * 16}` : `7${between}${loop}`;
    });
  const kernels = (line: string): string =>
    asDisk(line.replace(/\S*\b240:\S+(?=  | $)/g, (cell) => asDisk(cell).padEnd(cell.length)));
  return {
    ...step,
    command: asDisk(step.command),
    out: step.out.map(kernels),
    err: step.err.map(kernels),
  };
}

/** Sections of the list of fields that only dmsetup has: I/O statistics are not kept here. */
function withoutStatistics(lines: readonly string[]): string[] {
  let skipping = false;
  return lines.filter((line) => {
    if (/^Mapped Device Statistics/.test(line)) skipping = true;
    const skip = skipping;
    if (line === ' ') skipping = false;
    return !skip;
  });
}

/** What a disk cannot do: a file and a user-mode kernel's disk differ in it. */
function sameDisk(line: string): string {
  return line.replace(
    /((?:Data|Origin) device \(\S+\) ).*(: Disabling discard passdown\.)$/,
    '$1…$2',
  );
}

interface OpenStep extends Step {
  out: string[];
  err: string[];
  log: string[];
  code: number;
}

function parse(stdout: string, logText: (line: string) => string): Step[] {
  const steps: OpenStep[] = [];
  let difference: string | null = null;
  let logged: string[] | null = null;
  for (const [, kind = '', text = ''] of stdout.matchAll(/^([COERLD]) (.*)\n/gm)) {
    const step = steps.at(-1);
    if (kind === 'D') {
      difference = text;
    } else if (kind === 'C') {
      steps.push({ command: text, out: [], err: [], code: 0, log: [], difference });
      difference = null;
    } else if (kind === 'O') step?.out.push(text);
    else if (kind === 'E') step?.err.push(sameDisk(text));
    else if (kind === 'R' && step !== undefined) step.code = Number(text);
    else {
      const line = logText(text);
      const mark = /^MARK (\d+)$/.exec(line)?.[1];
      if (mark !== undefined) logged = steps[Number(mark) - 1]?.log ?? null;
      else if (line.startsWith(LOG_PREFIX)) logged?.push(sameDisk(line));
    }
  }
  return steps;
}

/** A step as text, for a comparison that is read by people. */
export function show(step: Step): string[] {
  return [
    `$ ${step.command}`,
    ...step.out,
    ...step.err.map((line) => `stderr: ${line}`),
    ...(step.code === 0 ? [] : [`rc=${step.code}`]),
    ...step.log.map((line) => `log: ${line}`),
  ];
}

/** What our step must be, given the kernel's: a failure shows the kernel's reason at its end. */
export function expected(kernel: Step): Step {
  return { ...kernel, err: kernel.code === 0 ? kernel.err : [...kernel.err, ...kernel.log] };
}

/** A step of ours without reasons of our own, which stand last. */
export function withoutOwnReasons(here: Step): Step {
  return { ...here, err: here.err.filter((line) => !line.startsWith('devmapper: ')) };
}
