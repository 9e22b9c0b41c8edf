/**
 * The two thin target types over one table of pools: what a registry registers.
 */
import type { Registry } from '../../mapper/registry.ts';
import type { PoolVerifier } from './pool-options.ts';
import { PoolTable } from './pool-table.ts';
import { thinPoolType } from './thin-pool-target.ts';
import { thinType } from './thin-type.ts';

export interface ThinOptions {
  /** Called after every commit of a pool; a pool in which it finds a fault fails. */
  readonly verify?: PoolVerifier;
}

/** Registers thin and thin-pool, in the kernel's order; returns the table of pools they share. */
export function registerThin(registry: Registry, options: ThinOptions = {}): PoolTable {
  const pools = new PoolTable(options.verify ?? null);
  registry.register(thinType(pools));
  registry.register(thinPoolType(pools));
  return pools;
}
