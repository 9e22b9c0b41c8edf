/**
 * Loading tables: every refusal with the kernel's line and errno, in the kernel's order; what a
 * refused load leaves; areas, alignment and limits of the devices below.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DmError } from '../../src/base/error.ts';
import type { Limits } from '../../src/block/device.ts';
import { MemoryDevice } from '../../src/block/memory-device.ts';
import { parseTable } from '../../src/mapper/table-grammar.ts';
import type { TargetType } from '../../src/mapper/target.ts';
import { ProbeType } from '../helpers/probe-target.ts';
import { Stack } from '../helpers/stack.ts';

const ADDING = 'ioctl: error adding target to table';

/** ubda of 524288 sectors, a device `a` over it, and probes. */
async function withDevices(): Promise<{ stack: Stack; probe: ProbeType }> {
  const stack = new Stack();
  const probe = new ProbeType();
  stack.registry.register(probe);
  stack.disk('ubda', 524288);
  await stack.create('a', '0 8192 linear /dev/ubda 0');
  return { stack, probe };
}

/** Loads a table into the new device `t`, which must fail; the errno and the log lines. */
async function refusal(
  stack: Stack,
  table: string,
  readOnly = false,
): Promise<{ errno: string; lines: string[] }> {
  const device = stack.registry.find({ name: 't' }) ?? stack.registry.create('t');
  stack.log.take();
  let errno = 'none';
  try {
    await stack.registry.load(device, parseTable(table), { readOnly });
  } catch (error) {
    assert.ok(error instanceof DmError, String(error));
    errno = error.errno;
  }
  assert.equal(device.inactive, null, table);
  return { errno, lines: stack.log.take() };
}

test('wrong tables are refused with the lines of the kernel', async () => {
  const { stack } = await withDevices();
  const t = 'table: 254:1: ';
  const wrong: [table: string, line: string, errno?: string][] = [
    ['0 0 zero', 'zero-length target'],
    ['0 0 nosuch', 'zero-length target'],
    ['-1 10 zero', 'too large device'],
    ['0 -1 zero', 'too large device'],
    ['0 10 nosuch', 'nosuch: unknown target type'],
    ['1 10 nosuch', 'nosuch: unknown target type'],
    ['1 10 zero', 'zero: Gap in table (-EINVAL)'],
    ['0 10 zero\n11 10 zero', 'zero: Gap in table (-EINVAL)'],
    ['0 10 zero\n9 10 zero', 'zero: Gap in table (-EINVAL)'],
    ['0 10 zero\n0 10 zero', 'zero: Gap in table (-EINVAL)'],
    ['10 10 zero\n0 10 zero', 'zero: Gap in table (-EINVAL)'],
    ['1 10 linear', 'linear: Gap in table (-EINVAL)'],
    ['0 10 zero x', 'zero: No arguments required (-EINVAL)'],
    ['0 10 linear', 'linear: Invalid argument count (-EINVAL)'],
    ['0 10 linear /dev/ubda', 'linear: Invalid argument count (-EINVAL)'],
    ['0 10 linear /dev/ubda 0 0', 'linear: Invalid argument count (-EINVAL)'],
    ['0 10 linear /dev/ubda x', 'linear: Invalid device sector (-EINVAL)'],
    ['0 10 linear /dev/ubda -1', 'linear: Invalid device sector (-EINVAL)'],
    ['0 10 linear /dev/nosuch x', 'linear: Invalid device sector (-EINVAL)'],
    ['0 10 linear /dev/nosuch 0', 'linear: Device lookup failed (-ENODEV)', 'ENODEV'],
    ['0 10 linear /dev/null 0', 'linear: Device lookup failed (-ENODEV)', 'ENODEV'],
    ['0 10 linear 254:77 0', 'linear: Device lookup failed (-ENXIO)', 'ENXIO'],
    ['0 10 linear 77:77 0', 'linear: Device lookup failed (-ENXIO)', 'ENXIO'],
    ['0 8 striped', 'striped: Not enough arguments (-EINVAL)'],
    ['0 8 striped 2', 'striped: Not enough arguments (-EINVAL)'],
    ['0 8 striped 0 8', 'striped: Invalid stripe count (-EINVAL)'],
    ['0 8 striped x 8', 'striped: Invalid stripe count (-EINVAL)'],
    ['0 8 striped 4294967296 8', 'striped: Invalid stripe count (-EINVAL)'],
    ['0 8 striped 1 0 98:0 0', 'striped: Invalid chunk_size (-EINVAL)'],
    ['0 8 striped 1 8x 98:0 0', 'striped: Invalid chunk_size (-EINVAL)'],
    [
      '0 9 striped 2 4 98:0 0 98:0 9',
      'striped: Target length not divisible by number of stripes (-EINVAL)',
    ],
    [
      '0 12 striped 2 4 98:0 0 98:0 9',
      'striped: Target length not divisible by chunk size (-EINVAL)',
    ],
    ['0 8 striped 2 4 98:0 0', 'striped: Not enough destinations specified (-EINVAL)'],
    ['0 8 striped 2 4 98:0 0 98:0', 'striped: Not enough destinations specified (-EINVAL)'],
    ['0 8 striped 1 4 98:0 0 98:0 0', 'striped: Not enough destinations specified (-EINVAL)'],
    ['0 8 striped 1 4 98:0 y', "striped: Couldn't parse stripe destination (-EINVAL)"],
    ['0 8 striped 1 4 9:9 0', "striped: Couldn't parse stripe destination (-ENXIO)", 'ENXIO'],
  ];
  for (const [table, line, errno = 'EINVAL'] of wrong) {
    const found = await refusal(stack, table);
    assert.deepEqual(found, { errno, lines: [t + line, ADDING] }, table);
  }
  const none = await refusal(stack, '');
  assert.deepEqual(none.lines, ['ioctl: populate_table: no targets specified']);
  assert.equal(none.errno, 'EINVAL');
});

