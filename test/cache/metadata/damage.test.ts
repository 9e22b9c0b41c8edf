/**
 * Damaged metadata is used: whatever is on the disk, operations end soon, and fail with an errno if
 * they fail. What the check lets pass can be used to the end.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DmError } from '../../../src/base/error.ts';
import { CacheMetadata } from '../../../src/cache/metadata/cache-metadata.ts';
import type { CacheFormat } from '../../../src/cache/metadata/superblock.ts';
import { checkCache } from '../../../src/cache/tools/check.ts';
import { MemoryLog } from '../../../src/base/log.ts';
import { SALT } from '../../../src/persistent-data/validator.ts';
import { CachePatient, cacheDamages } from '../../helpers/cache-damage.ts';
import { cacheMakers, CLEAN } from '../../helpers/cache-images.ts';
import { DATA_BLOCK_SIZE, policyOn, SMQ } from '../../helpers/cache-states.ts';
import { Random, seedOf } from '../../helpers/random.ts';
import { BLOCK, deviceOf } from '../../helpers/thin-images.ts';

const FORMATS: readonly CacheFormat[] = [1, 2];
const SALTS = [SALT.BTREE_NODE, SALT.ARRAY, SALT.INDEX, SALT.BITMAP];
const ROUNDS = 250;
const TIME_MAX_MS = 5000;

const images = new Map<CacheFormat, Buffer>();

async function cleanImage(format: CacheFormat): Promise<Buffer> {
  const make = cacheMakers[CLEAN];
  assert.ok(make !== undefined);
  const image = images.get(format) ?? (await make(format, new Random(1))).image;
  images.set(format, image);
  return image;
}

/** Does all that a cache does in its life, or as far as it gets: null, or why it ended. */
async function live(image: Uint8Array, random: Random): Promise<DmError | null> {
  const device = await deviceOf(image);
  const options = { dataBlockSize: DATA_BLOCK_SIZE, mayFormat: false, format: 2 } as const;
  try {
    const metadata = await CacheMetadata.open(device, new MemoryLog(), options);
    const { size, change } = random.pick([
      { size: metadata.nrCacheBlocks, change: false },
      { size: 1300, change: false },
      { size: 1300, change: true },
      { size: 2000, change: true },
    ]);
    metadata.resize(size);
    const mapped: number[] = [];
    metadata.loadMappings(policyOn(device), (_oblock, cblock) => mapped.push(cblock));
    metadata.loadDiscards(() => undefined);
    assert.equal(typeof metadata.isAllClean, 'boolean');
    if (change) {
      for (const cblock of mapped.slice(0, 20)) metadata.removeMapping(cblock);
      for (const cblock of mapped.slice(0, 10)) metadata.insertMapping(cblock, cblock);
      await metadata.commit(false);
    }
    if (metadata.nrCacheBlocks > 5000) return null; // Too much to write for a test.
    metadata.setDirtyBits((cblock) => cblock % 3 === 0);
    metadata.setDiscards(64, 500, (dblock) => dblock % 2 === 0);
    metadata.writeHints(SMQ, () => 1);
    await metadata.commit(true);
    return null;
  } catch (error) {
    if (error instanceof DmError) return error;
    throw error;
  }
}

async function liveBriefly(
  image: Uint8Array,
  random: Random,
  what: string,
): Promise<DmError | null> {
  const started = Date.now();
  try {
    return await live(image, random);
  } catch (error) {
    throw new Error(`${what}: ${(error as Error).stack}`);
  } finally {
    assert.ok(Date.now() - started < TIME_MAX_MS, `${what}: took too long`);
  }
}

/** Whether a check finds nothing that matters. */
async function passes(image: Uint8Array): Promise<boolean> {
  const { ok } = await checkCache(await deviceOf(image));
  return ok;
}

test('every known kind of damage is survived', async () => {
  const seed = seedOf(31);
  const random = new Random(seed);
  let nr = 0;
  for (const format of FORMATS) {
    for (const damage of cacheDamages) {
      const patient = new CachePatient(await cleanImage(format));
      if (!damage.apply(patient, random)) continue;
      await liveBriefly(patient.bytes, random, `${damage.name}, format ${format}, seed ${seed}`);
      nr++;
    }
  }
  assert.ok(nr > 80, `${nr} damages`);
});

test('no number in the superblock makes anything loop or crash', async () => {
  const seed = seedOf(32);
  const random = new Random(seed);
  const numbers = [0, 509, 2 ** 31, 2 ** 32 - 1];
  for (const format of FORMATS) {
    for (let offset = 40; offset < 292; offset += 4) {
      // The data block size, and features that only a writer must know, are refused at once.
      if (offset === 232 || offset === 248) continue;
      for (const number of numbers) {
        const patient = new CachePatient(await cleanImage(format));
        patient.setSuperblock(offset, number);
        const what = `${number} at ${offset}, format ${format}, seed ${seed}`;
        const error = await liveBriefly(patient.bytes, random, what);
        if (await passes(patient.bytes)) assert.equal(error, null, `${what}: ${error?.message}`);
      }
    }
  }
});

test('a wrong byte in a block that is in use is found, and never shown as content', async () => {
  const seed = seedOf(33);
  const random = new Random(seed);
  let nrFound = 0;
  for (let i = 0; i < ROUNDS; i++) {
    const format = random.pick(FORMATS);
    const image = await cleanImage(format);
    const patient = new CachePatient(image);
    const block = random.below(70);
    const used = patient.count(192, block) > 0;
    patient.bytes[block * BLOCK + random.below(BLOCK)]! ^= 1 << random.below(8);
    const what = `round ${i}, block ${block}, seed ${seed}`;
    const passed = await passes(patient.bytes);
    assert.equal(passed, !used, what);
    const error = await liveBriefly(patient.bytes, random, what);
    if (passed) assert.equal(error, null, what);
    else nrFound++;
  }
  assert.ok(nrFound > ROUNDS / 10, `${nrFound} found`);
});

test('blocks that are taken for others, with checksums that are right, are survived', async () => {
  const seed = seedOf(34);
  const random = new Random(seed);
  let nrPassed = 0;
  for (let i = 0; i < ROUNDS; i++) {
    const patient = new CachePatient(await cleanImage(random.pick(FORMATS)));
    for (let n = random.between(1, 3); n > 0; n--) {
      const block = random.between(1, 70);
      if (random.chance(0.3)) {
        const from = random.below(70);
        patient.bytes.copy(patient.bytes, block * BLOCK, from * BLOCK, (from + 1) * BLOCK);
      }
      for (let k = random.below(4); k > 0; k--) {
        const at = random.pick([random.below(64), random.below(BLOCK)]) & ~3;
        patient.setU32(block, at, random.pick([0, 1, 2, 70, 0xffff_ffff, random.below(2 ** 32)]));
      }
      const salt = random.pick(SALTS);
      patient.setU64(block, salt === SALT.ARRAY ? 16 : 8, block);
      patient.seal(block, salt);
    }
    const what = `round ${i}, seed ${seed}`;
    const error = await liveBriefly(patient.bytes, random, what);
    if (!(await passes(patient.bytes))) continue;
    nrPassed++;
    assert.equal(error, null, `${what}: ${error?.message}`);
  }
  assert.ok(nrPassed > 0);
});
