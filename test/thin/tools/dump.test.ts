/**
 * thin_dump as a function: both formats word for word, options, damage.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { StringSink } from '../../../src/base/text-sink.ts';
import { DeviceReader } from '../../../src/persistent-data/check/block-reader.ts';
import {
  dumpPool,
  liveSuperblock,
  openSource,
  snapshotSuperblock,
  type DumpOptions,
  type PoolOverrides,
} from '../../../src/thin/tools/dump.ts';
import { PoolTextWriter } from '../../../src/thin/tools/text-writer.ts';
import { PoolXmlWriter } from '../../../src/thin/tools/xml-writer.ts';
import { Random, seedOf } from '../../helpers/random.ts';
import { Patient, thinDamages } from '../../helpers/thin-damage.ts';
import { deviceOf, imageNamed, PoolImage } from '../../helpers/thin-images.ts';

interface How extends DumpOptions, PoolOverrides {
  readonly snapshot?: true | number;
  readonly text?: boolean;
  readonly sink?: StringSink;
}

async function dump(image: Uint8Array, how: How = {}): Promise<string> {
  const reader = new DeviceReader(await deviceOf(image));
  const { snapshot, sink = new StringSink() } = how;
  const sb =
    snapshot === undefined
      ? liveSuperblock(reader)
      : snapshotSuperblock(reader, snapshot === true ? undefined : snapshot);
  const writer = how.text === true ? new PoolTextWriter(sink) : new PoolXmlWriter(sink);
  dumpPool(reader, openSource(reader, sb, how), how, writer);
  return sink.text;
}

/** A device with runs and single mappings, its snapshot that shares all of them, and one more. */
async function smallPool(): Promise<PoolImage> {
  const image = await PoolImage.make({ nrDataBlocks: 4096 });
  const { pmd } = image;
  pmd.createThin(1);
  image.provision(1, 0, 3);
  image.provision(1, 9, 1);
  await pmd.commit();
  pmd.createSnap(5, 1);
  pmd.createThin(3);
  await pmd.commit();
  image.provision(3, 10, 2);
  image.provision(3, 100, 2, 7);
  pmd.setTransactionId(0n, 42n);
  return image;
}

test('the XML of a small pool, to the byte', async () => {
  const sizes = 'data_block_size="128" nr_data_blocks="4096"';
  const wanted = `<superblock uuid="" time="1" transaction="42" version="2" ${sizes}>
  <def name="12">
    <range_mapping origin_begin="0" data_begin="0" length="3" time="0"/>
    <single_mapping origin_block="9" data_block="3" time="0"/>
  </def>
  <device dev_id="1" mapped_blocks="4" transaction="0" creation_time="0" snap_time="1">
    <ref name="12"/>
  </device>
  <device dev_id="3" mapped_blocks="4" transaction="0" creation_time="1" snap_time="1">
    <range_mapping origin_begin="10" data_begin="4" length="2" time="1"/>
    <single_mapping origin_block="100" data_block="6" time="1"/>
    <single_mapping origin_block="107" data_block="7" time="1"/>
  </device>
  <device dev_id="5" mapped_blocks="4" transaction="0" creation_time="1" snap_time="1">
    <ref name="12"/>
  </device>
</superblock>`;
  assert.equal(await dump(await (await smallPool()).bytes()), wanted);
});

test('the same for people', async () => {
  const wanted = `begin superblock: "", 1, 42, 0, 2, 128, 4096
def: 12
    (0..2) -> (0..2), 0
    (9..9) -> (3..3), 0

device: 1
mapped_blocks: 4
transaction: 0
creation time: 0
snap time: 1
    ref: 12

device: 3
mapped_blocks: 4
transaction: 0
creation time: 1
snap time: 1
    (10..11) -> (4..5), 1
    (100..100) -> (6..6), 1
    (107..107) -> (7..7), 1

device: 5
mapped_blocks: 4
transaction: 0
creation time: 1
snap time: 1
    ref: 12

end superblock
`;
  assert.equal(await dump(await (await smallPool()).bytes(), { text: true }), wanted);
});

test('an empty pool is two tags', async () => {
  const head = '<superblock uuid="" time="0" transaction="0" version="2"';
  const wanted = `${head} data_block_size="128" nr_data_blocks="65536">\n</superblock>`;
  assert.equal(await dump(await imageNamed('an empty pool', 1)), wanted);
});

test('flags are written when there are any', async () => {
  assert.match(await dump(await imageNamed('needs_check', 1)), /^<superblock [^>]* flags="1" ver/);
});

test('mappings of neighbours join unless block, data block or time jumps', async () => {
  const image = await PoolImage.make();
  image.pmd.createThin(0);
  image.provision(0, 0, 2);
  image.provision(0, 3, 1);
  image.pmd.createThin(1);
  image.provision(1, 0, 1);
  image.provision(0, 4, 1);
  await image.pmd.commit();
  image.pmd.createSnap(2, 1);
  image.provision(0, 5, 1);
  const xml = await dump(await image.bytes(), { devIds: [0] });
  const mappings = xml.split('\n').filter((line) => line.includes('mapping'));
  assert.deepEqual(
    mappings.map((line) => [...line.matchAll(/"(\d+)"/g)].map(([, n]) => Number(n))),
    [
      [0, 0, 2, 0],
      [3, 2, 0],
      [4, 4, 0],
      [5, 5, 1],
    ],
  );
});

