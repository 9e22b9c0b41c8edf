/**
 * thin_check --auto-repair and --clear-needs-check-flag: what is set right, what is written, and
 * what a crash in between leaves.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { StringSink } from '../../../src/base/text-sink.ts';
import { BioOp, type Bio } from '../../../src/block/bio.ts';
import { request } from '../../../src/block/device.ts';
import { MemoryDevice } from '../../../src/block/memory-device.ts';
import { MemoryLog } from '../../../src/base/log.ts';
import { DeviceReader } from '../../../src/persistent-data/check/block-reader.ts';
import { PoolMetadata } from '../../../src/thin/metadata/pool-metadata.ts';
import { checkPool, type CheckOptions } from '../../../src/thin/tools/check.ts';
import { dumpPool, liveSuperblock, openSource } from '../../../src/thin/tools/dump.ts';
import { PoolXmlWriter } from '../../../src/thin/tools/xml-writer.ts';
import { assertClean } from '../../helpers/check.ts';
import { Random, seedOf } from '../../helpers/random.ts';
import { Patient } from '../../helpers/thin-damage.ts';
import {
  BLOCK,
  deviceOf,
  imageMakers,
  imageNamed,
  imageOf,
  PoolImage,
} from '../../helpers/thin-images.ts';

const SNAPSHOTS = 'snapshots of snapshots, overwrites, discards and deletes';
const OVERFLOW = 'data blocks and leaves with overflow counts';

/** A device that remembers what was written, and what a flush separates. */
class RecordingDevice extends MemoryDevice {
  readonly writes: { block: number; data: Buffer; epoch: number }[] = [];
  epoch = 0;

  override submit(bio: Bio): void {
    if (bio.op === BioOp.FLUSH) this.epoch++;
    if (bio.op === BioOp.WRITE) {
      for (let at = 0; at < bio.nrSectors; at += 8) {
        const begin = bio.dataOffset + at * 512;
        const data = Buffer.from(bio.data.subarray(begin, begin + BLOCK));
        this.writes.push({ block: (bio.sector + at) / 8, data, epoch: this.epoch });
      }
    }
    super.submit(bio);
  }
}

async function recordingDevice(image: Buffer): Promise<RecordingDevice> {
  const device = new RecordingDevice('metadata', image.length / 512);
  await request(device, BioOp.WRITE, 0, device.sizeSectors, image);
  device.writes.length = 0;
  return device;
}

async function repair(
  image: Buffer,
  options: CheckOptions = { autoRepair: true },
): Promise<{ after: Buffer; messages: string[]; ok: boolean; changed: number[] }> {
  const device = await deviceOf(image);
  const messages: string[] = [];
  const message = (text: string): unknown => messages.push(text);
  const { ok } = await checkPool(device, options, { message });
  const after = imageOf(device);
  const changed: number[] = [];
  for (let block = 0; block < image.length / BLOCK; block++) {
    const range = [block * BLOCK, (block + 1) * BLOCK] as const;
    if (!image.subarray(...range).equals(after.subarray(...range))) changed.push(block);
  }
  return { after, messages, ok, changed };
}

async function xmlOf(image: Buffer): Promise<string> {
  const reader = new DeviceReader(await deviceOf(image));
  const sink = new StringSink();
  dumpPool(reader, openSource(reader, liveSuperblock(reader)), {}, new PoolXmlWriter(sink));
  return sink.text;
}

/** Leaks of both maps, in bitmaps and in overflow trees, hints and totals wrong. */
function leak(patient: Patient, random: Random): void {
  for (const map of [64, 192] as const) {
    const nrBlocks = Math.min(patient.u64(0, map), 16320);
    for (let i = 0; i < 20; i++) {
      const block = random.below(nrBlocks);
      const count = patient.count(map, block);
      if (count < 2) patient.setCount(map, block, random.between(count + 1, 2));
    }
    const leaves = patient.nodes(patient.overflowRoot(map)).filter((n) => patient.isLeaf(n));
    for (const leaf of leaves.filter((n) => patient.nr(n) > 0)) {
      const at = patient.valueAt(leaf, random.below(patient.nr(leaf)));
      patient.setU32(leaf, at, patient.u32(leaf, at) + random.between(1, 2 ** 31));
      patient.sealNode(leaf);
    }
    patient.setU64(0, map + 8, patient.u64(0, map + 8) + random.between(1, 50));
    patient.sealSuperblock();
  }
}

for (const name of Object.keys(imageMakers)) {
  test(`leaks in ${name} are repaired, and nothing else changes`, async () => {
    const seed = seedOf(1);
    const sound = await imageNamed(name, seed);
    const patient = new Patient(sound);
    leak(patient, new Random(seed));
    const { after, messages, ok } = await repair(patient.bytes);
    assert.ok(ok, `seed ${seed}: ${messages.join('; ')}`);
    assert.ok(messages.includes('Repairing data leaks.'));
    assert.ok(messages.includes('Repairing metadata leaks.'));
    await assertClean(after, `seed ${seed}`);
    assert.equal(
      (await xmlOf(after)).replace(/ flags="1"/, ''),
      (await xmlOf(sound)).replace(/ flags="1"/, ''),
    );
  });
}

test('a repair writes only blocks that nothing refers to, and then the superblock', async () => {
  const seed = seedOf(2);
  const sound = await imageNamed(OVERFLOW, seed);
  const healthy = new Patient(sound);
  const used = Array.from({ length: 4096 }, (_, block) => block).filter(
    (block) => healthy.count(192, block) > 0,
  );
  const patient = new Patient(sound);
  leak(patient, new Random(seed));
  const { changed } = await repair(patient.bytes);
  assert.deepEqual(
    changed.filter((block) => used.includes(block)),
    [0],
  );
  assert.ok(changed.length < 20, `${changed.length} blocks are written`);
});

