/**
 * ThinDevice: one thin device's details in memory, shared by all who have it open.
 * Answers to struct dm_thin_device. PoolMetadata makes, changes and forgets it.
 *
 * Kept while the device is open or its record differs from the tree.
 */
import type { BlockNr } from '../../persistent-data/block.ts';
import type { DeviceDetails } from './device-details.ts';

export class ThinDevice implements DeviceDetails {
  readonly id: number;
  mappedBlocks: number;
  transactionId: bigint;
  creationTime: number;
  snapshottedTime: number;
  openCount = 0;
  /** The record differs from the tree: the device has changes that are not committed. */
  changed = false;
  /** Changed since the last commit that succeeded, also where the record is written already. */
  changedThisTransaction = false;
  /** Changes of this device were lost in an aborted transaction while it was open. */
  abortedWithChanges = false;
  /** Root of the device's mapping tree, right as long as `rootGeneration` is the metadata's. */
  root: BlockNr | null = null;
  rootGeneration = -1;

  constructor(id: number, details: DeviceDetails) {
    this.id = id;
    this.mappedBlocks = details.mappedBlocks;
    this.transactionId = details.transactionId;
    this.creationTime = details.creationTime;
    this.snapshottedTime = details.snapshottedTime;
  }

  /** Marks the device as having changes to commit. */
  touch(): void {
    this.changed = true;
    this.changedThisTransaction = true;
  }
}

/** What a lookup finds; owned by the caller, filled by the lookup, valid until its next call. */
export interface Mapping {
  /** Data block. */
  block: number;
  /** The device was snapshotted after the mapping was made: someone else may use the block. */
  shared: boolean;
}

/** A mapping for lookups to fill. */
export function makeMapping(): Mapping {
  return { block: 0, shared: false };
}

/** A run of mapped blocks, contiguous in the device and in the data device, equally shared. */
export interface MappedRun {
  begin: number;
  end: number;
  dataBegin: number;
  shared: boolean;
}
