/**
 * What thin_dump --repair finds in metadata that has lost its superblock, its newest trees, or all
 * of its details.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { StringSink } from '../../../src/base/text-sink.ts';
import { DeviceReader } from '../../../src/persistent-data/check/block-reader.ts';
import {
  dumpPool,
  liveSuperblock,
  openSource,
  type PoolOverrides,
} from '../../../src/thin/tools/dump.ts';
import { findSource } from '../../../src/thin/tools/find-roots.ts';
import { PoolXmlWriter } from '../../../src/thin/tools/xml-writer.ts';
import { Random, seedOf } from '../../helpers/random.ts';
import { Patient, thinDamages } from '../../helpers/thin-damage.ts';
import { BLOCK, deviceOf, imageMakers, imageNamed, PoolImage } from '../../helpers/thin-images.ts';

interface Found {
  readonly xml: string;
  readonly said: string[];
}

async function find(image: Uint8Array, overrides: PoolOverrides = {}): Promise<Found> {
  const reader = new DeviceReader(await deviceOf(image));
  const said: string[] = [];
  const sink = new StringSink();
  const source = findSource(reader, overrides, (text) => said.push(text));
  dumpPool(reader, source, {}, new PoolXmlWriter(sink));
  return { xml: sink.text, said };
}

async function plainDump(image: Uint8Array): Promise<string> {
  const reader = new DeviceReader(await deviceOf(image));
  const sink = new StringSink();
  dumpPool(reader, openSource(reader, liveSuperblock(reader)), {}, new PoolXmlWriter(sink));
  return sink.text;
}

const body = (xml: string): string => xml.slice(xml.indexOf('\n'));
const headOf = (xml: string): string => xml.slice(0, xml.indexOf('\n'));

for (const name of Object.keys(imageMakers)) {
  test(`nothing is to be found in ${name}: it is dumped as it is`, async () => {
    const image = await imageNamed(name, seedOf(1));
    assert.deepEqual(await find(image), { xml: await plainDump(image), said: [] });
  });
}

for (const name of [
  'many small devices',
  'trees of three levels, and a snapshot that differs here and there',
]) {
  test(`without its superblock, the newest state is found in ${name}`, async () => {
    const image = await imageNamed(name, seedOf(2));
    const before = await plainDump(image);
    image.fill(0, 0, BLOCK);
    const { xml } = await find(image, { dataBlockSize: 128 });
    assert.equal(body(xml), body(before));
    assert.match(headOf(xml), / version="2" data_block_size="128" /);
  });
}

test('without its superblock, a data block size is needed', async () => {
  const image = await imageNamed('needs_check', 1);
  image.fill(0, 0, BLOCK);
  const message = 'data block size needs to be provided due to corruption in the superblock';
  await assert.rejects(find(image), { message });
});

/** A device of 10 blocks, then one of 20 more and 5 overwritten, in two transactions. */
async function twoStates(): Promise<{ old: Buffer; now: Buffer }> {
  const image = await PoolImage.make();
  image.pmd.createThin(0);
  image.provision(0, 0, 10);
  image.pmd.createSnap(1, 0);
  const old = await image.bytes();
  image.provision(0, 50, 20);
  image.provision(1, 0, 5);
  image.pmd.setTransactionId(0n, 9n);
  return { old, now: await image.bytes() };
}

test('numbers of a lost superblock are made up to be safe', async () => {
  const { now } = await twoStates();
  now.fill(0, 0, BLOCK);
  const { xml } = await find(now, { dataBlockSize: 128 });
  const head = '<superblock uuid="" time="1" transaction="1" version="2"';
  assert.equal(headOf(xml), `${head} data_block_size="128" nr_data_blocks="35">`);
  const given = { dataBlockSize: 128, transactionId: 77n, nrDataBlocks: 4000 };
  const again = await find(now, given);
  assert.match(headOf(again.xml), / transaction="77" .* nr_data_blocks="4000"/);
});

test('with its newest trees damaged, the state before is found', async () => {
  const { old, now } = await twoStates();
  for (const root of ['mappingRoot', 'detailsRoot'] as const) {
    const patient = new Patient(now);
    patient.setU32(patient[root], 0, 1);
    const { xml } = await find(patient.bytes);
    assert.equal(body(xml), body(await plainDump(old)), root);
    assert.match(headOf(xml), / transaction="9" .* nr_data_blocks="65536"/);
  }
});

test('without any details, all data counts as shared', async () => {
  const { now } = await twoStates();
  const patient = new Patient(now);
  for (let block = 1; block < now.length / BLOCK; block++) {
    if (patient.u32(block, 24) === 24) patient.bytes.fill(0, block * BLOCK, (block + 1) * BLOCK);
  }
  const { xml, said } = await find(patient.bytes);
  assert.match(said.join(), /^found \d+ mapping trees without device details$/);
  assert.match(headOf(xml), / time="2" transaction="9" /);
  assert.deepEqual(xml.match(/<device .*>/g), [
    '<device dev_id="0" mapped_blocks="30" transaction="8" creation_time="2" snap_time="2">',
    '<device dev_id="1" mapped_blocks="10" transaction="8" creation_time="2" snap_time="2">',
  ]);
});

test('where nothing is left, nothing is found', async () => {
  const overrides = { dataBlockSize: 128 };
  const message = 'no compatible roots found';
  await assert.rejects(find(Buffer.alloc(64 * BLOCK), overrides), { message });
});

test('no damage makes the search throw, loop, or lose what is whole', async () => {
  const seed = seedOf(3);
  const random = new Random(seed);
  for (const damage of thinDamages) {
    const patient = new Patient(await imageNamed('a held metadata snapshot', seed));
    const before = await plainDump(patient.bytes);
    if (!damage.apply(patient, random)) continue;
    const found = await find(patient.bytes, { dataBlockSize: 128 }).catch((error: unknown) => {
      assert.equal((error as Error).name, 'DmError', `${damage.name}: ${String(error)}`);
      return null;
    });
    // Space maps are not what a dump consists of.
    if (!/count|leaked|space map|hints|features|index|allocated/.test(damage.name)) continue;
    assert.equal(body(found?.xml ?? ''), body(before), `${damage.name}, seed ${seed}`);
  }
});
