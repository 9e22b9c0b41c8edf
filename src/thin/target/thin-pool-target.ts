/**
 * thin-pool: the table that brings a pool into being; a linear map of the data device besides.
 * Answers to pool_ctr and struct pool_c in drivers/md/dm-thin.c (spec: thin, 2, 4, 5.1 and 11).
 */
import { DmError, codeOf } from '../../base/error.ts';
import { divDown, parseDecimal, parseU64, SECTOR_SIZE, U64_MAX } from '../../base/numbers.ts';
import type { Bio } from '../../block/bio.ts';
import type { BlockDevice, ExtentVisitor, Limits } from '../../block/device.ts';
import {
  MapResult,
  openDevice,
  Target,
  type StatusKind,
  type TargetContext,
  type TargetType,
  type UsedDevice,
} from '../../mapper/target.ts';
import { deviceStatus } from '../../mapper/targets/linear.ts';
import { METADATA_BLOCKS_MAX } from '../../persistent-data/space-map/layout.ts';
import { BLOCK_SECTORS } from '../../persistent-data/block.ts';
import { MetadataOperationError } from '../../persistent-data/operation-error.ts';
import { PoolMetadata } from '../metadata/pool-metadata.ts';
import { formatFeatures, parseFeatures, type PoolFeatures } from './features.ts';
import { handleMessage } from './messages.ts';
import { PoolMode, statusWord } from './modes.ts';
import { Pool } from './pool.ts';
import type { BoundTable } from './pool-options.ts';
import type { PoolTable } from './pool-table.ts';

/** Data block sizes in sectors: 64 KiB to 1 GiB, multiples of 64 KiB. */
const BLOCK_SECTORS_MIN = 128;
const BLOCK_SECTORS_MAX = 2097152;
/** Metadata devices larger than this get a warning (16 GiB). */
const METADATA_SECTORS_WARNING = 33_554_432;
/** Below this many free metadata blocks an event is raised, or below a quarter of them. */
const METADATA_THRESHOLD_MAX = 1024;

interface PoolDevices {
  readonly metadata: UsedDevice;
  readonly data: UsedDevice;
}

class ThinPoolTarget extends Target implements BoundTable {
  readonly requested: PoolFeatures;
  readonly adjusted: PoolFeatures;
  readonly lowWaterBlocks: number;
  /** As the table gave it: it may be beyond any pool, and beyond what numbers can tell apart. */
  readonly #lowWater: bigint;
  readonly nrBlocks: number;
  readonly #context: TargetContext;
  readonly #pools: PoolTable;
  readonly #pool: Pool;
  readonly #metadata: UsedDevice;
  readonly #data: UsedDevice;
  readonly dataDevice: BlockDevice;

