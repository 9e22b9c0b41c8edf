/**
 * linear: a range of another device (spec: dm-core, 9.1). Answers to drivers/md/dm-linear.c.
 */
import { DmError } from '../../base/error.ts';
import type { Bio } from '../../block/bio.ts';
import type { BlockDevice, ExtentVisitor } from '../../block/device.ts';
import { parseSector } from '../table-grammar.ts';
import {
  MapResult,
  openDevice,
  Target,
  type StatusKind,
  type TargetContext,
  type TargetType,
  type UsedDevice,
} from '../target.ts';

/** As BlockDevice.blockStatus, saying whether the visitor wants more. */
export function deviceStatus(
  device: BlockDevice,
  sector: number,
  nrSectors: number,
  visit: ExtentVisitor,
): boolean {
  let more = true;
  device.blockStatus(sector, nrSectors, (n, flags) => {
    more = visit(n, flags);
    return more;
  });
  return more;
}

class LinearTarget extends Target {
  readonly #used: UsedDevice;
  readonly #device: BlockDevice;
  readonly #start: number;
  /** What is added to a sector of the mapped device. */
  readonly #shift: number;

  constructor(context: TargetContext, used: UsedDevice, start: number) {
    super(context);
    this.#used = used;
    this.#device = used.device;
    this.#start = start;
    this.#shift = start - context.begin;
    this.nrFlushBios = 1;
    this.nrDiscardBios = 1;
    this.nrWriteZeroesBios = 1;
  }

  override map(bio: Bio): MapResult {
    bio.device = this.#device;
    bio.sector += this.#shift;
    return MapResult.REMAPPED;
  }

  override status(kind: StatusKind): string {
    return kind === 'TABLE' ? `${this.#used.number} ${this.#start}` : '';
  }

  override iterateDevices(visit: (used: UsedDevice, begin: number, length: number) => void): void {
    visit(this.#used, this.#start, this.length);
  }

  override readSync(sector: number, nrSectors: number, data: Uint8Array, offset: number): number {
    return this.#device.readSync(sector + this.#shift, nrSectors, data, offset);
  }

  override blockStatus(sector: number, nrSectors: number, visit: ExtentVisitor): boolean {
    return deviceStatus(this.#device, sector + this.#shift, nrSectors, visit);
  }
}

export const linear: TargetType = {
  name: 'linear',
  version: [1, 4, 0],
  construct(context, args) {
    const [reference, offset] = args;
    if (args.length !== 2 || reference === undefined || offset === undefined) {
      throw new DmError('EINVAL', 'Invalid argument count');
    }
    const start = parseSector(offset);
    if (start === undefined) throw new DmError('EINVAL', 'Invalid device sector');
    return new LinearTarget(
      context,
      openDevice(context, reference, context.readOnly, 'Device lookup failed'),
      start,
    );
  },
};
