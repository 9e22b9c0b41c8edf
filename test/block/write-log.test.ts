/**
 * Logged devices: what is logged, in which order, and that a replay of the log leaves what the
 * device has. What the log looks like on the disk is compared with the kernel's in
 * kernel/write-log.test.ts.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MemoryLog } from '../../src/base/log.ts';
import { Bio, BioFlag, BioOp } from '../../src/block/bio.ts';
import { request } from '../../src/block/device.ts';
import { LoggedDevice } from '../../src/block/logged-device.ts';
import { MemoryDevice } from '../../src/block/memory-device.ts';
import { replayLog } from '../../src/block/replay-log.ts';
import { WriteLogReader } from '../../src/block/write-log-reader.ts';
import { WriteLog } from '../../src/block/write-log.ts';
import { blockDeviceSuite } from '../helpers/block-device-suite.ts';
import { imageOf } from '../helpers/edit-blocks.ts';
import { FaultyDevice } from '../helpers/faulty-device.ts';
import { HeldDevice } from '../helpers/held-device.ts';
import { ProbeDevice, type ProbeLog } from '../helpers/probe-device.ts';
import { Random, seedOf } from '../helpers/random.ts';
import { discard, fill, flush, read, runs } from '../helpers/stack.ts';
import { memorySubject } from '../helpers/subjects.ts';
import { describeLog } from '../helpers/write-log.ts';

const SECTORS = 1024;

blockDeviceSuite(
  'logged',
  async (nrSectors, readOnly) => {
    const subject = await memorySubject(nrSectors, readOnly);
    const log = new WriteLog(new MemoryDevice('log', 1 << 20), 512);
    return { ...subject, device: new LoggedDevice(subject.device, log) };
  },
  { discards: true, givesBack: true },
);

interface Rig {
  readonly memory: MemoryDevice;
  readonly held: HeldDevice;
  readonly logDevice: MemoryDevice;
  readonly log: WriteLog;
  readonly device: LoggedDevice;
}

/** A logged device whose requests end at once, until `held.holding` is set. */
function rig(): Rig {
  const memory = new MemoryDevice('d', SECTORS);
  const held = new HeldDevice(memory);
  held.holding = false;
  const logDevice = new MemoryDevice('l', 65536);
  const log = new WriteLog(logDevice, 512);
  return { memory, held, logDevice, log, device: new LoggedDevice(held, log) };
}

async function close({ device, log, logDevice }: Rig): Promise<string[]> {
  device.close();
  await log.close();
  return describeLog(logDevice);
}

test('a write is logged behind those that ended before it, by the flush that was issued after it ended', async () => {
  const r = rig();
  r.held.holding = true;
  const writes = [0, 8, 16].map((sector) => fill(r.device, sector * 512, 4096, sector));
  r.held.release(2);
  r.held.release(1);
  const flushed = flush(r.device);
  r.held.release(0); // The first write ends while the flush is under way.
  r.held.release(0);
  await Promise.all([...writes, flushed]);
  assert.deepEqual(await close(r), [
    'write 16+8',
    'write 8+8',
    'flush',
    'write 0+8',
    'mark dm-log-writes-end',
  ]);
});

test('flushes under way together each log what they cover, in the order in which they end', async () => {
  const r = rig();
  await fill(r.device, 0, 512, 1);
  r.held.holding = true;
  const first = flush(r.device);
  r.held.holding = false;
  await fill(r.device, 512, 512, 2);
  await flush(r.device);
  r.held.releaseAll();
  await first;
  assert.deepEqual(await close(r), [
    'write 1+1',
    'flush',
    'write 0+1',
    'flush',
    'mark dm-log-writes-end',
  ]);
});

test('a FUA write is logged when it ends, ahead of writes that no flush has covered', async () => {
  const r = rig();
  await fill(r.device, 0, 512, 1);
  await fill(r.device, 512, 512, 2, true);
  await flush(r.device);
  assert.deepEqual(await close(r), [
    'write FUA 1+1',
    'write 0+1',
    'flush',
    'mark dm-log-writes-end',
  ]);
});

