/**
 * Modes of a cache (spec: cache, 7). Answers to enum cache_metadata_mode.
 */

/** From good to bad. */
export const CacheMode = { WRITE: 0, READ_ONLY: 1, FAIL: 2 } as const;
export type CacheMode = (typeof CacheMode)[keyof typeof CacheMode];

/** As in the log. */
export const logWord: Record<CacheMode, string> = {
  [CacheMode.WRITE]: 'write',
  [CacheMode.READ_ONLY]: 'read-only',
  [CacheMode.FAIL]: 'fail',
};
