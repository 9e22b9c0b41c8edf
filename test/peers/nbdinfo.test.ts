/**
 * libnbd's nbdinfo as a client: what is announced, flag by flag, and the map, which must be the
 * mapping that Debian's thin_dump finds.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MemoryDevice } from '../../src/block/memory-device.ts';
import { withDevice } from '../helpers/nbd-server.ts';
import { must, run, skipWithout } from '../helpers/programs.ts';
import { KIB, MIB, servedTests, type ServedPool } from '../helpers/served-pool.ts';

const served = servedTests(['nbdinfo', 'qemu-io']);

/** What `nbdinfo --json` says of one export. */
interface Export {
  readonly 'export-name': string;
  readonly description: string;
  readonly 'export-size': number;
  readonly contexts: readonly string[];
  readonly [capability: string]: unknown;
}

async function exportsOf(...args: string[]): Promise<Export[]> {
  const { protocol, TLS, structured, exports } = JSON.parse(
    await must('nbdinfo', ['--json', ...args]),
  ) as { protocol: string; TLS: boolean; structured: boolean; exports: Export[] };
  assert.deepEqual([protocol, TLS, structured], ['newstyle-fixed', false, true]);
  return exports;
}

/** The only export of an answer. */
async function exportOf(uri: string): Promise<Export> {
  const [found, ...more] = await exportsOf(uri);
  assert.ok(found !== undefined);
  assert.equal(more.length, 0);
  return found;
}

async function qemuIo(uri: string, ...commands: string[]): Promise<void> {
  const args = commands.flatMap((command) => ['-c', command]);
  await must('qemu-io', ['-f', 'raw', ...args, uri]);
}

/** What can be asked for by --can and --is, in the order of `answers`. */
const CAN = 'connect read write trim zero fast-zero fua flush df cache multi-conn'.split(' ');
const IS = 'read-only rotational tls structured-reply'.split(' ');

/** The capabilities that nbdinfo says an export has. */
async function capabilities(uri: string): Promise<string> {
  const ask = async (option: string, word: string): Promise<string | null> => {
    const { code, stderr } = await run('nbdinfo', [option, word, uri]);
    assert.ok(code === 0 || code === 2, `${option} ${word}: ${stderr}`);
    return code === 0 ? word : null;
  };
  const asked = [...CAN.map((word) => ask('--can', word)), ...IS.map((word) => ask('--is', word))];
  return (await Promise.all(asked)).filter((word) => word !== null).join(' ');
}

served.test('nbdinfo shows size, description, block sizes and capabilities', async (pool) => {
  const uri = await pool.volume('v', 0, 100 * MIB);
  const { number } = await pool
    .info('v')
    .then(({ major, minor }) => ({ number: `${major}:${minor}` }));
  const text = await must('nbdinfo', [uri]);
  assert.equal(
    text.replaceAll(/^\t+/gm, '').replace(/^content: .*\n/m, ''),
    [
      'protocol: newstyle-fixed without TLS, using structured packets',
      'export="v":',
      `description: thin ${number}`,
      'export-size: 104857600 (100M)',
      `uri: ${uri}`,
      'contexts:',
      'base:allocation',
      'is_rotational: false',
      'is_read_only: false',
      'can_cache: true',
      'can_df: true',
      'can_fast_zero: true',
      'can_flush: true',
      'can_fua: true',
      'can_multi_conn: true',
      'can_trim: true',
      'can_zero: true',
      'block_size_minimum: 1',
      'block_size_preferred: 65536',
      'block_size_maximum: 33554432',
      '',
    ].join('\n'),
  );
});

served.test('nbdinfo --json has the same as numbers and booleans', async (pool) => {
  const found = await exportOf(await pool.volume('v', 0, 100 * MIB));
  assert.equal(found['export-name'], 'v');
  assert.equal(found['export-size'], 100 * MIB);
  assert.deepEqual(found.contexts, ['base:allocation']);
  const flags = Object.entries(found).filter(([, value]) => typeof value === 'boolean');
  assert.deepEqual(Object.fromEntries(flags), {
    is_rotational: false,
    is_read_only: false,
    can_cache: true,
    can_df: true,
    can_fast_zero: true,
    can_flush: true,
    can_fua: true,
    can_multi_conn: true,
    can_trim: true,
    can_zero: true,
  });
});

