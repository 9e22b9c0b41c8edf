/**
 * qemu-io on volumes: QEMU's own block layer writing and checking patterns, command by command.
 */
import assert from 'node:assert/strict';
import { must, run } from '../helpers/programs.ts';
import { KIB, MIB, servedTests } from '../helpers/served-pool.ts';

const served = servedTests(['qemu-io']);

const BYTES = 16 * MIB;

/** Runs commands in one qemu-io; each must succeed. Resolves to what they print. */
async function io(uri: string, ...commands: string[]): Promise<string> {
  const said = await must('qemu-io', [
    '-f',
    'raw',
    ...commands.flatMap((command) => ['-c', command]),
    uri,
  ]);
  assert.doesNotMatch(said, /failed|error|mismatch/i);
  return said;
}

/** Runs `before` on a fresh volume; `blocks` are mapped afterwards, and `after` holds. */
function scenario(
  name: string,
  before: string[],
  blocks: readonly number[],
  after: string[],
): void {
  served.test(name, async (pool) => {
    const uri = await pool.volume('v', 0, BYTES);
    await io(uri, ...before);
    await io(uri, ...after);
    await pool.close();
    assert.deepEqual([...(await pool.mappings(0)).keys()], blocks);
  });
}

scenario(
  'patterns written at any offset read back, and nothing beside them changes',
  ['write -P 1 0 64k', 'write -P 2 65535 2', 'write -P 3 200k 100000', 'write -P 4 16777215 1'],
  [0, 1, 3, 4, 255],
  [
    'read -P 1 0 65535',
    'read -P 2 65535 2',
    'read -P 0 65537 65535',
    'read -P 3 200k 100000',
    'read -P 0 304800 22880',
    'read -P 4 16777215 1',
    'read -P 0 1m 1m',
  ],
);

scenario(
  'write -z keeps the space, write -z -u gives whole blocks back',
  ['write -P 1 0 512k', 'write -z 64k 64k', 'write -z -u 128k 64k', 'write -z -u 200k 100k'],
  [0, 1, 3, 4, 5, 6, 7],
  [
    'read -P 1 0 64k',
    'read -P 0 64k 64k',
    'read -P 0 128k 64k',
    'read -P 1 192k 8k',
    'read -P 0 200k 100k',
    'read -P 1 300k 212k',
  ],
);

scenario(
  'write -z provisions a hole, write -z -u does not',
  ['write -z 1m 100k', 'write -z -u 2m 1m', 'write -z -u 4000001 77'],
  [16, 17],
  ['read -P 0 0 16m'],
);

scenario(
  'discard gives whole blocks back and leaves the edges',
  ['write -P 9 0 1m', 'discard 100k 300k', 'discard 700k 10k'],
  [0, 1, ...[6, 7, 8, 9, 10, 11, 12, 13, 14, 15]],
  ['read -P 9 0 128k', 'read -P 0 128k 256k', 'read -P 9 384k 640k'],
);

scenario(
  'reads of a fresh volume provision nothing',
  ['read -P 0 0 16m', 'read -P 0 12345 678', 'aio_read -P 0 1m 4m', 'aio_flush', 'flush'],
  [],
  ['read -P 0 0 512'],
);

scenario(
  'many requests at once: aio writes, zeroes and reads',
  [
    ...Array.from({ length: 64 }, (_, i) => `aio_write -q -P ${i + 1} ${i * 200}k 150k`),
    'aio_flush',
    ...Array.from({ length: 64 }, (_, i) => `aio_read -q -P ${i + 1} ${i * 200}k 150k`),
    'aio_flush',
    'aio_write -z -u 0 5m',
    'aio_write -z -u 7m 1m',
    'aio_flush',
  ],
  [...Array(200).keys()].filter((block) => block >= 80 && (block < 112 || block >= 128)),
  ['read -P 0 0 5m', 'read -P 0 7m 1m', 'read -P 64 12600k 150k', 'read -P 0 12750k 50k'],
);

served.test('qemu-io sees size, holes and data', async (pool) => {
  const uri = await pool.volume('v', 0, BYTES);
  await io(uri, 'write 1m 1m', 'write 5m 1');
  assert.match(await io(uri, 'length'), /^16 MiB$/m);
  const map = await io(uri, 'map');
  assert.deepEqual(map.trim().split('\n').length, 1, 'all of it is in this layer');
  assert.match(map, /^16 MiB \(0x1000000\) bytes +allocated at offset 0 bytes/);
});

served.test('a read-only client leaves the volume alone', async (pool) => {
  const uri = await pool.volume('v', 0, BYTES);
  const { stdout, stderr } = await run('qemu-io', ['-r', '-f', 'raw', '-c', 'write 0 4k', uri]);
  assert.match(stdout + stderr, /Block node is read-only|read-only/i);
  assert.equal(await pool.nrMapped('v'), 0);
});

served.test('requests of 32 MiB, and larger ones that the client splits', async (pool) => {
  const uri = await pool.volume('v', 0, 80 * MIB);
  await io(uri, 'write -P 5 0 80m', 'read -P 5 0 80m', `read -P 5 ${3 * KIB + 1} 32m`);
  assert.equal(await pool.nrMapped('v'), (80 * MIB) / pool.blockBytes);
});
