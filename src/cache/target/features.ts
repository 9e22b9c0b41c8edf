/**
 * Feature arguments of a cache table line (spec: cache, 8). Answers to struct cache_features.
 */
import { DmError } from '../../base/error.ts';
import { scanU32 } from '../../base/numbers.ts';

export const IoMode = { WRITEBACK: 0, WRITETHROUGH: 1, PASSTHROUGH: 2 } as const;
export type IoMode = (typeof IoMode)[keyof typeof IoMode];

const ioModes = new Map<string, IoMode>([
  ['writeback', IoMode.WRITEBACK],
  ['writethrough', IoMode.WRITETHROUGH],
  ['passthrough', IoMode.PASSTHROUGH],
]);

/** As in status lines. */
export const ioModeWord: Record<IoMode, string> = {
  [IoMode.WRITEBACK]: 'writeback',
  [IoMode.WRITETHROUGH]: 'writethrough',
  [IoMode.PASSTHROUGH]: 'passthrough',
};

export interface CacheFeatures {
  ioMode: IoMode;
  /** Format 2, if the metadata has to be formatted. */
  metadata2: boolean;
  discardPassdown: boolean;
}

const FEATURES_MAX = 3;

/**
 * Reads the count and the words, and takes them off `words`. Throws EINVAL with the kernel's text.
 */
export function parseFeatures(words: string[]): CacheFeatures {
  const features: CacheFeatures = {
    ioMode: IoMode.WRITEBACK,
    metadata2: false,
    discardPassdown: true,
  };
  const count = scanU32(words.shift() ?? '');
  if (count === undefined || count > FEATURES_MAX || count > words.length) {
    throw new DmError('EINVAL', 'Invalid number of cache feature arguments');
  }
  let nrModes = 0;
  for (const word of words.splice(0, count).map((each) => each.toLowerCase())) {
    const ioMode = ioModes.get(word);
    if (ioMode !== undefined) {
      if (nrModes++ > 0) throw new DmError('EINVAL', 'Duplicate cache io_mode features requested');
      features.ioMode = ioMode;
    } else if (word === 'metadata2') features.metadata2 = true;
    else if (word === 'no_discard_passdown') features.discardPassdown = false;
    else throw new DmError('EINVAL', 'Unrecognised cache feature requested');
  }
  return features;
}
