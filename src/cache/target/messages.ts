/**
 * Messages of the cache target (spec: cache, 10). Answers to cache_message in
 * drivers/md/dm-cache-target.c.
 */
import { DmError } from '../../base/error.ts';
import { errnoName } from '../../base/errno.ts';
import { parseU32 } from '../../base/numbers.ts';
import type { Cache } from './cache.ts';
import { setConfigValue } from './config.ts';
import { IoMode } from './features.ts';

/** Handles a message; resolves to '' (caches give no answers). Rejects with DmError. */
export async function handleMessage(cache: Cache, args: readonly string[]): Promise<string> {
  if (!cache.isWriteable) {
    const text = 'unable to service cache target messages in READ_ONLY or FAIL mode';
    cache.log('error', text);
    throw new DmError('EOPNOTSUPP', text);
  }
  const [word = '', ...rest] = args;
  if (word.toLowerCase() === 'invalidate_cblocks') {
    await invalidateAll(cache, rest);
    return '';
  }
  const [value] = rest;
  if (value === undefined || rest.length !== 1) {
    throw new DmError('EINVAL', `wanted a key and a value, found ${args.length} words`);
  }
  if (
    !setConfigValue(cache.policy, cache.context.log, word, value, (threshold) => {
      cache.migrationThreshold = threshold;
    })
  ) {
    throw new DmError('EINVAL', `bad config value for ${word}: ${value}`);
  }
  return '';
}

/** Cblocks from `begin` on, `end` not included. */
interface Range {
  readonly begin: number;
  readonly end: number;
}

async function invalidateAll(cache: Cache, words: readonly string[]): Promise<void> {
  if (cache.features.ioMode !== IoMode.PASSTHROUGH) {
    const text = 'cache has to be in passthrough mode for invalidation';
    cache.log('error', text);
    throw new DmError('EPERM', text);
  }
  const removed: number[] = [];
  try {
    for (const word of words) await removeMappings(cache, parseRange(cache, word), removed);
  } finally {
    // What was done before an error stays done, for good.
    if (!cache.kernelQuirks) await commitInvalidation(cache);
    // Only now: a write that misses would pass by a mapping that a failed commit brings back.
    for (const cblock of removed) cache.policy.invalidateMapping(cblock);
  }
}

async function commitInvalidation(cache: Cache): Promise<void> {
  const status = await cache.commitIfChanged();
  if (status === 0) return;
  const text = 'invalidate_cblocks: the commit failed and the change is rolled back';
  throw new DmError(errnoName(status), text);
}

/** Removes from the metadata what the policy knows of a range; it is told to by the caller. */
async function removeMappings(cache: Cache, range: Range, removed: number[]): Promise<void> {
  const { metadata, policy } = cache;
  for (let cblock = range.begin; cblock < range.end; cblock++) {
    while (metadata.isCommitting) await metadata.whenIdle();
    if (!policy.isMapped(cblock)) continue;
    try {
      metadata.removeMapping(cblock);
    } catch (error) {
      cache.operationFailed(error);
      throw error;
    }
    removed.push(cblock);
  }
}

function parseRange(cache: Cache, word: string): Range {
  const refuse = (text: string): DmError => {
    cache.log('error', text);
    return new DmError('EINVAL', text);
  };
  const number = (text: string): number => {
    const value = parseU32(text);
    if (value === undefined) throw refuse(`invalid cblock range '${text}'`);
    return value;
  };
  const dash = word.indexOf('-');
  const begin = number(dash < 0 ? word : word.slice(0, dash));
  const end = dash < 0 ? begin + 1 : number(word.slice(dash + 1));
  const size = cache.nrCacheBlocks;
  if (begin >= size) throw refuse(`begin cblock out of range: ${begin} >= ${size}`);
  if (end > size) throw refuse(`end cblock out of range: ${end} > ${size}`);
  if (begin >= end) throw refuse(`invalid cblock range: ${begin} >= ${end}`);
  return { begin, end };
}
