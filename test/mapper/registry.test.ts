/**
 * The registry: names, uuids and minors; the life of a device through its tables; who keeps whom
 * from going; messages; and the end of everything.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { errno } from '../../src/base/errno.ts';
import { DmError } from '../../src/base/error.ts';
import { BioOp } from '../../src/block/bio.ts';
import { MemoryDevice } from '../../src/block/memory-device.ts';
import type { MappedDevice } from '../../src/mapper/mapped-device.ts';
import { parseTable } from '../../src/mapper/table-grammar.ts';
import { submit } from '../helpers/block-device-suite.ts';
import { HeldDevice } from '../helpers/held-device.ts';
import { ProbeType } from '../helpers/probe-target.ts';
import { read, Stack } from '../helpers/stack.ts';

function probed(): { stack: Stack; probe: ProbeType } {
  const stack = new Stack();
  const probe = new ProbeType();
  stack.registry.register(probe);
  stack.disk('x', 1024);
  return { stack, probe };
}

const names = ({ registry }: Stack): string[] => registry.devices.map(({ dmName }) => dmName);

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

// --- names and numbers

test('names and uuids are unique, and of limited length in bytes', () => {
  const { registry } = new Stack();
  registry.create('a', 'U1');
  assert.throws(() => registry.create('a'), { errno: 'EBUSY' });
  assert.throws(() => registry.create('b', 'U1'), { errno: 'EBUSY' });
  registry.create('b');
  registry.create('c', '');
  assert.equal(registry.create('x'.repeat(127), 'u'.repeat(128)).dmName.length, 127);
  const long = ['x'.repeat(128), 'ä'.repeat(64), 'a/b', '/', ''];
  for (const name of long) assert.throws(() => registry.create(name), { errno: 'EINVAL' });
  assert.throws(() => registry.create('d', 'u'.repeat(129)), { errno: 'EINVAL' });
  assert.equal(registry.find({ name: 'd' }), undefined);
  assert.equal(registry.create('any \\x thing:=\n').minor, 4);
});

test('a minor is the lowest free one, or the one that is asked for', async () => {
  const stack = new Stack();
  const { registry } = stack;
  const minors = (): number[] => registry.devices.map(({ minor }) => minor);
  for (const name of ['a', 'b', 'c']) registry.create(name);
  assert.deepEqual(minors(), [0, 1, 2]);
  await stack.remove('b');
  assert.equal(registry.create('e', '', 4).minor, 4);
  for (const name of ['f', 'g', 'h']) registry.create(name);
  assert.deepEqual(
    ['f', 'g', 'h'].map((name) => stack.device(name).minor),
    [1, 3, 5],
  );
  assert.equal(stack.device('e').name, 'dm-4');
  assert.equal(stack.device('e').number, '254:4');
  assert.throws(() => registry.create('i', '', 4), { errno: 'ENXIO' });
  assert.throws(() => registry.create('i', '', 1 << 20), { errno: 'ENXIO' });
  assert.equal(registry.create('i', '', (1 << 20) - 1).minor, (1 << 20) - 1);
});

test('devices are found by name, uuid and number, and listed by name', () => {
  const stack = new Stack();
  const { registry } = stack;
  const b = registry.create('b', 'UB');
  const a = registry.create('a');
  assert.deepEqual(registry.devices, [a, b]);
  assert.equal(registry.find({ name: 'b' }), b);
  assert.equal(registry.find({ uuid: 'UB' }), b);
  assert.equal(registry.find({ major: 254, minor: 1 }), a);
  assert.equal(registry.find({ major: 253, minor: 1 }), undefined);
  assert.equal(registry.find({ name: 'UB' }), undefined);
  assert.throws(() => registry.get({ name: 'c' }), { errno: 'ENXIO' });
});

/* `dmsetup remove -u ""` would have removed the first device without a uuid. */
test('a device without a uuid is not found by the empty one', () => {
  const { registry } = new Stack();
  registry.create('a');
  assert.equal(registry.find({ uuid: '' }), undefined);
});

