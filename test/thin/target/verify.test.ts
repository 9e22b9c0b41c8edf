/**
 * Looking at the whole metadata after every commit (DM_VERIFY=all in the daemon): an ordinary life
 * passes, and what someone breaks behind the pool's back is found by the next commit, which fails
 * the pool.
 */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { test } from 'node:test';
import type { MemoryDevice } from '../../../src/block/memory-device.ts';
import { SALT } from '../../../src/persistent-data/validator.ts';
import { DeviceReader, ReadFailure } from '../../../src/persistent-data/check/block-reader.ts';
import { registerThin } from '../../../src/thin/target/index.ts';
import { poolFaults } from '../../../src/thin/tools/check.ts';
import { readPoolSuperblock } from '../../../src/thin/tools/pool-superblock.ts';
import { DaemonProcess, devmapper } from '../../helpers/daemon.ts';
import { editBlock, readBytes } from '../../helpers/edit-blocks.ts';
import { NbdClient } from '../../helpers/nbd-client.ts';
import { scratchDir } from '../../helpers/programs.ts';
import { discard, fill, flush, Stack } from '../../helpers/stack.ts';
import { deviceOf } from '../../helpers/thin-images.ts';

const BLOCK = 65536;
const POOL = '0 32768 thin-pool /dev/meta /dev/data 128 0';
const HEADER_BYTES = 32;

/**
 * A pool with volumes 0 and 1, each with some blocks, committed; `verify` looks at every commit.
 */
async function pool(verify?: (device: MemoryDevice) => readonly string[]): Promise<Stack> {
  const stack = new Stack();
  if (verify !== undefined)
    registerThin(stack.registry, { verify: (d) => verify(d as MemoryDevice) });
  stack.disk('meta', 8192);
  stack.disk('data', 32768);
  await stack.create('p', POOL);
  for (const id of [0, 1]) {
    await stack.message('p', `create_thin ${id}`);
    await stack.create(`t${id}`, `0 32768 thin /dev/mapper/p ${id}`);
    await fill(stack.device(`t${id}`), 0, 8 * BLOCK, 1);
    await flush(stack.device(`t${id}`));
  }
  return stack;
}

/** The root of a volume's mapping tree: the values of the only node of the tree of trees. */
function rootOf(device: MemoryDevice, index: number): number {
  const sb = readPoolSuperblock(new DeviceReader(device), 0);
  assert.ok(!(sb instanceof ReadFailure));
  const view = new DataView(readBytes(device, sb.mappingRoot).buffer);
  const maxEntries = view.getUint32(20, true);
  return Number(view.getBigUint64(HEADER_BYTES + 8 * maxEntries + 8 * index, true));
}

/** Breaks volume 1's mappings on the device; the pool has what it needs of them in memory. */
const plants: Record<string, (device: MemoryDevice) => void> = {
  'a node that is not what its checksum says': (device) => {
    editBlock(device, rootOf(device, 1), (view) => view.setUint8(2000, 1));
  },
  'a mapping to a block that there is not': (device) => {
    const edit = (view: DataView): void => {
      const maxEntries = view.getUint32(20, true);
      view.setBigUint64(HEADER_BYTES + 8 * maxEntries, 0xffffn << 24n, true);
    };
    editBlock(device, rootOf(device, 1), edit, SALT.BTREE_NODE);
  },
  'two mappings to one block': (device) => {
    const edit = (view: DataView): void => {
      const values = HEADER_BYTES + 8 * view.getUint32(20, true);
      view.setBigUint64(values, view.getBigUint64(values + 8, true), true);
    };
    editBlock(device, rootOf(device, 1), edit, SALT.BTREE_NODE);
  },
};

test('every commit of an ordinary life passes', async () => {
  let nrLooks = 0;
  const stack = await pool((device) => {
    nrLooks++;
    return poolFaults(device);
  });
  const looksBefore = nrLooks;
  assert.ok(looksBefore >= 4, `${looksBefore} commits so far`);
  await stack.suspend('t0');
  await stack.message('p', 'create_snap 2 0');
  await stack.resume('t0');
  await stack.create('t2', '0 32768 thin /dev/mapper/p 2');
  for (const name of ['t0', 't2', 't1']) {
    await fill(stack.device(name), 4 * BLOCK, 2 * BLOCK, 2);
    await discard(stack.device(name), 0, 2 * BLOCK);
    await flush(stack.device(name));
  }
  await stack.message('p', 'reserve_metadata_snap');
  await fill(stack.device('t0'), 20 * BLOCK, BLOCK, 3);
  await flush(stack.device('t0'));
  await stack.remove('t2');
  await stack.message('p', 'delete 2');
  await stack.message('p', 'release_metadata_snap');
  assert.match(await stack.status('p'), / rw /);
  await stack.registry.shutDown();
  assert.ok(nrLooks >= looksBefore + 8, `${nrLooks} commits`);
  assert.deepEqual(
    stack.log.lines.filter((line) => line.includes('fault')),
    [],
  );
});

