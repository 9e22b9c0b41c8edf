/**
 * Scenarios of spec thin, section 16, each observed on Linux 6.1, on memory devices.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { plainLimits } from '../../../src/block/device.ts';
import { MemoryDevice } from '../../../src/block/memory-device.ts';
import { discard, fill, read, runs, Stack } from '../../helpers/stack.ts';

const POOL = '0 524288 thin-pool /dev/ubda /dev/ubdb 128 0';
const K = 1024;

/** META of 4 MiB and DATA of 256 MiB that cannot discard, as under kernel-run. */
function disks(): Stack {
  const stack = new Stack();
  stack.disk('ubda', 8192);
  stack.disk('ubdb', new MemoryDevice('ubdb', 524288, { limits: plainLimits() }));
  return stack;
}

async function poolWithThin(dataByte?: number): Promise<Stack> {
  const stack = disks();
  if (dataByte !== undefined) {
    const { device } = stack.registry.lookup.use('/dev/ubdb', false, '/', null);
    await fill(device, 0, 4096 * K, dataByte);
  }
  await stack.create('p', POOL);
  await stack.message('p', 'create_thin 0');
  await stack.create('t0', '0 65536 thin /dev/mapper/p 0');
  return stack;
}

test('scenario 1: a fresh pool and ten blocks have the status lines of the kernel', async () => {
  const stack = disks();
  await stack.create('p', POOL);
  assert.equal(
    await stack.status('p'),
    '0 524288 thin-pool 0 111/1024 0/4096 - rw no_discard_passdown queue_if_no_space - 256 ',
  );
  assert.equal(await stack.table('p'), '0 524288 thin-pool 98:0 98:16 128 0 0 ');
  await stack.message('p', 'create_thin 0');
  assert.match(await stack.status('p'), /^0 524288 thin-pool 0 112\/1024 0\/4096 - rw /);
  const t0 = await stack.create('t0', '0 262144 thin /dev/mapper/p 0');
  assert.equal(await stack.status('t0'), '0 262144 thin 0 -');
  assert.equal(await stack.table('t0'), '0 262144 thin 254:0 0');
  for (let i = 0; i < 10; i++) await fill(t0, i * 64 * K, 64 * K, 0x11);
  assert.equal(await stack.status('t0'), '0 262144 thin 1280 1279');
  assert.match(await stack.status('p'), / 112\/1024 10\/4096 /);
  await stack.remove('t0');
  await stack.remove('p');
});

test('scenario 12: zeroing, copy on write, sharing seen from one side only', async () => {
  const stack = await poolWithThin(0xaa);
  const t0 = stack.device('t0');
  assert.equal(runs(await read(t0, 0, 64 * K)), '65536x00');
  assert.equal(await stack.status('t0'), '0 65536 thin 0 -');
  await fill(t0, 4096, 4096, 0x11);
  assert.equal(runs(await read(t0, 0, 64 * K)), '4096x00 4096x11 57344x00');
  await fill(t0, 5 * 64 * K, 64 * K, 0x22);
  assert.equal(runs(await read(t0, 5 * 64 * K, 64 * K)), '65536x22');
  assert.equal(await stack.status('t0'), '0 65536 thin 256 767');
  assert.match(await stack.status('p'), / 2\/4096 /);

  await stack.suspend('t0');
  await stack.message('p', 'create_snap 1 0');
  await stack.resume('t0');
  const s1 = await stack.create('s1', '0 65536 thin /dev/mapper/p 1');
  await fill(t0, 0, 4096, 0x33);
  assert.equal(runs(await read(t0, 0, 64 * K)), '4096x33 4096x11 57344x00');
  assert.equal(runs(await read(s1, 0, 64 * K)), '4096x00 4096x11 57344x00');
  assert.match(await stack.status('p'), / 3\/4096 /);
  await fill(t0, 5 * 64 * K, 64 * K, 0x44);
  assert.equal(runs(await read(t0, 5 * 64 * K, 64 * K)), '65536x44');
  assert.equal(runs(await read(s1, 5 * 64 * K, 64 * K)), '65536x22');
  assert.match(await stack.status('p'), / 4\/4096 /);

  // s1's block 0 has count 1 by now but is still "shared" by time: it is copied, the old one freed.
  await fill(s1, 3 * 4096, 4096, 0x55);
  assert.match(await stack.status('p'), / 4\/4096 /);
  assert.equal(runs(await read(s1, 0, 64 * K)), '4096x00 4096x11 4096x00 4096x55 49152x00');
});