test('a target type that must be alone, or writable, is refused where it is not', async () => {
  const { stack } = await withDevices();
  let nrConstructed = 0;
  const type: TargetType = {
    name: 'hermit',
    version: [1, 0, 0],
    singleton: true,
    alwaysWriteable: true,
    construct: () => {
      nrConstructed++;
      throw new DmError('EINVAL', 'not in this test');
    },
  };
  stack.registry.register(type);
  const lineOf = async (table: string, readOnly = false): Promise<string | undefined> => {
    const { errno, lines } = await refusal(stack, table, readOnly);
    assert.equal(errno, 'EINVAL');
    return lines[0]?.replace('table: 254:1: ', '');
  };
  assert.equal(
    await lineOf('0 8 zero\n8 8 hermit'),
    'hermit: singleton target type must appear alone in table (-EINVAL)',
  );
  assert.equal(
    await lineOf('0 8 hermit\n8 8 zero'),
    'target type hermit must appear alone in table',
  );
  assert.equal(
    await lineOf('0 8 hermit', true),
    'hermit: target type may not be included in a read-only table (-EINVAL)',
  );
  assert.equal(nrConstructed, 0, 'it has touched nothing');
});

test('a refused load leaves the tables that are there, and nothing of its own', async () => {
  const { stack, probe } = await withDevices();
  const a = stack.device('a');
  const device = await stack.create('t', '0 8 probe live /dev/mapper/a');
  await stack.reload('t', '0 8 probe inactive /dev/mapper/a');
  const { inactive } = device;
  probe.take();
  for (const bad of ['16 8 nosuch', '20 8 zero', '16 8 probe refused', '16 8 linear 9:9 0']) {
    const before = '0 8 probe x /dev/mapper/a\n8 8 probe y /dev/ubda';
    await assert.rejects(stack.reload('t', `${before}\n${bad}`), DmError);
    assert.deepEqual(probe.take(/refused/), [
      'x construct',
      'y construct',
      'y destroy',
      'x destroy',
    ]);
    assert.equal(device.inactive, inactive);
    assert.equal(a.openCount, 1, 'live and inactive table share their opening');
  }
  assert.equal(probe.nrAlive, 2);
  assert.equal(await stack.table('t'), '0 8 probe live');
  await stack.remove('t');
  assert.equal(probe.nrAlive, 0);
  assert.equal(a.openCount, 0);
});

// --- areas

