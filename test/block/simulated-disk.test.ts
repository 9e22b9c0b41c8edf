/**
 * The simulated disk keeps to its fault model: what a cut may leave, and what it may not.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { DmError } from '../../src/base/error.ts';
import { Random } from '../../src/base/random.ts';
import { SimulatedClock } from '../../src/base/simulated-clock.ts';
import { BioFlag, BioOp } from '../../src/block/bio.ts';
import { CrashImages, LOSSES } from '../../src/block/crash-images.ts';
import { flushDevice, request } from '../../src/block/device.ts';
import { SimulatedStorage, type SimulatedDisk } from '../../src/block/simulated-disk.ts';
import type { SparseBytes } from '../../src/block/sparse-bytes.ts';
import { seedOf } from '../helpers/random.ts';

const SECTOR = 512;
const NR_SECTORS = 64;

class Rig {
  readonly clock = new SimulatedClock();
  readonly storage: SimulatedStorage;
  readonly disk: SimulatedDisk;

  constructor(seed = 1) {
    this.storage = new SimulatedStorage(this.clock, new Random(seed));
    this.disk = this.storage.disk('disk', NR_SECTORS);
  }

  write(sector: number, nrSectors: number, byte: number, flags = 0): Promise<void> {
    const data = Buffer.alloc(nrSectors * SECTOR, byte);
    return request(this.disk, BioOp.WRITE, sector, nrSectors, data, flags);
  }

  discard(sector: number, nrSectors: number): Promise<void> {
    return request(this.disk, BioOp.DISCARD, sector, nrSectors);
  }

  flush(): Promise<void> {
    return flushDevice(this.disk);
  }

  async read(sector: number, nrSectors: number): Promise<string> {
    const data = Buffer.alloc(nrSectors * SECTOR, 0xee);
    await request(this.disk, BioOp.READ, sector, nrSectors, data);
    return sectorsOf(data);
  }

  /** The contents that `nrTries` cuts at `event` left in the first sectors, as found. */
  cuts(nrSectors: number, event = this.storage.nrEvents, nrTries = 300): Set<string> {
    const images = new CrashImages(this.storage.journal, [this.disk]);
    images.advance(event);
    const random = new Random(7);
    const found = new Set<string>();
    for (let i = 0; i < nrTries; i++) {
      const image = images.image(this.disk, random.pick(LOSSES), random);
      found.add(contentOf(image, nrSectors));
    }
    return found;
  }
}

function contentOf(image: SparseBytes, nrSectors: number): string {
  const data = Buffer.alloc(nrSectors * SECTOR);
  image.read(0, data.length, data, 0);
  return sectorsOf(data);
}

/** One digit for each sector; `?` if it is mixed. */
function sectorsOf(data: Buffer): string {
  let text = '';
  for (let at = 0; at < data.length; at += SECTOR) {
    const first = data[at] as number;
    const isMixed = data.subarray(at, at + SECTOR).some((byte) => byte !== first);
    text += isMixed ? '?' : first.toString(36);
  }
  return text;
}

const sorted = (found: Set<string>): string[] => [...found].sort();

test('a write that has ended is read at once, and may be lost, kept or torn by sector', async () => {
  const rig = new Rig();
  await rig.clock.run(rig.write(0, 2, 1));
  assert.equal(await rig.clock.run(rig.read(0, 3)), '110');
  assert.deepEqual(sorted(rig.cuts(2)), ['00', '01', '10', '11']);
});

test('a write is what it was when it was submitted, whatever becomes of its buffer', async () => {
  const rig = new Rig();
  const data = Buffer.alloc(SECTOR, 1);
  await rig.clock.run(request(rig.disk, BioOp.WRITE, 0, 1, data, BioFlag.FUA));
  data.fill(2);
  assert.deepEqual([...rig.cuts(1)], ['1']);
});

test('a flush makes durable what had ended before it was submitted, and nothing else', async () => {
  const rig = new Rig();
  await rig.clock.run(
    (async () => {
      await rig.write(0, 1, 1);
      const late = rig.write(1, 1, 2);
      await rig.flush();
      await late;
    })(),
  );
  assert.deepEqual(sorted(rig.cuts(2)), ['10', '12']);
});

test('before its end a flush promises nothing', async () => {
  const rig = new Rig();
  await rig.clock.run(rig.write(0, 1, 1));
  await rig.clock.run(rig.flush());
  const { nrEvents } = rig.storage;
  assert.deepEqual(sorted(rig.cuts(1, nrEvents)), ['1']);
  assert.deepEqual(sorted(rig.cuts(1, nrEvents - 1)), ['0', '1']);
});

test('a FUA write is durable at its end, and makes nothing else durable', async () => {
  const rig = new Rig();
  await rig.clock.run(rig.write(0, 1, 1));
  await rig.clock.run(rig.write(1, 1, 2, BioFlag.FUA));
  assert.deepEqual(sorted(rig.cuts(2)), ['02', '12']);
});

test('a FUA write over one that is not durable wins', async () => {
  const rig = new Rig();
  await rig.clock.run(rig.write(0, 2, 1));
  await rig.clock.run(rig.write(0, 1, 2, BioFlag.FUA));
  assert.deepEqual(sorted(rig.cuts(2)), ['20', '21']);
});

