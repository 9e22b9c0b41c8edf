/**
 * cache_check as a function: what it says of sound caches, of every kind of damage, and of anything
 * at all; and that Debian's cache_check does not see what it does not.
 */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { test } from 'node:test';
import type { CacheFormat } from '../../../src/cache/metadata/superblock.ts';
import { readCacheImage } from '../../../src/cache/tools/cache-image.ts';
import { checkCache, type CheckOptions, type CheckResult } from '../../../src/cache/tools/check.ts';
import type { Damage } from '../../../src/persistent-data/check/damage.ts';
import { CachePatient, cacheDamages, harmlessCacheDamages } from '../../helpers/cache-damage.ts';
import { cacheMakers, CLEAN, LARGE } from '../../helpers/cache-images.ts';
import { imageOf } from '../../helpers/edit-blocks.ts';
import { runSync, scratchDir, skipWithout } from '../../helpers/programs.ts';
import { Random, seedOf } from '../../helpers/random.ts';
import { deviceOf } from '../../helpers/thin-images.ts';

const FORMATS: readonly CacheFormat[] = [1, 2];

interface Checked extends CheckResult {
  readonly messages: string[];
  readonly phases: string[];
  readonly found: Damage[];
  /** The image afterwards. */
  readonly after: Buffer;
}

async function check(image: Uint8Array, options: CheckOptions = {}): Promise<Checked> {
  const device = await deviceOf(image);
  const messages: string[] = [];
  const phases: string[] = [];
  const found: Damage[] = [];
  const result = await checkCache(device, options, {
    message: (text) => messages.push(text),
    phase: (name) => phases.push(name),
    damage: (damage) => found.push(damage),
  });
  return { ...result, messages, phases, found, after: imageOf(device) };
}

const made = new Map<string, Buffer>();

/** The image of the maker called `name`; the caller must not change it. */
async function imageNamed(name: string, format: CacheFormat): Promise<Buffer> {
  const make = cacheMakers[name];
  assert.ok(make !== undefined);
  const key = `${name}/${format}`;
  const image = made.get(key) ?? (await make(format, new Random(seedOf(1)))).image;
  made.set(key, image);
  return image;
}

/** What Debian's program says of an image: 0, if it is sound. */
function askDebian(image: Uint8Array): number {
  const { dir, remove } = scratchDir();
  try {
    fs.writeFileSync(`${dir}/metadata`, image);
    return runSync('cache_check', [`${dir}/metadata`]).code;
  } finally {
    remove();
  }
}

const hasDebian = skipWithout('cache_check') === false;
/** In use, its hints are of another length than the cache: which is how the kernel leaves them. */
const oddHints = (name: string): boolean => name.includes('in use');

for (const name of Object.keys(cacheMakers)) {
  for (const format of FORMATS) {
    test(`nothing is wrong with ${name}, format ${format}`, async () => {
      const image = await imageNamed(name, format);
      const { ok, damage, after, phases, messages } = await check(image);
      assert.deepEqual(damage.lines(), []);
      assert.deepEqual(messages, []);
      assert.ok(ok);
      assert.ok(after.equals(image), 'a check writes nothing');
      assert.equal(phases.at(-1), 'metadata space map');
      if (hasDebian && !oddHints(name)) assert.equal(askDebian(image), 0);
    });
  }
}

test('a repair has nothing to do in sound metadata, and does nothing', async () => {
  for (const name of Object.keys(cacheMakers)) {
    const image = await imageNamed(name, 2);
    const { ok, repaired, after, superblock } = await check(image, { autoRepair: true });
    assert.deepEqual([ok, repaired], [true, false], name);
    if (superblock?.needsCheck === true) continue; // That alone is cleared; see below.
    assert.ok(after.equals(image), name);
  }
});

for (const damage of cacheDamages) {
  test(`found: ${damage.name}`, async () => {
    const seed = seedOf(3);
    let applied = 0;
    for (const format of FORMATS) {
      for (const name of [CLEAN, LARGE, 'a cache in use, grown since its last clean shutdown']) {
        const patient = new CachePatient(await imageNamed(name, format));
        if (!damage.apply(patient, new Random(seed))) continue;
        applied++;
        const options = { autoRepair: true, clearNeedsCheck: true };
        const { ok, damage: found, after } = await check(patient.bytes, options);
        assert.equal(ok, false, `in ${name}, format ${format}, seed ${seed}`);
        assert.ok(found.nrFatal > 0, 'a finding says why');
        assert.ok(after.equals(patient.bytes), 'what is damaged is not touched');
        if (!hasDebian || damage.notByDebian === true || oddHints(name)) continue;
        assert.notEqual(askDebian(patient.bytes), 0, `Debian: ${name}, format ${format}`);
      }
    }
    assert.ok(applied > 0, 'some image can be damaged so');
  });
}

