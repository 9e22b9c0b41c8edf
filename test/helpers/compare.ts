/**
 * The judge of everything that dmsetup prints: one bash script, run by the real dmsetup in the real
 * kernel and by ours here, step by step.
 *
 * A script calls `x COMMAND...` for each step that is compared: its output, its errors, its exit
 * code and what the kernel logged meanwhile. $A and $B are the two disks. Steps that do I/O:
 *   wr DEVICE SECTOR COUNT BYTE   writes that byte; prints `ok` or the error
 *   rd DEVICE SECTOR COUNT        prints the sectors read, equal ones counted
 * `here COMMAND` and `there COMMAND` run on one side only and are not compared.
 * `differs HEADING COMMAND...` is a step that differs on purpose, for the reason under that heading
 * in docs/differences.md.
 */
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { repoRoot, runInKernel } from './kernel.ts';

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

const DISK_BYTES = { ubda: 256 * 2 ** 20, ubdb: 128 * 2 ** 20 };
const LOG_PREFIX = 'device-mapper: ';

/** What both sides begin with; `mark` and $W, a directory for scratch files, are the side's own. */
const COMMON = `
exec </dev/null
nr=0
step() { printf '\\n%s %s\\n' "$1" "$2"; }
x() {
  nr=$((nr + 1)); mark $nr
  step C "$*"
  "$@" >$W/o 2>$W/e; local r=$?
  while IFS= read -r l || [[ -n $l ]]; do step O "$l"; done <$W/o
  while IFS= read -r l || [[ -n $l ]]; do step E "$l"; done <$W/e
  step R $r
  return $r
}
differs() { step D "$1"; shift; x "$@"; }
told() { if [[ $1 = 0 ]]; then echo ok; else grep -oE "$2" $W/io | tail -n 1; fi; }
errors='Input/output error|No space left on device|Operation not permitted|Read-only.*'
`;

const KERNEL_SIDE = `
W=/run A=/dev/ubda B=/dev/ubdb
echo on >/proc/sys/kernel/printk_devkmsg
mark() { echo "MARK $1" >/dev/kmsg; }
cat /dev/kmsg >$W/kmsg & kmsg=$!
there() { "$@"; }
here() { :; }
wr() {
  head -c $(($3 * 512)) /dev/zero | tr '\\0' "\\\\$(printf %o $4)" >$W/p
  dd if=$W/p of=/dev/mapper/$1 bs=512 seek=$2 oflag=direct conv=notrunc >$W/io 2>&1
  told $? "$errors"
}
rd() {
  dd if=/dev/mapper/$1 of=$W/p bs=512 skip=$2 count=$3 iflag=direct >$W/io 2>&1 ||
    { told 1 "$errors"; return; }
  od -An -v -tx1 -w512 $W/p | cut -c1-3 | uniq -c
}
finish() {
  mark end
  until grep -q 'MARK end' $W/kmsg; do sleep 0.05; done
  kill $kmsg
  while IFS= read -r l; do step L "$l"; done <$W/kmsg
}
`;

const OUR_SIDE = `
mark() { echo "MARK $1" >>"$DEVMAPPER_DIR/daemon.log"; }
there() { :; }
here() { "$@"; }
wr() {
  qemu-io -f raw -c "write -P $4 $(($2 * 512)) $(($3 * 512))" "$(devmapper uri $1)" >$W/io 2>&1
  if grep -q ^wrote $W/io; then echo ok; else told 1 "$errors"; fi
}
rd() {
  qemu-img dd -f raw -O raw bs=512 skip=$2 count=$(($2 + $3)) "if=$(devmapper uri $1)" of=$W/p \\
    >$W/io 2>&1 || { told 1 "$errors"; return; }
  od -An -v -tx1 -w512 $W/p | cut -c1-3 | uniq -c
}
finish() {
  while IFS= read -r l; do step L "$l"; done <"$DEVMAPPER_DIR/daemon.log"
  devmapper stop
}
`;

/** Runs \`script\` on both sides at once, in directories under \`dir\`. */
export async function runBoth(
  script: string,
  dir: string,
  env: Record<string, string> = {},
): Promise<Transcripts> {
  const [kernel, here] = await Promise.all([runThere(script, dir), runHere(script, dir, env)]);
  return { kernel, here };
}

function makeDisks(dir: string): string[] {
  fs.mkdirSync(dir, { recursive: true });
  return Object.entries(DISK_BYTES).map(([name, bytes]) => {
    const file = path.join(dir, name);
    fs.writeFileSync(file, '');
    fs.truncateSync(file, bytes);
    return file;
  });
}

/** The kernel's side. */
export async function runThere(script: string, dir: string): Promise<Step[]> {
  const own = path.join(dir, 'there');
  const disks = makeDisks(own);
  const text = `${COMMON}${KERNEL_SIDE}${script}\nfinish\n`;
  const { code, stdout, stderr } = await runInKernel(text, { disks, dir: own });
  if (code !== 0) throw new Error(`the kernel's side ended with ${code}:\n${stdout}${stderr}`);
  const steps = parse(stdout, (line) => /^[^;]*;(.*)$/.exec(line)?.[1] ?? '');
  return steps.map((step) => ({ ...step, err: withoutStatistics(step.err) }));
}

/** Our side. */
export async function runHere(
  script: string,
  dir: string,
  env: Record<string, string> = {},
): Promise<Step[]> {
  const own = path.join(dir, 'here');
  const [a = '', b = ''] = makeDisks(own);
  const bin = path.join(own, 'bin');
  const state = path.join(own, 'state');
  fs.mkdirSync(bin);
  fs.mkdirSync(state);
  for (const name of ['dmsetup', 'devmapper']) {
    fs.symlinkSync(path.join(repoRoot, 'bin', 'devmapper.js'), path.join(bin, name));
  }
  const file = path.join(own, 'script.sh');
  fs.writeFileSync(file, `W=${own} A=${a} B=${b}\n${COMMON}${OUR_SIDE}${script}\nfinish\n`);
  const child = spawn('bash', [file], {
    cwd: own,
    env: {
      ...process.env,
      ...env,
      PATH: `${bin}:${process.env['PATH'] ?? ''}:/usr/sbin:/sbin`,
      DEVMAPPER_DIR: state,
      LC_ALL: 'C',
    },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  const code = await new Promise<number>((resolve) => child.on('close', (n) => resolve(n ?? 128)));
  if (code !== 0) throw new Error(`our side ended with ${code}:\n${stdout}${stderr}`);
  const asThere = stdout.replaceAll(`${own}/ubd`, '/dev/ubd');
  return parse(asThere, ourLogText).map(normalise);
}

/** The text of a line of the daemon's log, which is JSON except for our marks. */
function ourLogText(line: string): string {
  if (!line.startsWith('{')) return line;
  return (JSON.parse(line) as { msg?: string }).msg ?? '';
}

/** The numbers of files, as the kernel numbers the disks that they stand for; columns stay. */
function normalise(step: Step): Step {
  const asDisk = (text: string): string =>
    text.replace(/\b240(:|, )(\d+)/g, (_all, between: string, minor: string) => {
      return `98${between}${Number(minor) * 16}`;
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
  return line.replace(/(Data device \(\S+\) ).*(: Disabling discard passdown\.)$/, '$1…$2');
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