test('what a write is given is copied when it is submitted', async () => {
  const r = rig();
  r.held.holding = true;
  const data = Buffer.alloc(512, 7);
  const done = request(r.device, BioOp.WRITE, 0, 1, data);
  r.held.releaseAll();
  await done;
  data.fill(9);
  await close(r);
  const reader = WriteLogReader.open(r.logDevice);
  const [entry] = [...reader.entries()];
  assert.ok(entry !== undefined);
  assert.equal(runs(reader.data(entry)), '512x07');
});

test('a bio ends with the status of the device below, and is its submitter’s again', async () => {
  const faulty = new FaultyDevice(new MemoryDevice('d', SECTORS));
  const log = new WriteLog(new MemoryDevice('l', 4096), 512);
  const device = new LoggedDevice(faulty, log);
  faulty.failBio = () => 28;
  const bio = new Bio();
  bio.op = BioOp.WRITE;
  bio.nrSectors = 1;
  bio.data = new Uint8Array(512);
  let ended = 0;
  const onEnd = (): void => void ended++;
  bio.onEnd = onEnd;
  device.submit(bio);
  assert.deepEqual([ended, bio.status, bio.onEnd], [1, 28, onEnd]);
});

test('reads, and writes that the device cannot take, are not logged', async () => {
  const r = rig();
  await read(r.device, 0, 4096);
  await assert.rejects(fill(r.device, SECTORS * 512, 512, 1), { errno: 'EIO' });
  const readOnly = new MemoryDevice('r', SECTORS, { readOnly: true });
  const refusing = new LoggedDevice(readOnly, r.log);
  await assert.rejects(fill(refusing, 0, 512, 1), { errno: 'EPERM' });
  assert.deepEqual(await close(r), ['mark dm-log-writes-end']);
});

test('a write of less than a sector of the log is refused', async () => {
  const limits = { logicalBlockSize: 4096 };
  const log = new WriteLog(new MemoryDevice('l', 4096), 4096);
  const device = new LoggedDevice(new MemoryDevice('d', SECTORS, { limits }), log);
  await assert.rejects(fill(device, 0, 512, 1), { errno: 'EINVAL' });
  await assert.rejects(fill(device, 512, 4096, 1), { errno: 'EINVAL' });
  await fill(device, 4096, 4096, 1);
});

test('a discard is logged and succeeds where the device below knows none', async () => {
  const seen: ProbeLog = [];
  const limits = { maxDiscardSectors: 0, discardGranularity: 0, discardZeroes: false };
  const probe = new ProbeDevice('D', new MemoryDevice('d', SECTORS, { limits }), seen);
  const logDevice = new MemoryDevice('l', 4096);
  const log = new WriteLog(logDevice, 512);
  const device = new LoggedDevice(probe, log);
  assert.equal(device.limits.discardGranularity, 512);
  assert.ok(device.limits.maxDiscardSectors > 0);
  await discard(device, 0, 4096);
  device.close();
  await log.close();
  assert.deepEqual(describeLog(logDevice), ['discard 0+8', 'mark dm-log-writes-end']);
  assert.deepEqual(seen, []);
});

test('zeroes are asked for as data, and logged as data if they come otherwise', async () => {
  const r = rig();
  assert.equal(r.device.limits.maxWriteZeroesSectors, 0);
  await fill(r.device, 0, 8192, 5);
  await request(r.device, BioOp.WRITE_ZEROES, 4, 8);
  await request(r.device, BioOp.WRITE_ZEROES, 12, 1, undefined, BioFlag.FUA);
  assert.equal(runs(await read(r.device, 0, 8192)), '2048x05 4608x00 1536x05');
  assert.deepEqual(await close(r), [
    'write FUA 12+1',
    'write 0+16',
    'write 4+8',
    'mark dm-log-writes-end',
  ]);
  const reader = WriteLogReader.open(r.logDevice);
  const zeroes = [...reader.entries()][2];
  assert.ok(zeroes !== undefined);
  assert.equal(runs(reader.data(zeroes)), '4096x00');
});

