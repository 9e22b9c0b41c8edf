/**
 * What FileDevice promises beyond every block device: which writes a flush covers, whatever the
 * thread pool makes of the order; short transfers, full and failing file systems.
 *
 * The calls that go to the thread pool are held back, or made to fail, at node:fs.
 */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { performance } from 'node:perf_hooks';
import { test, type TestContext } from 'node:test';
import { errno } from '../../src/base/errno.ts';
import { BioFlag, BioOp } from '../../src/block/bio.ts';
import { flushDevice, request } from '../../src/block/device.ts';
import { FileDevice } from '../../src/block/file-device.ts';
import { native } from '../../src/block/native.ts';
import { submit } from '../helpers/block-device-suite.ts';
import { runSync } from '../helpers/programs.ts';
import { discard, fill, read, runs, SECTOR } from '../helpers/stack.ts';

const BYTES = 2 * 1024 * 1024;

/** A file of 2 MiB in a new directory under `parent`, removed after the test. */
function newFile(t: TestContext, parent = os.tmpdir(), bytes = BYTES): string {
  const dir = fs.mkdtempSync(path.join(parent, 'dm-file-'));
  t.after(() => fs.rmSync(dir, { recursive: true }));
  const file = path.join(dir, 'disk');
  fs.writeFileSync(file, '');
  fs.truncateSync(file, bytes);
  return file;
}

function openFile(t: TestContext, file: string): FileDevice {
  const device = new FileDevice(fs.openSync(file, 'r+'), file, 'disk', false);
  let closed = false;
  const close = device.close.bind(device);
  device.close = () => {
    closed = true;
    return close();
  };
  t.after(() => (closed ? undefined : device.close()));
  return device;
}

type Callback = (error: Error | null, bytes: number) => void;
type Call = (...args: unknown[]) => void;

/** Calls of `fs[name]` from now on: each waits in the list until it is made, or made to fail. */
interface HeldCalls {
  /** How many there were. */
  nr: number;
  readonly waiting: { make(): void; fail(code: string): void }[];
}

function hold(t: TestContext, name: 'read' | 'write' | 'fdatasync'): HeldCalls {
  const real = fs[name] as unknown as Call;
  const held: HeldCalls = { nr: 0, waiting: [] };
  t.mock.method(fs, name, (...args: unknown[]) => {
    held.nr++;
    const callback = args.at(-1) as Callback;
    held.waiting.push({
      make: () => real.apply(fs, args),
      fail: (code) => setImmediate(callback, Object.assign(new Error(code), { code }), 0),
    });
  });
  return held;
}

/** Counts the calls of `fs[name]` from now on. */
function count(t: TestContext, name: 'read' | 'write' | 'fdatasync'): { readonly nr: number } {
  const { mock } = t.mock.method(fs, name);
  return {
    get nr() {
      return mock.callCount();
    },
  };
}

