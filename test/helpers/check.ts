/**
 * `assertClean`: in one line, that metadata left behind by a test is sound: by our own check, by
 * Debian's thin_check, and by the newest upstream one where that is at hand.
 */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { SECTOR_SIZE } from '../../src/base/numbers.ts';
import type { BlockDevice } from '../../src/block/device.ts';
import { checkPool } from '../../src/thin/tools/check.ts';
import { newestTools, runSync, scratchDir, skipWithout } from './programs.ts';
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
  if (isFile) assertOthersAgree(metadata);
  else withFile(device, assertOthersAgree);
}

function assertOthersAgree(file: string): void {
  const programs = skipWithout('thin_check') === false ? [['thin_check']] : [];
  if (newestTools !== undefined) programs.push([newestTools, 'thin_check']);
  for (const [program = '', ...args] of programs) {
    const { code, stdout, stderr } = runSync(program, [...args, file]);
    assert.equal(code, 0, `${program}: ${stdout}${stderr}`);
  }
}

function withFile(device: BlockDevice, use: (file: string) => void): void {
  const bytes = Buffer.alloc(device.sizeSectors * SECTOR_SIZE);
  assert.equal(device.readSync(0, device.sizeSectors, bytes, 0), 0);
  const { dir, remove } = scratchDir();
  try {
    fs.writeFileSync(`${dir}/metadata`, bytes);
    use(`${dir}/metadata`);
  } finally {
    remove();
  }
}
