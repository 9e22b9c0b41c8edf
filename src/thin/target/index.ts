/**
 * The two thin target types over one table of pools: what a registry registers.
 */
import type { Registry } from '../../mapper/registry.ts';
import { PoolTable } from './pool-table.ts';
import { thinPoolType } from './thin-pool-target.ts';
import { thinType } from './thin-type.ts';

/** Registers thin and thin-pool, in the kernel's order; returns the table of pools they share. */
export function registerThin(registry: Registry): PoolTable {
  const pools = new PoolTable();
  registry.register(thinType(pools));
  registry.register(thinPoolType(pools));
  return pools;
}
