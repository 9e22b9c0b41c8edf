/**
 * MetadataTable: the cache metadata that is open, by the device it is on, shared by the tables that
 * use it. Answers to the table in drivers/md/dm-cache-metadata.c (spec: cache, 3).
 *
 * Tables of one mapped device share; another device is refused, where the kernel lets two caches
 * destroy each other (docs/differences.md).
 */
import { assert, DmError } from '../../base/error.ts';
import type { MappedDevice } from '../../mapper/mapped-device.ts';
import type { TargetContext, UsedDevice } from '../../mapper/target.ts';
import { CacheMetadata } from '../metadata/cache-metadata.ts';

interface Entry {
  readonly metadata: CacheMetadata;
  readonly identity: object;
  readonly owner: MappedDevice;
  nrUsers: number;
}

export interface MetadataOptions {
  readonly blockSectors: number;
  /** The format, if the device has to be formatted. */
  readonly format: 1 | 2;
  readonly kernelQuirks: boolean;
}

export class MetadataTable {
  readonly #entries = new Set<Entry>();

  /** The metadata on `device`, opened if no table has it. Rejects with DmError. */
  async acquire(
    context: TargetContext,
    device: UsedDevice,
    options: MetadataOptions,
  ): Promise<CacheMetadata> {
    const { blockSectors, format, kernelQuirks } = options;
    for (const entry of this.#entries) {
      if (entry.identity !== device.identity) continue;
      if (entry.owner !== context.owner && !kernelQuirks) {
        context.log.write('error', 'cache metadata: the device is in use by another cache');
        throw new DmError('EBUSY', 'Error creating metadata object');
      }
      try {
        entry.metadata.checkDataBlockSize(blockSectors);
      } catch (error) {
        throw complaint(error);
      }
      entry.nrUsers++;
      entry.metadata.setDevice(device.device);
      return entry.metadata;
    }
    const metadata = await open(context, device, options, format);
    const { identity } = device;
    this.#entries.add({ metadata, identity, owner: context.owner, nrUsers: 1 });
    return metadata;
  }

  /** One user less; the last one closes it, which commits nothing. */
  release(metadata: CacheMetadata): void {
    const entry = [...this.#entries].find((each) => each.metadata === metadata);
    assert(entry !== undefined, 'released metadata was acquired');
    if (--entry.nrUsers === 0) this.#entries.delete(entry);
  }
}

async function open(
  context: TargetContext,
  device: UsedDevice,
  { blockSectors: dataBlockSize, kernelQuirks }: MetadataOptions,
  format: 1 | 2,
): Promise<CacheMetadata> {
  try {
    // A table that is loaded and dropped has changed nothing: the first resume takes the mark off.
    const keepsMark = !kernelQuirks;
    const options = { dataBlockSize, format, mayFormat: true, keepsMark, kernelQuirks };
    return await CacheMetadata.open(device.device, context.log, options);
  } catch (error) {
    throw complaint(error);
  }
}

/** What the loader of a table is told. */
function complaint(error: unknown): unknown {
  if (!(error instanceof DmError)) return error;
  return new DmError(error.errno, 'Error creating metadata object', { cause: error });
}
