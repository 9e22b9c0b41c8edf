/**
 * The founding document: "dm cache: prevent entering passthrough mode after unclean shutdown". Its
 * reproduction, in its order and with our commands, and each detail that it names (spec: cache, 17
 * and 20.1).
 */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { test } from 'node:test';
import { CacheMetadata } from '../../src/cache/metadata/cache-metadata.ts';
import { silentLog } from '../../src/base/log.ts';
import { readCacheImage } from '../../src/cache/tools/cache-image.ts';
import { DaemonProcess } from '../helpers/daemon.ts';
import { must, skipWithout } from '../helpers/programs.ts';
import { deviceOf } from '../helpers/thin-images.ts';

const KIB = 1024;
const BLOCK = 64 * KIB;
const MIB = KIB * KIB;
/** Of the status line: the dirty count is the 14th of the words that follow start and length. */
const DIRTY_FIELD = 14;

const skip = skipWithout('fio', 'cache_check');

class Machine {
  daemon: DaemonProcess;
  readonly metadata: string;
  readonly fast: string;
  readonly origin: string;

  private constructor(daemon: DaemonProcess) {
    this.daemon = daemon;
    this.metadata = daemon.disk('cmeta', 4 * MIB);
    this.fast = daemon.disk('cdata', 64 * MIB);
    this.origin = daemon.disk('corig', 128 * MIB);
  }

  static async start(): Promise<Machine> {
    return new Machine(await DaemonProcess.start());
  }

  table(args: string): string {
    return `0 262144 cache ${this.metadata} ${this.fast} ${this.origin} ${args}`;
  }

  async create(args: string): Promise<void> {
    await this.daemon.dmsetup('create', 'cache', '--table', this.table(args));
  }

  /** The fields of the status line, as the document counts them. */
  async fields(): Promise<string[]> {
    return ['', ...(await this.daemon.dmsetup('status', 'cache')).trim().split(' ')];
  }

  async dirty(): Promise<number> {
    return Number((await this.fields())[DIRTY_FIELD]);
  }

  /** fio's sequential 4 KiB writes over the first `length` bytes. */
  async fio(name: string, length: number): Promise<void> {
    const uri = this.daemon.uri('cache');
    const args = ['--ioengine=nbd', `--uri=${uri}`, '--rw=write', '--bs=4k', `--size=${length}`];
    await must('fio', [`--name=${name}`, ...args]);
  }

  /** The daemon dies, and another one starts. */
  async crash(): Promise<void> {
    await this.daemon.kill();
    this.daemon = await DaemonProcess.start({ dir: this.daemon.dir });
  }

  /** The first block of a device, as it is in its file. */
  firstBlock(file: string): Buffer {
    const fd = fs.openSync(file, 'r');
    const data = Buffer.alloc(BLOCK);
    fs.readSync(fd, data, 0, BLOCK, 0);
    fs.closeSync(fd);
    return data;
  }

  async image(): Promise<ReturnType<typeof readCacheImage>> {
    return readCacheImage(await deviceOf(fs.readFileSync(this.metadata)));
  }