test('scenario 13: only blocks that lie wholly inside a discard are unmapped', async () => {
  const stack = await poolWithThin();
  const t0 = stack.device('t0');
  await fill(t0, 0, 64 * K, 0x11);
  await discard(t0, 4096, 61440);
  assert.equal(await stack.status('t0'), '0 65536 thin 128 127');
  await discard(t0, 0, 65536);
  assert.equal(await stack.status('t0'), '0 65536 thin 0 -');
  assert.equal(runs(await read(t0, 0, 64 * K)), '65536x00');
  for (let i = 0; i < 6; i++) await fill(t0, i * 64 * K, 64 * K, 0x11);
  await discard(t0, 32768, 163840);
  assert.equal(await stack.status('t0'), '0 65536 thin 512 767');
});

/** Runs `act`, which must fail with `errno`; resolves to the lines it left in the log. */
async function refused(
  stack: Stack,
  errno: string,
  act: () => Promise<unknown>,
): Promise<string[]> {
  stack.log.take();
  await assert.rejects(act(), { errno });
  return stack.log.take();
}

test('scenario 2: wrong pool tables get the errors of the kernel, and change nothing', async () => {
  const wrong: [args: string, errno: string, text: string][] = [
    ['/dev/ubda /dev/ubdb 128', 'EINVAL', 'Invalid argument count'],
    ['/dev/ubda /dev/ubda 128 0', 'EINVAL', 'Error setting metadata or data device'],
    ['/dev/ubda /dev/ubdb 64 0', 'EINVAL', 'Invalid block size'],
    ['/dev/ubda /dev/ubdb 0 0', 'EINVAL', 'Invalid block size'],
    ['/dev/ubda /dev/ubdb 129 0', 'EINVAL', 'Invalid block size'],
    ['/dev/ubda /dev/ubdb 192 0', 'EINVAL', 'Invalid block size'],
    ['/dev/ubda /dev/ubdb 2097280 0', 'EINVAL', 'Invalid block size'],
    ['/dev/ubda /dev/ubdb abc 0', 'EINVAL', 'Invalid block size'],
    ['/dev/ubda /dev/ubdb 128 xyz', 'EINVAL', 'Invalid low water mark'],
    ['/dev/ubda /dev/ubdb 128 -1', 'EINVAL', 'Invalid low water mark'],
    ['/dev/ubda /dev/ubdb 128 0 foo', 'EINVAL', 'Invalid number of pool feature arguments'],
    ['/dev/ubda /dev/ubdb 128 0 1', 'EINVAL', 'Invalid number of pool feature arguments'],
    [
      '/dev/ubda /dev/ubdb 128 0 2 skip_block_zeroing',
      'EINVAL',
      'Invalid number of pool feature arguments',
    ],
    [
      '/dev/ubda /dev/ubdb 128 0 5 skip_block_zeroing ignore_discard no_discard_passdown ' +
        'read_only error_if_no_space',
      'EINVAL',
      'Invalid number of pool feature arguments',
    ],
    ['/dev/ubda /dev/ubdb 128 0 1 wibble', 'EINVAL', 'Unrecognised pool feature requested'],
    ['/dev/ubda /dev/ubdb 128 0 1 constructor', 'EINVAL', 'Unrecognised pool feature requested'],
    ['/dev/nosuch /dev/ubdb 128 0', 'ENODEV', 'Error opening metadata block device'],
    ['/dev/ubda /dev/nosuch 128 0', 'ENODEV', 'Error getting data device'],
  ];
  const stack = disks();
  for (const [args, errno, text] of wrong) {
    const lines = await refused(stack, errno, () =>
      stack.create('p', `0 524288 thin-pool ${args}`),
    );
    const first = `table: 254:0: thin-pool: ${text} (-${errno})`;
    assert.deepEqual(lines, [first, 'ioctl: error adding target to table'], args);
    assert.deepEqual(stack.registry.devices, [], 'nothing is left of the device');
  }
  const { device } = stack.registry.lookup.use('/dev/ubda', false, '/', null);
  assert.equal(runs(await read(device, 0, 64 * K)), '65536x00', 'nothing was formatted');
});

