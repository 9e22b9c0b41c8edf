/** Zeroing and copying between devices: content, bounds, and what failures leave. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BioOp } from '../../src/block/bio.ts';
import { Copier, zeroRange } from '../../src/block/copy.ts';
import { MemoryDevice } from '../../src/block/memory-device.ts';
import { ProbeDevice, type ProbeLog } from '../helpers/probe-device.ts';
import { fill, read, runs } from '../helpers/stack.ts';

const MIB = 1024 * 1024;

function zero(device: ProbeDevice, sector: number, nrSectors: number): Promise<number> {
  return new Promise((resolve) => zeroRange(device, sector, nrSectors, 0, resolve));
}

test('a range is zeroed by write-zeroes where the device can', async () => {
  const log: ProbeLog = [];
  const device = new ProbeDevice('D', new MemoryDevice('d', 4096), log);
  await fill(device, 0, 64 * 1024, 0x11);
  log.length = 0;
  assert.equal(await zero(device, 8, 16), 0);
  assert.deepEqual(log, ['D zero 8+16']);
  assert.equal(runs(await read(device, 0, 16384)), '4096x11 8192x00 4096x11');
});

test('and by writing zeroes, a piece at a time, where it cannot', async () => {
  const log: ProbeLog = [];
  const below = new MemoryDevice('d', 8192, { limits: { maxWriteZeroesSectors: 0 } });
  const device = new ProbeDevice('D', below, log);
  await fill(device, 0, 2 * MIB, 0x11);
  log.length = 0;
  assert.equal(await zero(device, 0, 3000), 0);
  assert.deepEqual(log, ['D write 0+1024', 'D write 1024+1024', 'D write 2048+952']);
  assert.equal(runs(await read(device, 0, 2 * MIB)), `${3000 * 512}x00 ${2 * MIB - 3000 * 512}x11`);
});

test('zeroing nothing succeeds, zeroing that fails says so', async () => {
  const device = new ProbeDevice('D', new MemoryDevice('d', 4096), []);
  assert.equal(await zero(device, 5, 0), 0);
  device.fail((bio) => (bio.op === BioOp.WRITE_ZEROES ? 28 : 0));
  assert.equal(await zero(device, 5, 8), 28);
});

test('many copies at once use no more buffers than the copier has', async () => {
  const log: ProbeLog = [];
  const from = new ProbeDevice('F', new MemoryDevice('f', 65536), log);
  const to = new MemoryDevice('t', 65536);
  await fill(from, 0, 8 * MIB, 0x22);
  const copier = new Copier(2);
  from.hold((bio) => bio.op === BioOp.READ);
  const results: Promise<number>[] = [];
  for (let i = 0; i < 8; i++) {
    const place = { device: from, sector: i * 2048 };
    results.push(
      new Promise((resolve) => copier.copy(place, { device: to, sector: i * 2048 }, 2048, resolve)),
    );
  }
  assert.equal(from.nrHeld, 2, 'a piece is read for each buffer');
  from.release();
  assert.deepEqual(await Promise.all(results), new Array(8).fill(0));
  assert.equal(runs(await read(to, 0, 8 * MIB)), `${8 * MIB}x22`);
});

test('a copy that cannot read or write ends with the error, and the copier goes on', async () => {
  const from = new ProbeDevice('F', new MemoryDevice('f', 4096), []);
  const to = new ProbeDevice('T', new MemoryDevice('t', 4096), []);
  const copier = new Copier(1);
  const copy = (): Promise<number> =>
    new Promise((resolve) =>
      copier.copy({ device: from, sector: 0 }, { device: to, sector: 0 }, 64, resolve),
    );
  from.fail((bio) => (bio.op === BioOp.READ ? 5 : 0));
  assert.equal(await copy(), 5);
  from.fail(() => 0);
  to.fail((bio) => (bio.op === BioOp.WRITE ? 28 : 0));
  assert.equal(await copy(), 28);
  to.fail(() => 0);
  assert.equal(await copy(), 0);
});
