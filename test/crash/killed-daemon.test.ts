/**
 * The daemon is killed (SIGKILL) under load, with real files and clients over its socket, again and
 * again: what clients had flushed is there, what they had not is old or new, Debian's thin_check
 * passes, and a real kernel opens the pool and reads the same.
 *
 * A killed process loses nothing that it wrote to a file: a lost promise would show as a mapping
 * that was not committed. Time is counted in requests and answers.
 */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { SECTOR_SIZE } from '../../src/base/numbers.ts';
import { assertClean } from '../helpers/check.ts';
import { runInKernel, skipWithoutKernel } from '../helpers/kernel.ts';
import { Cmd, Flag, NbdClient } from '../helpers/nbd-client.ts';
import { scratchDir, skipWithout } from '../helpers/programs.ts';
import { Random, seedOf } from '../helpers/random.ts';
import { Host, MIB, ServedPool } from '../helpers/served-pool.ts';
import { deviceOf } from '../helpers/thin-images.ts';
import { NEVER, stampOf, stampSectors, UNMAPPED, VolumeHistory } from './history.ts';
import { BLOCK_SECTORS, World, type Found } from './world.ts';

const VOLUME_BLOCKS = 16;
const VOLUME_SECTORS = VOLUME_BLOCKS * BLOCK_SECTORS;
const VOLUME_BYTES = VOLUME_SECTORS * SECTOR_SIZE;
const DATA_BYTES = 64 * MIB;
const CLIENTS_PER_VOLUME = 2;
const VOLUMES_MAX = 5;
const ROUNDS = 4;
const FLUSHES_MIN = 10;
const NOTHING_UNDER = new Uint32Array(VOLUME_SECTORS);

/** Clients at work on the volumes of a pool, until the daemon is gone. */
class Load {
  readonly world: World;
  readonly #pool: ServedPool;
  readonly #random: Random;
  #time = 1;
  #isOver = false;
  #lastStamp: number;
  /** Volumes whose clients pause, and what they wait for. */
  readonly #pauses = new Map<number, Promise<void>>();
  /** Requests under way by volume. */
  readonly #nrUnderWay = new Map<number, number>();
  nrFlushes = 0;

  constructor(pool: ServedPool, random: Random, before: Found, lastStamp: number) {
    this.#pool = pool;
    this.#random = random;
    this.#lastStamp = lastStamp;
    this.world = new World(0);
    for (const [id, content] of before.contents) {
      const created = { submit: 0, end: 0 };
      this.world.volumes.push(new VolumeHistory(id, created, content, NOTHING_UNDER));
    }
  }

  get time(): number {
    return this.#time;
  }

  get lastStamp(): number {
    return this.#lastStamp;
  }

