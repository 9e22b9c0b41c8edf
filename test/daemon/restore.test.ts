/**
 * `devmapper daemon --restore`: what was there comes back, in whichever order it was made, after a
 * crash as after a clean stop; what cannot come back is kept and said.
 */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { test } from 'node:test';
import { DaemonProcess } from '../helpers/daemon.ts';
import { scratchDir } from '../helpers/programs.ts';

const MIB = 1024 * 1024;

type Body = (open: (...args: string[]) => Promise<DaemonProcess>, dir: string) => Promise<void>;

/** A state directory, and a way to start daemons in it, one after the other. */
async function inStateDir(body: Body): Promise<void> {
  const { dir, remove } = scratchDir();
  let daemon: DaemonProcess | null = null;
  try {
    await body(async (...args) => (daemon = await DaemonProcess.start({ dir, args })), dir);
  } finally {
    await (daemon as DaemonProcess | null)?.stop();
    remove();
  }
}

const tablesOf = (dir: string): string => fs.readFileSync(`${dir}/tables`, 'utf8');

/** Tables, numbers, uuids and read-only state of all devices. */
async function everything(daemon: DaemonProcess): Promise<string> {
  const fields = 'name,uuid,major,minor,attr';
  const info = await daemon.dmsetup('info', '-c', '--noheadings', '-o', fields);
  return `${info}${await daemon.dmsetup('table')}`;
}

/** A pool with a thin device, on files of which one has an odd name; and more. */
async function makeStack(daemon: DaemonProcess): Promise<void> {
  const [meta, data] = [daemon.disk('meta', 4 * MIB), daemon.disk('data,1;2', 32 * MIB)];
  // Later names come first in the file, and are needed first.
  await daemon.dmsetup('create', 'z', '--table', `0 65536 linear ${data} 0`);
  await daemon.dmsetup('create', 'p', '--table', `0 65536 thin-pool ${meta} /dev/mapper/z 128 0`);
  await daemon.dmsetup('message', 'p', '0', 'create_thin 0');
  await daemon.dmsetup('create', 'a thin', '-u', 'U;1', '--table', '0 8192 thin 254:1 0');
  await daemon.dmsetup('create', 'r', '-r', '--table', '0 8 zero\n8 8 error');
}

for (const ending of ['kill', 'stop'] as const) {
  test(`what was there comes back after a ${ending}`, async () => {
    await inStateDir(async (open, dir) => {
      const first = await open();
      await makeStack(first);
      const before = await everything(first);
      await first[ending]();
      const second = await open('--restore');
      assert.equal(await everything(second), before);
      assert.match(second.log, /restored 4 of 4 devices/);
      await second.stop();
      // And once more, from what the second one has kept.
      const third = await open('--restore');
      assert.equal(await everything(third), before);
      assert.ok(!tablesOf(dir).includes(':'), 'no number stands for a device');
    });
  });
}

test('changes are kept as they are made', async () => {
  await inStateDir(async (open, dir) => {
    const daemon = await open();
    await daemon.dmsetup('create', 'a', '--table', '0 8 zero');
    assert.equal(tablesOf(dir), 'a,,0,rw,0 8 zero \n');
    await daemon.dmsetup('create', 'b', '--table', '0 8 linear /dev/mapper/a 0');
    // Which is stored as c\x2cd; a backslash is doubled in a table, and in the concise form.
    await daemon.dmsetup('rename', 'a', 'c,d');
    const wanted = String.raw`b,,1,rw,0 8 linear /dev/mapper/c\\\\x2cd 0;c\\x2cd,,0,rw,0 8 zero `;
    assert.equal(tablesOf(dir), `${wanted}\n`);
    await daemon.dmsetup('load', 'b', '--table', '0 4 error');
    assert.match(tablesOf(dir), /linear/, 'an inactive table is not kept');
    await daemon.dmsetup('resume', 'b');
    await daemon.dmsetup('remove', 'c,d');
    assert.equal(tablesOf(dir), 'b,,1,rw,0 4 error \n');
    await daemon.dmsetup('create', 'n', '--notable');
    await daemon.dmsetup('remove', 'b');
    assert.equal(tablesOf(dir), '');
  });
});

test('what cannot come back is said, and kept until there is one of its name', async () => {
  await inStateDir(async (open, dir) => {
    const first = await open();
    const disk = first.disk('disk', MIB);
    await first.dmsetup('create', 'a', '--table', `0 8 linear ${disk} 0`);
    await first.dmsetup('create', 'b', '--table', '0 8 linear /dev/mapper/a 0');
    await first.dmsetup('create', 'c', '--table', '0 8 zero');
    await first.kill();
    fs.renameSync(disk, `${disk}.away`);
    const second = await open('--restore');
    assert.match(await second.dmsetup('ls'), /^c\t\(254:2\)\n$/);
    assert.match(second.log, /a cannot be restored: Device lookup failed/);
    assert.match(second.log, /restored 1 of 3 devices/);
    await second.dmsetup('create', 'b', '--table', '0 16 zero');
    await second.stop();
    fs.renameSync(`${disk}.away`, disk);
    const third = await open('--restore');
    assert.equal(await third.dmsetup('table', 'b'), '0 16 zero \n');
    assert.match(await third.dmsetup('table', 'a'), /^0 8 linear /);
    assert.equal(tablesOf(dir).split(';').length, 3);
  });
});

test('without --restore the file of the last daemon is put aside', async () => {
  await inStateDir(async (open, dir) => {
    const first = await open();
    await first.dmsetup('create', 'a', '--table', '0 8 zero');
    await first.stop();
    const second = await open();
    assert.match(await second.dmsetup('ls'), /No devices found/);
    assert.equal(fs.readFileSync(`${dir}/tables.previous`, 'utf8'), 'a,,0,rw,0 8 zero \n');
    await second.dmsetup('create', '--concise', fs.readFileSync(`${dir}/tables.previous`, 'utf8'));
    assert.equal(tablesOf(dir), 'a,,0,rw,0 8 zero \n');
  });
});

test('a file that is no list of devices is refused and left alone', async () => {
  await inStateDir(async (open, dir) => {
    fs.writeFileSync(`${dir}/tables`, 'nonsense');
    await assert.rejects(open('--restore'), /tables: Five comma-separated fields are required/);
    assert.equal(fs.readFileSync(`${dir}/tables`, 'utf8'), 'nonsense');
  });
});

test('devices that cannot be kept are there all the same, and the log says so', async () => {
  await inStateDir(async (open, dir) => {
    const daemon = await open();
    fs.mkdirSync(`${dir}/tables.new`);
    await daemon.dmsetup('create', 'a', '--table', '0 8 zero');
    assert.match(await daemon.dmsetup('ls'), /^a\t/);
    assert.match(daemon.log, /the devices cannot be kept in .*tables: EISDIR/);
    fs.rmdirSync(`${dir}/tables.new`);
    await daemon.dmsetup('status');
    assert.equal(tablesOf(dir), 'a,,0,rw,0 8 zero \n');
  });
});