test('scenario 2: tables that the core refuses get its errors', async () => {
  const stack = disks();
  const tooLong = '0 1048576 thin-pool /dev/ubda /dev/ubdb 128 0';
  assert.deepEqual(
    await refused(stack, 'EINVAL', () => stack.create('p', tooLong)),
    [
      'thin: Data device (ubdb) discard unsupported: Disabling discard passdown.',
      'thin: Data device (ubdb) discard unsupported: Disabling discard passdown.',
      'table: 254:0: ubdb too small for target: start=0, len=1048576, dev_size=524288',
      'core: Cannot calculate initial queue limits',
      'ioctl: unable to set up device queue for new table.',
    ].slice(1),
  );
  const gap = POOL.replace('0 524288', '128 524288');
  assert.deepEqual(await refused(stack, 'EINVAL', () => stack.create('p', gap)), [
    'table: 254:0: thin-pool: Gap in table (-EINVAL)',
    'ioctl: error adding target to table',
  ]);
  const two = `${POOL}\n524288 8 zero`;
  assert.deepEqual(await refused(stack, 'EINVAL', () => stack.create('p', two)), [
    'table: 254:0: target type thin-pool must appear alone in table',
    'ioctl: error adding target to table',
  ]);
  assert.deepEqual(
    await refused(stack, 'EINVAL', () => stack.create('p', POOL, { readOnly: true })),
    [
      'table: 254:0: thin-pool: target type may not be included in a read-only table (-EINVAL)',
      'ioctl: error adding target to table',
    ],
  );
});

test('scenario 2: words after the features are ignored', async () => {
  const stack = disks();
  await stack.create('p', `${POOL} 1 skip_block_zeroing extra junk`);
  assert.equal(await stack.table('p'), '0 524288 thin-pool 98:0 98:16 128 0 1 skip_block_zeroing ');
});

test('scenario 4: read_only refuses unformatted metadata', async () => {
  const stack = disks();
  const lines = await refused(stack, 'EPERM', () => stack.create('p', `${POOL} 1 read_only`));
  assert.equal(lines[0], 'table: 254:0: thin-pool: Error creating metadata object (-EPERM)');
});

test('scenario 6: pools may share a data device, but not metadata', async () => {
  const stack = disks();
  await stack.create('p', POOL);
  const lines = await refused(stack, 'EBUSY', () => stack.create('q', POOL));
  const text = 'thin-pool: metadata device already in use by a pool (-EBUSY)';
  assert.equal(lines[0], `table: 254:1: ${text}`);
  stack.disk('ubdc', 8192);
  await stack.create('q', POOL.replace('ubda', 'ubdc'));
});

test('scenario 7: what a reload may change, and what not', async () => {
  const stack = disks();
  await stack.create('p', POOL);
  const discards = `${POOL} 1 ignore_discard`;
  const lines = await refused(stack, 'EINVAL', () => stack.reload('p', discards));
  const text = 'thin-pool: Discard support cannot be disabled once enabled (-EINVAL)';
  assert.equal(lines[0], `table: 254:0: ${text}`);
  await stack.reload('p', POOL.replace(' 128 ', ' 256 '));
  const inactive = await stack.registry.lines(stack.device('p'), 'TABLE', { inactive: true });
  assert.deepEqual(inactive, ['0 524288 thin-pool 98:0 98:16 128 0 0 ']);
  const linear = await refused(stack, 'EINVAL', () => stack.reload('p', '0 8 linear /dev/ubdb 0'));
  assert.deepEqual(linear, ["ioctl: can't replace immutable target type thin-pool"]);

  await stack.reload('p', POOL.replace('524288', '262144'));
  const shorter = await refused(stack, 'EINVAL', () => stack.resume('p'));
  assert.ok(shorter.includes('thin: 254:0: pool target (2048 blocks) too small: expected 4096'));
  assert.ok(shorter.includes('table: 254:0: thin-pool: preresume failed, error = -22'));
  assert.equal(stack.device('p').isSuspended, true);
  assert.match(await stack.table('p'), /^0 262144 /, 'the short table is live');
  await stack.reload('p', POOL);
  await stack.resume('p');
  assert.match(await stack.status('p'), / 0\/4096 - rw /);
  await stack.reload('p', `${POOL} 1 SKIP_BLOCK_ZEROING`);
  await stack.resume('p');
  assert.match(await stack.table('p'), / 1 skip_block_zeroing $/);
  await stack.remove('p');
  const changed = await refused(stack, 'EINVAL', () =>
    stack.create('p', POOL.replace(' 128 ', ' 256 ')),
  );
  const refusal = 'changing the data block size (from 128 to 256) is not supported';
  assert.equal(changed[0], `thin metadata: ${refusal}`);
  const second = 'table: 254:0: thin-pool: Error creating metadata object (-EINVAL)';
  assert.equal(changed[1], second);
});

