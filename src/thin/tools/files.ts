/**
 * The tools on files and block special files: opened, locked and closed around the work.
 *
 * A file that a running device mapper has is refused, unless its metadata snapshot is what is read.
 */
import fs from 'node:fs';
import { DmError } from '../../base/error.ts';
import { FdSink } from '../../base/text-sink.ts';
import { DeviceReader } from '../../persistent-data/check/block-reader.ts';
import {
  openMetadataFile,
  refuseXml,
  type MetadataAccess,
  type MetadataFile,
} from '../../persistent-data/metadata-file.ts';
import { checkPool, type CheckListener, type CheckOptions, type CheckResult } from './check.ts';
import {
  dumpPool,
  liveSuperblock,
  openSource,
  snapshotSuperblock,
  type DumpOptions,
  type PoolOverrides,
  type PoolSource,
} from './dump.ts';
import { findSource } from './find-roots.ts';
import { PoolTextWriter } from './text-writer.ts';
import { PoolXmlWriter } from './xml-writer.ts';

async function withFile<T>(
  input: string,
  access: MetadataAccess,
  use: (file: MetadataFile) => T | Promise<T>,
): Promise<T> {
  const file = openMetadataFile(input, access);
  try {
    return await use(file);
  } finally {
    await file.close();
  }
}

/**
 * As `checkPool`, for the metadata in file `input`. Rejects with DmError also if it cannot be
 * opened.
 */
export async function checkFile(
  input: string,
  options: CheckOptions,
  listener: CheckListener,
): Promise<CheckResult> {
  const writes = options.autoRepair === true || options.clearNeedsCheck === true;
  const reading = options.metadataSnap === true ? 'read while in use' : 'read';
  return withFile(input, writes ? 'write' : reading, (file) => {
    refuseXml(file);
    return checkPool(file.device, options, listener);
  });
}

export const dumpFormats = ['xml', 'human_readable'] as const;

export interface DumpFileOptions extends DumpOptions, PoolOverrides {
  readonly format?: (typeof dumpFormats)[number];
  /** Dump the metadata snapshot: the one there is, or the one in this block. */
  readonly metadataSnap?: true | number | undefined;
  /** Look for the newest state that is whole, whatever the superblock says. */
  readonly repair?: boolean;
  /** File to write, instead of standard output. */
  readonly output?: string | undefined;
}

/**
 * Dumps the metadata in file `input`. `say` is told what a repair had to make up. Rejects with
 * DmError: EILSEQ or EIO if the metadata is damaged, others if it cannot be dumped at all.
 */
export async function dumpFile(
  input: string,
  options: DumpFileOptions,
  say: (text: string) => void,
): Promise<void> {
  const access = options.metadataSnap === undefined ? 'read' : 'read while in use';
  await withFile(input, access, (file) => {
    const reader = new DeviceReader(file.device);
    const source = sourceOf(reader, options, say);
    const fd = options.output === undefined ? 1 : openOutput(options.output, input);
    try {
      const sink = new FdSink(fd);
      const Writer = options.format === 'human_readable' ? PoolTextWriter : PoolXmlWriter;
      try {
        dumpPool(reader, source, options, new Writer(sink));
      } finally {
        sink.flush();
      }
    } finally {
      if (fd !== 1) fs.closeSync(fd);
    }
  });
}

function sourceOf(
  reader: DeviceReader,
  options: DumpFileOptions,
  say: (text: string) => void,
): PoolSource {
  const { repair, metadataSnap } = options;
  if (repair === true) return findSource(reader, options, say);
  if (metadataSnap === undefined) return openSource(reader, liveSuperblock(reader), options);
  const block = metadataSnap === true ? undefined : metadataSnap;
  return openSource(reader, snapshotSuperblock(reader, block), options);
}

/** Opens a file for text. Opening the metadata itself would destroy it: EINVAL. */
function openOutput(output: string, input: string): number {
  const from = fs.statSync(input);
  const to = fs.statSync(output, { throwIfNoEntry: false });
  const same = to !== undefined && to.dev === from.dev && to.ino === from.ino;
  if (same || (to?.isBlockDevice() === true && to.rdev === from.rdev)) {
    throw new DmError('EINVAL', `'${output}' is the metadata that is to be dumped`);
  }
  return fs.openSync(output, 'w');
}