  constructor(
    context: TargetContext,
    pools: PoolTable,
    pool: Pool,
    devices: PoolDevices,
    features: PoolFeatures,
    lowWater: bigint,
  ) {
    super(context);
    this.#context = context;
    this.#pools = pools;
    this.#pool = pool;
    this.#metadata = devices.metadata;
    this.#data = devices.data;
    this.dataDevice = devices.data.device;
    this.requested = features;
    this.adjusted = { ...features };
    this.#lowWater = lowWater;
    this.lowWaterBlocks = Number(lowWater);
    this.nrFlushBios = 1;
    this.nrDiscardBios = features.discardEnabled ? 1 : 0;
    this.nrWriteZeroesBios = 1;
    this.nrBlocks = divDown(context.length, pool.sectorsPerBlock);
    this.message = (args) => handleMessage(this.#pool, args);
  }

  get metadataDevice(): BlockDevice {
    return this.#metadata.device;
  }

  override map(bio: Bio): MapResult {
    bio.device = this.dataDevice;
    return MapResult.REMAPPED;
  }

  override readSync(sector: number, nrSectors: number, data: Uint8Array, offset: number): number {
    return this.dataDevice.readSync(sector, nrSectors, data, offset);
  }

  override blockStatus(sector: number, nrSectors: number, visit: ExtentVisitor): boolean {
    return deviceStatus(this.dataDevice, sector, nrSectors, visit);
  }

  override iterateDevices(visit: (used: UsedDevice, begin: number, length: number) => void): void {
    visit(this.#data, 0, this.length);
  }

  override ioHints(limits: Limits): void {
    const blockBytes = this.#pool.sectorsPerBlock * SECTOR_SIZE;
    limits.ioMin = blockBytes;
    if (limits.ioOpt < blockBytes || limits.ioOpt % blockBytes !== 0) limits.ioOpt = blockBytes;
    if (!this.adjusted.discardEnabled) {
      limits.maxDiscardSectors = 0;
      limits.discardGranularity = 0;
      return;
    }
    this.#checkPassdown();
  }

  /** Turns passdown off where the data device cannot discard a block. */
  #checkPassdown(): void {
    if (!this.adjusted.discardPassdown) return;
    const { name, limits } = this.dataDevice;
    const reason =
      limits.maxDiscardSectors === 0
        ? 'discard unsupported'
        : limits.maxDiscardSectors < this.#pool.sectorsPerBlock
          ? 'max discard sectors smaller than a block'
          : null;
    if (reason === null) return;
    const text = `Data device (${name}) ${reason}: Disabling discard passdown.`;
    this.#pool.logPlain('warn', text);
    this.adjusted.discardPassdown = false;
  }

  // --- life cycle

  override async presuspend(): Promise<void> {
    await this.#pool.suspendThins();
  }

  override async postsuspend(): Promise<void> {
    this.#pool.stopTimers();
    await this.#pool.worker.idle();
    await this.#pool.commit();
  }

  /** Binds the table to the pool and grows what has grown beneath it (spec: thin, 2.4). */
  override async preresume(): Promise<void> {
    this.#pool.bind(this);
    this.#metadata.device.refreshSize();
    try {
      const dataGrew = this.#resizeData();
      const metadataGrew = this.#resizeMetadata();
      if (dataGrew || metadataGrew) await this.#pool.commit();
    } catch (error) {
      const code = error instanceof MetadataOperationError ? this.#pool.operationFailed(error) : 0;
      // Queued I/O can only be failed through a pool that is resumed.
      if (code !== 0 && this.#pool.hasFailed) return;
      throw error;
    }
  }

  #resizeData(): boolean {
    const pool = this.#pool;
    if (pool.hasFailed) {
      pool.log('error', 'failed to retrieve data device size');
      return false;
    }
    const wanted = this.nrBlocks;
    const found = pool.metadata.nrDataBlocksManaged;
    if (wanted < found) {
      const text = `pool target (${wanted} blocks) too small: expected ${found}`;
      pool.log('error', text);
      throw new DmError('EINVAL', text);
    }
    if (wanted === found) return false;
    if (pool.metadata.needsCheck) {
      pool.log('error', 'unable to grow the data device until repaired.');
      return false;
    }
    if (found > 0) {
      pool.log('info', `growing the data device from ${found} to ${wanted} blocks`);
    }
    pool.metadata.resizeData(wanted);
    return true;
  }

  #resizeMetadata(): boolean {
    const pool = this.#pool;
    if (pool.hasFailed) return false;
    const wanted = pool.metadata.nrMetadataDeviceBlocks;
    const found = pool.metadata.nrMetadataBlocks;
    if (wanted < found) {
      const text = `metadata device (${wanted} blocks) too small: expected ${found}`;
      pool.log('error', text);
      throw new DmError('EINVAL', text);
    }
    if (wanted === found) return false;
    if (pool.metadata.needsCheck) {
      pool.log('error', 'unable to grow the metadata device until repaired.');
      return false;
    }
    warnIfTooLarge(this.#context, this.#metadata.device);
    pool.log('info', `growing the metadata device from ${found} to ${wanted} blocks`);
    if (pool.mode === PoolMode.OUT_OF_METADATA_SPACE) pool.setMode(PoolMode.WRITE);
    pool.metadata.resizeMetadata(wanted);
    return true;
  }

  override resume(): void {
    this.#pool.resume();
  }

  override async destroy(): Promise<void> {
    this.#pool.unbind(this);
    await this.#pools.release(this.#pool);
  }

  // --- status

  override async status(kind: StatusKind, noflush: boolean): Promise<string> {
    if (kind === 'TABLE') return this.#tableLine();
    const pool = this.#pool;
    if (pool.hasFailed) return 'Fail';
    if (!noflush) await pool.commit();
    if (pool.hasFailed) return 'Fail';
    try {
      return this.#statusLine();
    } catch (error) {
      codeOf(error);
      return 'Error';
    }
  }

  #tableLine(): string {
    const devices = `${this.#metadata.number} ${this.#data.number}`;
    const { sectorsPerBlock } = this.#pool;
    return `${devices} ${sectorsPerBlock} ${this.#lowWater} ${formatFeatures(this.requested)}`;
  }

