/**
 * What every BlockDevice does, as tests to be run over each implementation: what is written is
 * read, by whole sectors and nowhere else; every bio ends once, with the errno that NBD clients and
 * dmsetup's users expect; limits and block status tell the truth.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { errno } from '../../src/base/errno.ts';
import { Bio, BioFlag, BioOp } from '../../src/block/bio.ts';
import { ExtentFlag, flushDevice, request, type BlockDevice } from '../../src/block/device.ts';
import { seedOf } from './random.ts';
import { discard, fill, read, runs, SECTOR, write } from './stack.ts';

/** A device to be tested, zeroes as long as nothing was written. */
export interface Subject {
  readonly device: BlockDevice;
  /** Bytes that the device costs where it keeps its data. */
  allocatedBytes(): number;
  /** Makes what is below the device larger. */
  grow(nrSectors: number): void;
  close(): Promise<void>;
}

export interface Traits {
  /** The device discards, and what was discarded reads as zeroes. Otherwise: EOPNOTSUPP. */
  readonly discards: boolean;
  /** Discards and write-zeroes without NOUNMAP give whole pages back. */
  readonly givesBack: boolean;
  readonly skip?: string | false;
}

export type MakeSubject = (nrSectors: number, readOnly: boolean) => Promise<Subject>;

const NR_SECTORS = 4096;
const BYTES = NR_SECTORS * SECTOR;

/** Submits one bio; resolves to its status. Rejects if it ends twice. */
export function submit(
  device: BlockDevice,
  op: BioOp,
  sector: number,
  nrSectors: number,
  options: { data?: Uint8Array; dataOffset?: number; flags?: number } = {},
): Promise<number> {
  return new Promise((resolve, reject) => {
    const bio = new Bio();
    bio.op = op;
    bio.sector = sector;
    bio.nrSectors = nrSectors;
    bio.flags = options.flags ?? 0;
    bio.data = options.data ?? new Uint8Array(0);
    bio.dataOffset = options.dataOffset ?? 0;
    let nrEnds = 0;
    bio.onEnd = (ended) => {
      if (++nrEnds > 1) reject(new Error('the bio ended twice'));
      // A second end would come soon, if at all.
      else setImmediate(() => resolve(ended.status));
    };
    device.submit(bio);
  });
}

type Step =
  | { op: 'write'; sector: number; n: number; byte: number; offset: number; flags: number }
  | { op: 'read'; sector: number; n: number; offset: number }
  | { op: 'zeroes'; sector: number; n: number; flags: number }
  | { op: 'discard'; sector: number; n: number }
  | { op: 'flush' };

/** Steps on the first sectors of a device; long and short ones, that begin anywhere. */
const stepArbitrary: fc.Arbitrary<Step> = (() => {
  const range = {
    sector: fc.nat(1200),
    n: fc.oneof(fc.integer({ min: 1, max: 24 }), fc.integer({ min: 1, max: 1500 })),
  };
  const record = <const T extends string, R extends object>(
    op: T,
    rest: { [K in keyof R]: fc.Arbitrary<R[K]> },
  ): fc.Arbitrary<{ op: T } & R> => fc.record({ op: fc.constant(op), ...rest }) as never;
  const offset = fc.constantFrom(0, 1, 28, 512, 4096);
  const byte = fc.integer({ min: 1, max: 255 });
  const fua = fc.constantFrom(0, 0, 0, BioFlag.FUA);
  return fc.oneof(
    { weight: 5, arbitrary: record('write', { ...range, byte, offset, flags: fua }) },
    { weight: 4, arbitrary: record('read', { ...range, offset }) },
    { weight: 2, arbitrary: record('zeroes', { ...range, flags: fc.constantFrom(0, 4) }) },
    { weight: 2, arbitrary: record('discard', range) },
    { weight: 1, arbitrary: fc.constant({ op: 'flush' as const }) },
  );
})();

