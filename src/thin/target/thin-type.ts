/**
 * The thin target type: its table line (spec: thin, 3). Answers to thin_ctr in
 * drivers/md/dm-thin.c.
 */
import { DmError } from '../../base/error.ts';
import { parseU64 } from '../../base/numbers.ts';
import { MappedDevice } from '../../mapper/mapped-device.ts';
import { openDevice, type TargetContext, type TargetType } from '../../mapper/target.ts';
import { DEVICE_ID_MAX } from '../metadata/device-details.ts';
import type { ThinDevice } from '../metadata/thin-device.ts';
import type { Pool } from './pool.ts';
import type { PoolTable } from './pool-table.ts';
import { ThinTarget } from './thin-target.ts';

/** The thin target type over the pools of `pools`. */
export function thinType(pools: PoolTable): TargetType {
  return {
    name: 'thin',
    version: [1, 22, 0],
    construct: (context, args) => constructThin(pools, context, args),
  };
}

function constructThin(
  pools: PoolTable,
  context: TargetContext,
  args: readonly string[],
): ThinTarget {
  const [poolWord = '', idWord = '', originWord] = args;
  if (args.length !== 2 && args.length !== 3) throw new DmError('EINVAL', 'Invalid argument count');
  if (originWord === poolWord) throw new DmError('EINVAL', 'Error setting origin device');
  const origin =
    originWord === undefined
      ? null
      : openDevice(context, originWord, true, 'Error opening origin device');
  const used = openDevice(context, poolWord, context.readOnly, 'Error opening pool device');
  // The kernel compares the words only, and crashes at resume on one device under two names.
  if (origin?.identity === used.identity)
    throw new DmError('EINVAL', 'Error setting origin device');
  const id = parseU64(idWord);
  if (id === undefined || id > DEVICE_ID_MAX) throw new DmError('EINVAL', 'Invalid device id');
  if (!(used.device instanceof MappedDevice)) {
    throw new DmError('EINVAL', "Couldn't get pool mapped device");
  }
  const pool = pools.findByDevice(used.device);
  if (pool === undefined) throw new DmError('EINVAL', "Couldn't find pool object");
  if (pool.hasFailed) {
    throw new DmError('EINVAL', "Couldn't open thin device, Pool is in fail mode");
  }
  const device = openThin(pool, id);
  if (pool.suspended) {
    pool.metadata.closeDevice(device);
    throw new DmError('EINVAL', 'Unable to activate thin device while pool is suspended');
  }
  pools.acquire(pool);
  return new ThinTarget(context, pools, pool, used, device, origin);
}

function openThin(pool: Pool, id: number): ThinDevice {
  try {
    return pool.metadata.openDevice(id);
  } catch (error) {
    if (!(error instanceof DmError)) throw error;
    throw new DmError(error.errno, "Couldn't open thin internal device", { cause: error });
  }
}
