/**
 * zero: reads give zeroes, writes vanish (spec: dm-core, 9.2). Answers to drivers/md/dm-zero.c.
 */
import { DmError } from '../../base/error.ts';
import { SECTOR_SIZE } from '../../base/numbers.ts';
import { BioOp, type Bio } from '../../block/bio.ts';
import { ExtentFlag, type ExtentVisitor } from '../../block/device.ts';
import { MapResult, Target, type TargetType } from '../target.ts';

class ZeroTarget extends Target {
  override map(bio: Bio): MapResult {
    if (bio.op === BioOp.READ) {
      bio.data.fill(0, bio.dataOffset, bio.dataOffset + bio.nrSectors * SECTOR_SIZE);
    }
    bio.end(0);
    return MapResult.SUBMITTED;
  }

  override status(): string {
    return '';
  }

  override readSync(_sector: number, nrSectors: number, data: Uint8Array, offset: number): number {
    data.fill(0, offset, offset + nrSectors * SECTOR_SIZE);
    return 0;
  }

  override blockStatus(_sector: number, nrSectors: number, visit: ExtentVisitor): boolean {
    return visit(nrSectors, ExtentFlag.HOLE | ExtentFlag.ZERO);
  }
}

export const zero: TargetType = {
  name: 'zero',
  version: [1, 1, 0],
  construct(context, args) {
    if (args.length !== 0) throw new DmError('EINVAL', 'No arguments required');
    return new ZeroTarget(context);
  },
};