async function runStep(device: BlockDevice, model: Buffer, step: Step, traits: Traits) {
  if (step.op === 'flush') {
    assert.equal(await submit(device, BioOp.FLUSH, 0, 0), 0);
    return;
  }
  const { sector, n } = step;
  const wanted = model.subarray(sector * SECTOR, (sector + n) * SECTOR);
  switch (step.op) {
    case 'write': {
      const data = Buffer.alloc(step.offset + n * SECTOR + 7, 0xee);
      data.fill(step.byte, step.offset, step.offset + n * SECTOR);
      const before = Buffer.from(data);
      const options = { data, dataOffset: step.offset, flags: step.flags };
      assert.equal(await submit(device, BioOp.WRITE, sector, n, options), 0);
      assert.ok(data.equals(before), 'a write leaves its buffer alone');
      data.fill(0xdd); // And the device keeps nothing of it.
      wanted.fill(step.byte);
      break;
    }
    case 'read': {
      const data = Buffer.alloc(step.offset + n * SECTOR + 7, 0xee);
      const expected = Buffer.from(data);
      wanted.copy(expected, step.offset);
      const options = { data, dataOffset: step.offset };
      assert.equal(await submit(device, BioOp.READ, sector, n, options), 0);
      assert.equal(runs(data), runs(expected));
      break;
    }
    case 'zeroes':
      assert.equal(await submit(device, BioOp.WRITE_ZEROES, sector, n, { flags: step.flags }), 0);
      wanted.fill(0);
      break;
    case 'discard': {
      const status = await submit(device, BioOp.DISCARD, sector, n);
      assert.equal(status, traits.discards ? 0 : errno.EOPNOTSUPP);
      if (traits.discards) wanted.fill(0);
    }
  }
}