test('a device is renamed to a free name, and that is an event', async () => {
  const stack = new Stack();
  const { registry } = stack;
  const a = await stack.create('a', '0 8 zero');
  registry.create('b');
  const refused = (name: string, code: string): void => {
    assert.throws(() => registry.rename(a, name), { errno: code });
  };
  refused('b', 'EBUSY');
  assert.deepEqual(stack.log.take(), [
    'ioctl: Unable to change name on mapped device a to one that already exists: b',
  ]);
  refused('a', 'EBUSY');
  refused('', 'EINVAL');
  refused('x/y', 'EINVAL');
  refused('x'.repeat(128), 'EINVAL');
  assert.equal(a.events.nr, 0);
  registry.rename(a, 'c');
  assert.equal(a.events.nr, 1);
  assert.equal(registry.find({ name: 'a' }), undefined);
  assert.equal(registry.find({ name: 'c' }), a);
  registry.create('a');
  stack.log.take();
  assert.throws(() => registry.getToRename({ name: 'zz' }, 'y'), { errno: 'ENXIO' });
  assert.deepEqual(stack.log.take(), ['ioctl: Unable to rename non-existent device, zz to y']);
});

test('a uuid is given once, to a device that has none, and that is an event', async () => {
  const stack = new Stack();
  const { registry } = stack;
  const a = await stack.create('a', '0 8 zero');
  registry.create('b', 'UB');
  const refusals: [uuid: string, code: string, line: string | undefined][] = [
    ['', 'EINVAL', 'ioctl: Invalid new mapped device name or uuid string supplied.'],
    ['u'.repeat(129), 'EINVAL', undefined],
    [
      'UB',
      'EBUSY',
      'ioctl: Unable to change uuid on mapped device a to one that already exists: UB',
    ],
  ];
  for (const [uuid, code, line] of refusals) {
    assert.throws(() => registry.setUuid(a, uuid), { errno: code }, uuid);
    assert.equal(stack.log.take()[0], line);
  }
  registry.setUuid(a, 'UA');
  assert.equal(a.events.nr, 1);
  assert.equal(registry.find({ uuid: 'UA' }), a);
  assert.throws(() => registry.setUuid(a, 'UC'), { errno: 'EINVAL' });
  assert.deepEqual(stack.log.take(), [
    'ioctl: Unable to change uuid of mapped device a to UC because uuid is already set to UA',
  ]);
});

test('target types are listed with the newest first, a later one of a name replaces it', () => {
  const { stack, probe } = probed();
  assert.equal(stack.registry.targetTypes[0], probe);
  const again = new ProbeType();
  stack.registry.register(again);
  assert.equal(stack.registry.targetType('probe'), again);
  assert.equal(stack.registry.targetTypes.filter(({ name }) => name === 'probe').length, 1);
});

// --- tables

/** As the attributes of `dmsetup info -c`. */
function state(device: MappedDevice): string {
  const flag = (on: boolean, letter: string): string => (on ? letter : '-');
  return (
    flag(device.live !== null, 'L') +
    flag(device.inactive !== null, 'I') +
    flag(device.isSuspended, 's') +
    (device.readOnly ? 'r' : 'w')
  );
}

test('a device goes through all its states', async () => {
  const { stack } = probed();
  const device = stack.registry.create('t');
  assert.equal(state(device), '---w');
  await stack.reload('t', '0 100 zero');
  assert.equal(state(device), '-I-w');
  assert.equal(device.sizeSectors, 0);
  await stack.resume('t');
  assert.equal(state(device), 'L--w');
  await stack.reload('t', '0 200 zero');
  assert.equal(state(device), 'LI-w');
  await stack.suspend('t');
  assert.equal(state(device), 'LIsw');
  assert.equal(device.sizeSectors, 100);
  await stack.registry.clear(device);
  await stack.registry.clear(device);
  assert.equal(state(device), 'L-sw');
  await stack.resume('t');
  assert.equal(state(device), 'L--w');
  await stack.registry.load(device, parseTable('0 300 zero'), { readOnly: true });
  await stack.resume('t');
  assert.equal(state(device), 'L--r');
  assert.equal(device.sizeSectors, 300);
  assert.equal(device.events.nr, 0, 'none of it is an event');
});

test('a load replaces the inactive table, a clear drops it', async () => {
  const { stack, probe } = probed();
  const device = stack.registry.create('t');
  for (const tag of ['a', 'b', 'c']) await stack.reload('t', `0 8 probe ${tag}`);
  assert.deepEqual(probe.take(), [
    'a construct',
    'b construct',
    'a destroy',
    'c construct',
    'b destroy',
  ]);
  await stack.registry.clear(device);
  assert.deepEqual(probe.take(), ['c destroy']);
  assert.equal(probe.nrAlive, 0);
});

