/**
 * Scratch: the smallest owner of metadata that the library's tests can do with: a superblock with
 * both space maps and a row of slots for roots. Every commit can be followed by the whole-structure
 * check of what is on the device.
 */
import { MemoryLog } from '../../src/base/log.ts';
import { bytes, getLe64, le32, le64, peekLe64, setLe64, struct } from '../../src/base/struct.ts';
import type { BlockDevice } from '../../src/block/device.ts';
import { MemoryDevice } from '../../src/block/memory-device.ts';
import { asBlockNr, BLOCK_SECTORS, type BlockNr } from '../../src/persistent-data/block.ts';
import { BlockManager } from '../../src/persistent-data/block-manager.ts';
import { DeviceReader } from '../../src/persistent-data/check/block-reader.ts';
import { CheckRun } from '../../src/persistent-data/check/check-run.ts';
import { CountTable } from '../../src/persistent-data/check/count-table.ts';
import { DamageList } from '../../src/persistent-data/check/damage.ts';
import {
  readSpaceMapRoot,
  SpaceMapCheck,
} from '../../src/persistent-data/check/space-map-check.ts';
import { DiskSpaceMap } from '../../src/persistent-data/space-map/disk.ts';
import { ROOT_AREA_BYTES } from '../../src/persistent-data/space-map/layout.ts';
import { MetadataSpaceMap } from '../../src/persistent-data/space-map/metadata.ts';
import { TransactionManager } from '../../src/persistent-data/transaction-manager.ts';
import { makeValidator, SALT } from '../../src/persistent-data/validator.ts';

const SLOTS = 32;

const superblock = struct(16 + 2 * ROOT_AREA_BYTES + 8 * SLOTS, {
  csum: le32,
  flags: le32,
  blocknr: le64,
  dataSpaceMapRoot: bytes(ROOT_AREA_BYTES),
  metadataSpaceMapRoot: bytes(ROOT_AREA_BYTES),
  slots: bytes(8 * SLOTS),
});

const SUPERBLOCK = asBlockNr(0);

export const scratchValidator = makeValidator({
  name: 'superblock',
  salt: SALT.ERA_SUPERBLOCK,
  blocknr: superblock.blocknr,
  complaint: 'scratch: sb_check failed: ',
});

export interface ScratchOptions {
  /** A device, or the blocks of a new memory device. */
  readonly device?: BlockDevice;
  readonly nrBlocks?: number;
  readonly nrDataBlocks?: number;
  readonly cacheBytes?: number;
}

/** Walks the structures whose roots are in the slots; counts references to data blocks. */
export type ScratchWalk = (run: CheckRun, slots: readonly number[], data: CountTable) => void;

export class Scratch {
  readonly device: BlockDevice;
  readonly log = new MemoryLog();
  readonly blocks: BlockManager;
  tm!: TransactionManager;
  metadataSm!: MetadataSpaceMap;
  dataSm!: DiskSpaceMap;
  /** Roots, 0 for none; stored by `commit`. */
  slots: BlockNr[] = [];

  private constructor(device: BlockDevice, cacheBytes?: number) {
    this.device = device;
    this.blocks = new BlockManager(device, this.log, cacheBytes);
  }

  /** Formats a device and commits. */
  static async format(options: ScratchOptions = {}): Promise<Scratch> {
    const nrSectors = (options.nrBlocks ?? 1024) * BLOCK_SECTORS;
    const device = options.device ?? new MemoryDevice('scratch', nrSectors);
    const scratch = new Scratch(device, options.cacheBytes);
    scratch.tm = new TransactionManager(scratch.blocks);
    scratch.metadataSm = MetadataSpaceMap.create(scratch.tm, scratch.blocks.nrBlocks);
    scratch.dataSm = DiskSpaceMap.create(scratch.tm, options.nrDataBlocks ?? 1000);
    scratch.slots = Array.from({ length: SLOTS }, () => asBlockNr(0));
    scratch.dataSm.commit();
    await scratch.tm.preCommit();
    await scratch.tm.commit(() => {
      scratch.blocks.create(SUPERBLOCK, scratchValidator);
      scratch.#writeSuperblock();
    });
    return scratch;
  }

  /** Opens what `format` and `commit` left on a device. */
  static open(device: BlockDevice, cacheBytes?: number): Scratch {
    const scratch = new Scratch(device, cacheBytes);
    scratch.#readState();
    return scratch;
  }

  /** Forgets the transaction. */
  abort(): void {
    this.blocks.reset();
    this.#readState();
  }

  #readState(): void {
    const { view } = this.blocks.read(SUPERBLOCK, scratchValidator);
    this.tm = new TransactionManager(this.blocks);
    const { metadataSpaceMapRoot, dataSpaceMapRoot, slots } = superblock;
    this.metadataSm = MetadataSpaceMap.open(this.tm, view, metadataSpaceMapRoot.offset);
    this.dataSm = DiskSpaceMap.open(this.tm, view, dataSpaceMapRoot.offset);
    this.slots = Array.from({ length: SLOTS }, (_, i) =>
      asBlockNr(getLe64(view, slots.offset + i * 8)),
    );
  }

  async commit(): Promise<void> {
    this.dataSm.commit();
    await this.tm.preCommit();
    await this.tm.commit(() => this.#writeSuperblock());
  }

  #writeSuperblock(): void {
    const { view } = this.blocks.write(SUPERBLOCK, scratchValidator);
    this.dataSm.writeRoot(view, superblock.dataSpaceMapRoot.offset);
    this.metadataSm.writeRoot(view, superblock.metadataSpaceMapRoot.offset);
    for (const [i, root] of this.slots.entries())
      setLe64(view, superblock.slots.offset + i * 8, root);
  }

  /** A root; 0 if the slot is empty. */
  slot(index: number): BlockNr {
    return this.slots[index] as BlockNr;
  }
}

/** Checks all that the superblock on `device` names; returns the findings' lines. */
export function checkScratch(device: BlockDevice, walk?: ScratchWalk): string[] {
  return findDamage(device, walk).lines();
}

/** As checkScratch; returns the findings. */
export function findDamage(device: BlockDevice, walk?: ScratchWalk): DamageList {
  const found = new DamageList();
  const run = new CheckRun(new DeviceReader(device), found.report);
  const place = { where: 'superblock', path: [], blocknr: 0, begin: 0, end: 0 };
  run.reference(SUPERBLOCK, 'superblock', place);
  const block = run.read(SUPERBLOCK, scratchValidator, place);
  if (block === null) return found;
  const { view } = block;
  const dataRoot = readSpaceMapRoot(view, superblock.dataSpaceMapRoot.offset);
  const metadataRoot = readSpaceMapRoot(view, superblock.metadataSpaceMapRoot.offset);
  const slots = Array.from({ length: SLOTS }, (_, i) =>
    peekLe64(view, superblock.slots.offset + i * 8),
  );
  const dataCounts = new CountTable();
  walk?.(run, slots, dataCounts);
  const data = SpaceMapCheck.scanDisk(run, 'data space map', dataRoot);
  const metadata = SpaceMapCheck.scanMetadata(run, 'metadata space map', metadataRoot);
  data.compare(dataCounts);
  metadata.compare(run.counts);
  return found;
}