for (const damage of harmlessCacheDamages) {
  test(`found, and repaired if asked: ${damage.name}`, async () => {
    for (const format of FORMATS) {
      const patient = new CachePatient(await imageNamed(CLEAN, format));
      assert.ok(damage.apply(patient, new Random(seedOf(4))));
      const { bytes } = patient;
      const before = await check(bytes);
      assert.deepEqual([before.ok, before.damage.nrFatal], [false, 0]);
      assert.ok(before.after.equals(bytes));
      assert.ok((await check(bytes, { ignoreNonFatalErrors: true })).ok);

      const repaired = await check(bytes, { autoRepair: true });
      assert.deepEqual([repaired.ok, repaired.repaired], [true, true]);
      const again = await check(repaired.after);
      assert.deepEqual(again.damage.lines(), []);
      const [was, is] = [bytes, repaired.after].map(async (image) =>
        readCacheImage(await deviceOf(image)),
      );
      const { superblock: sbBefore, ...contentBefore } = await (was as NonNullable<typeof was>);
      const { superblock: sbAfter, ...contentAfter } = await (is as NonNullable<typeof is>);
      assert.deepEqual(contentAfter, contentBefore);
      const { metadataSpaceMap } = sbBefore;
      assert.deepEqual({ ...sbAfter, metadataSpaceMap }, sbBefore);
    }
  });
}

test('needs_check is cleared if nothing is wrong, and only then', async () => {
  const image = await imageNamed('needs_check', 1);
  assert.equal((await check(image)).superblock?.needsCheck, true);
  for (const options of [{ clearNeedsCheck: true }, { autoRepair: true }]) {
    const { clearedNeedsCheck, after, messages } = await check(image, options);
    assert.ok(clearedNeedsCheck);
    assert.deepEqual(messages, ['Cleared needs_check flag']);
    const { superblock } = await check(after);
    assert.deepEqual([superblock?.needsCheck, superblock?.cleanShutdown], [false, true]);
    assert.ok(after.subarray(4096).equals(image.subarray(4096)), 'only the superblock changed');
  }
  const damaged = new CachePatient(image);
  damaged.setMapping(0, 5, 4);
  const { clearedNeedsCheck, after } = await check(damaged.bytes, { clearNeedsCheck: true });
  assert.ok(!clearedNeedsCheck);
  assert.ok(after.equals(damaged.bytes));
});

test('what is skipped is not looked at, and then no counts are compared', async () => {
  const damages: [keyof CheckOptions, (patient: CachePatient) => number][] = [
    ['skipMappings', (patient) => patient.mappingRoot],
    ['skipHints', (patient) => patient.hintRoot],
    ['skipDiscards', (patient) => patient.discardRoot],
  ];
  for (const [option, rootOf] of damages) {
    const patient = new CachePatient(await imageNamed(CLEAN, 2));
    patient.setU32(rootOf(patient), 0, 1);
    const checked = await check(patient.bytes, { [option]: true });
    assert.deepEqual([checked.ok, checked.damage.lines()], [true, []], option);
    assert.ok(!checked.phases.includes('metadata space map'));
    assert.equal((await check(patient.bytes)).ok, false);
    assert.ok((await check(patient.bytes, { superBlockOnly: true })).ok);
  }
});

test('a dirty bit of an unmapped block is told, and does not matter', async () => {
  const patient = new CachePatient(await imageNamed(CLEAN, 2));
  const cblock = patient.cblock(false, new Random(1));
  const [block = 0] = patient.arrayBlocks(patient.dirtyRoot);
  const at = 24 + 8 * Math.floor(cblock / 64);
  patient.setU64(block, at, BigInt.asUintN(64, BigInt(2) ** BigInt(cblock % 64)));
  patient.sealArray(block);
  const { ok, found } = await check(patient.bytes);
  assert.ok(ok);
  assert.deepEqual(
    found.map(({ kind, where, begin }) => [kind, where, begin]),
    [['surplus', 'dirty bitset', cblock]],
  );
});

test('a check of anything at all ends, and says that something is wrong', async () => {
  const seed = seedOf(9);
  const random = new Random(seed);
  for (let i = 0; i < 300; i++) {
    const format = random.pick(FORMATS);
    const patient = new CachePatient(await imageNamed(CLEAN, format));
    // Blocks are taken for others, and full of anything; their checksums are right.
    for (let n = random.between(1, 4); n > 0; n--) {
      const block = random.below(70);
      const from = random.below(70);
      patient.bytes.copy(patient.bytes, block * 4096, from * 4096, (from + 1) * 4096);
      for (let k = random.below(6); k > 0; k--) {
        const at = random.pick([random.below(64), random.below(4096)]) & ~3;
        patient.setU32(block, at, random.pick([0, 1, 2, 0xffff_ffff, random.below(2 ** 32)]));
      }
      const salts = [9031977, 121107, 160478, 240779, 595846735];
      if (random.chance(0.8)) patient.setU64(block, 8, block);
      if (random.chance(0.2)) patient.setU64(block, 16, block);
      patient.seal(block, block === 0 ? 9031977 : random.pick(salts));
    }
    const started = Date.now();
    await check(patient.bytes, { autoRepair: random.chance(0.5) });
    assert.ok(Date.now() - started < 5000, `took too long, seed ${seed}, round ${i}`);
  }
});