test('scenario 8: odd lengths and block sizes', async () => {
  const stack = disks();
  await stack.create('p', '0 2100 thin-pool /dev/ubda /dev/ubdb 128 0');
  assert.match(await stack.status('p'), /^0 2100 thin-pool 0 111\/1024 0\/16 - rw /);
  const large = disks();
  await large.create('p', '0 2048 thin-pool /dev/ubda /dev/ubdb 2097152 0');
  assert.match(await large.status('p'), / 0 110\/1024 0\/0 - rw /);
  const odd = disks();
  await odd.create('p', '0 38400 thin-pool /dev/ubda /dev/ubdb 384 0');
  await odd.message('p', 'create_thin 0');
  const t0 = await odd.create('t0', '0 3840 thin /dev/mapper/p 0');
  await fill(t0, 409600, 4096, 0x11);
  assert.equal(await odd.status('t0'), '0 3840 thin 384 1151');
  assert.match(await odd.status('p'), / 112\/1024 1\/100 /);
});

test('scenario 8: of a metadata device of 17 GiB, 15.88 GiB are used', async () => {
  const stack = new Stack();
  stack.disk('ubda', 17 * 2 * K * K);
  stack.disk('ubdb', new MemoryDevice('ubdb', 524288, { limits: plainLimits() }));
  await stack.create('p', POOL);
  const text = 'is larger than 33292800 sectors: excess space will not be used.';
  assert.ok(stack.log.lines.includes(`thin: Metadata device ubda ${text}`));
  assert.match(await stack.status('p'), / 0 4359\/4161600 0\/4096 - rw .* - 1024 $/);
});

test('scenario 9: messages', async () => {
  const stack = disks();
  await stack.create('p', POOL);
  await stack.message('p', 'create_thin 0');
  for (const words of [
    'CREATE_THIN 1',
    'create_thin +2',
    'create_thin 007',
    'create_thin 16777215',
  ]) {
    await stack.message('p', words);
  }
  const wrong: [words: string, errno: string, lines: string[]][] = [
    [
      'create_thin 0',
      'EEXIST',
      ['thin: Creation of new thinly-provisioned device with id 0 failed.'],
    ],
    ['create_thin', 'EINVAL', ['thin: Message received with 1 arguments instead of 2.']],
    ['create_thin 1 2', 'EINVAL', ['thin: Message received with 3 arguments instead of 2.']],
    ['create_thin abc', 'EINVAL', ['thin: Message received with invalid device id: abc']],
    ['create_thin -1', 'EINVAL', ['thin: Message received with invalid device id: -1']],
    ['create_thin 16777216', 'EINVAL', ['thin: Message received with invalid device id: 16777216']],
    ['create_thin 0x3', 'EINVAL', ['thin: Message received with invalid device id: 0x3']],
    ['create_snap 1 0', 'EEXIST', ['thin: Creation of new snapshot 1 of device 0 failed.']],
    ['create_snap 4 99', 'ENODATA', ['thin: Creation of new snapshot 4 of device 99 failed.']],
    ['create_snap 4 4', 'ENODATA', ['thin: Creation of new snapshot 4 of device 4 failed.']],
    ['delete 99', 'ENODATA', ['thin: Deletion of thin device 99 failed.']],
    [
      'set_transaction_id 1 8',
      'EINVAL',
      [
        'thin metadata: mismatched transaction id',
        'thin: Failed to change transaction id from 1 to 8.',
      ],
    ],
    ['set_transaction_id x 8', 'EINVAL', ['thin: set_transaction_id message: Unrecognised id x.']],
    [
      'set_transaction_id 0 y',
      'EINVAL',
      ['thin: set_transaction_id message: Unrecognised new id y.'],
    ],
    [
      'release_metadata_snap',
      'EINVAL',
      [
        'thin metadata: No pool metadata snapshot found: nothing to release.',
        'thin: release_metadata_snap message failed.',
      ],
    ],
    ['wibble', 'EINVAL', ['thin: Unrecognised thin pool target message received: wibble']],
  ];
  for (const [words, errno, lines] of wrong) {
    const before = await stack.status('p');
    assert.deepEqual(await refused(stack, errno, () => stack.message('p', words)), lines, words);
    assert.equal(await stack.status('p'), before, `${words} leaves everything as it was`);
  }
  await stack.message('p', 'set_transaction_id 0 18446744073709551615');
  assert.match(await stack.status('p'), / thin-pool 18446744073709551615 /);
  await stack.message('p', 'set_transaction_id 18446744073709551615 5');
  await stack.message('p', 'reserve_metadata_snap');
  const held = await stack.status('p');
  assert.match(held, / thin-pool 5 \d+\/1024 0\/4096 \d+ rw /);
  assert.deepEqual(
    await refused(stack, 'EBUSY', () => stack.message('p', 'reserve_metadata_snap')),
    [
      'thin metadata: Pool metadata snapshot already exists: release this before taking another.',
      'thin: reserve_metadata_snap message failed.',
    ],
  );
  assert.equal(await stack.status('p'), held);
  await stack.message('p', 'release_metadata_snap');
  assert.match(await stack.status('p'), / 0\/4096 - rw /);
  await stack.suspend('p');
  await stack.message('p', 'create_thin 50');
  await stack.resume('p');
  await stack.create('t50', '0 8 thin /dev/mapper/p 50');
  const lines = await refused(stack, 'EINVAL', () => stack.message('t50', 'hello'));
  assert.deepEqual(lines, ['ioctl: Target type does not support messages']);
});