  /** Activates what is there, and lets clients work on it for a while; then kills the daemon. */
  async run(ms: number): Promise<void> {
    const work: Promise<void>[] = [];
    if (this.world.ids.length === 0) await this.#create(0);
    for (const id of this.world.ids) work.push(...(await this.#serve(id)));
    const control = this.#snapshots(work);
    await new Promise((resolve) => setTimeout(resolve, ms));
    // However slow the machine is: something must have been promised.
    while (this.nrFlushes < FLUSHES_MIN || this.world.ids.length < 2) {
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    this.#isOver = true;
    await this.#pool.daemon.kill();
    await control;
    await Promise.all(work);
  }

  async #create(id: number): Promise<void> {
    const created = { submit: this.#time++, end: NEVER };
    const volume = new VolumeHistory(id, created, NOTHING_UNDER, NOTHING_UNDER);
    this.world.volumes.push(volume);
    await this.#pool.message('pool', `create_thin ${id}`);
    created.end = this.#time++;
  }

  /** Two clients, each with one half of the volume, so that nobody overwrites another's write. */
  async #serve(id: number): Promise<Promise<void>[]> {
    await this.#pool.create(`t${id}`, this.#pool.table(id, VOLUME_BYTES));
    return Array.from({ length: CLIENTS_PER_VOLUME }, (_, i) => this.#client(id, i));
  }

  async #client(id: number, index: number): Promise<void> {
    const client = await NbdClient.connect(this.#pool.daemon.nbdSocket);
    await client.greet();
    await client.choose('structured');
    await client.go(`t${id}`);
    try {
      while (!this.#isOver) {
        await this.#pauses.get(id);
        this.#nrUnderWay.set(id, (this.#nrUnderWay.get(id) ?? 0) + 1);
        await this.#request(client, id, index);
        this.#nrUnderWay.set(id, (this.#nrUnderWay.get(id) ?? 0) - 1);
      }
    } catch (error) {
      if (!this.#isOver) throw error;
    }
    client.destroy();
  }

  async #request(client: NbdClient, id: number, index: number): Promise<void> {
    const random = this.#random;
    const perClient = VOLUME_BLOCKS / CLIENTS_PER_VOLUME;
    const block = index * perClient + random.below(perClient);
    const first = block * BLOCK_SECTORS;
    const roll = random.next();
    if (roll < 0.1) return this.#flush(client, id);
    if (roll < 0.2) return this.#trim(client, id, first);
    if (roll < 0.5) return this.#write(client, id, first, BLOCK_SECTORS, roll < 0.25);
    const offset = random.below(BLOCK_SECTORS - 8);
    return this.#write(client, id, first + offset, 8, roll < 0.6);
  }

  async #write(
    client: NbdClient,
    id: number,
    begin: number,
    nrSectors: number,
    isFua: boolean,
  ): Promise<void> {
    const stamp = ++this.#lastStamp;
    const data = Buffer.alloc(nrSectors * SECTOR_SIZE);
    stampSectors(data, stamp, begin);
    const volume = this.world.volume(id);
    const record = volume.begin(begin, begin + nrSectors, stamp, this.#time++);
    await client.writeAt(begin * SECTOR_SIZE, data, isFua ? Flag.FUA : 0);
    volume.end(record, this.#time++, isFua);
  }

  async #trim(client: NbdClient, id: number, begin: number): Promise<void> {
    const volume = this.world.volume(id);
    const record = volume.begin(begin, begin + BLOCK_SECTORS, UNMAPPED, this.#time++);
    const length = BLOCK_SECTORS * SECTOR_SIZE;
    const reply = await client.command(Cmd.TRIM, { offset: begin * SECTOR_SIZE, length });
    assert.equal(reply.error, 0);
    volume.end(record, this.#time++, false);
  }

  async #flush(client: NbdClient, id: number): Promise<void> {
    const submit = this.#time++;
    await client.flush();
    this.world.volume(id).flushed(submit, this.#time++);
    this.nrFlushes++;
  }

  /** Takes a snapshot now and then, of a suspended volume, and lets clients work on it. */
  async #snapshots(work: Promise<void>[]): Promise<void> {
    try {
      for (let fresh = 1; !this.#isOver; fresh++) {
        await new Promise((resolve) => setTimeout(resolve, 60));
        const { ids } = this.world;
        if (ids.length >= VOLUMES_MAX || ids.includes(fresh)) continue;
        work.push(...(await this.#snapshot(fresh, this.#random.pick(ids))));
      }
    } catch (error) {
      if (!this.#isOver) throw error;
    }
  }

  async #snapshot(fresh: number, id: number): Promise<Promise<void>[]> {
    // The origin's clients pause, so that it is known what the snapshot holds.
    let goOn = (): void => undefined;
    this.#pauses.set(id, new Promise((resolve) => (goOn = resolve)));
    while ((this.#nrUnderWay.get(id) ?? 0) > 0 && !this.#isOver) {
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    try {
      await this.#pool.suspend(`t${id}`);
      const created = { submit: this.#time++, end: NEVER };
      this.world.volumes.push(this.world.volume(id).snapshot(fresh, created, NOTHING_UNDER));
      await this.#pool.message('pool', `create_snap ${fresh} ${id}`);
      created.end = this.#time++;
      await this.#pool.resume(`t${id}`);
    } finally {
      this.#pauses.delete(id);
      goOn();
    }
    return this.#serve(fresh);
  }
}

/** What is in the files. */
async function verify(load: Load, pool: ServedPool): Promise<Found> {
  await assertClean(pool.metadata);
  const metadata = await deviceOf(fs.readFileSync(pool.metadata));
  const data = await deviceOf(fs.readFileSync(pool.data));
  return load.world.verify(load.time, metadata, data);
}

/** The content of a volume in a real kernel. */
async function readThere(pool: ServedPool, found: Found): Promise<Map<number, Uint32Array>> {
  const { dir, remove } = scratchDir();
  const script = [
    `dmsetup create p --table "0 ${DATA_BYTES / SECTOR_SIZE} thin-pool /dev/ubda /dev/ubdb 128 0"`,
    ...[...found.contents.keys()].flatMap((id) => [
      `dmsetup create t${id} --table "0 ${VOLUME_SECTORS} thin /dev/mapper/p ${id}"`,
      `dd if=/dev/mapper/t${id} of=${dir}/t${id} bs=64k 2>/dev/null`,
      `dmsetup remove t${id}`,
    ]),
    'dmsetup status p',
    'dmsetup remove p',
  ];
  const disks = [pool.metadata, pool.data];
  const { code, stdout, stderr } = await runInKernel(script.join('\n'), { disks, dir });
  assert.equal(code, 0, stdout + stderr);
  assert.match(stdout, / rw /);
  const contents = new Map<number, Uint32Array>();
  for (const id of found.contents.keys()) {
    contents.set(id, contentOf(fs.readFileSync(path.join(dir, `t${id}`))));
  }
  remove();
  return contents;
}

function contentOf(bytes: Buffer): Uint32Array {
  const aligned = new Uint8Array(bytes);
  return Uint32Array.from({ length: VOLUME_SECTORS }, (_, sector) =>
    stampOf(aligned, sector * SECTOR_SIZE, sector),
  );
}

const skip = skipWithoutKernel() || skipWithout('thin_check', 'thin_restore');
const seed = seedOf(60);

test(`what clients flushed outlives a killed daemon (seed ${seed})`, { skip }, async () => {
  const { dir, remove } = scratchDir();
  const random = new Random(seed);
  const host = await Host.start({ dir });
  try {
    const pool = await ServedPool.make(host, { dataBytes: DATA_BYTES });
    let found: Found = { transactionId: 0, contents: new Map() };
    let lastStamp = 1;
    for (let round = 0; round < ROUNDS; round++) {
      const load = new Load(pool, random, found, lastStamp);
      await load.run(random.between(300, 1200));
      found = await verify(load, pool);
      lastStamp = load.lastStamp;
      await pool.crash();
    }
    assert.ok(found.contents.size > 1, 'there are snapshots');
    await host.daemon.kill();
    const contents = await readThere(pool, found);
    assert.deepEqual(contents, found.contents);
    await assertClean(pool.metadata);
  } finally {
    await host.daemon.kill();
    remove();
  }
});
