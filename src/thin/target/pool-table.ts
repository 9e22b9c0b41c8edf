/**
 * PoolTable: the pools that exist, by the mapped device and by the metadata device they are on.
 * Answers to dm_thin_pool_table and __pool_find in drivers/md/dm-thin.c (spec: thin, 2.2).
 */
import { DmError } from '../../base/error.ts';
import type { MappedDevice } from '../../mapper/mapped-device.ts';
import type { UsedDevice } from '../../mapper/target.ts';
import { NO_SPACE_TIMEOUT_SECONDS } from './no-space-timeout.ts';
import type { PoolVerifier } from './pool-options.ts';
import type { Pool } from './pool.ts';

export class PoolTable {
  /** For every pool; see PoolOptions. */
  readonly verify: PoolVerifier | null;
  readonly #pools = new Set<Pool>();
  /** As the kernel's module parameter: read whenever a pool runs out of data space. */
  noSpaceTimeoutSeconds = NO_SPACE_TIMEOUT_SECONDS;

  constructor(verify: PoolVerifier | null = null) {
    this.verify = verify;
  }

  findByDevice(device: MappedDevice): Pool | undefined {
    for (const pool of this.#pools) if (pool.device === device) return pool;
    return undefined;
  }

  /**
   * The pool that a table of `device` on these devices means, if it exists. Throws EBUSY if another
   * device has the metadata, or if the data device would change; EINVAL if the metadata would.
   */
  find(device: MappedDevice, metadata: UsedDevice, data: UsedDevice): Pool | undefined {
    for (const pool of this.#pools) {
      if (pool.metadataIdentity !== metadata.identity) continue;
      if (pool.device !== device) {
        throw new DmError('EBUSY', 'metadata device already in use by a pool');
      }
      if (pool.dataIdentity !== data.identity) {
        throw new DmError('EBUSY', 'data device already in use by a pool');
      }
      return pool;
    }
    if (this.findByDevice(device) !== undefined) {
      throw new DmError('EINVAL', 'different pool cannot replace a pool');
    }
    return undefined;
  }

  add(pool: Pool): void {
    this.#pools.add(pool);
  }

  /** One more user of the pool. */
  acquire(pool: Pool): void {
    pool.nrUsers++;
  }

  /** One user less; the last one closes the pool. */
  async release(pool: Pool): Promise<void> {
    pool.nrUsers--;
    if (pool.nrUsers > 0) return;
    await pool.close();
    this.#pools.delete(pool);
  }
}
