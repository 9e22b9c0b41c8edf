/**
 * The pool that `npm start` shows: two sparse files in the state directory, a thin pool on them and
 * one volume, made if missing and reopened if present.
 */
import fs from 'node:fs';
import path from 'node:path';
import { DmError } from '../base/error.ts';
import { SECTOR_SIZE } from '../base/numbers.ts';
import type { Registry } from '../mapper/registry.ts';
import { parseTable } from '../mapper/table-grammar.ts';
import type { Daemon } from './daemon.ts';
import type { StateDir } from './state-dir.ts';

const GIB = 1024 ** 3;
const METADATA_BYTES = 64 * 1024 ** 2;
const DATA_BYTES = 20 * GIB;
const VOLUME_SECTORS = (10 * GIB) / SECTOR_SIZE;

/** Makes a device, unless `--restore` has brought it back. */
async function bringUp(registry: Registry, name: string, table: string): Promise<void> {
  if (registry.find({ name }) !== undefined) return;
  const device = registry.create(name);
  try {
    await registry.load(device, parseTable(table));
    await registry.resume(device);
  } catch (error) {
    await registry.remove(device);
    throw error;
  }
}

function sparseFile(file: string, bytes: number): void {
  const fd = fs.openSync(file, 'a', 0o600);
  if (fs.fstatSync(fd).size < bytes) fs.ftruncateSync(fd, bytes);
  fs.closeSync(fd);
}

/** Makes the thin device, unless an earlier run has; the pool's transaction id remembers that. */
async function makeVolume(registry: Registry): Promise<void> {
  const pool = registry.get({ name: 'pool' });
  const [status = ''] = await registry.lines(pool, 'INFO');
  if (/ thin-pool [1-9]/.test(status)) return;
  try {
    await registry.message(pool, 0, ['create_thin', '0']);
  } catch (error) {
    // That run was killed before it could say so.
    if (!(error instanceof DmError) || error.errno !== 'EEXIST') throw error;
  }
  await registry.message(pool, 0, ['set_transaction_id', '0', '1']);
}

/** As a shell takes it for one word. */
function shellWord(text: string): string {
  return /^[\w/.:=@%+-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

/** Brings up `pool` and `vol0`, and prints how to use them. */
export async function makeDefaultPool(daemon: Daemon, state: StateDir): Promise<void> {
  const { registry } = daemon;
  const metadata = path.join(state.dir, 'pool.metadata');
  const data = path.join(state.dir, 'pool.data');
  sparseFile(metadata, METADATA_BYTES);
  sparseFile(data, DATA_BYTES);
  const [m, d] = [metadata, data].map((file) => file.replace(/([\s\\])/g, '\\$1'));
  const length = DATA_BYTES / SECTOR_SIZE;
  await bringUp(registry, 'pool', `0 ${length} thin-pool ${m} ${d} 128 0`);
  await makeVolume(registry);
  await bringUp(registry, 'vol0', `0 ${VOLUME_SECTORS} thin /dev/mapper/pool 0`);
  const uri = daemon.uriOf('vol0');
  const dir = shellWord(state.dir);
  process.stdout.write(`A thin volume of 10 GiB is served at

  ${uri}

Try, in another terminal:

  nbdinfo ${shellWord(uri)}
  qemu-img info ${shellWord(uri)}
  node bin/devmapper.js status --state-dir ${dir}

Ctrl-C stops the daemon; what is in the volume stays in ${state.dir}.
`);
}