  #statusLine(): string {
    const { metadata, features } = this.#pool;
    const nrMetadata = metadata.nrMetadataBlocks;
    const nrData = metadata.nrDataBlocks;
    const discard = !features.discardEnabled
      ? 'ignore_discard'
      : features.discardPassdown
        ? 'discard_passdown'
        : 'no_discard_passdown';
    return [
      metadata.transactionId,
      `${nrMetadata - metadata.nrFreeMetadataBlocks}/${nrMetadata}`,
      `${nrData - metadata.nrFreeDataBlocks}/${nrData}`,
      metadata.heldRoot === 0 ? '-' : metadata.heldRoot,
      statusWord[this.#pool.mode],
      discard,
      features.errorIfNoSpace ? 'error_if_no_space' : 'queue_if_no_space',
      metadata.needsCheck ? 'needs_check' : '-',
      metadataThreshold(this.#metadata.device),
      '',
    ].join(' ');
  }
}

function metadataThreshold(device: BlockDevice): number {
  device.refreshSize();
  const nrBlocks = Math.min(divDown(device.sizeSectors, BLOCK_SECTORS), METADATA_BLOCKS_MAX);
  return Math.min(METADATA_THRESHOLD_MAX, divDown(nrBlocks, 4));
}

function warnIfTooLarge(context: TargetContext, device: BlockDevice): void {
  if (device.sizeSectors <= METADATA_SECTORS_WARNING) return;
  const limit = METADATA_BLOCKS_MAX * BLOCK_SECTORS;
  const text = `is larger than ${limit} sectors: excess space will not be used.`;
  context.log.write('warn', `thin: Metadata device ${device.name} ${text}`);
}

/** The thin-pool target type; its pools are kept in `pools`. */
export function thinPoolType(pools: PoolTable): TargetType {
  return {
    name: 'thin-pool',
    version: [1, 22, 0],
    singleton: true,
    alwaysWriteable: true,
    immutable: true,
    construct: (context, args) => constructPool(pools, context, args),
  };
}

/** The checks are in the kernel's order (spec: thin, 2.2). */
async function constructPool(
  pools: PoolTable,
  context: TargetContext,
  args: readonly string[],
): Promise<ThinPoolTarget> {
  const [metadataWord = '', dataWord = '', sizeWord = '', lowWaterWord = '', ...featureWords] =
    args;
  if (args.length < 4) throw new DmError('EINVAL', 'Invalid argument count');
  const sameDevice = new DmError('EINVAL', 'Error setting metadata or data device');
  if (metadataWord === dataWord) throw sameDevice;
  const features = parseFeatures(featureWords);
  const readOnly = features.mode === PoolMode.READ_ONLY;
  const metadata = openDevice(
    context,
    metadataWord,
    readOnly,
    'Error opening metadata block device',
  );
  warnIfTooLarge(context, metadata.device);
  const data = openDevice(context, dataWord, false, 'Error getting data device');
  // The kernel compares the words only, and would use one device for both.
  if (metadata.identity === data.identity) throw sameDevice;
  const blockSectors = parseU64(sizeWord) ?? 0;
  const isMultiple = blockSectors % BLOCK_SECTORS_MIN === 0;
  if (blockSectors < BLOCK_SECTORS_MIN || blockSectors > BLOCK_SECTORS_MAX || !isMultiple) {
    throw new DmError('EINVAL', 'Invalid block size');
  }
  const lowWater = parseDecimal(lowWaterWord, U64_MAX);
  if (lowWater === undefined) throw new DmError('EINVAL', 'Invalid low water mark');
  const devices = { metadata, data };
  const pool = await findOrMake(pools, context, devices, features, blockSectors);
  try {
    registerThreshold(pool, metadata.device);
  } catch (error) {
    await pools.release(pool);
    throw error;
  }
  return new ThinPoolTarget(context, pools, pool, devices, features, lowWater);
}

/** The pool, with one user more. */
async function findOrMake(
  pools: PoolTable,
  context: TargetContext,
  devices: PoolDevices,
  features: PoolFeatures,
  blockSectors: number,
): Promise<Pool> {
  const found = pools.find(context.owner, devices.metadata, devices.data);
  if (found !== undefined) {
    if (found.features.discardEnabled !== features.discardEnabled) {
      throw new DmError('EINVAL', 'Discard support cannot be disabled once enabled');
    }
    pools.acquire(found);
    return found;
  }
  const metadata = await openMetadata(context, devices.metadata, features, blockSectors);
  const pool = new Pool({
    device: context.owner,
    metadataDevice: devices.metadata,
    dataDevice: devices.data,
    metadata,
    features,
    log: context.log,
    clock: context.clock,
    noSpaceTimeoutSeconds: () => pools.noSpaceTimeoutSeconds,
    verify: pools.verify,
  });
  pools.add(pool);
  pools.acquire(pool);
  return pool;
}

async function openMetadata(
  context: TargetContext,
  metadata: UsedDevice,
  features: PoolFeatures,
  dataBlockSize: number,
): Promise<PoolMetadata> {
  const mayFormat = features.mode !== PoolMode.READ_ONLY;
  try {
    return await PoolMetadata.open(metadata.device, context.log, { dataBlockSize, mayFormat });
  } catch (error) {
    if (!(error instanceof DmError)) throw error;
    throw new DmError(error.errno, 'Error creating metadata object', { cause: error });
  }
}

function registerThreshold(pool: Pool, metadataDevice: BlockDevice): void {
  if (pool.hasFailed) {
    throw new DmError('EINVAL', 'Error registering metadata threshold');
  }
  const threshold = metadataThreshold(metadataDevice);
  pool.metadata.setMetadataThreshold(threshold, () => pool.metadataLow());
}