served.test('nbdinfo --size agrees with the table', async (pool) => {
  for (const [id, bytes] of [512, 3 * MIB + 512, 2 ** 50].entries()) {
    const uri = await pool.volume(`v${id}`, id, bytes);
    assert.equal((await must('nbdinfo', ['--size', uri])).trim(), String(bytes));
  }
});

served.test('nbdinfo --list shows every device that has a table, in both forms', async (pool) => {
  await pool.volume('one', 0, MIB);
  await pool.volume('two', 1, 2 * MIB);
  await pool.call('POST', '/devices', { name: 'tableless' });
  await pool.create('zeroes', '0 8 zero');
  const uri = `nbd+unix:///?socket=${pool.daemon.nbdSocket}`;
  const found = await exportsOf('--list', uri);
  assert.deepEqual(
    found.map((item) => [item['export-name'], item['export-size'], item.contexts.join()]).sort(),
    [
      ['one', MIB, 'base:allocation'],
      ['pool', 256 * MIB, 'base:allocation'],
      ['two', 2 * MIB, 'base:allocation'],
      ['zeroes', 4096, 'base:allocation'],
    ],
  );
  const text = await must('nbdinfo', ['--list', uri]);
  assert.deepEqual(text.match(/^export=.*/gm)?.sort(), [
    'export="one":',
    'export="pool":',
    'export="two":',
    'export="zeroes":',
  ]);
});

served.test('each capability is announced where it is one', async (pool) => {
  const thin = await pool.volume('thin', 0, MIB);
  await pool.create('ro', pool.table(0, MIB), { readOnly: true });
  const everywhere = 'fua flush df cache multi-conn';
  const writable = `connect read write trim zero fast-zero ${everywhere} structured-reply`;
  assert.equal(await capabilities(thin), writable);
  const readOnly = `connect read ${everywhere} read-only structured-reply`;
  assert.equal(await capabilities(await pool.uri('ro')), readOnly);
  const unknown = await run('nbdinfo', ['--can', 'connect', thin.replace('/thin?', '/nobody?')]);
  assert.notEqual(unknown.code, 0);
  assert.match(unknown.stderr, /server has no export named 'nobody'/);
});

served.test(
  'a volume over an external origin, or without discards, says what it cannot',
  async (pool) => {
    await pool.create('base', '0 2048 zero');
    await pool.message('pool', 'create_thin 0');
    await pool.create('over', pool.table(0, MIB, '/dev/mapper/base'));
    const words = (await capabilities(await pool.uri('over'))).split(' ');
    assert.ok(words.includes('trim'));
    assert.ok(!words.includes('fast-zero'), 'unmapping would show the origin');
  },
);

served.test(
  'a pool that ignores discards announces no trim',
  async (pool) => {
    const words = (await capabilities(await pool.volume('v', 0, MIB))).split(' ');
    assert.ok(!words.includes('trim'));
    assert.ok(words.includes('zero'));
  },
  { features: '1 ignore_discard' },
);

for (const [blockSectors, preferred] of [
  [128, 64 * KIB],
  [2048, MIB],
  [384, 4096],
  [131072, 32 * MIB],
] as const) {
  served.test(
    `the preferred block size is ${preferred} for blocks of ${blockSectors} sectors`,
    async (pool) => {
      const found = await exportOf(await pool.volume('v', 0, 192 * MIB));
      const sizes = ['minimum', 'preferred', 'maximum'].map((word) => found[`block_size_${word}`]);
      assert.deepEqual(sizes, [1, preferred, 32 * MIB]);
    },
    { blockSectors },
  );
}

for (const logicalBlockSize of [512, 4096]) {
  test(
    `a disk with blocks of ${logicalBlockSize} takes clients that know only bytes`,
    {
      skip: skipWithout('nbdinfo', 'qemu-io'),
    },
    async () => {
      const limits = { logicalBlockSize, physicalBlockSize: logicalBlockSize };
      await withDevice(new MemoryDevice('disk', (4 * MIB) / 512, { limits }), async (server) => {
        const uri = `nbd+unix:///disk?socket=${server.socketPath}`;
        const found = await exportOf(uri);
        const sizes = ['minimum', 'preferred', 'maximum'].map(
          (word) => found[`block_size_${word}`],
        );
        assert.deepEqual(sizes, [1, 4096, 32 * MIB]);
        await qemuIo(
          uri,
          'write -P 1 0 64k',
          'write -P 2 511 3',
          'write -P 3 4095 8194',
          'write -z 20001 512',
          'read -P 1 0 511',
          'read -P 2 511 3',
          'read -P 1 514 3581',
          'read -P 3 4095 8194',
          'read -P 0 20001 512',
          'read -P 1 20513 100',
        );
      });
    },
  );
}

