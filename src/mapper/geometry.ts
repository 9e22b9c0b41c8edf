/**
 * A disk's geometry, as a BIOS has it: `dmsetup setgeometry` sets it, and nothing here asks for it.
 * Answers to dm_dev_set_geometry in drivers/md/dm-ioctl.c.
 */
import { DmError } from '../base/error.ts';
import type { Log } from '../base/log.ts';

export interface Geometry {
  readonly cylinders: number;
  readonly heads: number;
  readonly sectors: number;
  /** In sectors. */
  readonly start: number;
}

const CYLINDERS_MAX = 65535;
const HEADS_MAX = 255;
const SECTORS_MAX = 255;
const FOUR_NUMBERS = /^\s*\+?(\d+)\s+\+?(\d+)\s+\+?(\d+)\s+\+?(\d+)$/;

/** Reads `cylinders heads sectors start`. Throws EINVAL, after the kernel's line in the log. */
export function parseGeometry(text: string, log: Log): Geometry {
  const refuse = (line: string): DmError => {
    log.write('warn', line);
    return new DmError('EINVAL', line);
  };
  const numbers = FOUR_NUMBERS.exec(text)?.slice(1).map(Number);
  if (numbers === undefined) throw refuse('ioctl: Unable to interpret geometry settings.');
  const [cylinders = 0, heads = 0, sectors = 0, start = 0] = numbers;
  if (cylinders > CYLINDERS_MAX || heads > HEADS_MAX || sectors > SECTORS_MAX) {
    throw refuse('ioctl: Geometry exceeds range limits.');
  }
  if (start > cylinders * heads * sectors) {
    throw refuse('core: Start sector is beyond the geometry limits.');
  }
  return { cylinders, heads, sectors, start };
}