test('loads at the same time come one after the other, the last one stays', async () => {
  const { stack, probe } = probed();
  stack.registry.create('t');
  await Promise.all(['a', 'b', 'c'].map((tag) => stack.reload('t', `0 8 probe ${tag}`)));
  await stack.resume('t');
  assert.equal(await stack.table('t'), '0 8 probe c');
  assert.equal(probe.nrAlive, 1);
});

test('whatever ends a table ends its targets and gives its devices back', async () => {
  const { stack, probe } = probed();
  const below = await stack.create('below', '0 64 zero');
  const device = stack.registry.create('t');
  const table = '0 8 probe a /dev/mapper/below\n8 8 linear /dev/mapper/below 8';
  const load = (): Promise<void> => stack.reload('t', table);
  const endings: Record<string, () => Promise<unknown>> = {
    'a clear': () => stack.registry.clear(device),
    'a resume that fails': async () => {
      await stack.reload('t', `${table}\n16 64 linear /dev/mapper/below 1`);
      await assert.rejects(stack.resume('t'), DmError);
    },
    'a swap for a table without devices': async () => {
      await stack.resume('t');
      await load();
      assert.equal(below.openCount, 1, 'two tables of a device share an opening');
      await stack.reload('t', '0 16 zero');
      assert.equal(below.openCount, 1, 'the live table has it');
      await stack.resume('t');
    },
    'a swap that the new table refuses': async () => {
      await stack.resume('t');
      await stack.reload('t', '0 16 probe b');
      probe.onHook = (hook) => {
        if (hook === 'preresume') throw new DmError('EIO', 'no');
      };
      await assert.rejects(stack.resume('t'), { errno: 'EIO' });
      probe.onHook = () => undefined;
      await stack.reload('t', '0 16 zero');
      await stack.resume('t');
    },
    'a replacement by error': async () => {
      await stack.resume('t');
      await stack.registry.replaceByError(device);
    },
    'a removal': async () => {
      await stack.resume('t');
      await load();
      await stack.remove('t');
    },
  };
  for (const [ending, end] of Object.entries(endings)) {
    await load();
    assert.equal(below.openCount, 1, ending);
    await end();
    assert.equal(below.openCount, 0, ending);
    assert.equal(probe.nrAlive, 0, ending);
  }
  await stack.remove('below');
});

test('a table of an immutable type is only replaced by one of that type', async () => {
  const { stack, probe } = probed();
  const immutable = new ProbeType();
  stack.registry.register({
    name: 'stone',
    version: [1, 0, 0],
    immutable: true,
    construct: (context, args) => immutable.construct(context, args),
  });
  const device = await stack.create('t', '0 8 zero');
  await stack.reload('t', '0 8 stone a');
  await stack.reload('t', '0 8 zero');
  await stack.reload('t', '0 8 stone b');
  await stack.resume('t');
  immutable.take();
  stack.log.take();
  await assert.rejects(stack.reload('t', '0 8 probe p'), { errno: 'EINVAL' });
  assert.equal(probe.nrAlive, 0);
  assert.deepEqual(stack.log.take(), ["ioctl: can't replace immutable target type stone"]);
  assert.equal(device.inactive, null);
  await stack.reload('t', '0 16 stone c');
  await stack.resume('t');
  assert.equal(immutable.nrAlive, 1);
});

test('a replacement by error has the same size, and fails what waits and what comes', async () => {
  const { stack, probe } = probed();
  const device = await stack.create('t', '0 24 probe a');
  await stack.suspend('t');
  const waiting = submit(device, BioOp.READ, 0, 8, { data: Buffer.alloc(4096) });
  await stack.registry.replaceByError(device);
  assert.equal(await waiting, errno.EIO);
  assert.equal(await stack.table('t'), '0 24 error ');
  assert.equal(device.isSuspended, false);
  assert.equal(probe.nrAlive, 0);
  await stack.reload('t', '0 24 zero');
  await stack.resume('t');
  await read(device, 0, 4096);
  const empty = stack.registry.create('empty');
  await stack.registry.replaceByError(empty);
  assert.equal(empty.live, null);
});

// --- who uses whom

