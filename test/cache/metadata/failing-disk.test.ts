/**
 * Every read, write and flush of a life of the metadata fails, one after the other, once or from
 * then on. What fails says so; after an abort the metadata is what is on the disk, which is one of
 * the states that a power cut may leave; and nothing can be changed any more.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DmError } from '../../../src/base/error.ts';
import { CrashImages, imageDevice, LOSSES } from '../../../src/block/crash-images.ts';
import type { Fault, FaultyOp } from '../../../src/block/simulated-disk.ts';
import type { CacheFormat } from '../../../src/cache/metadata/superblock.ts';
import { readCacheSuperblock } from '../../../src/cache/tools/cache-superblock.ts';
import { DeviceReader, ReadFailure } from '../../../src/persistent-data/check/block-reader.ts';
import { MetadataOperationError } from '../../../src/persistent-data/operation-error.ts';
import { CacheMetadataLife } from '../../helpers/cache-metadata-life.ts';
import { describeOpen, describeState, policyOn } from '../../helpers/cache-states.ts';
import { Random, seedOf } from '../../helpers/random.ts';

const OPS: readonly FaultyOp[] = ['read', 'write', 'flush'];
const NR_STEPS = 40;

class Trial {
  readonly life: CacheMetadataLife;
  readonly #what: string;
  /** Whether the life came to the failure, and it was told. */
  hasFailed = false;
  /** The mark was written, as far as anyone can tell. */
  #isMarked = false;

  constructor(seed: number, format: CacheFormat, fault: Fault | null) {
    // The same seed in all trials: the requests are the same up to the failure.
    this.life = new CacheMetadataLife(new Random(seed), format);
    this.#what = JSON.stringify(fault);
    if (fault !== null) this.life.disk.fail(fault);
  }

  async run(): Promise<void> {
    try {
      await this.life.clock.run(this.#live());
    } catch (error) {
      throw this.#explain(error);
    }
  }

  #explain(error: unknown): Error {
    const { stack } = error as Error;
    return new Error(`${this.#what}: ${stack}\n${this.life.diary.join('\n')}`);
  }

  async #live(): Promise<void> {
    const { life } = this;
    try {
      for (let step = 0; step < NR_STEPS; step++) await life.step();
    } catch (error) {
      if (life.disk.nrFailed === 0) throw error;
      assert.ok(error instanceof DmError);
      assert.equal(error.errno, 'EIO');
      this.hasFailed = true;
      if (!life.isOpen) return;
      if (error instanceof MetadataOperationError) await this.#goOn();
      else await this.#verifyDead(); // An abort has failed.
    }
  }

  /** As a target does. */
  async #goOn(): Promise<void> {
    const { metadata, disk } = this.life;
    try {
      metadata.abort();
    } catch (error) {
      assert.ok(error instanceof DmError);
      await this.#verifyDead();
      return;
    }
    const { nrFailed } = disk;
    await metadata.setNeedsCheck();
    this.#isMarked = disk.nrFailed === nrFailed;
    assert.ok(metadata.needsCheck);
    metadata.setReadOnly(true);
    await this.#verifyRefusals();
    disk.heal();
    const allowed = this.life.allowedAt(this.life.storage.nrEvents);
    const states = allowed.map((state) => state && describeState(state));
    assert.ok(states.includes(describeOpen(metadata, policyOn(disk))));
  }

  async #verifyDead(): Promise<void> {
    const { metadata } = this.life;
    assert.throws(() => metadata.setNeedsCheck(), { errno: 'EINVAL' });
    assert.throws(() => metadata.cleanWhenOpened, { errno: 'EINVAL' });
    assert.throws(() => metadata.nrFreeMetadataBlocks, { errno: 'EINVAL' });
    await this.#verifyRefusals();
  }

  async #verifyRefusals(): Promise<void> {
    const { metadata } = this.life;
    const refused = (operation: string): object => ({ operation, errno: 'EINVAL' });
    assert.throws(() => metadata.insertMapping(0, 0), refused('dm_cache_insert_mapping'));
    assert.throws(() => metadata.removeMapping(0), refused('dm_cache_remove_mapping'));
    assert.throws(() => metadata.resize(1), refused('dm_cache_resize'));
    await assert.rejects(metadata.commit(false), refused('dm_cache_commit'));
  }

  /** What is on the disk when all has ended, and after cuts here and there. */
  async verify(random: Random): Promise<void> {
    const { disk, storage } = this.life;
    const { nrEvents } = storage;
    const images = new CrashImages(storage.journal, [disk]);
    try {
      for (const event of [random.below(nrEvents + 1), nrEvents].sort((a, b) => a - b)) {
        images.advance(event);
        const image = images.image(disk, event === nrEvents ? 'none' : random.pick(LOSSES), random);
        const device = imageDevice(disk, image);
        if (event === nrEvents && this.#isMarked) {
          const sb = readCacheSuperblock(new DeviceReader(device));
          assert.ok(!(sb instanceof ReadFailure));
          assert.ok(sb.needsCheck, 'the next one is told to look first');
        }
        await this.life.verify(device, event);
      }
    } catch (error) {
      throw this.#explain(error);
    }
  }
}

for (const format of [1, 2] as CacheFormat[]) {
  const seed = seedOf(80 + format);
  test(`a failing disk costs no committed state, format ${format} (seed ${seed})`, async () => {
    const random = new Random(seed);
    const rehearsal = new Trial(seed, format, null);
    await rehearsal.run();
    const { nrOps } = rehearsal.life.disk;
    let nrFailed = 0;
    for (const op of OPS) {
      assert.ok(nrOps[op] > 5, `${nrOps[op]} times ${op}`);
      for (let nth = 0; nth < nrOps[op]; nth++) {
        for (const stays of [false, true]) {
          const trial = new Trial(seed, format, { op, nth, stays });
          await trial.run();
          await trial.verify(random);
          // Only hints that cannot be read are nobody's concern.
          assert.ok(trial.hasFailed || op === 'read', `the failure of ${op} ${nth} was noticed`);
          if (trial.hasFailed) nrFailed++;
        }
      }
    }
    assert.ok(nrFailed > 50, `${nrFailed} failures`);
  });
}
