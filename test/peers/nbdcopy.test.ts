/**
 * libnbd's nbdcopy, both ways. What a copy leaves behind is read from the pool's files, with
 * Debian's thin_dump; where the source has holes, nothing may be provisioned.
 */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { blocksOf, writeImage, type Part } from '../helpers/image-files.ts';
import { must, run } from '../helpers/programs.ts';
import { KIB, MIB, servedTests, type ServedPool } from '../helpers/served-pool.ts';

const served = servedTests(['nbdcopy', 'qemu-img', 'bash']);

const BYTES = 32 * MIB;
/** Whole blocks, parts of blocks, and the very end. */
const PARTS: readonly Part[] = [
  [0, 4 * KIB],
  [MIB + 64 * KIB, 192 * KIB],
  [5 * MIB - 8 * KIB, 16 * KIB],
  [10 * MIB, 7 * MIB],
  [BYTES - 4 * KIB, 4 * KIB],
];

function image(pool: ServedPool, name = 'image'): { file: string; content: Buffer } {
  const file = pool.daemon.file(name);
  return { file, content: writeImage(file, BYTES, PARTS) };
}

async function nbdcopy(...args: string[]): Promise<void> {
  await must('nbdcopy', args);
}

function allocated(file: string): number {
  return fs.statSync(file).blocks * 512;
}

const WAYS = [
  [],
  ['--connections=1'],
  ['--connections=4', '--threads=2'],
  ['--synchronous'],
  ['--requests=256', '--request-size=4096'],
  ['--request-size=33554432', '--queue-size=134217728'],
  ['--destination-is-zero'],
];

for (const way of WAYS) {
  served.test(`a file copied in keeps its holes unprovisioned [${way.join(' ')}]`, async (pool) => {
    const { file, content } = image(pool);
    const uri = await pool.volume('v', 0, BYTES);
    await nbdcopy(...way, '--flush', file, uri);
    await pool.close();
    assert.deepEqual(
      [...(await pool.mappings(0)).keys()],
      blocksOf(PARTS, pool.blockBytes),
      'what is provisioned',
    );
    assert.ok((await pool.content(0, BYTES)).equals(content));
  });
}

for (const way of WAYS.slice(0, 6)) {
  served.test(
    `a volume copied out has its content and its holes [${way.join(' ')}]`,
    async (pool) => {
      const { file, content } = image(pool);
      const uri = await pool.volume('v', 0, BYTES);
      await nbdcopy(file, uri);
      const out = pool.daemon.file('out');
      fs.rmSync(out, { force: true });
      await nbdcopy(...way, uri, out);
      assert.ok(fs.readFileSync(out).equals(content));
      const provisioned = blocksOf(PARTS, pool.blockBytes).length * pool.blockBytes;
      // The file system's own blocks count, too.
      const found = allocated(out);
      assert.ok(found <= provisioned + 64 * KIB, `${found} bytes are allocated`);
    },
  );
}

served.test(
  '--allocated provisions everything, where the volume was empty or not',
  async (pool) => {
    const { file, content } = image(pool);
    const [empty, used] = [await pool.volume('a', 0, BYTES), await pool.volume('b', 1, BYTES)];
    await nbdcopy('--allocated', file, empty);
    const noise = pool.daemon.file('noise');
    writeImage(noise, BYTES, [[5 * MIB, 20 * MIB]]);
    await nbdcopy(noise, used);
    await nbdcopy('--allocated', file, used);
    await pool.close();
    for (const id of [0, 1]) {
      assert.equal((await pool.mappings(id)).size, BYTES / pool.blockBytes);
      assert.ok((await pool.content(id, BYTES)).equals(content));
    }
  },
);

served.test('a volume read without asking for its extents is the same', async (pool) => {
  const { file, content } = image(pool);
  const uri = await pool.volume('v', 0, BYTES);
  await nbdcopy(file, uri);
  const out = pool.daemon.file('whole');
  await nbdcopy('--no-extents', '--sparse=0', uri, out);
  assert.ok(fs.readFileSync(out).equals(content));
  assert.equal(await pool.nrMapped('v'), blocksOf(PARTS, pool.blockBytes).length);
});