test('a leak in one bitmap rewrites that bitmap, the index and the superblock', async () => {
  const patient = new Patient(await imageNamed(SNAPSHOTS, seedOf(3)));
  patient.setCount(192, 4000, 1);
  assert.equal((await repair(patient.bytes)).changed.length, 3);
});

test('a crash at any point of a repair leaves the leaks, or none', async () => {
  const seed = seedOf(4);
  const random = new Random(seed);
  const patient = new Patient(await imageNamed(OVERFLOW, seed));
  leak(patient, random);
  const device = await recordingDevice(patient.bytes);
  await checkPool(device, { autoRepair: true });
  const lastEpoch = device.writes.at(-1)?.epoch;
  assert.deepEqual(
    device.writes.filter(({ epoch }) => epoch === lastEpoch).map(({ block }) => block),
    [0],
    'the superblock is written alone, after a flush',
  );
  for (let trial = 0; trial < 30; trial++) {
    const image = Buffer.from(patient.bytes);
    const reached = random.between(0, device.epoch);
    for (const { block, data, epoch } of device.writes) {
      // Writes before the last flush are there, those after it as it happens, or half of them.
      if (epoch > reached || (epoch === reached && random.chance(0.5))) continue;
      const torn = epoch === reached && block !== 0 && random.chance(0.3);
      image.set(torn ? data.subarray(0, 512 * random.between(1, 7)) : data, block * BLOCK);
    }
    const { damage } = await checkPool(await deviceOf(image));
    assert.equal(damage.nrFatal, 0, `seed ${seed}, trial ${trial}: ${damage.lines().join('\n')}`);
  }
});

test('a repaired pool can be used on', async () => {
  const seed = seedOf(5);
  const patient = new Patient(await imageNamed(SNAPSHOTS, seed));
  leak(patient, new Random(seed));
  const device = await deviceOf((await repair(patient.bytes)).after);
  const options = { dataBlockSize: 128, mayFormat: false };
  const pmd = await PoolMetadata.open(device, new MemoryLog(), options);
  pmd.createThin(77);
  const thin = pmd.openDevice(77);
  for (let i = 0; i < 500; i++) pmd.insertBlock(thin, i, pmd.reserveDataBlock());
  pmd.closeDevice(thin);
  await pmd.commit();
  await assertClean(device);
});

test('metadata so full of leaks that a commit would fail is repaired in the leaked blocks', async () => {
  const patient = new Patient(await imageNamed(SNAPSHOTS, seedOf(6)));
  for (let block = 0; block < 4096; block++) {
    if (patient.count(192, block) === 0) patient.setCount(192, block, 1);
  }
  const { ok, after } = await repair(patient.bytes);
  assert.ok(ok);
  await assertClean(after);
});

test('without blocks that nothing refers to, a repair says so and writes nothing', async () => {
  // The smallest pool there is: three of its twelve blocks are free, a repair of both maps takes
  // four.
  const tiny = await PoolImage.make({ nrBlocks: 12, nrDataBlocks: 4096 });
  const patient = new Patient(await tiny.bytes());
  patient.setCount(64, 5, 1);
  const device = await deviceOf(patient.bytes);
  const wanted = { errno: 'ENOSPC', message: /needs metadata blocks that nothing refers to/ };
  await assert.rejects(checkPool(device, { autoRepair: true }), wanted);
  assert.ok(imageOf(device).equals(patient.bytes));
});

test('with fatal damage nothing is written, whatever was asked for', async () => {
  const patient = new Patient(await imageNamed('needs_check', seedOf(7)));
  leak(patient, new Random(1));
  patient.setU32(patient.detailsRoot, 0, 1);
  for (const options of [{ autoRepair: true }, { clearNeedsCheck: true }]) {
    const { ok, changed } = await repair(patient.bytes, options);
    assert.deepEqual([ok, changed], [false, []]);
  }
});

test('needs_check is cleared in the superblock, and no other block changes', async () => {
  const image = await imageNamed('needs_check', seedOf(8));
  for (const options of [
    { autoRepair: true },
    { clearNeedsCheck: true },
    { clearNeedsCheck: true, skipMappings: true },
    { clearNeedsCheck: true, superBlockOnly: true },
  ]) {
    const { ok, changed, messages, after } = await repair(image, options);
    assert.deepEqual([ok, changed, messages], [true, [0], ['Cleared needs_check flag']]);
    assert.equal(after.readUInt32LE(4), 0);
    await assertClean(after);
  }
});

test('needs_check stays where nobody asked for it to go, or not all is well', async () => {
  const image = await imageNamed('needs_check', seedOf(9));
  for (const options of [{}, { skipMappings: true }, { ignoreNonFatalErrors: true }]) {
    assert.deepEqual((await repair(image, options)).changed, []);
  }
  const patient = new Patient(image);
  patient.setU32(patient.overflowRoot(64), 20, 333);
  patient.sealNode(patient.overflowRoot(64));
  const { ok, changed } = await repair(patient.bytes, { clearNeedsCheck: true });
  assert.deepEqual([ok, changed], [false, []]);
});

test('clearing needs_check repairs leaks, too', async () => {
  const patient = new Patient(await imageNamed('needs_check', seedOf(10)));
  leak(patient, new Random(2));
  const { ok, after, messages } = await repair(patient.bytes, { clearNeedsCheck: true });
  assert.ok(ok);
  assert.equal(messages.at(-1), 'Cleared needs_check flag');
  await assertClean(after);
});
