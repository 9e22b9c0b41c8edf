/**
 * Pools on damaged metadata, thousands of them: each is refused, or works as far as it can, or goes
 * to the mode that the spec says (spec: thin, 2.3, 12 and scenario 38). Nothing crashes, hangs or
 * loops; what is refused is not written; a pool that is read-only changes nothing but its flag.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DmError } from '../../../src/base/error.ts';
import { SECTOR_SIZE } from '../../../src/base/numbers.ts';
import { SimulatedClock } from '../../../src/base/simulated-clock.ts';
import type { Bio } from '../../../src/block/bio.ts';
import { MemoryDevice } from '../../../src/block/memory-device.ts';
import { SALT } from '../../../src/persistent-data/validator.ts';
import { Random, seedOf } from '../../helpers/random.ts';
import { discard, fill, flush, read, Stack } from '../../helpers/stack.ts';
import { Patient, thinDamages, type ThinDamage } from '../../helpers/thin-damage.ts';
import { BLOCK, deviceOf, imageMakers, imageNamed, imageOf } from '../../helpers/thin-images.ts';

const NR_DAMAGES = 5000;
const BLOCK_BYTES = 65536;
const VOLUME_BYTES = 128 * BLOCK_BYTES;
const IDS = [0, 1, 2, 3, 4, 5, 7, 9, 20, 0xff_ffff];

const word = (random: Random): bigint => {
  const small = BigInt(random.below(70_000));
  return random.pick([small, small << 24n, 2n ** 64n - 1n, BigInt(random.below(2 ** 32)) << 32n]);
};

/** Any eight bytes of a block replaced, with the checksum made right again. */
function anyWord(
  name: string,
  pick: (patient: Patient, random: Random) => number,
  salt: number,
): ThinDamage {
  return {
    name,
    apply: (patient, random) => {
      const block = pick(patient, random);
      patient.setU64(block, 8 * random.between(1, 63), word(random));
      patient.seal(block, salt);
      return true;
    },
  };
}

const DATA = 64;
const METADATA = 192;

const damages: readonly ThinDamage[] = [
  ...thinDamages,
  anyWord('any word of the superblock', () => 0, SALT.THIN_SUPERBLOCK),
  anyWord(
    'any word of a mapping node',
    (p, r) => r.pick([...p.nodes(p.mappingRoot), ...p.mappingNodes()]),
    SALT.BTREE_NODE,
  ),
  anyWord('any word of a details node', (p, r) => r.pick(p.nodes(p.detailsRoot)), SALT.BTREE_NODE),
  anyWord('any word of the data bitmaps', (p) => p.bitmap(DATA), SALT.BITMAP),
  anyWord('any word of the metadata bitmaps', (p) => p.bitmap(METADATA), SALT.BITMAP),
  anyWord('any word of the metadata index', (p) => p.bitmapRoot(METADATA), SALT.INDEX),
  anyWord(
    'any word of an overflow tree',
    (p, r) => p.overflowRoot(r.pick([DATA, METADATA])),
    SALT.BTREE_NODE,
  ),
];

const POOL_SECTORS = 65_536 * 128;

/** A data device that is larger than its pool, which must not write beyond its own part. */
class LargerDevice extends MemoryDevice {
  nrBeyond = 0;

  override submit(bio: Bio): void {
    if (bio.isWrite && bio.endSector > POOL_SECTORS) this.nrBeyond++;
    super.submit(bio);
  }
}

/** Uses a pool in every way, as long as it lets itself be used. */
class Use {
  readonly stack: Stack;
  readonly clock = new SimulatedClock();
  readonly #random: Random;
  /** Metadata when the pool was first seen to be read-only. */
  #frozen: Buffer | null = null;
  readonly #metadata: MemoryDevice;
  readonly #data = new LargerDevice('data', POOL_SECTORS + 100_000);
  readonly seen = new Set<string>();

  constructor(metadata: MemoryDevice, random: Random) {
    this.stack = new Stack(this.clock);
    this.#metadata = metadata;
    this.#random = random;
    this.stack.disk('meta', metadata);
    this.stack.disk('data', this.#data);
  }

  /** Whether the pool can be had at all. */
  async open(): Promise<boolean> {
    const table = `0 ${POOL_SECTORS} thin-pool /dev/meta /dev/data 128 0`;
    return this.#try(() => this.stack.create('p', table));
  }

  async #try(work: () => Promise<unknown>): Promise<boolean> {
    try {
      await work();
      return true;
    } catch (error) {
      if (!(error instanceof DmError)) throw error;
      this.seen.add(error.errno);
      return false;
    }
  }