/** Declares the tests of one implementation. */
export function blockDeviceSuite(name: string, make: MakeSubject, traits: Traits): void {
  const skip = traits.skip ?? false;

  function check(
    sentence: string,
    body: (subject: Subject) => Promise<void>,
    options: { readOnly?: boolean } = {},
  ): void {
    test(`${name}: ${sentence}`, { skip }, async () => {
      const subject = await make(NR_SECTORS, options.readOnly ?? false);
      try {
        await body(subject);
      } finally {
        await subject.close();
      }
    });
  }

  check('a new device has its size, is writable and reads as zeroes', async ({ device }) => {
    assert.equal(device.sizeSectors, NR_SECTORS);
    assert.equal(device.readOnly, false);
    assert.equal(runs(await read(device, 0, BYTES)), `${BYTES}x00`);
  });

  check('the limits agree with each other and with what the device does', async ({ device }) => {
    const { limits } = device;
    assert.equal(limits.logicalBlockSize, SECTOR);
    assert.ok(limits.physicalBlockSize >= limits.logicalBlockSize);
    assert.equal(limits.maxDiscardSectors > 0, traits.discards);
    assert.equal(limits.discardGranularity > 0, traits.discards);
    assert.equal(limits.discardGranularity % SECTOR, 0);
    if (limits.discardZeroes) assert.ok(traits.discards, 'zeroes by discard need discards');
  });

  test(
    `${name}: what is written, zeroed and discarded is what a byte array would hold`,
    {
      skip,
    },
    async () => {
      await fc.assert(
        fc.asyncProperty(fc.array(stepArbitrary, { maxLength: 40 }), async (steps) => {
          const subject = await make(NR_SECTORS, false);
          const { device } = subject;
          try {
            const model = Buffer.alloc(BYTES);
            for (const step of steps) await runStep(device, model, step, traits);
            assert.equal(runs(await read(device, 0, BYTES)), runs(model));
          } finally {
            await subject.close();
          }
        }),
        { seed: seedOf(1), numRuns: 25, includeErrorInReport: true },
      );
    },
  );

  check('a request beyond the end fails with EIO and changes nothing', async ({ device }) => {
    await fill(device, BYTES - 4096, 4096, 0x11);
    const data = Buffer.alloc(16 * SECTOR, 0x22);
    const beyond: [sector: number, n: number][] = [
      [NR_SECTORS - 1, 2],
      [NR_SECTORS, 1],
      [NR_SECTORS + 1000, 16],
      [2 ** 40, 8],
    ];
    for (const op of [BioOp.READ, BioOp.WRITE, BioOp.DISCARD, BioOp.WRITE_ZEROES]) {
      for (const [sector, n] of beyond) {
        assert.equal(await submit(device, op, sector, n, { data }), errno.EIO, `${op} ${sector}`);
      }
    }
    assert.equal(runs(data), `${16 * SECTOR}x22`, 'a failed read leaves the buffer alone');
    assert.equal(runs(await read(device, BYTES - 4096, 4096)), '4096x11');
    device.refreshSize();
    assert.equal(device.sizeSectors, NR_SECTORS, 'nothing has made the device longer');
  });

  check('a request of no sectors succeeds and changes nothing', async ({ device }) => {
    await fill(device, 0, 4096, 0x11);
    const ops: BioOp[] = [BioOp.READ, BioOp.WRITE, BioOp.WRITE_ZEROES];
    if (traits.discards) ops.push(BioOp.DISCARD);
    for (const op of ops) {
      for (const sector of [0, 3, NR_SECTORS]) {
        assert.equal(await submit(device, op, sector, 0, { data: Buffer.alloc(SECTOR) }), 0);
      }
    }
    assert.equal(runs(await read(device, 0, 8192)), '4096x11 4096x00');
  });

  check('the last sector can be read and written', async ({ device }) => {
    await fill(device, BYTES - SECTOR, SECTOR, 0x77);
    assert.equal(runs(await read(device, BYTES - 2 * SECTOR, 2 * SECTOR)), '512x00 512x77');
  });

  check('requests larger than any buffer inside are done whole', async ({ device }) => {
    const data = Buffer.alloc(BYTES);
    for (let i = 0; i < NR_SECTORS; i++) data.writeUInt32LE(i + 1, i * SECTOR + 8);
    await write(device, 0, data);
    assert.ok((await read(device, 0, BYTES)).equals(data));
    await write(device, 0, data, true);
    const zeroes = { flags: BioFlag.NOUNMAP };
    assert.equal(await submit(device, BioOp.WRITE_ZEROES, 1, NR_SECTORS - 2, zeroes), 0);
    data.fill(0, SECTOR, BYTES - SECTOR);
    assert.ok((await read(device, 0, BYTES)).equals(data));
  });

  check('flushes succeed: on a new device, after writes, and several at once', async (subject) => {
    const { device } = subject;
    await flushDevice(device);
    await fill(device, 512, 1024, 0x11);
    await flushDevice(device);
    await Promise.all([flushDevice(device), fill(device, 0, 512, 0x22, true), flushDevice(device)]);
    assert.equal(runs(await read(device, 0, 2048)), '512x22 1024x11 512x00');
  });

  check('hundreds of requests in flight each end once, on their own sectors', async (subject) => {
    const { device } = subject;
    const slots = NR_SECTORS / 8;
    const statuses: Promise<number>[] = [];
    for (let i = 0; i < slots; i++) {
      // Whole pages, and parts of them, take different ways.
      const [from, n] = i % 3 === 0 ? [i * 8, 8] : [i * 8 + 1, 6];
      const data = Buffer.alloc(n * SECTOR, (i % 255) + 1);
      const flags = i % 50 === 7 ? BioFlag.FUA : 0;
      statuses.push(submit(device, BioOp.WRITE, from, n, { data, flags }));
      if (i % 20 === 3) statuses.push(submit(device, BioOp.FLUSH, 0, 0));
    }
    assert.deepEqual(new Set(await Promise.all(statuses)), new Set([0]));
    const buffers = Array.from({ length: slots }, () => Buffer.alloc(4096, 0xee));
    const reads = buffers.map((data, i) => submit(device, BioOp.READ, i * 8, 8, { data }));
    assert.deepEqual(new Set(await Promise.all(reads)), new Set([0]));
    for (const [i, data] of buffers.entries()) {
      const byte = ((i % 255) + 1).toString(16).padStart(2, '0');
      const wanted = i % 3 === 0 ? `4096x${byte}` : `512x00 3072x${byte} 512x00`;
      assert.equal(runs(data), wanted, `slot ${i}`);
    }
  });

  check('a bio can be submitted again from its own end', async ({ device }) => {
    const bio = new Bio();
    bio.op = BioOp.WRITE;
    bio.nrSectors = 1;
    bio.data = Buffer.alloc(SECTOR, 0x5a);
    const status = await new Promise<number>((resolve) => {
      bio.onEnd = (ended) => {
        bio.sector += 3;
        if (ended.status !== 0 || bio.sector >= 300) resolve(ended.status);
        else device.submit(bio);
      };
      device.submit(bio);
    });
    assert.equal(status, 0);
    const wanted = '512x5a 1024x00 '.repeat(100).trim();
    assert.equal(runs(await read(device, 0, 300 * SECTOR)), wanted);
  });

  check('what is read synchronously is what was written', async ({ device }) => {
    await fill(device, 5 * SECTOR, 3 * SECTOR, 0x11);
    await fill(device, 8 * SECTOR, SECTOR, 0x22);
    const data = Buffer.alloc(3000, 0xee);
    assert.equal(device.readSync(7, 4, data, 100), 0);
    assert.equal(runs(data), '100xee 512x11 512x22 1024x00 852xee');
    assert.equal(device.readSync(NR_SECTORS - 1, 2, data, 0), errno.EIO);
    assert.equal(device.readSync(NR_SECTORS, 1, data, 0), errno.EIO);
  });

  check('block status covers the range, tells no lies and stops when told', async (subject) => {
    const { device } = subject;
    for (const at of [0, 37, 1000, 2048]) await fill(device, at * SECTOR, 9 * SECTOR, 0x99);
    if (traits.discards) await discard(device, 2048 * SECTOR, 512 * SECTOR);
    for (const [sector, n] of [
      [0, NR_SECTORS],
      [5, 1],
      [35, 1100],
      [NR_SECTORS - 3, 3],
    ] as const) {
      const content = await read(device, sector * SECTOR, n * SECTOR);
      let at = 0;
      let nrExtents = 0;
      device.blockStatus(sector, n, (count, flags) => {
        assert.ok(count > 0, 'an extent is not empty');
        const part = content.subarray(at * SECTOR, (at + count) * SECTOR);
        const isZero = part.every((byte) => byte === 0);
        if ((flags & ExtentFlag.ZERO) !== 0) assert.ok(isZero, `zero at ${sector + at}+${count}`);
        at += count;
        nrExtents++;
        return true;
      });
      assert.equal(at, n, 'the extents cover what was asked for');
      if (nrExtents > 1) {
        let nrVisits = 0;
        device.blockStatus(sector, n, () => ++nrVisits < 1);
        assert.equal(nrVisits, 1, 'nothing is reported to who wants no more');
      }
    }
  });

  if (traits.givesBack) {
    check('discards and zeroes give space back, unless told to keep it', async (subject) => {
      const { device } = subject;
      const half = BYTES / 2;
      const fillAll = async (): Promise<void> => {
        await fill(device, 0, BYTES, 0x33);
        await flushDevice(device);
      };
      await fillAll();
      const full = subject.allocatedBytes();
      assert.ok(full >= BYTES);
      const after: Record<string, number> = {};
      await discard(device, 0, half);
      after['discard'] = subject.allocatedBytes();
      await fillAll();
      await request(device, BioOp.WRITE_ZEROES, 0, half / SECTOR);
      after['zeroes'] = subject.allocatedBytes();
      for (const [what, bytes] of Object.entries(after)) {
        assert.ok(bytes <= full - half, `${what}: ${bytes} of ${full} are left`);
      }
    });
  }

  check('a device that has grown is as large as it is, once looked at again', async (subject) => {
    const { device } = subject;
    subject.grow(NR_SECTORS + 64);
    device.refreshSize();
    assert.equal(device.sizeSectors, NR_SECTORS + 64);
    await fill(device, BYTES, 64 * SECTOR, 0x44);
    assert.equal(runs(await read(device, BYTES - 512, 1024)), '512x00 512x44');
  });

  check(
    'a read-only device is read and flushed, and refuses the rest with EPERM',
    async ({ device }) => {
      assert.equal(device.readOnly, true);
      const data = Buffer.alloc(SECTOR, 0x11);
      for (const op of [BioOp.WRITE, BioOp.DISCARD, BioOp.WRITE_ZEROES]) {
        assert.equal(await submit(device, op, 0, 1, { data }), errno.EPERM);
      }
      const fua = { data, flags: BioFlag.FUA };
      assert.equal(await submit(device, BioOp.WRITE, 0, 1, fua), errno.EPERM);
      assert.equal(await submit(device, BioOp.FLUSH, 0, 0), 0);
      assert.equal(runs(await read(device, 0, BYTES)), `${BYTES}x00`);
      assert.equal(device.readSync(0, 1, data, 0), 0);
      assert.equal(runs(data), '512x00');
    },
    { readOnly: true },
  );
}
