/**
 * Feature arguments of a thin-pool table line (spec: thin, 2.1). Answers to struct pool_features.
 */
import { DmError } from '../../base/error.ts';
import { scanU32 } from '../../base/numbers.ts';
import { PoolMode } from './modes.ts';

export interface PoolFeatures {
  zeroNewBlocks: boolean;
  discardEnabled: boolean;
  discardPassdown: boolean;
  errorIfNoSpace: boolean;
  /** The mode that the table asks for, or that the pool was last in under it. */
  mode: PoolMode;
}

/** More are refused, although five exist. */
const FEATURES_MAX = 4;

const setters = new Map<string, Partial<PoolFeatures>>([
  ['skip_block_zeroing', { zeroNewBlocks: false }],
  ['ignore_discard', { discardEnabled: false }],
  ['no_discard_passdown', { discardPassdown: false }],
  ['read_only', { mode: PoolMode.READ_ONLY }],
  ['error_if_no_space', { errorIfNoSpace: true }],
]);

/** Parses `[<#features> <feature>*]`; words after them are ignored, as in the kernel. */
export function parseFeatures(args: readonly string[]): PoolFeatures {
  const features: PoolFeatures = {
    zeroNewBlocks: true,
    discardEnabled: true,
    discardPassdown: true,
    errorIfNoSpace: false,
    mode: PoolMode.WRITE,
  };
  const [countText, ...words] = args;
  if (countText === undefined) return features;
  const count = scanU32(countText);
  if (count === undefined || count > FEATURES_MAX || count > words.length) {
    throw new DmError('EINVAL', 'Invalid number of pool feature arguments');
  }
  for (const word of words.slice(0, count)) {
    const set = setters.get(word.toLowerCase());
    if (set === undefined) throw new DmError('EINVAL', 'Unrecognised pool feature requested');
    Object.assign(features, set);
  }
  return features;
}

/**
 * The features as a table line shows them: count and words, in a fixed order, each with a blank.
 */
export function formatFeatures(features: PoolFeatures): string {
  const words = [
    features.zeroNewBlocks ? '' : 'skip_block_zeroing',
    features.discardEnabled ? '' : 'ignore_discard',
    features.discardPassdown ? '' : 'no_discard_passdown',
    features.mode === PoolMode.READ_ONLY ? 'read_only' : '',
    features.errorIfNoSpace ? 'error_if_no_space' : '',
  ].filter((word) => word !== '');
  return [words.length, ...words, ''].join(' ');
}
