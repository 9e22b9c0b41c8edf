/**
 * replay-log on the command line, with a log that the daemon's log-writes target has made.
 */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { MemoryDevice } from '../../../src/block/memory-device.ts';
import { imageOf } from '../../helpers/edit-blocks.ts';
import { repoRoot } from '../../helpers/kernel.ts';
import { runSync, scratchDir, type ProgramResult } from '../../helpers/programs.ts';
import { fill, flush, Stack } from '../../helpers/stack.ts';

const program = path.join(repoRoot, 'bin', 'devmapper.js');
const { dir, remove } = scratchDir();
const logFile = path.join(dir, 'log');
const target = path.join(dir, 'target');

const replayLog = (...args: string[]): ProgramResult =>
  runSync(process.execPath, [program, 'replay-log', ...args]);

// 0 write · 1 flush · 2 mark half · 3 FUA write · 4 mark of the end
before(async () => {
  const stack = new Stack();
  stack.disk('disk', 64);
  const log = new MemoryDevice('log', 64);
  stack.disk('log', log);
  await stack.create('l', '0 64 log-writes /dev/disk /dev/log');
  await fill(stack.device('l'), 0, 1024, 0x11);
  await flush(stack.device('l'));
  await stack.message('l', 'mark half');
  await fill(stack.device('l'), 512, 512, 0x22, true);
  await stack.remove('l');
  fs.writeFileSync(logFile, imageOf(log));
});
after(remove);

function fresh(): void {
  fs.writeFileSync(target, Buffer.alloc(64 * 512));
}

test('a log is counted, listed and searched', () => {
  assert.equal(replayLog('--log', logFile, '--num-entries').stdout, '5\n');
  assert.equal(replayLog('--log', logFile, '--find', '--next-flush').stdout, '1@4\n');
  const { stdout } = replayLog('--log', logFile, '--list', '--end-mark', 'half');
  assert.equal(
    stdout,
    'entry 0: WRITE, sector 0, 2 sectors\nentry 1: FLUSH, sector 0, 0 sectors\n',
  );
  const json = replayLog('--log', logFile, '--list', '--json').stdout;
  const list = JSON.parse(json) as { flags: string[]; mark: string }[];
  assert.deepEqual(list[3]?.flags, ['FUA']);
  assert.equal(list[2]?.mark, 'half');
});

test('a log is replayed, as a whole or up to a mark', () => {
  fresh();
  assert.equal(replayLog('--log', logFile, '--replay', target, '--end-mark', 'half').code, 0);
  assert.equal(fs.readFileSync(target)[512], 0x11);
  const { code, stderr } = replayLog('--log', logFile, '--replay', target, '--start-mark', 'half');
  assert.equal(code, 0);
  assert.match(stderr, /replayed 2 entries/);
  assert.equal(fs.readFileSync(target)[512], 0x22);
});

test('a check runs when it should, and its failure ends the replay', () => {
  fresh();
  const marks = path.join(dir, 'marks');
  const note = `echo x >>${marks}`;
  const all = ['--log', logFile, '--replay', target];
  assert.equal(replayLog(...all, '--fsck', note, '--check', 'fua').code, 0);
  assert.equal(fs.readFileSync(marks, 'utf8'), 'x\n');
  assert.equal(replayLog(...all, '--fsck', note, '--check', '2').code, 0);
  assert.equal(fs.readFileSync(marks, 'utf8'), 'x\nx\nx\n');
  fresh();
  const failed = replayLog(...all, '--fsck', 'false', '--check', 'flush');
  assert.equal(failed.code, 64);
  assert.match(failed.stderr, /the check failed after entry 1: FLUSH/);
  assert.equal(fs.readFileSync(target)[512], 0x11, 'what came before is there');
});

test('mistakes are told', () => {
  const nothing = replayLog('--log', logFile);
  assert.equal(nothing.code, 64);
  assert.match(nothing.stderr, /wanted one of --replay, --find, --list and --num-entries/);
  assert.equal(replayLog('--replay', target).code, 2);
  assert.match(replayLog('--log', target, '--num-entries').stderr, /bad write log: wanted magic/);
  const noMark = replayLog('--log', logFile, '--find', '--end-mark', 'x');
  assert.match(noMark.stderr, /wanted the mark 'x' in the write log, found none/);
  assert.equal(replayLog('--help').code, 0);
});
