/**
 * A value of the device details tree: what the pool knows of a thin device (spec: thin, 1.3).
 * Answers to struct disk_device_details.
 */
import { le32, le64, struct, type ReadView, type WriteView } from '../../base/struct.ts';

export const deviceDetails = struct(24, {
  mappedBlocks: le64,
  transactionId: le64,
  creationTime: le32,
  snapshottedTime: le32,
});

/** Thin device ids have 24 bits. */
export const DEVICE_ID_MAX = 0xff_ffff;

export interface DeviceDetails {
  /** Entries of the device's mapping tree. */
  mappedBlocks: number;
  /** The pool's transaction id when the device was created. */
  transactionId: bigint;
  creationTime: number;
  /** Pool time when the device last took part in a snapshot, as origin or as snapshot. */
  snapshottedTime: number;
}

/** Reads a record. */
export function readDetails(view: ReadView, offset: number): DeviceDetails {
  return {
    mappedBlocks: deviceDetails.mappedBlocks.get(view, offset),
    transactionId: deviceDetails.transactionId.getBig(view, offset),
    creationTime: deviceDetails.creationTime.get(view, offset),
    snapshottedTime: deviceDetails.snapshottedTime.get(view, offset),
  };
}

/** Writes a record. */
export function writeDetails(view: WriteView, offset: number, details: DeviceDetails): void {
  deviceDetails.mappedBlocks.set(view, offset, details.mappedBlocks);
  deviceDetails.transactionId.setBig(view, offset, details.transactionId);
  deviceDetails.creationTime.set(view, offset, details.creationTime);
  deviceDetails.snapshottedTime.set(view, offset, details.snapshottedTime);
}
