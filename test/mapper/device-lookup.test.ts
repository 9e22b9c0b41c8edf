/**
 * What the words of a table lead to: mapped devices, files, block devices and devices made known by
 * name, and how often each is open.
 */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { OpenDevices } from '../../src/block/open-devices.ts';
import { parseTable } from '../../src/mapper/table-grammar.ts';
import { scratchDir } from '../helpers/programs.ts';
import { fill, read, runs, Stack } from '../helpers/stack.ts';
import { attachLoop, skipWithoutLoop } from '../helpers/subjects.ts';

function withFile(body: (file: string, dir: string) => Promise<void>): Promise<void> {
  const { dir, remove } = scratchDir();
  const file = path.join(dir, 'disk');
  fs.writeFileSync(file, Buffer.alloc(65536));
  return body(file, dir).finally(remove);
}

test('a table word is a path or a number, and is printed as a number', () =>
  withFile(async (file, dir) => {
    const stack = new Stack();
    stack.disk('ubda', 1024);
    const device = stack.registry.create('t');
    const load = (words: string): Promise<void> =>
      stack.registry.load(device, parseTable(`0 8 linear ${words} 0`), { cwd: dir });
    fs.linkSync(file, path.join(dir, 'other name'));
    for (const [word, number] of [
      [file, '240:0'],
      ['disk', '240:0'],
      ['./x/../disk', '240:0'],
      ['other\\ name', '240:0'],
      ['240:0', '240:0'],
      ['/dev/ubda', '98:0'],
      ['98:0', '98:0'],
    ] as const) {
      await load(word);
      const [line] = await stack.registry.lines(device, 'TABLE', { inactive: true });
      assert.equal(line, `0 8 linear ${number} 0`, word);
    }
    for (const [word, errno] of [
      ['nosuch', 'ENODEV'],
      ['.', 'ENODEV'],
      ['240:1', 'ENXIO'],
      ['98:1', 'ENXIO'],
      ['254:0x', 'ENODEV'],
      ['254:1', 'ENXIO'],
      ['1048576:1048576', 'ENXIO'],
    ] as const) {
      await assert.rejects(load(word), { errno }, word);
    }
    await stack.remove('t');
  }));

test('a file is open as long as a table uses it, and refused if another process has it', () =>
  withFile(async (file) => {
    const stack = new Stack();
    // Another set of open devices locks as another process would.
    const others = new OpenDevices();
    const isFree = async (): Promise<boolean> => {
      try {
        await others.openPath(file, false).release();
        return true;
      } catch {
        return false;
      }
    };
    const device = stack.registry.create('t');
    const table = `0 8 linear ${file} 0\n8 8 linear ${file} 8`;
    await stack.reload('t', table);
    assert.equal(await isFree(), false);
    await stack.registry.clear(device);
    assert.equal(await isFree(), true);
    await assert.rejects(stack.reload('t', `${table}\n16 8 nosuch`), { errno: 'EINVAL' });
    assert.equal(await isFree(), true);
    await stack.reload('t', table);
    await stack.resume('t');
    await stack.reload('t', table);
    await fill(device, 0, 8192, 0x11);
    await stack.resume('t');
    assert.equal(runs(await read(device, 0, 8192)), '8192x11', 'it stayed open');
    await stack.remove('t');
    assert.equal(await isFree(), true);
    const theirs = others.openPath(file, false);
    stack.registry.create('t');
    stack.log.take();
    await assert.rejects(stack.reload('t', table), { errno: 'EBUSY' });
    assert.equal(stack.log.take()[0], 'table: 254:0: linear: Device lookup failed (-EBUSY)');
    await theirs.release();
  }));

test('a file that has grown is as large as it is when its table is looked at', () =>
  withFile(async (file) => {
    const stack = new Stack();
    const device = await stack.create('t', `0 128 linear ${file} 0`);
    await stack.reload('t', `0 256 linear ${file} 0`);
    await assert.rejects(stack.resume('t'), { errno: 'EINVAL' });
    fs.truncateSync(file, 256 * 512);
    await stack.reload('t', `0 256 linear ${file} 0`);
    await stack.resume('t');
    await fill(device, 255 * 512, 512, 0x55);
    assert.equal(runs(await read(device, 127 * 512, 129 * 512)), '65536x00 512x55');
    await stack.remove('t');
  }));

test('a mapped device is open once for each device and mode that uses it', async () => {
  const stack = new Stack();
  const below = await stack.create('below', '0 64 zero');
  const line = '0 8 linear /dev/mapper/below 0';
  const two = `${line}\n8 8 linear 254:0 8`;
  await stack.create('a', two);
  assert.equal(below.openCount, 1);
  await stack.create('b', two, { readOnly: true });
  assert.equal(below.openCount, 2);
  await stack.reload('b', line);
  assert.equal(below.openCount, 3, 'b has it for reading, and for writing');
  await stack.reload('a', line);
  assert.equal(below.openCount, 3);
  await stack.resume('b');
  assert.equal(below.openCount, 2);
  await stack.remove('a');
  await stack.remove('b');
  assert.equal(below.openCount, 0);
});

/* The kernel lets the write through, with a warning; see docs/differences.md. */
test('what is read-only stays so under a table that is not', async () => {
  const stack = new Stack();
  stack.disk('x', 64);
  await stack.create('below', '0 64 linear /dev/x 0', { readOnly: true });
  const device = await stack.create('t', '0 64 linear /dev/mapper/below 0');
  assert.equal(device.readOnly, false);
  await assert.rejects(fill(device, 0, 4096, 1), { errno: 'EPERM' });
  assert.equal(runs(await read(device, 0, 4096)), '4096x00');
});

test(
  'a block device that nobody has opened yet is found by its number',
  {
    skip: skipWithoutLoop,
  },
  () =>
    withFile(async (file) => {
      const loop = attachLoop(file);
      assert.ok(loop !== null);
      try {
        const number = fs
          .readFileSync(`/sys/class/block/${path.basename(loop.node)}/dev`, 'utf8')
          .trim();
        const stack = new Stack();
        const device = await stack.create('t', `0 64 linear ${number} 64`);
        assert.equal(await stack.table('t'), `0 64 linear ${number} 64`);
        await fill(device, 0, 4096, 0x22, true);
        assert.equal(runs(await read(device, 0, 8192)), '4096x22 4096x00');
        assert.equal(device.live?.devices[0]?.device.name, path.basename(loop.node));
        await stack.remove('t');
      } finally {
        loop.detach();
      }
    }),
);

test('nodes of mapped devices are those of this registry, whatever the system has there', () => {
  const stack = new Stack();
  const a = stack.registry.create('a');
  const { lookup } = stack.registry;
  for (const node of ['/dev/mapper/a', '/dev/dm-0']) assert.equal(lookup.findByPath(node), a);
  for (const node of ['/dev/mapper/b', '/dev/dm-1', '/dev/dm-', '/dev/mapper', '/dev/mapper/a/']) {
    assert.equal(lookup.findByPath(node), undefined, node);
  }
});