/** The next call, as soon as it comes: what precedes it may take a slow machine its time. */
async function next(held: HeldCalls): Promise<HeldCalls['waiting'][number]> {
  for (;;) {
    const call = held.waiting.shift();
    if (call !== undefined) return call;
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

/** Whether a promise has settled when all I/O that is at hand is done. */
async function isSettled(promise: Promise<unknown>): Promise<boolean> {
  let settled = false;
  const done = (): void => void (settled = true);
  promise.then(done, done);
  for (let i = 0; i < 20; i++) await new Promise((resolve) => setTimeout(resolve, 1));
  return settled;
}

/** A write of part of a page, which goes to the thread pool. */
const poolWrite = (device: FileDevice, byte = 0x11): Promise<void> =>
  request(device, BioOp.WRITE, 1, 1, Buffer.alloc(SECTOR, byte));

/*
 * Whether a file had changed since the last flush was one bit, set when a write began and cleared
 * when a flush began. A write that ended between the two was taken to be durable already, so that
 * the flush that a client sent after it was answered without anything being done: after a power
 * cut, a committed transaction of its file system would have been missing.
 */
test('a write that was under way during a flush is covered by the next flush', async (t) => {
  const device = openFile(t, newFile(t));
  const writes = hold(t, 'write');
  const syncs = count(t, 'fdatasync');
  const write = poolWrite(device);
  await flushDevice(device);
  assert.equal(syncs.nr, 1);
  (await next(writes)).make();
  await write;
  await flushDevice(device);
  assert.equal(syncs.nr, 2);
});

test('nor does a flush cover a write that ends while its fdatasync runs', async (t) => {
  const device = openFile(t, newFile(t));
  const syncs = hold(t, 'fdatasync');
  const first = flushDevice(device);
  await poolWrite(device);
  (await next(syncs)).make();
  await first;
  const second = flushDevice(device);
  assert.equal(await isSettled(second), false);
  (await next(syncs)).make();
  await second;
});

/*
 * For the same reason a second flush, of another client, was answered while the first was still
 * under way, and also if that then failed.
 */
test('a flush that comes during another waits for what came before it to be durable', async (t) => {
  const device = openFile(t, newFile(t));
  await fill(device, 0, 4096, 0x11);
  const syncs = hold(t, 'fdatasync');
  const first = flushDevice(device);
  const second = flushDevice(device);
  assert.equal(await isSettled(second), false);
  (await next(syncs)).make();
  await first;
  assert.equal(await isSettled(second), false, 'an fdatasync that began after it covers it');
  (await next(syncs)).make();
  await second;
});

test('all flushes and FUA writes that wait share the next fdatasync', async (t) => {
  const device = openFile(t, newFile(t));
  const syncs = hold(t, 'fdatasync');
  const first = flushDevice(device);
  const fua = request(device, BioOp.WRITE, 8, 8, Buffer.alloc(4096, 0x22), BioFlag.FUA);
  assert.equal(await isSettled(fua), false);
  const others = [flushDevice(device), flushDevice(device), fua];
  assert.equal(syncs.nr, 1, 'one runs at a time');
  (await next(syncs)).make();
  await first;
  assert.equal(syncs.nr, 2);
  (await next(syncs)).make();
  await Promise.all(others);
  assert.equal(syncs.nr, 2);
});

test('when fdatasync fails, so do the flushes that wait behind it, and the next one tries again', async (t) => {
  const device = openFile(t, newFile(t));
  const syncs = hold(t, 'fdatasync');
  const flushes = [flushDevice(device), flushDevice(device), flushDevice(device)];
  (await next(syncs)).fail('EIO');
  const results = await Promise.allSettled(flushes);
  assert.deepEqual(
    results.map(({ status }) => status),
    ['rejected', 'rejected', 'rejected'],
  );
  assert.equal(syncs.nr, 1);
  const again = flushDevice(device);
  (await next(syncs)).make();
  await again;
});

test('a FUA write ends after an fdatasync that began after its data was written', async (t) => {
  const device = openFile(t, newFile(t));
  const writes = hold(t, 'write');
  const syncs = hold(t, 'fdatasync');
  const fua = request(device, BioOp.WRITE, 8, 8, Buffer.alloc(4096, 0x22), BioFlag.FUA);
  assert.equal(await isSettled(fua), false);
  assert.equal(syncs.nr, 0);
  (await next(writes)).make();
  assert.equal(await isSettled(fua), false);
  (await next(syncs)).make();
  await fua;
});

test('a FUA write fails if its data cannot be made durable', async (t) => {
  const device = openFile(t, newFile(t));
  const syncs = hold(t, 'fdatasync');
  const data = Buffer.alloc(4096, 0x22);
  const fua = submit(device, BioOp.WRITE, 8, 8, { data, flags: BioFlag.FUA });
  assert.equal(await isSettled(fua), false);
  (await next(syncs)).fail('ENOSPC');
  assert.equal(await fua, errno.ENOSPC);
});

test('a flush costs an fdatasync after each kind of change, and nothing after none', async (t) => {
  for (const parent of [os.tmpdir(), ...(fs.existsSync('/dev/shm') ? ['/dev/shm'] : [])]) {
    const device = openFile(t, newFile(t, parent));
    const changes: Record<string, () => Promise<unknown>> = {
      'being opened': async () => undefined,
      'a write of a page': () => fill(device, 0, 4096, 1),
      'a write of a sector': () => fill(device, 512, 512, 1),
      'a long write': () => fill(device, 0, BYTES, 1),
      'zeroes that unmap': () => request(device, BioOp.WRITE_ZEROES, 3, 60),
      'zeroes that stay': () =>
        request(device, BioOp.WRITE_ZEROES, 3, 60, undefined, BioFlag.NOUNMAP),
      ...(device.limits.maxDiscardSectors > 0 && { 'a discard': () => discard(device, 0, 65536) }),
    };
    for (const [what, change] of Object.entries(changes)) {
      await change();
      const syncs = count(t, 'fdatasync');
      await flushDevice(device);
      assert.equal(syncs.nr, 1, what);
      await read(device, 0, 8192);
      await flushDevice(device);
      await Promise.all([flushDevice(device), flushDevice(device)]);
      assert.equal(syncs.nr, 1, `${what}, flushed`);
      t.mock.restoreAll();
    }
    await fill(device, 0, 4096, 2, true);
    const syncs = count(t, 'fdatasync');
    await flushDevice(device);
    assert.equal(syncs.nr, 0, 'a FUA write has had its own');
    t.mock.restoreAll();
  }
});

// --- transfers

test('reads and writes that the system cuts short go on where they stopped', async (t) => {
  const device = openFile(t, newFile(t));
  const cut = (name: 'read' | 'write'): { readonly nr: number } => {
    const real = fs[name] as unknown as Call;
    const { mock } = t.mock.method(fs, name, (...args: unknown[]) => {
      args[3] = Math.min(args[3] as number, 700); // The length.
      real.apply(fs, args);
    });
    return {
      get nr() {
        return mock.callCount();
      },
    };
  };
  const data = Buffer.alloc(10 + 7 * SECTOR);
  for (let i = 0; i < data.length; i++) data[i] = (i * 7) % 251;
  const writes = cut('write');
  assert.equal(await submit(device, BioOp.WRITE, 3, 7, { data, dataOffset: 10 }), 0);
  assert.equal(writes.nr, 6);
  const found = Buffer.alloc(data.length);
  const reads = cut('read');
  if (native !== null) {
    const real = native.preadNowait.bind(native);
    t.mock.method(native, 'preadNowait', (...args: Parameters<typeof real>) => {
      args[3] = 1000; // As if the page cache had no more.
      return real(...args);
    });
  }
  assert.equal(await submit(device, BioOp.READ, 3, 7, { data: found, dataOffset: 10 }), 0);
  assert.ok(found.subarray(10).equals(data.subarray(10)));
  assert.equal(reads.nr, native === null ? 6 : 4);
});

test('a failed transfer ends with its errno, one of another world with EIO', async (t) => {
  const device = openFile(t, newFile(t));
  const writes = hold(t, 'write');
  for (const [code, status] of [
    ['ENOSPC', errno.ENOSPC],
    ['EIO', errno.EIO],
    ['EPERM', errno.EPERM],
    ['EDQUOT', errno.EIO],
    ['EKEYREVOKED', errno.EIO],
  ] as const) {
    const write = submit(device, BioOp.WRITE, 1, 1, { data: Buffer.alloc(SECTOR) });
    (await next(writes)).fail(code);
    assert.equal(await write, status, code);
  }
});

test('a file that became shorter gives EIO where it ends, not zeroes', async (t) => {
  const file = newFile(t);
  const device = openFile(t, file);
  await fill(device, 0, BYTES, 0x11);
  fs.truncateSync(file, BYTES / 2);
  const data = Buffer.alloc(8192);
  const end = BYTES / 2 / SECTOR;
  assert.equal(await submit(device, BioOp.READ, end - 8, 8, { data }), 0);
  assert.equal(await submit(device, BioOp.READ, end - 8, 16, { data }), errno.EIO);
  assert.equal(await submit(device, BioOp.READ, end, 8, { data }), errno.EIO);
  assert.equal(device.readSync(end - 1, 2, data, 0), errno.EIO);
  device.refreshSize();
  assert.equal(device.sizeSectors, end);
});

test('a file has as many sectors as fit into it', async (t) => {
  const device = openFile(t, newFile(t, os.tmpdir(), 3 * SECTOR + 511));
  assert.equal(device.sizeSectors, 3);
  assert.equal(await submit(device, BioOp.READ, 3, 1, { data: Buffer.alloc(512) }), errno.EIO);
});

test('a read of cached data takes no thread, where the system can be asked for no more', async (t) => {
  const device = openFile(t, newFile(t));
  await fill(device, 0, 65536, 0x11);
  const reads = count(t, 'read');
  assert.equal(runs(await read(device, 512, 8192)), '8192x11');
  assert.equal(reads.nr, native === null ? 1 : 0);
});

if (native !== null) {
  const calls = native;
  test('where the system cannot be asked so, it is asked once', async (t) => {
    const device = openFile(t, newFile(t));
    await fill(device, 0, 4096, 0x11);
    const { mock } = t.mock.method(calls, 'preadNowait', () => -errno.EOPNOTSUPP);
    for (let i = 0; i < 3; i++) assert.equal(runs(await read(device, 0, 8192)), '4096x11 4096x00');
    assert.equal(mock.callCount(), 1);
  });
}

test('a long write takes a thread, a page does not', async (t) => {
  const device = openFile(t, newFile(t));
  const writes = count(t, 'write');
  await fill(device, 0, 4096, 0x11);
  assert.equal(writes.nr, 0);
  await fill(device, 0, 512 * 1024, 0x22);
  assert.equal(writes.nr, 1);
});

test('after a slow write the next ones take a thread, for a while', async (t) => {
  const device = openFile(t, newFile(t));
  const writes = count(t, 'write');
  const page = (): Promise<void> => fill(device, 0, 4096, 0x11);
  await page();
  assert.equal(writes.nr, 0, 'quick ones are done at once');
  let now = 0;
  t.mock.method(performance, 'now', () => (now += 100));
  await page();
  assert.equal(writes.nr, 0);
  let nrByThread = 0;
  while (nrByThread < 1000) {
    await page();
    if (writes.nr === nrByThread) break;
    nrByThread++;
  }
  assert.ok(nrByThread > 0, 'the write after the slow one took a thread');
  assert.ok(nrByThread < 1000, 'then it is tried again');
});

test('closing waits for what is in flight, and nothing can be submitted afterwards', async (t) => {
  const device = openFile(t, newFile(t));
  const writes = hold(t, 'write');
  const syncs = hold(t, 'fdatasync');
  const write = poolWrite(device);
  const flush = flushDevice(device);
  const closed = device.close();
  assert.equal(await isSettled(closed), false);
  (await next(writes)).make();
  await write;
  assert.equal(await isSettled(closed), false);
  (await next(syncs)).make();
  await flush;
  await closed;
  await assert.rejects(read(device, 0, 512), /no bio is submitted to a closed file/);
});

// --- file systems that cannot

/** Runs `body` with a file on a new file system in memory, or says why it cannot. */
async function onFileSystem(
  t: TestContext,
  type: string,
  options: string,
  body: (device: FileDevice) => Promise<void>,
): Promise<void> {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'dm-mount-'));
  const isMounted =
    process.getuid?.() === 0 &&
    runSync('mount', ['-t', type, '-o', options, 'dm-test', dir]).code === 0;
  try {
    if (!isMounted) {
      t.skip(`needs root, and ${type} that can be mounted`);
      return;
    }
    const file = path.join(dir, 'disk');
    fs.writeFileSync(file, '');
    fs.truncateSync(file, BYTES);
    const device = new FileDevice(fs.openSync(file, 'r+'), file, 'disk', false);
    try {
      await body(device);
    } finally {
      await device.close();
    }
  } finally {
    if (isMounted) runSync('umount', ['-l', dir]);
    fs.rmdirSync(dir);
  }
}