/** One extent of `nbdinfo --map --json`. */
interface Extent {
  readonly offset: number;
  readonly length: number;
  readonly type: number;
}

/** The blocks that the map says are provisioned; whatever is not must be a hole of zeroes. */
async function mappedBlocks(pool: ServedPool, uri: string, bytes: number): Promise<number[]> {
  const map = JSON.parse(await must('nbdinfo', ['--map', '--json', uri])) as Extent[];
  const blocks = new Set<number>();
  let at = 0;
  for (const { offset, length, type } of map) {
    assert.equal(offset, at, 'the extents lie one behind the other');
    assert.ok(type === 0 || type === 3, `type ${type}`);
    at += length;
    if (type === 3) continue;
    for (let byte = offset; byte < at; byte += pool.blockBytes) {
      blocks.add(Math.floor(byte / pool.blockBytes));
    }
  }
  assert.equal(at, bytes, 'the map covers the export');
  return [...blocks];
}

served.test(
  'nbdinfo --map of origin and snapshot is the mapping that thin_dump finds',
  async (pool) => {
    const bytes = 64 * MIB;
    const origin = await pool.volume('origin', 0, bytes);
    // Single blocks, runs, a block written in part, and one that is given up again.
    await qemuIo(origin, 'write 0 64k', 'write 1m 3m', 'write 7340035 5', 'write 40m 1m');
    await qemuIo(origin, 'write 63m 1m', 'discard 2m 640k');
    const snap = await pool.snapshot('snap', 1, { name: 'origin', id: 0, bytes });
    // Shared parts that stay shared, that are broken by either side, and new ones on each.
    await qemuIo(origin, 'write 1m 64k', 'write 20m 128k', 'discard 40m 512k');
    await qemuIo(snap, 'write 3m 4k', 'write 30m 1', 'discard 63m 1m');
    const maps = [await mappedBlocks(pool, origin, bytes), await mappedBlocks(pool, snap, bytes)];
    await pool.close();
    const dumped = [await pool.mappings(0), await pool.mappings(1)] as const;
    assert.deepEqual(
      maps,
      dumped.map((mapping) => [...mapping.keys()]),
    );
    const shared = [...dumped[0]].filter(([block, data]) => dumped[1].get(block) === data);
    assert.ok(shared.length > 20 && shared.length < dumped[0].size, 'some blocks are shared');
  },
);

served.test('nbdinfo --map in words, and its totals', async (pool) => {
  const uri = await pool.volume('v', 0, 10 * MIB);
  await qemuIo(uri, 'write 1m 1m');
  const map = await must('nbdinfo', ['--map', uri]);
  assert.deepEqual(
    map
      .trim()
      .split('\n')
      .map((line) => line.trim().split(/\s+/)),
    [
      ['0', '1048576', '3', 'hole,zero'],
      ['1048576', '1048576', '0', 'data'],
      ['2097152', '8388608', '3', 'hole,zero'],
    ],
  );
  const totals = await must('nbdinfo', ['--map', '--totals', uri]);
  assert.match(totals, /1048576 +10\.0% +0 data\n *9437184 +90\.0% +3 hole,zero/);
});

/** Every other block of the first 40000 is mapped. */
const FRAGMENTS = 20_000;
const fragmented = [
  '<superblock uuid="" time="0" transaction="0" data_block_size="128" nr_data_blocks="65536">',
  `<device dev_id="0" mapped_blocks="${FRAGMENTS}" transaction="0"`,
  'creation_time="0" snap_time="0">',
  ...Array.from(
    { length: FRAGMENTS },
    (_, i) => `<single_mapping origin_block="${i * 2}" data_block="${i}" time="0"/>`,
  ),
  '</device>',
  '</superblock>',
].join('\n');

served.test(
  'a map of more extents than one reply has comes whole',
  async (pool) => {
    const bytes = 40_001 * pool.blockBytes;
    await pool.create('v', pool.table(0, bytes));
    const found = await mappedBlocks(pool, await pool.uri('v'), bytes);
    await pool.close();
    assert.deepEqual(found, [...(await pool.mappings(0)).keys()]);
    assert.equal(found.length, FRAGMENTS);
  },
  { xml: fragmented, dataBytes: 4096 * MIB },
);
