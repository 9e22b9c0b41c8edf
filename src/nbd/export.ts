/**
 * Exports: what the NBD server serves, and what clients are told of it (spec: nbd, 4 and 6).
 */
import { isPowerOfTwo, SECTOR_SIZE } from '../base/numbers.ts';
import type { BlockDevice } from '../block/device.ts';
import { PAYLOAD_BYTES_MAX, ReplyForm, TransmissionFlag } from './protocol.ts';

/** A device that a client has chosen; closed when its connection ends. */
export interface OpenExport {
  readonly name: string;
  readonly description: string;
  readonly device: BlockDevice;
  close(): void;
}

/** What there is to choose from. The empty name means the default export, if there is one. */
export interface ExportTable {
  list(): { readonly name: string; readonly description: string }[];
  /** Opens an export; null if there is none of that name. */
  open(name: string): OpenExport | null;
}

/** The size of an export in bytes. */
export function sizeBytes(device: BlockDevice): number {
  return device.sizeSectors * SECTOR_SIZE;
}

/** What clients may do with `device`, given what they have negotiated so far. */
export function transmissionFlags(device: BlockDevice, replyForm: ReplyForm): number {
  const flag = TransmissionFlag;
  // One process serves all connections of a device: a flush on one covers all.
  let flags = flag.HAS_FLAGS | flag.SEND_FLUSH | flag.SEND_FUA | flag.CAN_MULTI_CONN;
  flags |= flag.SEND_CACHE;
  if (replyForm !== ReplyForm.SIMPLE) flags |= flag.SEND_DF;
  if (device.readOnly) return flags | flag.READ_ONLY;
  flags |= flag.SEND_WRITE_ZEROES;
  if (device.limits.maxDiscardSectors > 0) flags |= flag.SEND_TRIM;
  if (device.limits.discardZeroes) flags |= flag.SEND_FAST_ZERO;
  return flags;
}

const PREFERRED_DEFAULT = 4096;

/** Minimum, preferred and maximum block size in bytes. Any offset and length is served. */
export function blockSizes(device: BlockDevice): [min: number, preferred: number, max: number] {
  const { ioOpt } = device.limits;
  const usable = isPowerOfTwo(ioOpt) && ioOpt >= SECTOR_SIZE;
  const preferred = usable ? Math.min(ioOpt, PAYLOAD_BYTES_MAX) : PREFERRED_DEFAULT;
  return [1, preferred, PAYLOAD_BYTES_MAX];
}
