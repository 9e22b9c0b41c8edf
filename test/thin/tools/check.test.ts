/**
 * thin_check as a function: what it says of sound pools, of every kind of damage, and of anything
 * at all.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Damage } from '../../../src/persistent-data/check/damage.ts';
import { checksum } from '../../../src/persistent-data/checksum.ts';
import { SALT } from '../../../src/persistent-data/validator.ts';
import { checkPool, type CheckOptions, type CheckResult } from '../../../src/thin/tools/check.ts';
import { assertClean } from '../../helpers/check.ts';
import { Random, seedOf } from '../../helpers/random.ts';
import { Patient, thinDamages } from '../../helpers/thin-damage.ts';
import { BLOCK, deviceOf, imageMakers, imageNamed, imageOf } from '../../helpers/thin-images.ts';

interface Checked extends CheckResult {
  readonly messages: string[];
  readonly found: Damage[];
  /** The image afterwards. */
  readonly after: Buffer;
}

async function check(image: Uint8Array, options: CheckOptions = {}): Promise<Checked> {
  const device = await deviceOf(image);
  const messages: string[] = [];
  const found: Damage[] = [];
  const result = await checkPool(device, options, {
    message: (text) => messages.push(text),
    damage: (damage) => found.push(damage),
  });
  return { ...result, messages, found, after: imageOf(device) };
}

const SNAPSHOTS = 'snapshots of snapshots, overwrites, discards and deletes';
const THREE_LEVELS = 'trees of three levels, and a snapshot that differs here and there';
const HELD = 'a held metadata snapshot';

for (const [name, make] of Object.entries(imageMakers)) {
  test(`nothing is wrong with ${name}`, async () => {
    const seed = seedOf(1);
    const image = await (await make(new Random(seed))).bytes();
    await assertClean(image, `seed ${seed}`);
  });

  test(`a repair has nothing to do, and does nothing, in ${name}`, async () => {
    const image = await (await make(new Random(seedOf(2)))).bytes();
    const { ok, repaired, after, superblock } = await check(image, { autoRepair: true });
    assert.deepEqual([ok, repaired], [true, false]);
    if (superblock?.needsCheck === true) return; // That alone is cleared; see below.
    assert.ok(after.equals(image), 'no byte has changed');
  });
}

for (const damage of thinDamages) {
  test(`found: ${damage.name}`, async () => {
    const seed = seedOf(3);
    let applied = 0;
    for (const name of [
      SNAPSHOTS,
      HELD,
      THREE_LEVELS,
      'data blocks and leaves with overflow counts',
    ]) {
      const patient = new Patient(await imageNamed(name, seed));
      if (!damage.apply(patient, new Random(seed))) continue;
      applied++;
      const { ok, damage: found, after } = await check(patient.bytes);
      assert.equal(ok, false, `in ${name}, seed ${seed}`);
      assert.ok(found.kept.length > 0, 'a finding says why');
      assert.ok(after.equals(patient.bytes), 'a check writes nothing');
    }
    assert.ok(applied > 0, 'some image can be damaged so');
  });
}

test('all damage is reported, not only the first', async () => {
  const patient = new Patient(await imageNamed(SNAPSHOTS, seedOf(4)));
  const [node = 0] = patient.mappingNodes();
  patient.setU32(node, 0, 0);
  patient.setU32(patient.detailsRoot, 0, 0);
  patient.setU32(patient.bitmap(64), 0, 0);
  patient.setU32(patient.bitmap(192), 0, 0);
  const { found } = await check(patient.bytes);
  const where = found.filter(({ kind }) => kind === 'checksum').map((damage) => damage.where);
  assert.deepEqual(where, [
    'device details tree',
    'mappings',
    'data space map',
    'metadata space map',
  ]);
});