const TOO_SMALL = 'table: 254:1: ubda too small for target: ';
const FIRST_LOAD = [
  'core: Cannot calculate initial queue limits',
  'ioctl: unable to set up device queue for new table.',
];

test('an area beyond its device is refused by the first load', async () => {
  const { stack, probe } = await withDevices();
  const areas: [table: string, area: string][] = [
    ['0 100 linear 98:0 600000', 'start=600000, len=100, dev_size=524288'],
    ['0 600000 linear 98:0 0', 'start=0, len=600000, dev_size=524288'],
    ['0 100 linear 98:0 524288', 'start=524288, len=100, dev_size=524288'],
    ['0 101 linear 98:0 524188', 'start=524188, len=101, dev_size=524288'],
    ['0 16 striped 2 8 98:0 0 98:0 524281', 'start=524281, len=8, dev_size=524288'],
    ['0 8 zero\n8 1 linear 98:0 524288', 'start=524288, len=1, dev_size=524288'],
  ];
  for (const [table, area] of areas) {
    // Again and again: a load that failed is no first load.
    const { errno, lines } = await refusal(stack, table);
    assert.equal(errno, 'EINVAL');
    assert.deepEqual(lines, [TOO_SMALL + area, ...FIRST_LOAD], table);
  }
  await refusal(stack, '0 8 probe a\n8 600000 linear 98:0 0');
  assert.equal(probe.nrAlive, 0);
  await stack.reload('t', '0 100 linear 98:0 524188');
});

test('later loads find it at the resume, which keeps the live table and leaves it suspended', async () => {
  const { stack } = await withDevices();
  const device = await stack.create('t', '0 8 zero');
  await stack.reload('t', '0 100 linear 98:0 600000');
  stack.log.take();
  await assert.rejects(stack.resume('t'), { errno: 'EINVAL' });
  assert.deepEqual(stack.log.take(), [`${TOO_SMALL}start=600000, len=100, dev_size=524288`]);
  assert.equal(device.inactive, null);
  assert.equal(device.isSuspended, true);
  assert.equal(await stack.table('t'), '0 8 zero ');
  await stack.resume('t');
  assert.equal(device.isSuspended, false);
  assert.equal(await stack.table('t'), '0 8 zero ');
});

/*
 * Seen in the kernel: whether a load is the first is a property of the device, not of what is
 * loaded. Here it was looked up in the tables, so that after `dmsetup clear` it was checked again.
 */
test('after a clear a load is not the first', async () => {
  const { stack } = await withDevices();
  const device = stack.registry.create('t');
  await stack.reload('t', '0 10 zero');
  await stack.registry.clear(device);
  await stack.reload('t', '0 10 linear 98:0 600000');
  await assert.rejects(stack.resume('t'), { errno: 'EINVAL' });
  assert.equal(device.isSuspended, true);
  assert.equal(device.live, null);
  assert.equal(device.inactive, null);
});

test('a device that has grown or shrunk since the load counts as it is at the resume', async () => {
  const stack = new Stack();
  const disk = new MemoryDevice('ubda', 100);
  stack.disk('ubda', disk);
  await stack.create('t', '0 8 zero');
  await stack.reload('t', '0 200 linear 98:0 0');
  disk.resize(200);
  await stack.resume('t');
  await stack.reload('t', '0 200 linear 98:0 0');
  disk.resize(100);
  await assert.rejects(stack.resume('t'), { errno: 'EINVAL' });
});

test('the area of a device of size 0 is not looked at', async () => {
  const stack = new Stack();
  stack.registry.create('empty');
  await stack.create('t', '0 100 linear /dev/mapper/empty 50');
  assert.equal(await stack.table('t'), '0 100 linear 254:0 50');
});

// --- alignment

/** b512 and b4096, named by the sizes of their logical blocks. */
function withBlockSizes(): Stack {
  const stack = new Stack();
  stack.registry.register(new ProbeType());
  stack.disk('b512', 32768);
  const limits: Partial<Limits> = { logicalBlockSize: 4096, physicalBlockSize: 4096 };
  stack.disk('b4096', new MemoryDevice('b4096', 32768, { limits }));
  return stack;
}