test('mappings join across leaves: thousands in a row are one', async () => {
  const image = await PoolImage.make({ nrBlocks: 4096 });
  image.pmd.createThin(0);
  image.provision(0, 7, 5000);
  const xml = await dump(await image.bytes());
  assert.match(xml, /\n {4}<range_mapping [^>]* length="5000" time="0"\/>\n {2}<\/device>/);
});

test('sharing is looked at only between the devices that are dumped', async () => {
  const image = await (await smallPool()).bytes();
  const xml = await dump(image, { devIds: [5, 77] });
  assert.doesNotMatch(xml, /def|ref/);
  assert.match(xml, /dev_id="5"[^]*single_mapping origin_block="9"/);
  assert.doesNotMatch(xml, /dev_id="[13]"/);
});

test('devices without their mappings', async () => {
  const xml = await dump(await (await smallPool()).bytes(), { skipMappings: true });
  assert.doesNotMatch(xml, /def|ref|mapping /);
  assert.equal(xml.match(/<device /g)?.length, 3);
});

test('given numbers count where they are higher; a given block size replaces', async () => {
  const image = await (await smallPool()).bytes();
  const low = { transactionId: 7n, nrDataBlocks: 8, dataBlockSize: 256 };
  assert.match(
    await dump(image, low),
    / transaction="42" .*data_block_size="256" nr_data_blocks="4096"/,
  );
  const high = { transactionId: 2n ** 64n - 1n, nrDataBlocks: 5000 };
  assert.match(
    await dump(image, high),
    / transaction="18446744073709551615" .*nr_data_blocks="5000"/,
  );
});

test('a metadata snapshot is dumped as it was', async () => {
  const image = await smallPool();
  await image.pmd.commit();
  const before = await dump(await image.bytes());
  image.pmd.reserveMetadataSnap();
  await image.pmd.commit();
  image.pmd.deleteDevice(5);
  image.provision(3, 500, 5);
  const later = await image.bytes();
  assert.notEqual(await dump(later), before);
  // The copy of the superblock has no space maps, and so no number of data blocks.
  const wanted = before.replace('nr_data_blocks="4096"', 'nr_data_blocks="0"');
  assert.equal(await dump(later, { snapshot: true }), wanted);
  assert.equal(await dump(later, { snapshot: image.pmd.heldRoot }), wanted);
  const other = dump(later, { snapshot: image.pmd.heldRoot + 1 });
  await assert.rejects(other, { message: /metadata snapshot does not match/ });
});

test('there may be no metadata snapshot', async () => {
  const image = await imageNamed('an empty pool', 1);
  await assert.rejects(dump(image, { snapshot: true }), { message: 'no current metadata snap' });
});

test('damage above the leaves ends a dump before its first word', async () => {
  const patient = new Patient(await imageNamed('a held metadata snapshot', seedOf(1)));
  const node = patient.mappingNodes().find((n) => !patient.isLeaf(n)) as number;
  for (const [block, wanted] of [
    [0, /bad checksum in superblock/],
    [patient.detailsRoot, /csum/],
    [patient.mappingRoot, /csum/],
    [node, /csum/],
  ] as const) {
    const ill = new Patient(patient.bytes);
    ill.setU32(block, 0, 1);
    const sink = new StringSink();
    await assert.rejects(dump(ill.bytes, { sink }), wanted);
    assert.equal(sink.text, '');
  }
});

test('a damaged leaf ends a dump, whose end then is missing', async () => {
  const patient = new Patient(await imageNamed('a held metadata snapshot', seedOf(2)));
  const leaf = patient.mappingNodes().find((n) => patient.isLeaf(n)) as number;
  patient.setU32(leaf, 0, 1);
  const sink = new StringSink();
  await assert.rejects(dump(patient.bytes, { sink }), new RegExp(`^DmError: block ${leaf}:`));
  assert.doesNotMatch(sink.text, /<\/superblock>/);
});

test('a device that only one of the trees knows is not left out silently', async () => {
  for (const root of ['mappingRoot', 'detailsRoot'] as const) {
    const patient = new Patient(await imageNamed('devices without mappings', 1));
    patient.setU32(patient[root], 16, 3);
    patient.sealNode(patient[root]);
    await assert.rejects(dump(patient.bytes), { message: /^Inconsistency between the details/ });
  }
});

test('no damage makes a dump fail in any other way than by saying so', async () => {
  const seed = seedOf(3);
  const random = new Random(seed);
  for (const damage of thinDamages) {
    const patient = new Patient(await imageNamed('a held metadata snapshot', seed));
    if (!damage.apply(patient, random)) continue;
    await dump(patient.bytes).catch((error: unknown) => {
      assert.equal((error as Error).name, 'DmError', `${damage.name}: ${String(error)}`);
    });
  }
});
