/**
 * Images of thin pool metadata for tests of tools: each made by driving PoolMetadata over a memory
 * device, seeded, and named for what is special about it.
 */
import fs from 'node:fs';
import { MemoryLog } from '../../src/base/log.ts';
import { BioOp } from '../../src/block/bio.ts';
import { request } from '../../src/block/device.ts';
import { MemoryDevice } from '../../src/block/memory-device.ts';
import { PoolMetadata } from '../../src/thin/metadata/pool-metadata.ts';
import { Random } from './random.ts';

export const BLOCK = 4096;

export interface PoolShape {
  /** Of the metadata device. */
  readonly nrBlocks?: number;
  readonly nrDataBlocks?: number;
}

/** A pool being made: its metadata, and words for what tests do with it. */
export class PoolImage {
  readonly device: MemoryDevice;
  readonly pmd: PoolMetadata;

  private constructor(device: MemoryDevice, pmd: PoolMetadata) {
    this.device = device;
    this.pmd = pmd;
  }

  static async make(shape: PoolShape = {}): Promise<PoolImage> {
    const device = new MemoryDevice('metadata', 8 * (shape.nrBlocks ?? 1024));
    const pmd = await PoolMetadata.open(device, new MemoryLog(), {
      dataBlockSize: 128,
      mayFormat: true,
    });
    pmd.resizeData(shape.nrDataBlocks ?? 65536);
    await pmd.commit();
    return new PoolImage(device, pmd);
  }

  /** Maps `count` virtual blocks from `begin`, `step` apart, to blocks that are free. */
  provision(id: number, begin: number, count: number, step = 1): void {
    const device = this.pmd.openDevice(id);
    for (let i = 0; i < count; i++) {
      this.pmd.insertBlock(device, begin + i * step, this.pmd.reserveDataBlock());
    }
    this.pmd.closeDevice(device);
  }

  discard(id: number, begin: number, end: number): void {
    const device = this.pmd.openDevice(id);
    this.pmd.removeRange(device, begin, end);
    this.pmd.closeDevice(device);
  }

  /** Commits, if that is allowed, and the image as it then is. */
  async bytes(): Promise<Buffer> {
    if (!this.pmd.needsCheck) await this.pmd.commit();
    return imageOf(this.device);
  }
}

/** All bytes of a memory device. */
export function imageOf(device: MemoryDevice): Buffer {
  const bytes = Buffer.alloc(device.sizeSectors * 512);
  device.readSync(0, device.sizeSectors, bytes, 0);
  return bytes;
}

/** A memory device that holds `bytes`. */
export async function deviceOf(bytes: Uint8Array): Promise<MemoryDevice> {
  const device = new MemoryDevice('metadata', bytes.length / 512);
  await request(device, BioOp.WRITE, 0, bytes.length / 512, bytes);
  return device;
}

/** Writes `bytes` to a new file and gives its path back. */
export function fileOf(dir: string, bytes: Uint8Array): string {
  const file = `${dir}/image-${fs.readdirSync(dir).length}.bin`;
  fs.writeFileSync(file, bytes);
  return file;
}

/**
 * A life of a pool: writes, overwrites, discards, snapshots of snapshots and deletes on up to
 * `devices` devices, a commit after each `perCommit` operations.
 */
