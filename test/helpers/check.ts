/**
 * `assertClean`: in one line, that metadata left behind by a test is sound by our own check and, if
 * it is in a file, by Debian's.
 */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import type { BlockDevice } from '../../src/block/device.ts';
import { checkPool } from '../../src/thin/tools/check.ts';
import { runSync, skipWithout } from './programs.ts';
import { deviceOf } from './thin-images.ts';

/** What to check: a device, an image in memory, or the path of a file. */
export type Metadata = BlockDevice | Uint8Array | string;

/** Rejects unless the pool's metadata is without any fault, harmless ones included. */
export async function assertClean(metadata: Metadata, message?: string): Promise<void> {
  const isFile = typeof metadata === 'string';
  const bytes = isFile ? fs.readFileSync(metadata) : metadata;
  const device = bytes instanceof Uint8Array ? await deviceOf(bytes) : bytes;
  const said: string[] = [];
  const { damage, ok } = await checkPool(device, {}, { message: (text) => said.push(text) });
  assert.deepEqual([...said, ...damage.lines()], [], message ?? 'thin_check finds nothing');
  assert.ok(ok, message);
  if (!isFile || skipWithout('thin_check') !== false) return;
  const { code, stdout, stderr } = runSync('thin_check', [metadata]);
  assert.equal(code, 0, `Debian's thin_check: ${stdout}${stderr}`);
}
