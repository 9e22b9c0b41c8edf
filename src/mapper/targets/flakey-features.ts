/**
 * The feature arguments of a flakey table line (spec: dm-core, 9.4), read and shown. Answers to
 * parse_features in drivers/md/dm-flakey.c.
 *
 * Of later kernels than 6.1 there are error_reads, random_read_corrupt and random_write_corrupt.
 */
import { DmError } from '../../base/error.ts';
import { scanU32 } from '../../base/numbers.ts';

/** Replaces one byte of each bio that fits. */
export interface ByteCorruption {
  /** Counted from 1. */
  readonly byte: number;
  readonly isWrite: boolean;
  readonly value: number;
  /** The kernel's REQ_ bits that a bio must have; 0: every bio. */
  readonly flags: number;
}

export interface FlakeyFeatures {
  errorReads: boolean;
  dropWrites: boolean;
  errorWrites: boolean;
  corruption: ByteCorruption | null;
  /** How many in a thousand million bios get a random byte changed; 0: none. */
  randomReadCorrupt: number;
  randomWriteCorrupt: number;
}

/** Chances of random corruption are in so many. */
export const PROBABILITY_BASE = 1_000_000_000;
/** Words after the count at most, in 6.1 and with what came later. */
const FEATURE_WORDS_MAX = 6;
const LATER_WORDS_MAX = 11;
const LATER_FEATURES: readonly string[] = [
  'error_reads',
  'random_read_corrupt',
  'random_write_corrupt',
];

const einval = (text: string): DmError => new DmError('EINVAL', text);

/** Reads `words`, which begin with their count. Throws EINVAL with the kernel's text. */
export function parseFlakeyFeatures(words: readonly string[]): FlakeyFeatures {
  const features: FlakeyFeatures = {
    errorReads: false,
    dropWrites: false,
    errorWrites: false,
    corruption: null,
    randomReadCorrupt: 0,
    randomWriteCorrupt: 0,
  };
  const [count, ...rest] = words;
  if (count === undefined) return features;
  const nr = scanU32(count);
  const isLater = rest.some((word) => LATER_FEATURES.includes(word.toLowerCase()));
  const max = isLater ? LATER_WORDS_MAX : FEATURE_WORDS_MAX;
  if (nr === undefined || nr > max || nr > rest.length) {
    throw einval('Invalid number of feature args');
  }
  const left = rest.slice(0, nr);
  for (let word = left.shift(); word !== undefined; word = left.shift()) {
    parseFeature(features, word.toLowerCase(), left);
  }
  checkConflicts(features);
  return features;
}

function parseFeature(features: FlakeyFeatures, word: string, left: string[]): void {
  switch (word) {
    case 'error_reads':
      if (features.errorReads) throw einval('Feature error_reads duplicated');
      features.errorReads = true;
      break;
    case 'drop_writes':
      if (features.dropWrites) throw einval('Feature drop_writes duplicated');
      if (features.errorWrites) {
        throw einval('Feature drop_writes conflicts with feature error_writes');
      }
      features.dropWrites = true;
      break;
    case 'error_writes':
      if (features.errorWrites) throw einval('Feature error_writes duplicated');
      if (features.dropWrites) {
        throw einval('Feature error_writes conflicts with feature drop_writes');
      }
      features.errorWrites = true;
      break;
    case 'corrupt_bio_byte':
      features.corruption = parseCorruption(left);
      break;
    case 'random_read_corrupt':
      features.randomReadCorrupt = parseProbability(word, left);
      break;
    case 'random_write_corrupt':
      features.randomWriteCorrupt = parseProbability(word, left);
      break;
    default:
      throw einval('Unrecognised flakey feature requested');
  }
}

function parseCorruption(left: string[]): ByteCorruption {
  if (left.length === 0) throw einval('Feature corrupt_bio_byte requires parameters');
  const byte = scanU32(left.shift() ?? '');
  if (byte === undefined || byte === 0) throw einval('Invalid corrupt bio byte');
  const direction = left.shift()?.toLowerCase();
  if (direction !== 'r' && direction !== 'w') {
    throw einval('Invalid corrupt bio direction (r or w)');
  }
  const value = scanU32(left.shift() ?? '');
  if (value === undefined || value > 255) {
    throw einval('Invalid corrupt value to write into bio byte (0-255)');
  }
  const flags = scanU32(left.shift() ?? '');
  if (flags === undefined) throw einval('Invalid corrupt bio flags mask');
  return { byte, isWrite: direction === 'w', value, flags };
}

function parseProbability(word: string, left: string[]): number {
  if (left.length === 0) throw einval(`Feature ${word} requires a parameter`);
  const value = scanU32(left.shift() ?? '');
  if (value === undefined || value > PROBABILITY_BASE) {
    throw einval('Invalid random corrupt argument');
  }
  return value;
}

function checkConflicts({ dropWrites, errorWrites, errorReads, ...rest }: FlakeyFeatures): void {
  const isWriteCorrupted = rest.corruption?.isWrite === true || rest.randomWriteCorrupt > 0;
  const isReadCorrupted = rest.corruption?.isWrite === false || rest.randomReadCorrupt > 0;
  const write = 'incompatible with corrupt_bio_byte with the WRITE flag set';
  if (dropWrites && isWriteCorrupted) throw einval(`drop_writes is ${write}`);
  if (errorWrites && isWriteCorrupted) throw einval(`error_writes is ${write}`);
  if (errorReads && isReadCorrupted) {
    throw einval('error_reads is incompatible with corrupt_bio_byte with the READ flag set');
  }
}

/** As a table line shows them: the count first, a blank at the end. */
export function flakeyFeatureWords(features: FlakeyFeatures): string {
  const words: string[] = [];
  if (features.errorReads) words.push('error_reads');
  if (features.dropWrites) words.push('drop_writes');
  if (features.errorWrites) words.push('error_writes');
  const { corruption, randomReadCorrupt, randomWriteCorrupt } = features;
  if (corruption !== null) {
    const { byte, isWrite, value, flags } = corruption;
    words.push('corrupt_bio_byte', `${byte}`, isWrite ? 'w' : 'r', `${value}`, `${flags}`);
  }
  if (randomReadCorrupt > 0) words.push('random_read_corrupt', `${randomReadCorrupt}`);
  if (randomWriteCorrupt > 0) words.push('random_write_corrupt', `${randomWriteCorrupt}`);
  return `${[words.length, ...words].join(' ')} `;
}