for (const [what, plant] of Object.entries(plants)) {
  test(`${what} fails the pool at the next commit, and nothing more is written`, async () => {
    let metadata: MemoryDevice | null = null;
    const stack = await pool((device) => {
      metadata = device;
      return poolFaults(device);
    });
    assert.ok(metadata !== null);
    plant(metadata);
    const t0 = stack.device('t0');
    await fill(t0, 9 * BLOCK, BLOCK, 5);
    await assert.rejects(flush(t0), { errno: 'EIO' });
    assert.equal(await stack.status('p'), '0 32768 thin-pool Fail');
    const lines = stack.log.take().join('\n');
    assert.match(lines, /thin: 254:0: verification after a commit has failed/);
    assert.match(lines, /thin: 254:0: fault: .+/);
    assert.match(lines, /switching pool to fail mode/);
    const left = readBytes(metadata, 0);
    await assert.rejects(fill(t0, 10 * BLOCK, BLOCK, 6), { errno: 'EIO' });
    await assert.rejects(stack.message('p', 'create_thin 7'), { errno: 'EOPNOTSUPP' });
    await stack.registry.shutDown();
    assert.deepEqual(readBytes(metadata, 0), left);
  });

  test(`${what} goes unnoticed if nobody looks`, async () => {
    const stack = await pool();
    plant(stack.registry.lookup.use('/dev/meta', true, '/', null).device as MemoryDevice);
    await fill(stack.device('t0'), 9 * BLOCK, BLOCK, 5);
    await flush(stack.device('t0'));
    assert.match(await stack.status('p'), / rw /);
    await stack.registry.shutDown();
  });
}

// --- the daemon

async function writeAndFlush(daemon: DaemonProcess, block: number): Promise<void> {
  const client = await NbdClient.connect(daemon.nbdSocket);
  await client.greet();
  await client.go('t0');
  try {
    await client.writeAt(block * BLOCK, Buffer.alloc(BLOCK, 1));
    await client.flush();
  } finally {
    await client.disconnect();
  }
}

for (const verify of ['all', '']) {
  const finds = verify === 'all' ? 'finds' : 'does not look for';
  test(`a daemon with DM_VERIFY=${verify} ${finds} what is broken`, async () => {
    const daemon = await DaemonProcess.start({ env: { DM_VERIFY: verify } });
    try {
      const meta = daemon.disk('meta', 4 << 20);
      const data = daemon.disk('data', 16 << 20);
      const table = `0 32768 thin-pool ${meta} ${data} 128 0`;
      await daemon.dmsetup('create', 'p', '--table', table);
      for (const id of [0, 1]) {
        await daemon.dmsetup('message', 'p', '0', `create_thin ${id}`);
        await daemon.dmsetup('create', `t${id}`, '--table', `0 32768 thin /dev/mapper/p ${id}`);
      }
      await writeAndFlush(daemon, 0);
      assert.doesNotMatch(daemon.log, /fault/);
      // Volume 1's mappings are not written again by a write to volume 0.
      const image = await deviceOf(fs.readFileSync(meta));
      const fd = fs.openSync(meta, 'r+');
      fs.writeSync(fd, Buffer.alloc(8, 0xff), 0, 8, rootOf(image, 1) * 4096 + 16);
      fs.closeSync(fd);
      if (verify === 'all') {
        await assert.rejects(writeAndFlush(daemon, 1), /errno 5/);
        assert.match(await daemon.dmsetup('status', 'p'), /thin-pool Fail$/m);
        assert.match(daemon.log, /verification after a commit has failed/);
      } else {
        await writeAndFlush(daemon, 1);
        assert.match(await daemon.dmsetup('status', 'p'), / rw /);
      }
      assert.equal(await daemon.stop(), 0);
    } finally {
      await daemon.close();
    }
  });
}

test('DM_VERIFY is `all` or nothing', async () => {
  const { dir, remove } = scratchDir();
  const env = { DM_VERIFY: 'some' };
  const { code, stderr } = await devmapper(['daemon', '--state-dir', dir], { env });
  const why = "devmapper daemon: DM_VERIFY: wanted 'all' or nothing, found 'some'\n";
  assert.deepEqual([code, stderr], [1, why]);
  remove();
});