test('a damaged leaf that two devices share is told once, and counted for both', async () => {
  const patient = new Patient(await imageNamed(THREE_LEVELS, seedOf(5)));
  const roots = patient.children(patient.mappingRoot);
  const leaves = roots.map((root) => patient.nodes(root).filter((node) => patient.isLeaf(node)));
  const shared = leaves[0]?.find((leaf) => leaves[1]?.includes(leaf)) as number;
  const lost = patient.nr(shared);
  patient.setU32(shared, 0, 1);
  const { found, messages } = await check(patient.bytes);
  assert.equal(found.filter(({ kind }) => kind === 'checksum').length, 1);
  const each = [3, 4].map((id) => {
    const mapped = patient.u64(patient.detailsRoot, patient.valueAt(patient.detailsRoot, id - 3));
    const missing = `is missing ${lost} mappings, while expected ${mapped}`;
    return `Thin device ${id} has 1 errors and ${missing}`;
  });
  assert.deepEqual(messages.slice(0, 5), [
    ...each,
    '1 nodes in data mapping tree contain errors',
    '0 io errors, 1 checksum errors',
    'Check of mappings failed',
  ]);
});

test('references that damage hides do not turn into leaks', async () => {
  const patient = new Patient(await imageNamed(THREE_LEVELS, seedOf(6)));
  const [root = 0] = patient.children(patient.mappingRoot);
  patient.setU32(root, 0, 1);
  const { found, messages } = await check(patient.bytes);
  assert.deepEqual(
    found.filter(({ kind }) => kind === 'leak'),
    [],
  );
  assert.ok(messages.includes('Thin device 3 is missing root with 66000 mappings'));
});

test('a superblock that cannot be read ends the check, in the words of the old tools', async () => {
  const image = await imageNamed(SNAPSHOTS, seedOf(7));
  image.fill(0, 0, BLOCK);
  const { messages, superblock, ok } = await check(image);
  assert.deepEqual([messages, superblock, ok], [['bad checksum in superblock'], null, false]);
});

test('damage that only the metadata snapshot has is told as such', async () => {
  const patient = new Patient(await imageNamed(HELD, seedOf(8)));
  const held = patient.heldRoot;
  const live = new Set(patient.nodes(patient.mappingRoot));
  const own = patient.nodes(patient.u64(held, 320)).find((node) => !live.has(node)) as number;
  patient.setU32(own, 0, 1);
  const { found, messages } = await check(patient.bytes);
  assert.deepEqual(
    [...new Set(found.map((damage) => damage.where))],
    ['metadata snap: mapping tree'],
  );
  assert.ok(messages.every((line) => line.startsWith('metadata snap: ')));
  assert.equal((await check(patient.bytes, { metadataSnap: true })).ok, false);
});

test('the metadata snapshot can be checked alone, whatever is wrong with the live trees', async () => {
  const patient = new Patient(await imageNamed(HELD, seedOf(9)));
  patient.setU32(patient.mappingRoot, 0, 1);
  assert.equal((await check(patient.bytes)).ok, false);
  assert.equal((await check(patient.bytes, { metadataSnap: true })).ok, true);
});

test('there is no metadata snapshot to check', async () => {
  const { messages, ok } = await check(await imageNamed(SNAPSHOTS, 1), { metadataSnap: true });
  assert.deepEqual([messages, ok], [['no current metadata snap'], false]);
});

test('less is looked at if that is asked for', async () => {
  const patient = new Patient(await imageNamed(SNAPSHOTS, seedOf(10)));
  patient.setU32(patient.bitmap(64), 0, 1);
  patient.setU32(random(patient.mappingNodes()), 0, 1);
  assert.equal((await check(patient.bytes, { skipMappings: true })).ok, true);
  patient.setU32(patient.mappingRoot, 0, 1);
  assert.equal((await check(patient.bytes, { skipMappings: true })).ok, false);
  assert.equal((await check(patient.bytes, { superBlockOnly: true })).ok, true);
});

function random<T>(items: readonly T[]): T {
  return new Random(seedOf(11)).pick(items);
}

