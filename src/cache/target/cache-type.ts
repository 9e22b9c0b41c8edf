/**
 * The cache target type: its table line (spec: cache, 8). Answers to cache_ctr in
 * drivers/md/dm-cache-target.c.
 */
import { DmError } from '../../base/error.ts';
import { parseU64, scanU32 } from '../../base/numbers.ts';
import { openDevice, type TargetContext, type TargetType } from '../../mapper/target.ts';
import type { BlockDevice } from '../../block/device.ts';
import { createPolicy } from '../policy/registry.ts';
import type { Policy } from '../policy/policy.ts';
import { CacheMode } from './modes.ts';
import { CacheTarget } from './cache-target.ts';
import type { CacheDevices } from './cache.ts';
import { MIGRATION_THRESHOLD_DEFAULT, setConfigValue } from './config.ts';
import { parseFeatures } from './features.ts';
import type { MetadataTable } from './metadata-table.ts';

const BLOCK_SECTORS_MIN = 64;
const BLOCK_SECTORS_MAX = 2097152;
const POLICY_ARGS_MAX = 1024;
/** The metadata that can be used at all, and the size from which on the kernel warns. */
const METADATA_SECTORS_MAX = 33292800;
const METADATA_SECTORS_WARNING = 33554432;
const CACHE_BLOCKS_WARNING = 1048576;
/** The kernel's timer tick. */
const JIFFY_MS = 10;

export interface CacheTypeOptions {
  /** Do as the kernel does where it loses data. */
  readonly kernelQuirks: boolean;
}

/** The cache target type; its metadata is kept in `table`. */
export function cacheType(table: MetadataTable, options: CacheTypeOptions): TargetType {
  return {
    name: 'cache',
    version: [2, 4, 0],
    construct: (context, args) => construct(table, options, context, args),
  };
}

/** The checks are in the kernel's order. */
async function construct(
  table: MetadataTable,
  { kernelQuirks }: CacheTypeOptions,
  context: TargetContext,
  args: readonly string[],
): Promise<CacheTarget> {
  const words = [...args];
  const devices = openDevices(context, words);
  const sizeWord = shift(words);
  const blockSectors = parseBlockSize(sizeWord, devices.fast.device);
  const features = parseFeatures(words);
  const policyName = shift(words);
  const policyArgs = takePolicyArgs(words);
  const nrCacheBlocks = Math.floor(devices.fast.device.sizeSectors / blockSectors);
  const { clock, log } = context;
  const policy = createPolicy(policyName, {
    nrCacheBlocks,
    originSectors: context.length,
    blockSectors,
    jiffies: () => Math.floor(clock.nowMs() / JIFFY_MS),
    warn: (text) => log.write('warn', text),
  });
  if (policy === null) {
    throw new DmError('EINVAL', "Error creating cache's policy");
  }
  const migrationThreshold = configure(policy, context, policyArgs);
  warnIfManyBlocks(context, nrCacheBlocks);
  const format = features.metadata2 ? 2 : 1;
  const metadata = await table.acquire(context, devices.metadata, {
    blockSectors,
    format,
    kernelQuirks,
  });
  const target = new CacheTarget(
    {
      context,
      devices,
      metadata,
      policy,
      features,
      blockSectors,
      nrCacheBlocks,
      migrationThreshold,
      kernelQuirks,
    },
    args.slice(3),
    table,
  );
  target.cache.setMode(CacheMode.WRITE);
  if (!target.cache.isWriteable) {
    table.release(metadata);
    const text = 'Unable to get write access to metadata, please check/repair metadata.';
    throw new DmError('EINVAL', text);
  }
  target.cache.statistics.load(metadata.counters);
  return target;
}

function shift(words: string[]): string {
  const word = words.shift();
  if (word === undefined) throw new DmError('EINVAL', 'Insufficient args');
  return word;
}

function openDevices(context: TargetContext, words: string[]): CacheDevices {
  const open = (what: string): CacheDevices['fast'] =>
    openDevice(context, shift(words), false, `Error opening ${what} device`);
  const metadata = open('metadata');
  if (metadata.device.sizeSectors > METADATA_SECTORS_WARNING) {
    const { name } = metadata.device;
    const text = `is larger than ${METADATA_SECTORS_MAX} sectors: excess space will not be used.`;
    context.log.write('warn', `cache: Metadata device ${name} ${text}`);
  }
  const fast = open('cache');
  const origin = open('origin');
  if (context.length > origin.device.sizeSectors) {
    throw new DmError('EINVAL', 'Device size larger than cached device');
  }
  return { metadata, fast, origin };
}

function parseBlockSize(word: string, fast: BlockDevice): number {
  const sectors = parseU64(word) ?? 0;
  const isMultiple = sectors % BLOCK_SECTORS_MIN === 0;
  if (sectors < BLOCK_SECTORS_MIN || sectors > BLOCK_SECTORS_MAX || !isMultiple) {
    throw new DmError('EINVAL', 'Invalid data block size');
  }
  if (sectors > fast.sizeSectors) {
    throw new DmError('EINVAL', 'Data block size is larger than the cache device');
  }
  return sectors;
}

function takePolicyArgs(words: string[]): string[] {
  const count = scanU32(words.shift() ?? '');
  if (count === undefined || count > POLICY_ARGS_MAX || count > words.length) {
    throw new DmError('EINVAL', 'Invalid number of policy arguments');
  }
  return words.splice(0, count);
}

/** Sets the values of the table line; returns the migration threshold. */
function configure(policy: Policy, { log }: TargetContext, args: readonly string[]): bigint {
  const bad = new DmError('EINVAL', "Error setting cache policy's config values");
  if (args.length % 2 !== 0) {
    const wanted = 'they should be <key> <value> pairs.';
    log.write('warn', `cache: Odd number of policy arguments given but ${wanted}`);
    throw bad;
  }
  let threshold = MIGRATION_THRESHOLD_DEFAULT;
  for (let i = 0; i < args.length; i += 2) {
    const [key = '', value = ''] = args.slice(i, i + 2);
    if (!setConfigValue(policy, log, key, value, (sectors) => (threshold = sectors))) throw bad;
  }
  return threshold;
}

function warnIfManyBlocks({ log }: TargetContext, nrCacheBlocks: number): void {
  if (nrCacheBlocks <= CACHE_BLOCKS_WARNING) return;
  const text = 'You have created a cache device with a lot of individual cache blocks';
  log.write('warn', `cache: ${text} (${nrCacheBlocks})`);
}