test('a table that would map a device onto itself is refused at resume', async () => {
  const { stack } = probed();
  await stack.create('a', '0 64 zero');
  await stack.create('b', '0 32 linear /dev/mapper/a 0');
  await stack.create('c', '0 16 linear /dev/mapper/b 0\n16 16 linear /dev/x 0');
  for (const [name, onto] of [
    ['a', 'a'],
    ['a', 'c'],
    ['b', 'c'],
  ] as const) {
    await stack.reload(name, `0 8 linear /dev/x 0\n8 8 linear /dev/mapper/${onto} 0`);
    const before = await stack.table(name);
    stack.log.take();
    await assert.rejects(stack.resume(name), { errno: 'EINVAL' });
    const { number } = stack.device(name);
    assert.deepEqual(stack.log.take(), [`table: ${number}: the device would map onto itself`]);
    assert.equal(state(stack.device(name)), 'L-sw');
    assert.equal(await stack.table(name), before);
    await stack.resume(name);
  }
  assert.equal(stack.device('c').openCount, 0, 'the refused tables are gone');
  // Only what is live counts: b goes to c after c has left b.
  await stack.reload('c', '0 16 zero');
  await stack.resume('c');
  await stack.reload('b', '0 16 linear /dev/mapper/c 0');
  await stack.resume('b');
});

test('a device that another uses, or a client has open, cannot be removed', async () => {
  const { stack } = probed();
  const a = await stack.create('a', '0 64 zero');
  const b = stack.registry.create('b');
  await stack.reload('b', '0 64 linear /dev/mapper/a 0');
  await assert.rejects(stack.remove('a'), { errno: 'EBUSY' });
  assert.deepEqual(stack.registry.usersOf(a), [b]);
  assert.deepEqual(stack.registry.usersOf(b), []);
  await stack.registry.clear(b);
  a.open();
  await assert.rejects(stack.remove('a'), { errno: 'EBUSY' });
  assert.equal(a.isRemoved, false);
  a.close();
  await stack.remove('a');
  assert.deepEqual(names(stack), ['b']);
});

test('what is removed is gone: its name is free, and nothing can be done with it', async () => {
  const { stack } = probed();
  const device = await stack.create('t', '0 8 zero');
  const { registry } = stack;
  const wait = device.events.waitWhile(0);
  await stack.remove('t');
  await wait;
  assert.equal(device.isRemoved, true);
  assert.equal(device.sizeSectors, 0);
  const acts = [
    registry.load(device, parseTable('0 8 zero')),
    registry.clear(device),
    registry.suspend(device),
    registry.resume(device),
    registry.remove(device),
  ];
  for (const act of acts) await assert.rejects(act, { errno: 'ENXIO' });
  assert.equal(registry.create('t').minor, 0);
});

test('of two removals at the same time one finds nothing any more', async () => {
  const { stack } = probed();
  const device = await stack.create('t', '0 8 zero');
  const results = await Promise.allSettled([
    stack.registry.remove(device),
    stack.registry.remove(device),
  ]);
  assert.deepEqual(
    results.map(({ status }) => status),
    ['fulfilled', 'rejected'],
  );
});

test('a deferred removal comes when the last user goes, whatever happens until then', async () => {
  const { stack } = probed();
  const a = await stack.create('a', '0 64 zero');
  await stack.create('b', '0 64 linear /dev/mapper/a 0');
  assert.equal(await stack.registry.remove(a, { deferred: true }), false);
  assert.throws(() => stack.registry.create('a'), { errno: 'EBUSY' });
  await stack.reload('a', '0 200 zero');
  await stack.resume('a');
  await stack.suspend('a');
  stack.registry.rename(a, 'c');
  await stack.create('d', '0 50 linear /dev/mapper/c 0');
  await stack.remove('b');
  await turn();
  assert.deepEqual(names(stack), ['c', 'd']);
  await stack.remove('d');
  await turn();
  assert.deepEqual(names(stack), []);
  const unused = await stack.create('e', '0 8 zero');
  assert.equal(await stack.registry.remove(unused, { deferred: true }), true);
});

test('a deferred removal can be taken back, and does not hit who opens the device in time', async () => {
  const { stack } = probed();
  const a = await stack.create('a', '0 64 zero');
  a.open();
  await stack.registry.remove(a, { deferred: true });
  await assert.rejects(stack.remove('a'), { errno: 'EBUSY' });
  assert.equal(await stack.message('a', '@Cancel_Deferred_Remove'), '');
  a.close();
  await turn();
  assert.deepEqual(names(stack), ['a']);
  a.open();
  await stack.registry.remove(a, { deferred: true });
  a.close();
  a.open();
  await turn();
  assert.deepEqual(names(stack), ['a']);
  a.close();
  await turn();
  assert.deepEqual(names(stack), []);
});