export async function workload(
  image: PoolImage,
  random: Random,
  options: { steps: number; devices?: number; virtBlocks?: number; perCommit?: number },
): Promise<void> {
  const { pmd } = image;
  const { steps, devices = 6, virtBlocks = 2000, perCommit = 10 } = options;
  const alive: number[] = [];
  for (let step = 0; step < steps; step++) {
    const chance = random.next();
    const id = random.below(devices);
    if (alive.length === 0 || (chance < 0.06 && !alive.includes(id))) {
      if (!alive.includes(id)) {
        pmd.createThin(id);
        alive.push(id);
      }
    } else if (chance < 0.2 && !alive.includes(id)) {
      pmd.createSnap(id, random.pick(alive));
      alive.push(id);
    } else if (chance < 0.24) {
      pmd.deleteDevice(alive.splice(random.below(alive.length), 1)[0] as number);
    } else if (chance < 0.4) {
      const begin = random.below(virtBlocks);
      image.discard(random.pick(alive), begin, begin + random.between(1, virtBlocks / 8));
    } else {
      const runLength = random.chance(0.5) ? 1 : random.between(1, virtBlocks / 8);
      image.provision(
        random.pick(alive),
        random.below(virtBlocks),
        runLength,
        random.between(1, 3),
      );
    }
    if (step % perCommit === 0) await pmd.commit();
  }
  pmd.setTransactionId(pmd.transactionId, pmd.transactionId + BigInt(random.below(100)));
  await pmd.commit();
}

const madeImages = new Map<string, Buffer>();

/** The image of the maker called `name`: a copy of the caller's own. */
export async function imageNamed(name: string, seed: number): Promise<Buffer> {
  const make = imageMakers[name];
  if (make === undefined) throw new Error(`no maker is called '${name}'`);
  const key = `${name}/${seed}`;
  const made = madeImages.get(key) ?? (await (await make(new Random(seed))).bytes());
  madeImages.set(key, made);
  return Buffer.from(made);
}

/** Makers of images by what is special about them; the seed varies the rest. */
export const imageMakers: Record<string, (random: Random) => Promise<PoolImage>> = {
  'an empty pool': () => PoolImage.make(),
  'devices without mappings': async () => {
    const image = await PoolImage.make();
    for (const id of [0, 1, 0xff_ffff]) image.pmd.createThin(id);
    image.pmd.createSnap(7, 1);
    return image;
  },
  'snapshots of snapshots, overwrites, discards and deletes': async (random) => {
    const image = await PoolImage.make({ nrBlocks: 4096 });
    await workload(image, random, { steps: 150 });
    return image;
  },
  'many small devices': async (random) => {
    const image = await PoolImage.make({ nrBlocks: 1024 });
    for (let id = 0; id < 600; id++) {
      if (id > 0 && random.chance(0.4)) image.pmd.createSnap(id * 3, 3 * random.below(id));
      else image.pmd.createThin(id * 3);
      if (random.chance(0.6)) image.provision(id * 3, random.below(50), random.between(1, 5));
    }
    return image;
  },
  'data blocks and leaves with overflow counts': async (random) => {
    const image = await PoolImage.make({ nrBlocks: 1024 });
    image.pmd.createThin(0);
    image.provision(0, 0, 700);
    for (let id = 1; id < 12; id++) {
      image.pmd.createSnap(id, random.below(id));
      image.provision(id, random.below(600), 20);
      await image.pmd.commit();
    }
    return image;
  },
  'a held metadata snapshot': async (random) => {
    const image = await PoolImage.make({ nrBlocks: 1024 });
    await workload(image, random, { steps: 60 });
    await image.pmd.commit();
    image.pmd.reserveMetadataSnap();
    await image.pmd.commit();
    for (const id of [20, 21]) image.pmd.createThin(id);
    image.provision(20, 5, 300);
    await image.pmd.commit();
    image.pmd.deleteDevice(21);
    return image;
  },
  needs_check: async (random) => {
    const image = await PoolImage.make();
    await workload(image, random, { steps: 40 });
    await image.pmd.commit();
    await image.pmd.setNeedsCheck();
    return image;
  },
  'trees of three levels, and a snapshot that differs here and there': async (random) => {
    const image = await PoolImage.make({ nrBlocks: 1024, nrDataBlocks: 100_000 });
    image.pmd.createThin(3);
    image.provision(3, 0, 66_000);
    await image.pmd.commit();
    image.pmd.createSnap(4, 3);
    for (let i = 0; i < 30; i++) {
      image.provision(random.pick([3, 4]), random.below(66_000), random.between(1, 40));
    }
    return image;
  },
};
