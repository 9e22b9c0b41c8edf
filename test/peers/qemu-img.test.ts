/**
 * qemu-img on volumes: convert in and out, compare, map, and images that are backed by a volume.
 */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { blocksOf, writeImage, type Part } from '../helpers/image-files.ts';
import { must, run } from '../helpers/programs.ts';
import { KIB, MIB, servedTests, type ServedPool } from '../helpers/served-pool.ts';

const served = servedTests(['qemu-img', 'qemu-io']);

const BYTES = 32 * MIB;
const PARTS: readonly Part[] = [
  [0, 4 * KIB],
  [2 * MIB + 1000, 300 * KIB],
  [11 * MIB, 6 * MIB],
  [BYTES - 512, 512],
];

const qemuImg = (...args: string[]): Promise<string> => must('qemu-img', args);

interface Source {
  readonly raw: string;
  readonly content: Buffer;
}

function source(pool: ServedPool): Source {
  const raw = pool.daemon.file('source.raw');
  return { raw, content: writeImage(raw, BYTES, PARTS) };
}

/** The volume holds the content, and no block that has no data. */
async function assertVolume(pool: ServedPool, content: Buffer, id = 0): Promise<void> {
  await pool.close();
  const provisioned = [...(await pool.mappings(id)).keys()];
  assert.deepEqual(provisioned, blocksOf(PARTS, pool.blockBytes));
  assert.ok((await pool.content(id, BYTES)).equals(content));
}

for (const [name, options] of [
  ['with its defaults', []],
  ['with 16 coroutines out of order', ['-W', '-m', '16']],
  ['without the page cache', ['-t', 'none']],
  ['onto what it takes for zeroes', ['--target-is-zero']],
] as const) {
  served.test(`convert of a raw image into a volume, ${name}`, async (pool) => {
    const { raw, content } = source(pool);
    const uri = await pool.volume('v', 0, BYTES);
    await qemuImg('convert', '-n', '-f', 'raw', '-O', 'raw', ...options, raw, uri);
    await assertVolume(pool, content);
  });
}

served.test(
  'convert of a qcow2 image into a volume, and of the volume into a qcow2 image',
  async (pool) => {
    const { raw, content } = source(pool);
    const uri = await pool.volume('v', 0, BYTES);
    const [qcow2, back] = [pool.daemon.file('in.qcow2'), pool.daemon.file('out.qcow2')];
    await qemuImg('convert', '-f', 'raw', '-O', 'qcow2', raw, qcow2);
    await qemuImg('convert', '-n', '-f', 'qcow2', '-O', 'raw', qcow2, uri);
    await qemuImg('convert', '-f', 'raw', '-O', 'qcow2', uri, back);
    assert.match(await qemuImg('compare', '-f', 'qcow2', '-F', 'raw', back, raw), /identical/);
    await qemuImg('check', '-q', '-f', 'qcow2', back);
    await assertVolume(pool, content);
  },
);

served.test('convert of a volume into a raw image keeps content and holes', async (pool) => {
  const { raw, content } = source(pool);
  const uri = await pool.volume('v', 0, BYTES);
  await qemuImg('convert', '-n', '-f', 'raw', '-O', 'raw', raw, uri);
  const out = pool.daemon.file('out.raw');
  await qemuImg('convert', '-f', 'raw', '-O', 'raw', uri, out);
  assert.ok(fs.readFileSync(out).equals(content));
  const allocated = fs.statSync(out).blocks * 512;
  const provisioned = blocksOf(PARTS, pool.blockBytes).length * pool.blockBytes;
  assert.ok(allocated <= provisioned + 64 * KIB, `${allocated} bytes are allocated`);
});

served.test('a volume can itself be a qcow2 image', async (pool) => {
  const { raw } = source(pool);
  const uri = await pool.volume('v', 0, BYTES + 4 * MIB);
  await qemuImg('create', '-q', '-f', 'qcow2', uri, String(BYTES));
  await qemuImg('convert', '-n', '-f', 'raw', '-O', 'qcow2', raw, uri);
  assert.match(await qemuImg('compare', '-f', 'raw', '-F', 'qcow2', raw, uri), /identical/);
  await qemuImg('check', '-q', '-f', 'qcow2', uri);
});

served.test(
  'a volume as the backing file of an overlay, which is committed into it',
  async (pool) => {
    const { raw, content } = source(pool);
    const uri = await pool.volume('v', 0, BYTES);
    await qemuImg('convert', '-n', '-f', 'raw', '-O', 'raw', raw, uri);
    const overlay = pool.daemon.file('overlay.qcow2');
    await qemuImg('create', '-q', '-f', 'qcow2', '-F', 'raw', '-b', uri, overlay);
    await must('qemu-io', ['-f', 'qcow2', '-c', 'write -P 7 12m 64k', overlay]);
    assert.match(await qemuImg('info', '--backing-chain', overlay), /file format: qcow2[^]*raw/);
    await qemuImg('commit', '-q', '-f', 'qcow2', overlay);
    content.fill(7, 12 * MIB, 12 * MIB + 64 * KIB);
    await assertVolume(pool, content);
  },
);

