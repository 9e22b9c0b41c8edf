/**
 * What a pool is made of, and what it needs of the table that is bound to it.
 */
import type { Clock } from '../../base/clock.ts';
import type { Log } from '../../base/log.ts';
import type { BlockDevice } from '../../block/device.ts';
import type { MappedDevice } from '../../mapper/mapped-device.ts';
import type { UsedDevice } from '../../mapper/target.ts';
import type { PoolMetadata } from '../metadata/pool-metadata.ts';
import type { PoolFeatures } from './features.ts';

/** What a pool needs of the table that is bound to it. */
export interface BoundTable {
  /** The features as in force, the mode following the pool's. */
  readonly adjusted: PoolFeatures;
  readonly requested: PoolFeatures;
  readonly lowWaterBlocks: number;
  /** Data blocks that the table covers. */
  readonly nrBlocks: number;
  readonly metadataDevice: BlockDevice;
  readonly dataDevice: BlockDevice;
}

/**
 * Looks at what is on a metadata device, all of it before it returns, and says what is wrong with
 * it, a line a fault.
 */
export type PoolVerifier = (metadataDevice: BlockDevice) => readonly string[];

export interface PoolOptions {
  readonly device: MappedDevice;
  readonly metadataDevice: UsedDevice;
  readonly dataDevice: UsedDevice;
  readonly metadata: PoolMetadata;
  readonly features: PoolFeatures;
  readonly log: Log;
  readonly clock: Clock;
  readonly noSpaceTimeoutSeconds: () => number;
  /** Called after every commit; null: nobody looks. */
  readonly verify: PoolVerifier | null;
}
