/**
 * The order of a pool's writes, here and in a real kernel: a script of commands and I/O runs on
 * both sides, with metadata and data as two linear devices on one device whose writes are logged;
 * the two logs, section by section, are what is compared (spec: thin, scenario 30).
 *
 *   mark NAME                          a new section begins
 *   create|reload NAME TABLE           $POOL stands for the pool's devices and block size
 *   message|status|remove|suspend|resume NAME ...
 *   write DEVICE SIZEk@N [dsync]       SIZE KiB at N times that
 *   discard DEVICE SIZEk@N
 *   sync DEVICE
 *   pause                              over a second: what waits for the next commit is committed
 */
import assert from 'node:assert/strict';
import { SimulatedClock } from '../../src/base/simulated-clock.ts';
import { BioOp } from '../../src/block/bio.ts';
import { request, type BlockDevice } from '../../src/block/device.ts';
import { LogFlag } from '../../src/block/write-log-format.ts';
import { LoggedDevice } from '../../src/block/logged-device.ts';
import { MemoryDevice } from '../../src/block/memory-device.ts';
import { WriteLogReader, type WriteLogEntry } from '../../src/block/write-log-reader.ts';
import { WriteLog } from '../../src/block/write-log.ts';
import { fill, flush, Stack } from './stack.ts';
import { isMark } from './write-log.ts';

export const METADATA_SECTORS = 8192;
export const DATA_SECTORS = 131_072;
/** Of the logged device: metadata, then data, each with as much again to grow into. */
export const LOGGED_SECTORS = 2 * (METADATA_SECTORS + DATA_SECTORS);

/** Of a script's log. */
export const LOG_SECTORS = 65_536;

const SECTORS_PER_BLOCK = 8;
/** A tick of the worker comes at most so long after the last commit has become a second old. */
const PAUSE_MS = 2200;

const metadataTable = (sectors: number): string => `0 ${sectors} linear /dev/mapper/l 0`;
const dataTable = `0 ${2 * DATA_SECTORS} linear /dev/mapper/l ${2 * METADATA_SECTORS}`;

/** Makes the pool's metadata device twice as large. */
export const growMetadata = [
  `reload meta ${metadataTable(2 * METADATA_SECTORS)}`,
  'suspend meta',
  'resume meta',
];

const pool = 'thin-pool /dev/mapper/meta /dev/mapper/data 128';

interface Words {
  readonly op: string;
  readonly name: string;
  /** What follows the name. */
  readonly rest: string;
}

function split(line: string): Words {
  const [op = '', name = '', ...rest] = line.replace('$POOL', pool).split(' ');
  return { op, name, rest: rest.join(' ') };
}

/** `64k@8 dsync`: in bytes. */
function rangeOf(rest: string): { offset: number; length: number; dsync: boolean } {
  const [, size, index, dsync] = /^(\d+)k@(\d+)( dsync)?$/.exec(rest) ?? [];
  assert.ok(size !== undefined && index !== undefined, rest);
  const length = Number(size) * 1024;
  return { offset: Number(index) * length, length, dsync: dsync !== undefined };
}

// --- here

/** Runs a script on a stack of ours; the sections of its log. */
export async function orderHere(script: readonly string[]): Promise<Map<string, string>> {
  const logDevice = new MemoryDevice('log', LOG_SECTORS);
  const log = new WriteLog(logDevice, 512);
  const logged = new LoggedDevice(new MemoryDevice('logged', LOGGED_SECTORS), log);
  const clock = new SimulatedClock();
  const stack = new Stack(clock);
  stack.disk('logged', logged);
  const opening = [
    `create l 0 ${LOGGED_SECTORS} linear /dev/logged 0`,
    `create meta ${metadataTable(METADATA_SECTORS)}`,
    `create data ${dataTable}`,
  ];
  for (const line of [...opening, ...script]) {
    const words = split(line);
    if (words.op === 'mark') log.mark(words.name);
    else if (words.op === 'pause') await clock.pass(PAUSE_MS);
    else await clock.run(runLine(stack, words));
  }
  logged.close();
  await log.close();
  return sectionsOf(logDevice);
}

async function runLine(stack: Stack, { op, name, rest }: Words): Promise<unknown> {
  switch (op) {
    case 'create':
      return stack.create(name, rest);
    case 'reload':
      return stack.reload(name, rest);
    case 'message':
      return stack.message(name, rest);
    case 'status':
      return stack.status(name);
    case 'suspend':
      return stack.suspend(name);
    case 'resume':
      return stack.resume(name);
    case 'remove':
      return stack.remove(name);
    case 'sync':
      return flush(stack.device(name));
  }
  const { offset, length, dsync } = rangeOf(rest);
  const device = stack.device(name);
  if (op === 'discard') return request(device, BioOp.DISCARD, offset / 512, length / 512);
  assert.equal(op, 'write');
  await fill(device, offset, length, 1, dsync);
  // Linux follows each write with O_DSYNC by a flush, FUA or not.
  return dsync ? flush(device) : null;
}