  async untilClean(): Promise<void> {
    const deadline = Date.now() + 20_000;
    while ((await this.dirty()) > 0) {
      assert.ok(Date.now() < deadline, 'dirty blocks are written back');
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }

  async close(): Promise<void> {
    const { dir } = this.daemon;
    await this.daemon.stop();
    fs.rmSync(dir, { recursive: true, force: true });
  }
}

const WRITEBACK = '128 2 metadata2 writeback smq 2 migration_threshold 0';
const PASSTHROUGH = '128 2 metadata2 passthrough smq 0';

test('the reproduction, steps 1 to 7: no data is lost', { skip }, async () => {
  const machine = await Machine.start();
  try {
    // 1 and 2: a writeback cache, and 16 writes of 4 KiB to its first block.
    await machine.create(WRITEBACK);
    await machine.fio('populate', BLOCK);
    // 3: the status query commits, without writing the dirty bits; the block is dirty.
    const fields = await machine.fields();
    assert.equal(fields[DIRTY_FIELD], '1');
    const onDisk = await machine.image();
    assert.equal(onDisk.superblock.cleanShutdown, false);
    assert.deepEqual(onDisk.mappings, [{ cblock: 0, oblock: 0, isDirty: false }]);
    // 4 and 5: a crash, after which the devices differ in the first block.
    await machine.crash();
    await must('cache_check', [machine.metadata]);
    const dirtyBlock = machine.firstBlock(machine.fast);
    assert.ok(!dirtyBlock.equals(machine.firstBlock(machine.origin)));
    // 6: passthrough is refused.
    const refused = await machine.daemon.tryDmsetup(
      'create',
      'cache',
      '--table',
      machine.table(PASSTHROUGH),
    );
    assert.notEqual(refused.code, 0);
    assert.match(
      refused.stderr,
      /^device-mapper: resume ioctl on cache {2}failed: Invalid argument$/m,
    );
    const text = 'unable to resume into passthrough mode after unclean shutdown';
    assert.match(refused.stderr, new RegExp(`^device-mapper: cache: 254:0: ${text}$`, 'm'));
    const gone = await machine.daemon.tryDmsetup('status', 'cache');
    assert.match(gone.stdout + gone.stderr, /does not exist/);
    // In writeback mode the device is usable, and every block dirty again.
    await machine.create(WRITEBACK);
    assert.equal(await machine.dirty(), 1);
    await machine.daemon.dmsetup('message', 'cache', '0', 'migration_threshold 2048');
    await machine.untilClean();
    await machine.daemon.dmsetup('remove', 'cache');
    assert.ok(machine.firstBlock(machine.origin).equals(dirtyBlock), 'written back');
    // After the clean shutdown passthrough is accepted.
    await machine.create(PASSTHROUGH);
    assert.equal(await machine.dirty(), 0);
    // 7: a write through it invalidates the block; nothing of what was dirty is lost.
    await machine.fio('invalidate', 4 * KIB);
    await machine.daemon.dmsetup('remove', 'cache');
    const rest = machine.firstBlock(machine.origin).subarray(4 * KIB);
    assert.ok(rest.equals(dirtyBlock.subarray(4 * KIB)), 'the last 60 KiB are those of step 2');
    assert.deepEqual((await machine.image()).mappings, []);
    await must('cache_check', [machine.metadata]);
  } finally {
    await machine.close();
  }
});

test('passthrough after a crash is refused even if nothing is cached', { skip }, async () => {
  const machine = await Machine.start();
  try {
    await machine.create(WRITEBACK);
    await machine.fields();
    await machine.crash();
    const table = machine.table(PASSTHROUGH);
    const { code, stderr } = await machine.daemon.tryDmsetup('create', 'cache', '--table', table);
    assert.notEqual(code, 0);
    assert.match(stderr, /unable to resume into passthrough mode after unclean shutdown/);
  } finally {
    await machine.close();
  }
});

test('a resume that failed once is refused until a table is loaded', { skip }, async () => {
  const machine = await Machine.start();
  try {
    await machine.create(WRITEBACK);
    await machine.fio('populate', BLOCK);
    await machine.daemon.dmsetup('remove', 'cache');
    await machine.daemon.dmsetup('create', 'cache', '--notable');
    await machine.daemon.dmsetup('load', 'cache', '--table', machine.table(PASSTHROUGH));
    const first = await machine.daemon.tryDmsetup('resume', 'cache');
    assert.match(first.stderr, /Device or resource busy/);
    assert.match(first.stderr, /cannot enter passthrough mode unless all blocks are clean/);
    const again = await machine.daemon.tryDmsetup('resume', 'cache');
    assert.match(again.stderr, /unable to resume cache due to missing proper cache table reload/);
    await machine.daemon.dmsetup('load', 'cache', '--table', machine.table(WRITEBACK));
    await machine.daemon.dmsetup('resume', 'cache');
    assert.equal(await machine.dirty(), 1);
  } finally {
    await machine.close();
  }
});

test('the target says that it is version 2.4.0', { skip }, async () => {
  const machine = await Machine.start();
  try {
    assert.match(await machine.daemon.dmsetup('targets'), /^cache +v2\.4\.0$/m);
  } finally {
    await machine.close();
  }
});

test('the metadata tells whether it was clean when opened', async () => {
  const device = await deviceOf(new Uint8Array(4 * MIB));
  const options = { dataBlockSize: 128, mayFormat: true, format: 2 } as const;
  const open = (): Promise<CacheMetadata> => CacheMetadata.open(device, silentLog, options);
  const fresh = await open();
  assert.equal(fresh.cleanWhenOpened, true, 'formatted');
  fresh.resize(16);
  await fresh.commit(true);
  assert.equal((await open()).cleanWhenOpened, true, 'after a clean shutdown');
  assert.equal((await open()).cleanWhenOpened, false, 'opened, and never shut down');
});
