/**
 * `devmapper wait`: who waits for an event of a device hears of it, however many wait, and however
 * they end (spec: dm-core, 6; thin, 7).
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { DaemonProcess } from '../helpers/daemon.ts';
import { repoRoot } from '../helpers/kernel.ts';
import { NbdClient } from '../helpers/nbd-client.ts';

const MIB = 1024 * 1024;
const BLOCK = 65536;
const QUIET = { code: 0, stdout: '', stderr: '' };

let daemon: DaemonProcess;
before(async () => {
  daemon = await DaemonProcess.start();
});
after(async () => {
  await daemon.close();
});

async function eventOf(name: string): Promise<number> {
  return Number(await daemon.dmsetup('info', '-c', '--noheadings', '-o', 'events', name));
}

/** So many waits for events after `event`; `ended` counts those that are over. */
function waits(
  nr: number,
  name: string,
  event: number,
): { all: Promise<void>; ended: () => number } {
  let ended = 0;
  const one = async (): Promise<void> => {
    const result = await daemon.tryDmsetup('wait', name, String(event));
    ended++;
    assert.deepEqual(result, QUIET);
  };
  const all = Promise.all(Array.from({ length: nr }, one)).then(() => undefined);
  return { all, ended: () => ended };
}

/** Commands that are connected to the daemon. */
function nrCommands(): number {
  const CONNECTED = '03';
  const rows = fs.readFileSync('/proc/net/unix', 'utf8').split('\n');
  const words = rows.map((row) => row.split(/ +/));
  const socket = daemon.file('control.sock');
  return words.filter((row) => row[5] === CONNECTED && row[7] === socket).length;
}

async function until(isTrue: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await isTrue())) await new Promise((resolve) => setTimeout(resolve, 10));
}

test('everyone who waits hears of the low water mark, and next of the end of the space', async () => {
  const meta = daemon.disk('meta', 4 * MIB);
  const data = daemon.disk('data', MIB);
  await daemon.dmsetup('create', 'pool', '--table', `0 2048 thin-pool ${meta} ${data} 128 4`);
  await daemon.dmsetup('message', 'pool', '0', 'create_thin 0');
  await daemon.dmsetup('create', 'v', '--table', '0 65536 thin /dev/mapper/pool 0');
  const client = await NbdClient.connect(daemon.nbdSocket);
  await client.greet();
  await client.go('v');
  const write = (block: number): Promise<void> =>
    client.writeAt(block * BLOCK, Buffer.alloc(BLOCK, 1));

  const first = await eventOf('pool');
  const low = waits(4, 'pool', first);
  await until(() => nrCommands() === 4);
  for (let block = 0; block < 12; block++) await write(block);
  assert.match(await daemon.dmsetup('status', 'pool'), / 12\/16 /);
  assert.deepEqual([low.ended(), await eventOf('pool')], [0, first]);
  // The mark counts the blocks that are free before one is taken.
  await write(12);
  await low.all;
  assert.equal(await eventOf('pool'), first + 1);
  assert.match(daemon.log, /reached low water mark for data device: sending event\./);

  const full = waits(2, 'pool', first + 1);
  for (let block = 13; block < 16; block++) await write(block);
  assert.deepEqual(
    [full.ended(), await eventOf('pool')],
    [0, first + 1],
    'the mark is passed once',
  );
  const over = assert.rejects(write(16));
  await full.all;
  assert.match(await daemon.dmsetup('status', 'pool'), / 16\/16 - out_of_data_space /);
  client.destroy();
  await over;
  await until(async () => (await daemon.tryDmsetup('remove', '--force', 'v')).code === 0);
  await daemon.dmsetup('remove', 'pool');
});

test('a wait for a number that is past ends at once; one ends well when the device is removed', async () => {
  await daemon.dmsetup('create', 'z', '--table', '0 8 zero');
  assert.equal(await eventOf('z'), 0);
  assert.deepEqual(await daemon.tryDmsetup('wait', 'z', '1'), QUIET);
  const removed = waits(2, 'z', 0);
  await until(() => nrCommands() === 2);
  assert.equal(removed.ended(), 0);
  await daemon.dmsetup('remove', 'z');
  await removed.all;
});

test('a renamed device’s waits end, and -v shows it under its new name', async () => {
  await daemon.dmsetup('create', 'old', '--table', '0 8 zero');
  const shown = daemon.dmsetup('wait', '-v', 'old');
  await until(() => nrCommands() === 1);
  await daemon.dmsetup('rename', 'old', 'new');
  const lines = (await shown).split('\n');
  assert.deepEqual([lines[0], lines[5]], ['Name:              new', 'Event number:      1']);
  await daemon.dmsetup('remove', 'new');
});

test('a wait that is interrupted leaves nothing behind in the daemon', async () => {
  await daemon.dmsetup('create', 'z', '--table', '0 8 zero');
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGKILL'] as const) {
    const program = path.join(repoRoot, 'bin', 'devmapper.js');
    const child = spawn(process.execPath, [program, 'wait', 'z', '--state-dir', daemon.dir]);
    await until(() => nrCommands() === 1);
    child.kill(signal);
    const [code, by] = await new Promise<unknown[]>((resolve) => {
      child.on('close', (...args) => resolve(args));
    });
    assert.deepEqual([code, by], [null, signal]);
    await until(() => nrCommands() === 0);
  }
  await daemon.dmsetup('remove', 'z');
});