// --- there

/**
 * Lines for guest.pl that run the script, on the `index`-th part of /dev/loop0, with the log on
 * that part of /dev/ubda.
 */
export function linesThere(script: readonly string[], index: number): string[] {
  const devices = [
    `E,,,rw,0 ${LOGGED_SECTORS} linear /dev/loop0 ${index * LOGGED_SECTORS}`,
    `L,,,rw,0 ${LOG_SECTORS} linear /dev/ubda ${index * LOG_SECTORS}`,
    `l,,,rw,0 ${LOGGED_SECTORS} log-writes /dev/mapper/E /dev/mapper/L`,
    `meta,,,rw,${metadataTable(METADATA_SECTORS)}`,
    `data,,,rw,${dataTable}`,
  ];
  return [
    `sh dmsetup create --concise "${devices.join(';')}"`,
    ...script.flatMap((line) => lineThere(split(line))),
    'sh dmsetup remove meta data l E L',
  ];
}

function lineThere({ op, name, rest }: Words): string[] {
  switch (op) {
    case 'mark':
      return [`sh dmsetup message l 0 mark ${name}`];
    case 'pause':
      return [`pause ${PAUSE_MS / 1000}`];
    case 'create':
    case 'reload':
      return [`sh dmsetup ${op} ${name} --table "${rest}"`];
    case 'message':
      return [`sh dmsetup message ${name} 0 ${rest}`];
    case 'status':
    case 'suspend':
    case 'resume':
      return [`sh dmsetup ${op} ${name} >/dev/null`];
    case 'remove':
      return [`close ${name}`, `sh dmsetup remove ${name}`];
    case 'sync':
      return [`sync ${name}`];
  }
  const { offset, length, dsync } = rangeOf(rest);
  if (op === 'discard') return [`punch ${name} ${offset} ${length}`];
  assert.equal(op, 'write');
  return [`direct ${name} ${offset} ${length} 1${dsync ? ' dsync' : ''}`];
}

// --- what the logs say

const isData = ({ sector }: WriteLogEntry): boolean => sector >= 2 * METADATA_SECTORS;

/** `1-3 5` for 5, 1, 3, 2. */
function ranges(numbers: ReadonlySet<number>): string {
  const found: string[] = [];
  const sorted = [...numbers].sort((a, b) => a - b);
  for (let i = 0; i < sorted.length;) {
    const begin = sorted[i] as number;
    let end = begin;
    while (sorted[i] === end) {
      i++;
      end++;
    }
    found.push(end - begin === 1 ? `${begin}` : `${begin}-${end - 1}`);
  }
  return found.join(' ');
}

/**
 * The sections of a log in words: `D 0+8` data, by sector; `M 1-7` metadata, by block; `F` a flush.
 * The metadata blocks between two flushes are named once, together: in which order they are
 * written, and in how many requests, is not what matters.
 */
export function sectionsOf(logDevice: BlockDevice): Map<string, string> {
  const sections = new Map<string, string>();
  let name = '';
  let words: string[] = [];
  let metadata = new Set<number>();
  const endOfPart = (): void => {
    if (metadata.size > 0) words.push(`M ${ranges(metadata)}`);
    metadata = new Set();
  };
  for (const entry of WriteLogReader.open(logDevice).entries()) {
    if (isMark(entry)) {
      endOfPart();
      if (name !== '') sections.set(name, words.join(', '));
      words = [];
      name = entry.text;
    } else if ((entry.flags & LogFlag.FLUSH) !== 0) {
      endOfPart();
      words.push('F');
    } else if (isData(entry)) {
      words.push(describeData(entry));
    } else {
      assert.equal(entry.flags, 0, 'metadata is written without flags');
      const begin = entry.sector / SECTORS_PER_BLOCK;
      for (let i = 0; i < entry.nrSectors / SECTORS_PER_BLOCK; i++) metadata.add(begin + i);
    }
  }
  return sections;
}

function describeData({ flags, sector, nrSectors }: WriteLogEntry): string {
  const fua = (flags & LogFlag.FUA) !== 0 ? ' FUA' : '';
  const what = (flags & LogFlag.DISCARD) !== 0 ? 'discard ' : '';
  return `D ${what}${sector - 2 * METADATA_SECTORS}+${nrSectors}${fua}`;
}