test('scenario 10: wrong thin tables get the errors of the kernel', async () => {
  const stack = disks();
  stack.disk('ubdc', 8192);
  await stack.create('p', POOL);
  await stack.create('lin', '0 8 linear /dev/ubdc 0');
  await stack.message('p', 'create_thin 0');
  const wrong: [args: string, errno: string, text: string][] = [
    ['/dev/mapper/p', 'EINVAL', 'Invalid argument count'],
    ['/dev/mapper/p 0 /dev/ubdc x', 'EINVAL', 'Invalid argument count'],
    ['/dev/mapper/p abc', 'EINVAL', 'Invalid device id'],
    ['/dev/mapper/p 16777216', 'EINVAL', 'Invalid device id'],
    ['/dev/mapper/p 7', 'ENODATA', "Couldn't open thin internal device"],
    ['/dev/ubdc 0', 'EINVAL', "Couldn't get pool mapped device"],
    ['/dev/mapper/lin 0', 'EINVAL', "Couldn't find pool object"],
    ['/dev/mapper/nosuch 0', 'ENODEV', 'Error opening pool device'],
    ['/dev/mapper/p 0 /dev/mapper/p', 'EINVAL', 'Error setting origin device'],
    ['/dev/mapper/p 0 /dev/nosuch', 'ENODEV', 'Error opening origin device'],
  ];
  for (const [args, errno, text] of wrong) {
    const lines = await refused(stack, errno, () => stack.create('t', `0 1024 thin ${args}`));
    assert.equal(lines[0], `table: 254:2: thin: ${text} (-${errno})`, args);
  }
  await stack.suspend('p');
  const table = '0 1024 thin /dev/mapper/p 0';
  const lines = await refused(stack, 'EINVAL', () => stack.create('t', table));
  const text = 'Unable to activate thin device while pool is suspended';
  assert.equal(lines[0], `table: 254:2: thin: ${text} (-EINVAL)`);
  await stack.resume('p');
  await stack.create('t', '0 1024 thin 254:0 0 98:32');
  assert.equal(await stack.table('t'), '0 1024 thin 254:0 0 98:32');
});

test('scenario 11: several instances of one device', async () => {
  const stack = await poolWithThin();
  await stack.create('again', '0 65536 thin /dev/mapper/p 0');
  await refused(stack, 'EBUSY', () => stack.message('p', 'delete 0'));
  await refused(stack, 'EBUSY', () => stack.remove('p'));
  await stack.message('p', 'create_snap 40 0');
  // What one instance provisions, the other reads.
  await fill(stack.device('t0'), 65536, 4096, 0x77);
  assert.equal(runs(await read(stack.device('again'), 65536, 8192)), '4096x77 4096x00');
  await stack.remove('t0');
  await stack.remove('again');
  await stack.message('p', 'delete 0');
  await stack.message('p', 'create_thin 50');
  const two = '0 65536 thin /dev/mapper/p 50\n65536 65536 thin /dev/mapper/p 40';
  await stack.create('two', two);
  assert.equal(await stack.status('two'), '0 65536 thin 0 -\n65536 65536 thin 0 -');
  await stack.create('huge', '0 1073741824 thin /dev/mapper/p 50');
});

