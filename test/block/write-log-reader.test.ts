/**
 * Reading write logs: what is in a good one, and that no bytes whatever make the reader do anything
 * but report a bad log.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { DmError } from '../../src/base/error.ts';
import { MemoryDevice } from '../../src/block/memory-device.ts';
import { logEntry, LogFlag, logSuper, MAGIC } from '../../src/block/write-log-format.ts';
import { WriteLogReader } from '../../src/block/write-log-reader.ts';
import { imageOf, writeBytes } from '../helpers/edit-blocks.ts';
import { FaultyDevice } from '../helpers/faulty-device.ts';
import { seedOf } from '../helpers/random.ts';
import { runs } from '../helpers/stack.ts';
import { describeEntry } from '../helpers/write-log.ts';

const SECTOR = 512;

interface Raw {
  sector?: bigint;
  nrSectors?: bigint;
  flags?: bigint;
  dataLength?: bigint;
}

/** A log made by hand: its super, then raw heads, each followed by `gap` sectors of 0xdd. */
function makeLog(
  heads: readonly Raw[],
  options: {
    sectorSize?: number;
    sectors?: number;
    nrEntries?: bigint;
    magic?: bigint;
    version?: bigint;
    saysSectorSize?: number;
    gap?: number;
  } = {},
): MemoryDevice {
  const sectorSize = options.sectorSize ?? SECTOR;
  const each = (1 + (options.gap ?? 0)) * sectorSize;
  const bytes = Buffer.alloc(sectorSize + heads.length * each, 0xdd);
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  logSuper.magic.setBig(view, 0, options.magic ?? MAGIC);
  logSuper.version.setBig(view, 0, options.version ?? 1n);
  logSuper.nrEntries.setBig(view, 0, options.nrEntries ?? BigInt(heads.length));
  logSuper.sectorSize.set(view, 0, options.saysSectorSize ?? sectorSize);
  for (const [i, head] of heads.entries()) {
    const at = sectorSize + i * each;
    logEntry.sector.setBig(view, at, head.sector ?? 0n);
    logEntry.nrSectors.setBig(view, at, head.nrSectors ?? 0n);
    logEntry.flags.setBig(view, at, head.flags ?? 0n);
    logEntry.dataLength.setBig(view, at, head.dataLength ?? 0n);
  }
  const device = new MemoryDevice('log', options.sectors ?? bytes.length / SECTOR);
  const room = Math.min(bytes.length, device.sizeSectors * SECTOR);
  if (room > 0) writeBytes(device, 0, bytes.subarray(0, room));
  return device;
}

const readAll = (device: MemoryDevice): string[] =>
  [...WriteLogReader.open(device).entries()].map(describeEntry);

/** How many entries are read before the reader complains, and how it does. */
function complaint(device: MemoryDevice): string {
  let n = 0;
  try {
    for (const entry of WriteLogReader.open(device).entries()) n = entry.index + 1;
  } catch (error) {
    assert.ok(error instanceof DmError);
    assert.equal(error.errno, 'EILSEQ');
    return `${n}: ${error.message}`;
  }
  return `${n} entries`;
}

const MARK = BigInt(LogFlag.MARK);
const DISCARD = BigInt(LogFlag.DISCARD);

test('entries are read with their places, in sectors of 512 bytes', () => {
  const device = makeLog([{ sector: 2n, nrSectors: 1n, flags: 18n }], { sectorSize: 4096, gap: 1 });
  const reader = WriteLogReader.open(device);
  assert.deepEqual([reader.sectorSize, reader.nrEntries], [4096, 1]);
  const [entry] = [...reader.entries()];
  assert.deepEqual(entry, {
    index: 0,
    flags: LogFlag.FUA | LogFlag.METADATA,
    sector: 16,
    nrSectors: 8,
    logSector: 8,
    dataSector: 16,
    nrDataSectors: 8,
    text: '',
  });
  assert.equal(runs(reader.data(entry)), '4096xdd');
  assert.equal(runs(reader.data(entry, 2, 3)), '1536xdd');
});

test('a discard has no data behind it, however large it is', () => {
  const huge = 2n ** 40n;
  const device = makeLog([{ nrSectors: huge, flags: DISCARD }, { flags: 1n }]);
  assert.deepEqual(readAll(device), [`discard 0+${huge}`, 'flush']);
});

