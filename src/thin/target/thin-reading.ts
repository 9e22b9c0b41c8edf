/**
 * Looking at a thin device without bios: synchronous reads, for metadata that lies on one, and
 * which parts are mapped, for block-status queries. Sectors are relative to the target's begin.
 */
import { errno } from '../../base/errno.ts';
import { codeOf } from '../../base/error.ts';
import { SECTOR_SIZE } from '../../base/numbers.ts';
import { ExtentFlag, type ExtentVisitor } from '../../block/device.ts';
import { deviceStatus } from '../../mapper/targets/linear.ts';
import { makeMapping } from '../metadata/thin-device.ts';
import type { ThinTarget } from './thin-target.ts';

const found$ = makeMapping();

/** As BlockDevice.readSync. Nothing is known any more of what a failed pool has. */
export function readThinSync(
  thin: ThinTarget,
  sector: number,
  nrSectors: number,
  data: Uint8Array,
  offset: number,
): number {
  const { sectorsPerBlock, hasFailed } = thin.pool;
  if (hasFailed) return errno.EIO;
  for (let done = 0; done < nrSectors;) {
    const at = sector + done;
    const n = Math.min(nrSectors - done, sectorsPerBlock - (at % sectorsPerBlock));
    const status = readPiece(thin, at, n, data, offset + done * SECTOR_SIZE);
    if (status !== 0) return status;
    done += n;
  }
  return 0;
}

function readPiece(
  thin: ThinTarget,
  sector: number,
  nrSectors: number,
  data: Uint8Array,
  offset: number,
): number {
  const { pool, origin } = thin;
  const block = Math.floor(sector / pool.sectorsPerBlock);
  try {
    if (pool.metadata.lookup(thin.device, block, found$)) {
      const at = pool.sectorOf(found$.block) + (sector % pool.sectorsPerBlock);
      return pool.device.readSync(at, nrSectors, data, offset);
    }
  } catch (error) {
    return codeOf(error);
  }
  data.fill(0, offset, offset + nrSectors * SECTOR_SIZE);
  const available = origin === null ? 0 : origin.sizeSectors - sector;
  if (origin === null || available <= 0) return 0;
  return origin.device.readSync(sector, Math.min(available, nrSectors), data, offset);
}

/** As Target.blockStatus. A part whose mappings cannot be read counts as allocated. */
export function thinBlockStatus(
  thin: ThinTarget,
  sector: number,
  nrSectors: number,
  visit: ExtentVisitor,
): boolean {
  const { metadata, sectorsPerBlock, hasFailed } = thin.pool;
  if (hasFailed) return visit(nrSectors, 0);
  const end = sector + nrSectors;
  const endBlock = Math.ceil(end / sectorsPerBlock);
  let at = sector;
  try {
    while (at < end) {
      const block = Math.floor(at / sectorsPerBlock);
      const next = metadata.nextMapped(thin.device, block, endBlock, found$);
      const hole = Math.min(next === undefined ? end : next * sectorsPerBlock, end);
      if (hole > at && !holeStatus(thin, at, hole - at, visit)) return false;
      at = Math.max(at, hole);
      if (next === undefined || at >= end) continue;
      const dataEnd = Math.min((next + 1) * sectorsPerBlock, end);
      if (!visit(dataEnd - at, 0)) return false;
      at = dataEnd;
    }
  } catch (error) {
    codeOf(error);
    return visit(end - at, 0);
  }
  return true;
}

/** What shows where nothing is mapped: the external origin, or nothing. */
function holeStatus(
  { origin }: ThinTarget,
  sector: number,
  nrSectors: number,
  visit: ExtentVisitor,
): boolean {
  const available = origin === null ? 0 : origin.sizeSectors - sector;
  const n = Math.min(Math.max(available, 0), nrSectors);
  if (origin !== null && n > 0 && !deviceStatus(origin.device, sector, n, visit)) return false;
  return n === nrSectors || visit(nrSectors - n, ExtentFlag.HOLE | ExtentFlag.ZERO);
}