  async everything(): Promise<void> {
    const active = [];
    for (const id of IDS) {
      const table = `0 ${VOLUME_BYTES / SECTOR_SIZE} thin /dev/mapper/p ${id}`;
      if (await this.#try(() => this.stack.create(`t${id}`, table))) active.push(id);
    }
    for (const id of active) await this.#useVolume(id);
    await this.#message(`create_thin ${this.#random.pick(IDS)}`);
    await this.#message('create_thin 100');
    await this.#message(`create_snap 101 ${this.#random.pick(IDS)}`);
    await this.#message('reserve_metadata_snap');
    await this.#message('release_metadata_snap');
    await this.#message('set_transaction_id 0 1');
    const gone = this.#random.pick(IDS);
    await this.#try(() => this.stack.remove(`t${gone}`));
    await this.#message(`delete ${gone}`);
    await this.clock.delay(2500);
    await this.#look();
    await this.#try(() => this.stack.suspend('p'));
    await this.#try(() => this.stack.resume('p'));
    await this.#look();
    await this.stack.registry.shutDown();
    this.#verifyFrozen();
    assert.equal(this.#data.nrBeyond, 0, 'nothing is written beyond the pool');
  }

  async #useVolume(id: number): Promise<void> {
    const device = this.stack.device(`t${id}`);
    const at = (): number => this.#random.below(127) * BLOCK_BYTES;
    await this.#try(() => read(device, at(), BLOCK_BYTES));
    await this.#try(() => fill(device, at() + 4096, 4096, id + 1));
    await this.#try(() => fill(device, at(), BLOCK_BYTES, id + 1, this.#random.chance(0.3)));
    await this.#try(() => discard(device, at(), 2 * BLOCK_BYTES));
    await this.#try(() => flush(device));
    await this.#look();
  }

  async #message(words: string): Promise<void> {
    await this.#try(() => this.stack.message('p', words));
    await this.#look();
  }

  /** Every status has one of the forms that there are. */
  async #look(): Promise<void> {
    for (const { dmName } of this.stack.registry.devices) {
      const status = await this.stack.status(dmName);
      assert.match(status, /^0 \d+ (thin|thin-pool) (Fail|Error|\d+ .*)$/);
      if (dmName === 'p') this.#lookAtMode(status);
    }
  }

  #lookAtMode(status: string): void {
    const isFrozen = / ro | Fail$/.test(status);
    this.seen.add(isFrozen ? 'frozen' : 'rw');
    if (isFrozen) this.#frozen ??= imageOf(this.#metadata);
  }

  #verifyFrozen(): void {
    if (this.#frozen === null) return;
    const now = imageOf(this.#metadata);
    assert.ok(now.subarray(BLOCK).equals(this.#frozen.subarray(BLOCK)), 'nothing is written');
  }
}

async function tryDamage(name: string, damage: ThinDamage, random: Random): Promise<Set<string>> {
  const patient = new Patient(await imageNamed(name, random.below(3)));
  if (!damage.apply(patient, random)) return new Set();
  const metadata = await deviceOf(patient.bytes);
  const use = new Use(metadata, random);
  try {
    await use.clock.run(
      (async () => {
        if (await use.open()) return use.everything();
        // A pool that is opened and cannot be resumed has been let go of again.
        if (use.stack.registry.devices.length === 0) await use.stack.registry.shutDown();
        use.seen.add('refused');
      })(),
    );
    const bug = use.stack.log.lines.find((line) => line.includes('bug: '));
    assert.equal(bug, undefined);
  } catch (error) {
    const { stack } = error as Error;
    throw new Error(`${damage.name} in ${name}: ${stack}\n${use.stack.log.lines.join('\n')}`);
  }
  return use.seen;
}

const NAMES = Object.keys(imageMakers).filter((name) => !name.startsWith('trees of three'));

for (let part = 0; part < 4; part++) {
  const seed = seedOf(500 + part);
  test(`no damage brings a pool down (seed ${seed})`, async () => {
    const random = new Random(seed);
    const seen = new Map<string, number>();
    for (let i = 0; i < NR_DAMAGES / 4; i++) {
      const damage = random.pick(damages);
      for (const each of await tryDamage(random.pick(NAMES), damage, random)) {
        seen.set(each, (seen.get(each) ?? 0) + 1);
      }
    }
    for (const each of ['refused', 'frozen', 'rw', 'EILSEQ', 'EIO']) {
      assert.ok((seen.get(each) ?? 0) > 10, `${each} was seen: ${JSON.stringify([...seen])}`);
    }
  });
}

test('metadata that is refused is not written', async () => {
  const refusing = [
    'wrong magic',
    'a superblock that is another block',
    'unknown incompatible features',
  ];
  for (const name of [...refusing, 'a flipped bit in the superblock']) {
    const damage = damages.find((each) => each.name === name);
    assert.ok(damage !== undefined, name);
    const patient = new Patient(await imageNamed('a held metadata snapshot', 1));
    damage.apply(patient, new Random(1));
    const metadata = await deviceOf(patient.bytes);
    const use = new Use(metadata, new Random(1));
    assert.equal(await use.clock.run(use.open()), false);
    assert.ok(imageOf(metadata).equals(patient.bytes), name);
  }
});
