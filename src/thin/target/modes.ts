/**
 * Pool modes, from good to bad (spec: thin, 6). Answers to enum pool_mode in drivers/md/dm-thin.c.
 */
export const PoolMode = {
  WRITE: 0,
  OUT_OF_DATA_SPACE: 1,
  /** As READ_ONLY, but growing the metadata device leads back to WRITE. */
  OUT_OF_METADATA_SPACE: 2,
  READ_ONLY: 3,
  FAIL: 4,
} as const;
export type PoolMode = (typeof PoolMode)[keyof typeof PoolMode];

/** The mode in the pool's status line. FAIL has a line of its own. */
export const statusWord: Record<PoolMode, string> = {
  [PoolMode.WRITE]: 'rw',
  [PoolMode.OUT_OF_DATA_SPACE]: 'out_of_data_space',
  [PoolMode.OUT_OF_METADATA_SPACE]: 'ro',
  [PoolMode.READ_ONLY]: 'ro',
  [PoolMode.FAIL]: 'Fail',
};

/** The mode in the kernel's log. */
export const logWord: Record<PoolMode, string> = {
  [PoolMode.WRITE]: 'write',
  [PoolMode.OUT_OF_DATA_SPACE]: 'out-of-data-space',
  [PoolMode.OUT_OF_METADATA_SPACE]: 'read-only',
  [PoolMode.READ_ONLY]: 'read-only',
  [PoolMode.FAIL]: 'fail',
};
