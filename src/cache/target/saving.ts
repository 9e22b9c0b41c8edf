/**
 * What a suspend writes: dirty and discarded blocks, counters, hints, and then, if all of that
 * worked, that the cache was shut down cleanly (spec: cache, 14). Answers to sync_metadata in
 * drivers/md/dm-cache-target.c.
 *
 * What a crash leaves: until the commit the last one's state, unclean; after it the new one, clean.
 */
import type { Cache } from './cache.ts';

/** Writes everything and commits, unless the cache is read-only or has failed. */
export async function saveState(cache: Cache): Promise<void> {
  if (!cache.isWriteable) return;
  const { metadata, policy, discards, statistics } = cache;
  while (metadata.isCommitting) await metadata.whenIdle();
  const wrote = (what: string, write: () => void): boolean => {
    if (!cache.isWriteable) return false;
    try {
      write();
      return true;
    } catch (error) {
      cache.operationFailed(error);
      cache.log('error', `could not write ${what}`);
      return false;
    }
  };
  // Blocks that were written back count as clean from now on: their data must be durable by then.
  cache.originWritten();
  cache.fastWritten();
  const isDirty = (cblock: number): boolean => cache.isDirty(cblock);
  const isSet = (block: number): boolean => discards.isSet(block);
  const parts = [
    wrote('dirty bitset', () => metadata.setDirtyBits(isDirty)),
    wrote('discard bitset', () =>
      metadata.setDiscards(discards.blockSectors, discards.nrBlocks, isSet),
    ),
    wrote('hints', () => {
      metadata.setCounters(statistics);
      metadata.writeHints(policy, (cblock) => policy.getHint(cblock));
    }),
  ];
  const status = await cache.commit(parts.every((part) => part));
  if (status !== 0) cache.log('error', 'could not write cache metadata');
}