served.test(
  'a copy over old data gives its space back and leaves none of it behind',
  async (pool) => {
    const { file, content } = image(pool);
    const uri = await pool.volume('v', 0, BYTES);
    const noise = pool.daemon.file('noise');
    writeImage(noise, BYTES, [[0, BYTES]]);
    await nbdcopy(noise, uri);
    assert.equal(await pool.nrMapped('v'), BYTES / pool.blockBytes);
    await nbdcopy(file, uri);
    await pool.close();
    assert.equal((await pool.mappings(0)).size, blocksOf(PARTS, pool.blockBytes).length);
    assert.ok((await pool.content(0, BYTES)).equals(content));
  },
);

served.test(
  '--destination-is-zero leaves what was there where the source has holes',
  async (pool) => {
    // It says so, and we must not know better: nothing is sent for a hole.
    const { file, content } = image(pool);
    const uri = await pool.volume('v', 0, BYTES);
    const old = pool.daemon.file('old');
    const oldContent = writeImage(old, BYTES, [[2 * MIB, 64 * KIB]]);
    await nbdcopy(old, uri);
    await nbdcopy('--destination-is-zero', file, uri);
    oldContent.copy(content, 2 * MIB, 2 * MIB, 2 * MIB + 64 * KIB);
    await pool.close();
    assert.ok((await pool.content(0, BYTES)).equals(content));
  },
);

served.test(
  'volume to volume: a snapshot is copied to another volume, holes and all',
  async (pool) => {
    const { file, content } = image(pool);
    const origin = await pool.volume('origin', 0, BYTES);
    await nbdcopy(file, origin);
    const snap = await pool.snapshot('snap', 1, { name: 'origin', id: 0, bytes: BYTES });
    const copy = await pool.volume('copy', 2, BYTES);
    // The origin goes on changing while its snapshot is copied.
    const noise = pool.daemon.file('noise');
    writeImage(noise, BYTES, [[0, BYTES]]);
    await Promise.all([nbdcopy('--connections=4', snap, copy), nbdcopy(noise, origin)]);
    await pool.close();
    assert.deepEqual([...(await pool.mappings(2)).keys()], blocksOf(PARTS, pool.blockBytes));
    for (const id of [1, 2]) assert.ok((await pool.content(id, BYTES)).equals(content));
  },
);

served.test('an odd tail, a pipe in and a pipe out', async (pool) => {
  const bytes = 3 * MIB + 777;
  const file = pool.daemon.file('odd');
  const content = writeImage(file, bytes, [[MIB - 13, 2 * MIB + 790]]);
  const uri = await pool.volume('v', 0, 4 * MIB);
  await nbdcopy(file, uri);
  const out = pool.daemon.file('piped');
  await must('bash', ['-c', `nbdcopy '${uri}' - > ${out}`]);
  assert.ok(fs.readFileSync(out).equals(Buffer.concat([content, Buffer.alloc(MIB - 777)])));
  const again = await pool.volume('w', 1, 4 * MIB);
  await must('bash', ['-c', `cat ${file} | nbdcopy - '${again}'`]);
  await pool.close();
  for (const id of [0, 1]) {
    assert.ok((await pool.content(id, bytes)).equals(content), `device ${id}`);
  }
});

served.test('a source that is too long for the volume is refused by the client', async (pool) => {
  const { file } = image(pool);
  const uri = await pool.volume('v', 0, BYTES - 512);
  const { code, stderr } = await run('nbdcopy', [file, uri]);
  assert.notEqual(code, 0);
  assert.match(stderr, /destination size is smaller than source size/);
});

served.test(
  'a full pool that reports it fails the copy with No space left on device',
  async (pool) => {
    const { file } = image(pool);
    const uri = await pool.volume('v', 0, BYTES);
    const { code, stderr } = await run('nbdcopy', [file, uri]);
    assert.notEqual(code, 0);
    assert.match(stderr, /No space left on device/);
    assert.equal(await pool.nrMapped('v'), (4 * MIB) / pool.blockBytes, 'to the last block');
  },
  { dataBytes: 4 * MIB, features: '1 error_if_no_space' },
);