test('devices that share a log have places of their own, and a flush covers its own device only', async () => {
  const logDevice = new MemoryDevice('l', 4096);
  const log = new WriteLog(logDevice, 512);
  const a = new LoggedDevice(new MemoryDevice('a', SECTORS), log);
  const b = new LoggedDevice(new MemoryDevice('b', SECTORS), log, SECTORS);
  await fill(a, 0, 512, 1);
  await fill(b, 512, 512, 2);
  await flush(b);
  await discard(b, 1024, 512);
  a.close();
  b.close();
  await log.close();
  assert.deepEqual(describeLog(logDevice), [
    'write 1025+1',
    'flush',
    'write 0+1',
    'discard 1026+1',
    'mark dm-log-writes-end',
  ]);
});

test('the super counts the entries up to the last FUA write or mark', async () => {
  const r = rig();
  await flush(r.device);
  await r.log.written();
  assert.throws(() => describeLog(r.logDevice), { errno: 'EILSEQ' }, 'it is not there yet');
  await fill(r.device, 0, 512, 1, true);
  await flush(r.device);
  await r.log.written();
  assert.deepEqual(describeLog(r.logDevice), ['flush', 'write FUA 0+1']);
  r.log.mark('x');
  await r.log.written();
  assert.deepEqual(describeLog(r.logDevice), ['flush', 'write FUA 0+1', 'flush', 'mark x']);
});

test('a log that is full, or cannot be written, says so once, and the device goes on without', async () => {
  for (const [sectors, fails, line] of [
    [20, false, 'log-writes: Ran out of space on the logdev'],
    [4096, true, 'log-writes: Error writing log block, error=10'],
  ] as const) {
    const lines = new MemoryLog();
    const logDevice = new FaultyDevice(new MemoryDevice('l', sectors));
    const log = new WriteLog(logDevice, 512, lines);
    const memory = new MemoryDevice('d', SECTORS);
    const device = new LoggedDevice(memory, log);
    await fill(device, 0, 4096, 1, true);
    await log.written();
    if (fails) logDevice.failBio = () => 5;
    await fill(device, 4096, 8192, 2, true);
    await fill(device, 0, 4096, 3);
    await flush(device);
    await log.close();
    assert.match(log.status, / logging_disabled$/);
    assert.deepEqual(lines.lines, [line]);
    assert.equal(runs(await read(memory, 0, 12288)), '4096x03 8192x02');
    assert.deepEqual(describeLog(logDevice), ['write FUA 0+8']);
  }
});

test('a mark is cut off where its sector ends', async () => {
  const r = rig();
  r.log.mark('é'.repeat(300));
  await close(r);
  const [mark] = [...WriteLogReader.open(r.logDevice).entries()];
  assert.equal(
    Buffer.from(mark?.text ?? '')
      .subarray(0, 478)
      .toString(),
    'é'.repeat(239),
  );
});

// --- order and replay, at random

type Kind = 'write' | 'discard' | 'fua' | 'flush';

/** When a request was submitted and ended, in steps of the test; and its line in the log. */
interface Seen {
  readonly kind: Kind;
  readonly line: string;
  readonly issued: number;
  ended: number;
}

/** What the request at `sector` is called in the log. */
function lineOf(kind: Kind, sector: number): string {
  if (kind === 'flush') return 'flush';
  return `${kind === 'fua' ? 'write FUA' : kind} ${sector}+1`;
}

function start(r: Rig, kind: Kind, sector: number): Promise<void> {
  if (kind === 'flush') return flush(r.device);
  if (kind === 'discard') return discard(r.device, sector * 512, 512);
  return fill(r.device, sector * 512, 512, 1, kind === 'fua');
}