test('other roots can be checked than those that the superblock names', async () => {
  const patient = new Patient(await imageNamed(SNAPSHOTS, seedOf(12)));
  const { mappingRoot, detailsRoot } = patient;
  patient.setU64(0, 320, 1);
  patient.setU64(0, 328, 1);
  patient.sealSuperblock();
  assert.equal((await check(patient.bytes)).ok, false);
  const options = { overrideMappingRoot: mappingRoot, overrideDetailsRoot: detailsRoot };
  assert.equal((await check(patient.bytes, options)).ok, true);
});

test('errors that are not fatal fail the check, unless they are to be ignored', async () => {
  const patient = new Patient(await imageNamed(SNAPSHOTS, seedOf(13)));
  patient.setCount(192, 4000, 1);
  const { messages, ok } = await check(patient.bytes);
  assert.deepEqual(messages, [
    '1 metadata blocks have leaked',
    'metadata space map contains leaks',
    'perhaps you wanted to run with --auto-repair',
  ]);
  assert.equal(ok, false);
  assert.equal((await check(patient.bytes, { ignoreNonFatalErrors: true })).ok, true);
  patient.setCount(192, 0, 0);
  assert.equal((await check(patient.bytes, { ignoreNonFatalErrors: true })).ok, false);
});

test('a device smaller than its space map is refused, as by the kernel', async () => {
  const image = await imageNamed(SNAPSHOTS, seedOf(14));
  const { ok, damage } = await check(image.subarray(0, 1024 * BLOCK));
  assert.equal(ok, false);
  assert.match(damage.lines().join('\n'), /wanted a device of 4096 metadata blocks, found 1024/);
});

/** Some words of some blocks, of any kind, with checksums made right again. */
function scramble(image: Buffer, random: Random): void {
  const used = Array.from({ length: image.length / BLOCK }, (_, block) => block).filter(
    (block) => image.readUInt32LE(block * BLOCK) !== 0,
  );
  for (let hit = random.between(1, 5); hit > 0; hit--) {
    const block = random.pick(used);
    const body = image.subarray(block * BLOCK + 4, (block + 1) * BLOCK);
    const salt = (checksum(body, 0) ^ image.readUInt32LE(block * BLOCK)) >>> 0;
    const word = random.chance(0.5) ? random.between(1, 12) : random.between(1, 1023);
    const value = random.pick([0, 1, 3, 2 ** 32 - 1, random.below(2 ** 32), random.below(5000)]);
    image.writeUInt32LE(value, block * BLOCK + 4 * word);
    const isKnown = Object.values(SALT).some((known) => known === salt);
    if (isKnown) image.writeUInt32LE(checksum(body, salt), block * BLOCK);
  }
}

test('no bytes make the check throw or loop, and a repair never makes things worse', async () => {
  const seed = seedOf(15);
  const random = new Random(seed);
  for (let round = 0; round < 12; round++) {
    const [, make] = random.pick(Object.entries(imageMakers));
    const sound = await (await make(random)).bytes();
    for (let trial = 0; trial < 15; trial++) {
      const image = Buffer.from(sound);
      scramble(image, random);
      const where = `seed ${seed}, round ${round}, trial ${trial}`;
      const before = await check(image);
      const { ok, repaired, clearedNeedsCheck, after } = await check(image, { autoRepair: true });
      if (!repaired && !clearedNeedsCheck) assert.ok(after.equals(image), where);
      if (repaired && ok) assert.deepEqual((await check(after)).damage.lines(), [], where);
      if (before.ok) assert.ok(ok, where);
      if (before.damage.nrFatal > 0) assert.equal(ok, false, where);
    }
  }
});

test('noise is not metadata', async () => {
  const random = new Random(seedOf(16));
  const image = Buffer.from(Array.from({ length: 64 * BLOCK }, () => random.below(256)));
  assert.equal((await check(image)).ok, false);
  assert.equal((await check(Buffer.alloc(BLOCK))).ok, false);
});