test('scenario 14: space accounting of snapshots and discards', async () => {
  const stack = await poolWithThin();
  const t0 = stack.device('t0');
  await fill(t0, 0, 64 * K, 0x11);
  await fill(t0, 5 * 64 * K, 64 * K, 0x22);
  await stack.message('p', 'create_snap 1 0');
  const s1 = await stack.create('s1', '0 65536 thin /dev/mapper/p 1');
  await fill(t0, 0, 64 * K, 0x33);
  await fill(t0, 5 * 64 * K, 64 * K, 0x44);
  await stack.message('p', 'create_snap 2 1');
  await fill(s1, 9 * 64 * K, 64 * K, 0x55);
  const used = async (): Promise<string> =>
    / (\d+\/4096) /.exec(await stack.status('p'))?.[1] ?? '';
  assert.equal(await used(), '5/4096');
  await discard(t0, 0, 64 * K);
  assert.equal(await used(), '4/4096');
  await discard(t0, 0, 32 * 1024 * K);
  assert.equal(await used(), '3/4096');
  assert.equal(await stack.status('t0'), '0 65536 thin 0 -');
  await discard(s1, 0, 32 * 1024 * K);
  assert.equal(await used(), '2/4096', 'device 2 has its blocks still');
  await stack.remove('s1');
  await stack.message('p', 'delete 1');
  assert.equal(await used(), '2/4096');
  await stack.message('p', 'delete 2');
  assert.equal(await used(), '0/4096');
  await stack.remove('t0');
  await stack.message('p', 'delete 0');
  assert.match(await stack.status('p'), / 111\/1024 0\/4096 /);
});

test('scenario 16: ignore_discard', async () => {
  const stack = disks();
  await stack.create('p', `${POOL} 1 ignore_discard`);
  assert.match(await stack.status('p'), / rw ignore_discard queue_if_no_space - 256 $/);
  await stack.message('p', 'create_thin 0');
  const t0 = await stack.create('t0', '0 65536 thin /dev/mapper/p 0');
  await assert.rejects(discard(t0, 0, 65536), { errno: 'EOPNOTSUPP' });
  assert.equal(t0.limits.maxDiscardSectors, 0);
  assert.equal(stack.device('p').limits.maxDiscardSectors, 0);
});

test('scenario 20: a thin device shrinks, grows and is read-only by reload', async () => {
  const stack = await poolWithThin();
  const t0 = stack.device('t0');
  for (let i = 0; i < 16; i++) await fill(t0, i * 64 * K, 64 * K, i + 1);
  await stack.reload('t0', '0 1024 thin /dev/mapper/p 0');
  await stack.resume('t0');
  assert.equal(t0.sizeSectors, 1024);
  assert.equal(await stack.status('t0'), '0 1024 thin 2048 2047');
  await assert.rejects(read(t0, 1024 * 512, 4096), { errno: 'EIO' });
  await stack.reload('t0', '0 4096 thin /dev/mapper/p 0');
  await stack.resume('t0');
  assert.equal(runs(await read(t0, 8 * 64 * K, 64 * K)), '65536x09');
  await refused(stack, 'ENODATA', () => stack.reload('t0', '0 1024 thin /dev/mapper/p 7'));
  await stack.remove('t0');
  const ro = await stack.create('ro', '0 1024 thin /dev/mapper/p 0', { readOnly: true });
  assert.equal(runs(await read(ro, 0, 4096)), '4096x01');
  await assert.rejects(fill(ro, 0, 4096, 1), { errno: 'EPERM' });
});

test('scenario 39: a read of a thin device waits while its pool is suspended', async () => {
  const stack = await poolWithThin();
  const t0 = stack.device('t0');
  await fill(t0, 0, 4096, 0x11);
  await stack.suspend('p');
  let done = false;
  const reading = read(t0, 0, 4096).then((bytes) => {
    done = true;
    return bytes;
  });
  assert.equal(t0.isSuspended, false, 'the thin device shows as active');
  assert.equal(await stack.status('t0'), '0 65536 thin 128 127');
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.equal(done, false);
  await stack.resume('p');
  assert.equal(runs(await reading), '4096x11');
  assert.equal(stack.device('p').openCount, 1);
});

test('scenario 45: I/O across blocks, and through the pool device', async () => {
  const stack = await poolWithThin();
  const t0 = stack.device('t0');
  await fill(t0, 61440, 8192, 0x11);
  assert.equal(await stack.status('t0'), '0 65536 thin 256 255');
  await fill(t0, 131072, 131072, 0x22);
  assert.equal(await stack.status('t0'), '0 65536 thin 512 511');
  assert.equal(runs(await read(stack.device('p'), 0, 64 * K)), '61440x00 4096x11');
});