test('what is no log is refused', () => {
  const open = (device: MemoryDevice) => (): unknown => WriteLogReader.open(device);
  const refused = { errno: 'EILSEQ' };
  assert.throws(open(new MemoryDevice('d', 0)), refused);
  assert.throws(open(new MemoryDevice('d', 64)), /magic 0x6a736677736872, found 0x0/);
  assert.throws(open(makeLog([], { magic: MAGIC + (1n << 60n) })), /magic/);
  assert.throws(open(makeLog([], { version: 2n })), /version 1, found 2/);
  for (const size of [0, 1, 511, 513, 1536, 131072, 0xffff_fe00]) {
    assert.throws(open(makeLog([], { saysSectorSize: size })), /sector size/, `size ${size}`);
  }
  assert.throws(open(makeLog([{}], { nrEntries: 2n })), /at most 1 entries, found 2/);
  assert.throws(open(makeLog([{}], { nrEntries: 2n ** 64n - 1n })), /at most 1 entries/);
  assert.throws(open(makeLog([], { saysSectorSize: 65536, nrEntries: 1n })), /at most 0 entries/);
});

test('entries that cannot be are reported where they are, and those before them are read', () => {
  const good = { flags: 1n };
  for (const [bad, text] of [
    [{ nrSectors: 1n }, 'wanted at most 0 sectors of data, found 1'],
    [{ nrSectors: 2n ** 51n }, `wanted at most 0 sectors of data, found ${2n ** 51n}`],
    [{ nrSectors: 2n ** 64n - 1n }, `wanted sectors below 2^52, found ${2n ** 64n - 1n}`],
    [{ sector: 2n ** 52n, flags: 1n }, `wanted sectors below 2^52, found ${2n ** 52n}`],
    [{ flags: MARK, nrSectors: 1n }, 'a mark of 1 sectors'],
    [{ flags: MARK, dataLength: 481n }, 'wanted at most 480 bytes of text, found 481'],
    [{ flags: MARK, dataLength: 2n ** 64n - 1n }, 'wanted at most 480 bytes of text'],
  ] as const) {
    const found = complaint(makeLog([good, good, bad]));
    assert.ok(found.startsWith(`2: bad write log at entry 2: ${text}`), found);
  }
  // Two sectors of data end where the log does: a further entry would be behind it.
  const device = makeLog([{ nrSectors: 2n }, {}, {}], { nrEntries: 2n });
  assert.equal(complaint(device), '1: bad write log at entry 1: it ends before the log');
});

test('a log whose device was cut short is read up to there', () => {
  const heads = Array.from({ length: 6 }, () => ({ nrSectors: 3n }));
  for (let sectors = 7; sectors < 25; sectors++) {
    const found = complaint(makeLog(heads, { gap: 3, sectors }));
    const whole = Math.floor((sectors - 1) / 4);
    assert.ok(found.startsWith(`${whole}: bad write log at entry ${whole}: `), found);
  }
  assert.equal(complaint(makeLog(heads, { gap: 3, sectors: 25 })), '6 entries');
});

test('a read that fails is reported as such', () => {
  const faulty = new FaultyDevice(makeLog([{}, {}, {}]));
  faulty.failRead = (sector) => (sector === 2 ? 5 : 0);
  const entries = WriteLogReader.open(faulty).entries();
  assert.equal(entries.next().value?.index, 0);
  assert.throws(() => entries.next(), { errno: 'EIO' });
});

test('no bytes make the reader do anything but end, or report a bad log', () => {
  const image = imageOf(
    makeLog([{ nrSectors: 1n }, { nrSectors: 1n, flags: 2n }, { flags: MARK, dataLength: 4n }], {
      gap: 1,
    }),
  );
  const heads = fc.constantFrom(0, 1, 3, 5); // In sectors: the super, and the entries.
  const edit = fc
    .record({ head: heads, at: fc.nat(31), byte: fc.constantFrom(0, 1, 2, 8, 16, 127, 255) })
    .map(({ head, at, byte }) => ({ at: head * SECTOR + at, byte }));
  const property = fc.property(fc.array(edit, { maxLength: 6 }), (edits) => {
    const bytes = Buffer.from(image);
    for (const { at, byte } of edits) bytes[at] = byte;
    const device = new MemoryDevice('log', bytes.length / SECTOR);
    writeBytes(device, 0, bytes);
    const found = complaint(device);
    assert.match(found, /^\d+(?: entries$|: bad write log)/);
  });
  fc.assert(property, { numRuns: 1000, seed: seedOf(9) });
});