// --- messages

test('a message goes to the target at its sector, with its answer back', async () => {
  const { stack, probe } = probed();
  const device = await stack.create('t', '0 8 probe a\n8 8 zero\n16 8 probe b');
  const send = (sector: number, ...words: string[]): Promise<string> =>
    stack.registry.message(device, sector, words);
  probe.take();
  stack.log.take();
  assert.equal(await send(7, 'echo', 'x y', 'z'), 'x y z');
  assert.equal(await send(16, 'Do', 'it'), '');
  assert.deepEqual(probe.take(), ['a message echo x y z', 'b message Do it']);
  const refused = async (line: string, sector: number, ...words: string[]): Promise<void> => {
    await assert.rejects(send(sector, ...words), { errno: 'EINVAL' });
    assert.deepEqual(stack.log.take(), [`ioctl: ${line}`]);
  };
  await refused('Target type does not support messages', 8, 'hello');
  await refused('Target message sector outside device.', 24, 'hello');
  await refused('Target message sector outside device.', 2 ** 50, 'hello');
  await refused('Empty message received.', 0);
  await refused('Empty message received.', 0, '');
  await refused('Unsupported message sent to DM core: @foo', 0, '@foo');
  assert.deepEqual(probe.take(), []);
  const empty = stack.registry.create('empty');
  assert.equal(await stack.registry.message(empty, 0, ['hello']), '');
});

// --- the end

test('everything ends from the top of its stacks down, with what waits failing', async () => {
  const { stack, probe } = probed();
  await stack.create('z', '0 64 probe bottom /dev/x');
  await stack.create('m', '0 64 probe middle /dev/mapper/z');
  const top = await stack.create('a', '0 64 probe top /dev/mapper/m');
  await stack.reload('z', '0 32 probe other /dev/x');
  await stack.suspend('a');
  const waiting = submit(top, BioOp.READ, 0, 8, { data: Buffer.alloc(4096) });
  probe.take();
  await stack.registry.shutDown();
  assert.equal(await waiting, errno.EIO);
  assert.deepEqual(probe.take(/suspend/), [
    'other destroy',
    'top destroy',
    'middle destroy',
    'bottom destroy',
  ]);
  assert.deepEqual(names(stack), []);
  assert.throws(() => stack.registry.create('n'), { errno: 'ESHUTDOWN' });
  await stack.registry.shutDown();
});

test('the end waits for what is on its way to a disk, and stops a suspend that waits for it', async () => {
  const { stack } = probed();
  const disk = new HeldDevice(new MemoryDevice('y', 64));
  stack.disk('y', disk);
  const device = await stack.create('t', '0 64 linear /dev/y 0');
  const write = submit(device, BioOp.WRITE, 0, 8, { data: Buffer.alloc(4096) });
  const suspend = stack.suspend('t');
  await turn();
  let ended = false;
  const end = stack.registry.shutDown().then(() => (ended = true));
  await assert.rejects(suspend, { errno: 'EINTR' });
  await turn();
  assert.equal(ended, false);
  disk.releaseAll();
  assert.equal(await write, 0);
  await end;
});

/*
 * Devices were ended as soon as nobody used them. Two of which each used the other, one of them
 * only in the table that it had loaded, stayed for ever: the daemon stopped with a pool below them
 * neither committed nor closed.
 */
test('devices that use each other in loaded tables do not keep everything from ending', async () => {
  const { stack, probe } = probed();
  const lonely = await stack.create('lonely', '0 8 zero');
  await stack.reload('lonely', '0 8 linear /dev/mapper/lonely 0');
  assert.equal(lonely.openCount, 1);
  await assert.rejects(stack.remove('lonely'), { errno: 'EBUSY' });
  await stack.create('a', '0 64 probe a /dev/x');
  await stack.create('b', '0 64 probe b /dev/mapper/a');
  await stack.reload('a', '0 64 linear /dev/mapper/b 0');
  probe.take();
  await stack.registry.shutDown();
  assert.deepEqual(names(stack), []);
  assert.deepEqual(probe.take(/suspend/), ['b destroy', 'a destroy']);
});
