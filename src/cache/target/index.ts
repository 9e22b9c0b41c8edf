/**
 * The room's door: registers the cache target.
 */
import type { Registry } from '../../mapper/registry.ts';
import { cacheType, type CacheTypeOptions } from './cache-type.ts';
import { MetadataTable } from './metadata-table.ts';

/** Makes the cache target known to `registry`. */
export function registerCache(
  registry: Registry,
  options: CacheTypeOptions = { kernelQuirks: false },
): void {
  registry.register(cacheType(new MetadataTable(), options));
}