/*
 * Each was observed on Linux 6.1 with a loop device of 4096-byte blocks. Before, only areas were
 * checked: a request of whole blocks reached the loop device cut within its blocks.
 */
test('what would cut the blocks of a device is refused', async () => {
  const stack = withBlockSizes();
  const cuts: [table: string, line: string][] = [
    ['0 7 linear /dev/b4096 0', 'len=7 not aligned to h/w logical block size 4096 of b4096'],
    ['0 8 linear /dev/b4096 1', 'start=1 not aligned to h/w logical block size 4096 of b4096'],
    [
      '0 7 zero\n7 8 linear /dev/b4096 0',
      'table line 1 (start sect 7 len 8) not aligned to h/w logical block size 4096',
    ],
    [
      '0 7 zero\n7 9 linear /dev/b4096 0',
      'len=9 not aligned to h/w logical block size 4096 of b4096',
    ],
    [
      '0 8 linear /dev/b4096 0\n8 7 zero',
      'table line 2 (start sect 8 len 7) not aligned to h/w logical block size 4096',
    ],
    [
      '0 12 linear /dev/b512 0\n12 8 linear /dev/b4096 0\n20 4 linear /dev/b512 0',
      'table line 1 (start sect 12 len 8) not aligned to h/w logical block size 4096',
    ],
    [
      '0 8 linear /dev/b4096 0\n8 3 error',
      'table line 2 (start sect 8 len 3) not aligned to h/w logical block size 4096',
    ],
  ];
  const device = stack.registry.create('t');
  for (const [table, line] of cuts) {
    stack.log.take();
    await assert.rejects(stack.registry.load(device, parseTable(table)), { errno: 'EINVAL' });
    assert.deepEqual(stack.log.take(), [`table: 254:0: ${line}`, ...FIRST_LOAD], table);
  }
});

test('what cuts the blocks of larger neighbours only is not', async () => {
  const stack = withBlockSizes();
  const tables = [
    '0 7 linear /dev/b512 0\n7 1 linear /dev/b512 0\n8 8 linear /dev/b4096 0',
    '0 12 linear /dev/b512 0\n12 4 linear /dev/b512 0\n16 8 linear /dev/b4096 0',
    '0 8 linear /dev/b4096 0\n8 1 linear /dev/b512 0\n9 1 zero\n10 5 zero\n15 1 error',
    '0 10 linear /dev/b512 0\n10 1 linear /dev/b512 0',
    '0 16 striped 2 8 /dev/b4096 0 /dev/b4096 8',
  ];
  for (const table of tables) {
    const device = await stack.create('t', table);
    assert.equal(device.limits.logicalBlockSize, table.includes('b4096') ? 4096 : 512);
    await stack.remove('t');
  }
});

test('blocks between those sizes fit where their pieces do', async () => {
  const stack = withBlockSizes();
  // 0        8    12   16: the second target's blocks are half a block of the device.
  await stack.create(
    't',
    '0 12 probe a block=2048\n12 4 probe b block=2048\n16 8 probe c block=4096',
  );
  await stack.remove('t');
  await assert.rejects(
    stack.create(
      't',
      '0 10 probe a\n10 8 probe b block=2048\n18 6 probe a\n24 8 probe c block=4096',
    ),
    { errno: 'EINVAL', message: /^table line 1 / },
  );
});

// --- limits