served.test(
  'compare tells equal from different, and strictly, provisioned from hole',
  async (pool) => {
    const { raw } = source(pool);
    const [one, two] = [await pool.volume('one', 0, BYTES), await pool.volume('two', 1, BYTES)];
    for (const uri of [one, two])
      await qemuImg('convert', '-n', '-f', 'raw', '-O', 'raw', raw, uri);
    const compare = (...args: string[]): ReturnType<typeof run> =>
      run('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', ...args]);
    const write = (command: string): Promise<string> =>
      must('qemu-io', ['-f', 'raw', '-c', command, two]);
    assert.equal((await compare(raw, one)).code, 0);
    assert.equal((await compare('-s', one, two)).code, 0);
    await write('write -P 0 20m 64k');
    assert.equal((await compare(one, two)).code, 0, 'zeroes that are provisioned are zeroes');
    const strict = await compare('-s', one, two);
    assert.equal(strict.code, 1);
    assert.match(strict.stdout, /Offset 20971520 block status mismatch/);
    await write('write -P 1 20972000 1');
    const different = await compare(one, two);
    assert.equal(different.code, 1);
    assert.match(different.stdout, /Content mismatch at offset 20971/);
  },
);

/** One extent of `qemu-img map --output=json`. */
interface Extent {
  readonly start: number;
  readonly length: number;
  readonly zero: boolean;
  readonly data: boolean;
  readonly present: boolean;
}

served.test('qemu-img map is the mapping that thin_dump finds', async (pool) => {
  const uri = await pool.volume('v', 0, BYTES);
  const commands = ['write 0 1', 'write 1m 2m', 'write -z -u 1536k 256k', 'write -z 9m 64k'];
  await must('qemu-io', ['-f', 'raw', ...commands.flatMap((c) => ['-c', c]), uri]);
  const text = await qemuImg('map', '-f', 'raw', '--output=json', uri);
  const blocks: number[] = [];
  let at = 0;
  for (const { start, length, zero, data, present } of JSON.parse(text) as Extent[]) {
    assert.equal(start, at);
    assert.equal(zero, !data);
    assert.ok(present);
    at += length;
    for (let byte = start; data && byte < at; byte += pool.blockBytes) {
      blocks.push(byte / pool.blockBytes);
    }
  }
  assert.equal(at, BYTES);
  await pool.close();
  assert.deepEqual(blocks, [...(await pool.mappings(0)).keys()]);
  // 1536k + 256k were unmapped; -z alone asks to keep the space allocated.
  const kept = [...Array(8).keys()].map((i) => 16 + i);
  const after = [...Array(20).keys()].map((i) => 28 + i);
  assert.deepEqual(blocks, [0, ...kept, ...after, 144]);
});

served.test('info, measure, dd and bench', async (pool) => {
  const { raw, content } = source(pool);
  const uri = await pool.volume('v', 0, BYTES);
  await qemuImg('convert', '-n', '-f', 'raw', '-O', 'raw', raw, uri);
  const info = JSON.parse(await qemuImg('info', '-f', 'raw', '--output=json', uri)) as object;
  assert.equal((info as Record<string, unknown>)['virtual-size'], BYTES);
  const measured = JSON.parse(
    await qemuImg('measure', '-f', 'raw', '-O', 'qcow2', '--output=json', uri),
  ) as { required: number };
  const provisioned = blocksOf(PARTS, pool.blockBytes).length * pool.blockBytes;
  assert.ok(measured.required < provisioned + MIB, 'holes need no room');
  const out = pool.daemon.file('dd.raw');
  await qemuImg(
    'dd',
    '-f',
    'raw',
    '-O',
    'raw',
    'bs=1M',
    'skip=10',
    'count=8',
    `if=${uri}`,
    `of=${out}`,
  );
  // `count` counts from the beginning of the input.
  const copied = fs.readFileSync(out);
  assert.ok(copied.equals(content.subarray(10 * MIB, 10 * MIB + copied.length)));
  await qemuImg('bench', '-f', 'raw', '-c', '500', '-d', '32', '-s', '5000', uri);
  await qemuImg(
    'bench',
    '-f',
    'raw',
    '-w',
    '-c',
    '500',
    '-d',
    '32',
    '-s',
    '5000',
    '--flush-interval=50',
    uri,
  );
});