test('of several writes to a sector any may be the last that stayed', async () => {
  const rig = new Rig();
  await rig.clock.run(rig.write(0, 1, 1));
  await rig.clock.run(rig.flush());
  await rig.clock.run(rig.write(0, 1, 2));
  await rig.clock.run(rig.write(0, 1, 3));
  assert.deepEqual(sorted(rig.cuts(1)), ['1', '2', '3']);
});

test('a write in flight may be there, too', async () => {
  const rig = new Rig();
  const writing = rig.write(0, 1, 1);
  assert.deepEqual(sorted(rig.cuts(1)), ['0', '1']);
  await rig.clock.run(writing);
});

test('a discard reads as zeroes, and may be undone by a cut until it is flushed', async () => {
  const rig = new Rig();
  await rig.clock.run(rig.write(0, 2, 1, BioFlag.FUA));
  await rig.clock.run(rig.discard(0, 2));
  assert.equal(await rig.clock.run(rig.read(0, 2)), '00');
  assert.deepEqual(sorted(rig.cuts(2)), ['00', '01', '10', '11']);
  await rig.clock.run(rig.flush());
  assert.deepEqual(sorted(rig.cuts(2)), ['00']);
});

test('a failed write has reached any of its sectors, and a failed flush promises nothing', async () => {
  const found = new Set<string>();
  for (let seed = 1; seed <= 40; seed++) {
    const rig = new Rig(seed);
    rig.disk.fail({ op: 'write', nth: 0, stays: false });
    await assert.rejects(rig.clock.run(rig.write(0, 2, 1)), DmError);
    found.add(await rig.clock.run(rig.read(0, 2)));
  }
  assert.deepEqual(sorted(found), ['00', '01', '10', '11']);
  const rig = new Rig();
  await rig.clock.run(rig.write(0, 1, 1));
  rig.disk.fail({ op: 'flush', nth: 0, stays: false });
  await assert.rejects(rig.clock.run(rig.flush()), /EIO/);
  assert.deepEqual(sorted(rig.cuts(1)), ['0', '1']);
});

test('the nth request of a kind fails: once, or from then on, with the errno that was asked for', async () => {
  const outcome = async (stays: boolean): Promise<string> => {
    const rig = new Rig();
    rig.disk.fail({ op: 'discard', nth: 1, stays, status: 28 });
    let text = '';
    for (let i = 0; i < 4; i++) {
      await rig.clock.run(rig.write(0, 1, 1)); // Other kinds do not count.
      const done = rig.discard(0, 1).then(
        () => '.',
        (error: unknown) => (error as DmError).errno,
      );
      text += await rig.clock.run(done);
    }
    rig.disk.heal();
    await rig.clock.run(rig.discard(0, 1));
    return text;
  };
  assert.equal(await outcome(false), '.ENOSPC..');
  assert.equal(await outcome(true), '.ENOSPCENOSPCENOSPC');
});

test('reads fail, those that wait included', async () => {
  const rig = new Rig();
  rig.disk.fail({ op: 'read', nth: 0, stays: true });
  const data = new Uint8Array(SECTOR);
  assert.equal(rig.disk.readSync(0, 1, data, 0), 5);
  await assert.rejects(rig.clock.run(rig.read(0, 1)), /EIO/);
  assert.equal(rig.disk.nrFailed, 2);
});

test('a request beyond the end fails and changes nothing', async () => {
  const rig = new Rig();
  await assert.rejects(rig.clock.run(rig.write(NR_SECTORS - 1, 2, 1)), /EIO/);
  assert.equal(await rig.clock.run(rig.read(NR_SECTORS - 1, 1)), '0');
  assert.equal(rig.storage.nrEvents, 0);
});

test('a cut leaves every sector as it was durable, or as a later write made it', () => {
  const operation = fc.record({
    kind: fc.constantFrom('write', 'fua', 'discard', 'flush'),
    sector: fc.nat(7),
    nrSectors: fc.integer({ min: 1, max: 4 }),
    isAwaited: fc.boolean(),
  });
  return fc.assert(
    fc.asyncProperty(fc.array(operation, { maxLength: 25 }), fc.nat(1000), async (list, seed) => {
      const rig = new Rig(seed);
      /** By sector: what may be there. */
      const allowed = Array.from({ length: 12 }, () => new Set(['0']));
      await rig.clock.run(
        (async () => {
          for (const [i, { kind, sector, nrSectors, isAwaited }] of list.entries()) {
            const stamp = kind === 'discard' ? 0 : i + 1;
            const flags = kind === 'fua' ? BioFlag.FUA : 0;
            if (kind === 'flush') {
              await rig.flush();
              continue;
            }
            for (let s = sector; s < sector + nrSectors; s++) {
              (allowed[s] as Set<string>).add(stamp.toString(36));
            }
            const done =
              stamp === 0
                ? rig.discard(sector, nrSectors)
                : rig.write(sector, nrSectors, stamp, flags);
            if (isAwaited) await done;
          }
        })(),
      );
      for (let event = 0; event <= rig.storage.nrEvents; event++) {
        for (const content of rig.cuts(12, event, 4)) {
          for (const [s, digit] of [...content].entries()) {
            assert.ok((allowed[s] as Set<string>).has(digit), `sector ${s}: ${digit}`);
          }
        }
      }
    }),
    { seed: seedOf(3), numRuns: 60 },
  );
});