/** Submits requests, each to a sector of its own, and lets them end, one thing at each step. */
async function runAtRandom(random: Random, r: Rig): Promise<Seen[]> {
  const { held } = r;
  held.holding = true;
  const seen: Seen[] = [];
  const done: Promise<void>[] = [];
  for (let now = 0; seen.length < 80 || held.held.length > 0; now++) {
    if (seen.length === 80 || (held.held.length > 0 && random.chance(0.5))) {
      const index = random.below(held.held.length);
      const request = held.held[index]?.context as Seen;
      request.ended = now;
      held.release(index);
    } else {
      const kind = random.pick<Kind>(['write', 'write', 'write', 'discard', 'fua', 'flush']);
      const sector = seen.length;
      done.push(start(r, kind, sector));
      const request = { kind, line: lineOf(kind, sector), issued: now, ended: Infinity };
      seen.push(request);
      const bio = held.held.at(-1);
      assert.ok(bio !== undefined);
      bio.context = request;
    }
  }
  await Promise.all(done);
  return seen;
}

/** The log's lines, by the rule: when each request is logged, then in which order. */
function linesByRule(seen: readonly Seen[]): string[] {
  const flushes = seen.filter(({ kind }) => kind === 'flush');
  const logged = seen.map((request) => {
    const { kind, ended } = request;
    if (kind === 'flush' || kind === 'fua') return { ...request, at: ended };
    const covering = flushes.find(({ issued }) => issued > ended);
    return { ...request, at: covering?.ended ?? Infinity };
  });
  const isFlushAt = (a: { kind: Kind }): number => (a.kind === 'flush' ? 1 : 0);
  logged.sort((a, b) => {
    if (a.at !== b.at) return a.at < b.at ? -1 : 1;
    return isFlushAt(a) - isFlushAt(b) || a.ended - b.ended;
  });
  return logged.map(({ line }) => line);
}

test('whatever ends when, the order of the log is the rule’s', async () => {
  const seed = seedOf(7);
  for (let run = 0; run < 50; run++) {
    const r = rig();
    const seen = await runAtRandom(new Random(seed + run), r);
    const lines = await close(r);
    assert.deepEqual(lines.slice(0, -1), linesByRule(seen), `seed ${seed + run}`);
  }
});

test('a replay of the log leaves what the device has', async () => {
  const seed = seedOf(8);
  for (let run = 0; run < 20; run++) {
    const random = new Random(seed + run);
    const r = rig();
    for (let i = 0; i < 60; i++) {
      const nrSectors = random.between(1, 64);
      const sector = random.below(SECTORS - nrSectors);
      const [offset, length] = [sector * 512, nrSectors * 512];
      const kind = random.below(5);
      // A FUA write overtakes what it overlaps and no flush has covered: see the next test.
      if (kind === 0) await flush(r.device);
      else if (kind === 1) await discard(r.device, offset, length);
      else if (kind === 2) await request(r.device, BioOp.WRITE_ZEROES, sector, nrSectors);
      else await fill(r.device, offset, length, random.between(1, 255));
    }
    await close(r);
    const copy = new MemoryDevice('copy', SECTORS);
    const reader = WriteLogReader.open(r.logDevice);
    await replayLog(reader, copy, {});
    assert.ok(imageOf(copy).equals(imageOf(r.memory)), `seed ${seed + run}`);
  }
});

test('a FUA write overtakes plain writes that it overlaps, as in the kernel', async () => {
  const r = rig();
  await fill(r.device, 0, 512, 1);
  await fill(r.device, 0, 512, 2, true);
  await close(r);
  const copy = new MemoryDevice('copy', SECTORS);
  const reader = WriteLogReader.open(r.logDevice);
  await replayLog(reader, copy, {});
  assert.equal(runs(await read(copy, 0, 512)), '512x01');
});