test('limits are stacked: what one device below cannot do, none above can', async () => {
  const stack = new Stack();
  const disk = (name: string, limits: Partial<Limits>): void =>
    void stack.disk(name, new MemoryDevice(name, 32768, { limits }));
  disk('a', { ioMin: 4096, ioOpt: 65536, discardGranularity: 4096, maxDiscardSectors: 1000 });
  disk('b', { physicalBlockSize: 4096, discardGranularity: 8192, maxDiscardSectors: 64 });
  disk('stale', { discardZeroes: false });
  disk('none', { maxDiscardSectors: 0, discardGranularity: 0, maxWriteZeroesSectors: 0 });
  const limitsOf = async (table: string): Promise<Limits> => {
    const { limits } = await stack.create('t', table);
    await stack.remove('t');
    return limits;
  };
  assert.deepEqual(await limitsOf('0 1024 linear /dev/a 0\n1024 1024 linear /dev/b 0'), {
    logicalBlockSize: 512,
    physicalBlockSize: 4096,
    ioMin: 4096,
    ioOpt: 65536,
    discardGranularity: 8192,
    maxDiscardSectors: 64,
    maxWriteZeroesSectors: 0x7f_ffff,
    discardZeroes: true,
  });
  const stale = await limitsOf('0 8 linear /dev/a 0\n8 8 linear /dev/stale 0');
  assert.equal(stale.discardZeroes, false);
  assert.equal(stale.maxDiscardSectors, 1000);
  const noDiscards = {
    discardGranularity: 0,
    maxDiscardSectors: 0,
    maxWriteZeroesSectors: 0,
    discardZeroes: false,
  };
  for (const other of ['linear /dev/none 0', 'zero', 'error', 'striped 2 8 /dev/a 0 /dev/none 0']) {
    const limits = await limitsOf(`0 1024 linear /dev/a 0\n1024 1024 ${other}`);
    assert.deepEqual({ ...limits, ...noDiscards }, limits, other);
  }
  const { ioMin, ioOpt } = await limitsOf('0 48 striped 3 8 /dev/a 0 /dev/a 16 /dev/b 0');
  assert.deepEqual([ioMin, ioOpt], [4096, 3 * 4096]);
});

test('the limits of a device without a table are those of a plain disk', () => {
  const stack = new Stack();
  const { limits } = stack.registry.create('t');
  assert.equal(limits.logicalBlockSize, 512);
  assert.equal(limits.maxDiscardSectors, 0);
});

// --- what tables use

test('devices are listed with the one opened last first, each once', async () => {
  const stack = new Stack();
  for (const name of ['a', 'b', 'c']) stack.disk(name, 1024);
  const device = await stack.create(
    't',
    '0 8 linear /dev/b 0\n8 8 linear /dev/a 0\n16 8 linear 98:0 8\n24 8 linear /dev/b 8',
  );
  assert.deepEqual(
    device.live?.devices.map((used) => used.number),
    ['98:0', '98:16'],
  );
});

test('a device may be named by path, by number, by node, and relative to a directory', async () => {
  const stack = new Stack();
  stack.disk('ubda', 1024);
  await stack.create('a', '0 1024 linear /dev/ubda 0');
  for (const name of ['/dev/mapper/a', '/dev/dm-0', '254:0', '/dev/./mapper/../mapper/a']) {
    await stack.create('t', `0 8 linear ${name} 0`);
    assert.equal(await stack.table('t'), '0 8 linear 254:0 0');
    await stack.remove('t');
  }
  const device = stack.registry.create('t');
  const relative = parseTable('0 8 linear mapper/a 0\n8 8 linear ubda 0');
  await stack.registry.load(device, relative, { cwd: '/dev' });
  await stack.resume('t');
  assert.equal(await stack.table('t'), '0 8 linear 254:0 0\n8 8 linear 98:0 0');
  for (const name of ['a', 'dm-0', '/dev/mapper/nosuch', '/dev/dm-7', '/dev/mapper/a/b']) {
    await assert.rejects(stack.reload('t', `0 8 linear ${name} 0`), { errno: 'ENODEV' }, name);
  }
});

test('status and table lines are those of each target, one type alone if asked', async () => {
  const { stack } = await withDevices();
  const device = await stack.create(
    't',
    '0 8 zero\n8 8 linear 254:0 5\n16 16 error x y\n32 8 zero',
  );
  const { registry } = stack;
  assert.deepEqual(await registry.lines(device, 'TABLE'), [
    '0 8 zero ',
    '8 8 linear 254:0 5',
    '16 16 error ',
    '32 8 zero ',
  ]);
  assert.deepEqual(await registry.lines(device, 'INFO', { target: 'linear' }), ['8 8 linear ']);
  assert.deepEqual(await registry.lines(device, 'INFO', { target: 'striped' }), []);
  assert.deepEqual(await registry.lines(device, 'INFO', { inactive: true }), []);
  await stack.reload('t', '0 4 error');
  assert.deepEqual(await registry.lines(device, 'TABLE', { inactive: true }), ['0 4 error ']);
});
