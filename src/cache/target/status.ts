/**
 * The cache target's status and table lines (spec: cache, 9).
 */
import { codeOf } from '../../base/error.ts';
import { BLOCK_SECTORS } from '../../persistent-data/block.ts';
import type { Cache, CacheDevices } from './cache.ts';
import { ioModeWord } from './features.ts';
import { CacheMode } from './modes.ts';

/** The INFO line; `Error` if a figure cannot be had. */
export function statusLine(cache: Cache): string {
  const { metadata, policy, statistics: s } = cache;
  try {
    const nrMetadata = metadata.nrMetadataBlocks;
    return [
      BLOCK_SECTORS,
      `${nrMetadata - metadata.nrFreeMetadataBlocks}/${nrMetadata}`,
      cache.blockSectors,
      `${policy.residency}/${cache.nrCacheBlocks}`,
      ...[s.readHits, s.readMisses, s.writeHits, s.writeMisses, s.demotions, s.promotions],
      cache.nrDirty,
      ...features(cache),
      `2 migration_threshold ${cache.migrationThreshold}`,
      policy.name,
      policy.emitConfigValues(),
      cache.mode === CacheMode.READ_ONLY ? 'ro' : 'rw',
      metadata.needsCheck ? 'needs_check' : '-',
      '',
    ].join(' ');
  } catch (error) {
    const code = codeOf(error);
    cache.log('error', `dm_cache_get_free_metadata_block_count returned -${code}`);
    return 'Error';
  }
}

function features({ features: { metadata2, ioMode, discardPassdown } }: Cache): string[] {
  const words = [ioModeWord[ioMode]];
  if (metadata2) words.unshift('metadata2');
  if (!discardPassdown) words.push('no_discard_passdown');
  return [String(words.length), ...words];
}

/** The TABLE line: the devices, and all words as they were given. */
export function tableLine(devices: CacheDevices, words: readonly string[]): string {
  const { metadata, fast, origin } = devices;
  return [metadata.number, fast.number, origin.number, ...words].join(' ');
}