test('on a full file system writes fail with ENOSPC, and go on when there is room', (t) =>
  onFileSystem(t, 'tmpfs', 'size=1m', async (device) => {
    let nrWritten = 0;
    const data = Buffer.alloc(4096, 0x11);
    for (;;) {
      const status = await submit(device, BioOp.WRITE, nrWritten * 8, 8, { data });
      if (status === errno.ENOSPC) break;
      assert.equal(status, 0);
      nrWritten++;
    }
    assert.ok(nrWritten > 0);
    const beyond = nrWritten * 8;
    const long = Buffer.alloc(512 * 1024, 0x22);
    const fails = async (op: BioOp, n: number, flags = 0): Promise<void> => {
      const status = await submit(device, op, beyond, n, { data: long, flags });
      assert.equal(status, errno.ENOSPC);
    };
    await fails(BioOp.WRITE, 8);
    await fails(BioOp.WRITE, 8, BioFlag.FUA);
    await fails(BioOp.WRITE, 1024);
    await fails(BioOp.WRITE_ZEROES, 8, BioFlag.NOUNMAP);
    await flushDevice(device);
    const kept = nrWritten * 4096;
    assert.equal(runs(await read(device, 0, kept)), `${kept}x11`, 'what was there stays');
    if (device.limits.maxDiscardSectors === 0) return;
    await discard(device, 0, 65536);
    await fill(device, beyond * SECTOR, 4096, 0x33);
    assert.equal(runs(await read(device, beyond * SECTOR, 4096)), '4096x33');
  }));

test('where holes cannot be punched, discards are refused and zeroes written', (t) =>
  onFileSystem(t, 'ramfs', 'mode=700', async (device) => {
    assert.equal(device.limits.maxDiscardSectors, 0);
    assert.equal(device.limits.discardZeroes, false);
    await fill(device, 0, 8192, 0x11);
    assert.equal(await submit(device, BioOp.DISCARD, 0, 8), errno.EOPNOTSUPP);
    assert.equal(await submit(device, BioOp.WRITE_ZEROES, 8, 8), 0);
    assert.equal(runs(await read(device, 0, 8192)), '4096x11 4096x00');
  }));
