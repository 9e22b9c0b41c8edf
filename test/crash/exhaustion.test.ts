/**
 * Space runs out while clients write over NBD, and comes back: what waited is written, nothing that
 * was there is lost, and the metadata is clean. Meanwhile snapshots and deletes do what they do in
 * the kernel (spec: thin, 6 and 7).
 */
import assert from 'node:assert/strict';
import { Flag, NbdClient } from '../helpers/nbd-client.ts';
import { KIB, MIB, servedTests, type ServedPool } from '../helpers/served-pool.ts';

const served = servedTests([]);

const BLOCK = 64 * KIB;
const VOLUME = 64 * BLOCK;

async function connect(pool: ServedPool, name: string): Promise<NbdClient> {
  const client = await NbdClient.connect(pool.daemon.nbdSocket);
  await client.greet();
  await client.choose('structured');
  await client.go(name);
  return client;
}

const content = (block: number): Buffer => Buffer.alloc(BLOCK, block + 1);

async function assertBlocks(client: NbdClient, begin: number, end: number): Promise<void> {
  for (let block = begin; block < end; block++) {
    const found = await client.readAt(block * BLOCK, BLOCK);
    assert.ok(found.equals(content(block)), `block ${block}`);
  }
}

/** Waits until the pool's status matches. */
async function until(pool: ServedPool, wanted: RegExp): Promise<void> {
  const deadline = Date.now() + 20_000;
  for (;;) {
    const status = await pool.status('pool');
    if (wanted.test(status)) return;
    assert.ok(Date.now() < deadline, `wanted ${wanted}, found ${status}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** Writes under way, and which of them have ended. */
class Writes {
  readonly #all: Promise<void>[] = [];
  nrEnded = 0;

  start(client: NbdClient, block: number, flags = 0): void {
    const write = client.writeAt(block * BLOCK, content(block), flags);
    this.#all.push(write.then(() => void this.nrEnded++));
  }

  async all(): Promise<void> {
    await Promise.all(this.#all);
  }
}

served.test(
  'data space runs out under load: what waits is written when the data device has grown',
  async (pool) => {
    await pool.volume('v', 0, VOLUME);
    const clients = await Promise.all([1, 2, 3].map(() => connect(pool, 'v')));
    const first = clients[0] as NbdClient;
    const writes = new Writes();
    for (let block = 0; block < 40; block++) {
      const client = clients[block % clients.length] as NbdClient;
      writes.start(client, block, block % 5 === 0 ? Flag.FUA : 0);
    }
    await until(pool, / 16\/16 - out_of_data_space .* queue_if_no_space /);
    assert.ok(writes.nrEnded <= 16);
    // Reads and overwrites go on; so do messages.
    const other = await connect(pool, 'v');
    assert.equal(
      (await other.readAt(63 * BLOCK, BLOCK)).some((byte) => byte !== 0),
      false,
    );
    await pool.message('pool', 'create_thin 1');
    await pool.message('pool', 'create_snap 2 1');
    await pool.message('pool', 'delete 2');
    await pool.grow(48 * BLOCK);
    await writes.all();
    await first.flush();
    await assertBlocks(other, 0, 40);
    await until(pool, / 40\/48 - rw /);
    for (const client of [...clients, other]) await client.disconnect();
  },
  { dataBytes: 16 * BLOCK },
);

served.test(
  'data space runs out under load: a delete lets what waits go on',
  async (pool) => {
    await pool.volume('old', 1, VOLUME);
    const old = await connect(pool, 'old');
    for (let block = 0; block < 10; block++) await old.writeAt(block * BLOCK, content(block));
    await old.disconnect();
    await pool.volume('v', 0, VOLUME);
    const client = await connect(pool, 'v');
    const writes = new Writes();
    for (let block = 0; block < 14; block++) writes.start(client, block);
    await until(pool, / out_of_data_space /);
    await pool.remove('old');
    await pool.message('pool', 'delete 1');
    await writes.all();
    await client.flush();
    await assertBlocks(client, 0, 14);
    await until(pool, / 14\/16 - rw /);
    await client.disconnect();
  },
  { dataBytes: 16 * BLOCK },
);

served.test(
  'data space runs out with error_if_no_space: writes fail with ENOSPC, and nothing else does',
  async (pool) => {
    const ENOSPC = 28;
    await pool.volume('v', 0, VOLUME);
    const client = await connect(pool, 'v');
    for (let block = 0; block < 16; block++) await client.writeAt(block * BLOCK, content(block));
    const reply = await client.command(1, { offset: 20 * BLOCK, data: content(20) });
    assert.equal(reply.error, ENOSPC);
    await client.flush();
    await client.writeAt(3 * BLOCK, content(3), Flag.FUA);
    await pool.grow(17 * BLOCK);
    await client.writeAt(20 * BLOCK, content(20), Flag.FUA);
    await assertBlocks(client, 0, 16);
    await assertBlocks(client, 20, 21);
    await client.disconnect();
  },
  { dataBytes: 16 * BLOCK, features: '1 error_if_no_space' },
);

/** Creates devices from id `begin` on until the pool has no metadata left; returns their number. */
async function exhaustMetadata(pool: ServedPool, begin: number): Promise<number> {
  for (let id = begin; ; id++) {
    try {
      await pool.message('pool', `create_thin ${id}`);
    } catch (error) {
      assert.match((error as Error).message, /EOPNOTSUPP/);
      return id - begin;
    }
  }
}

served.test(
  'metadata space runs out: what is mapped works, the rest fails, until the device has grown',
  async (pool) => {
    const EIO = 5;
    await pool.volume('v', 0, VOLUME);
    const client = await connect(pool, 'v');
    for (let block = 0; block < 8; block++) await client.writeAt(block * BLOCK, content(block));
    await client.flush();
    const nr = await exhaustMetadata(pool, 100);
    assert.ok(nr > 50, `${nr} devices were created`);
    await until(pool, / 8\/4096 - ro .* - /);
    await assertBlocks(client, 0, 8);
    await client.writeAt(2 * BLOCK, content(2), Flag.FUA);
    const reply = await client.command(1, { offset: 30 * BLOCK, data: content(30) });
    assert.equal(reply.error, EIO);
    await assert.rejects(pool.message('pool', 'delete 100'), /EOPNOTSUPP/);
    await pool.growMetadata(4 * MIB);
    await until(pool, / rw /);
    await client.writeAt(30 * BLOCK, content(30), Flag.FUA);
    for (let id = 100; id < 100 + nr; id++) await pool.message('pool', `delete ${id}`);
    await assertBlocks(client, 0, 8);
    await assertBlocks(client, 30, 31);
    await client.disconnect();
  },
  { metadataBytes: 192 * 4096 },
);

served.test(
  'data and metadata run out together, and come back one after the other',
  async (pool) => {
    await pool.volume('v', 0, VOLUME);
    const client = await connect(pool, 'v');
    const writes = new Writes();
    for (let block = 0; block < 24; block++) writes.start(client, block);
    await until(pool, / 16\/16 - out_of_data_space /);
    // The metadata first: it is needed for whatever the data device's growth lets through.
    await pool.growMetadata(MIB);
    await until(pool, / 16\/16 - out_of_data_space /);
    await pool.grow(32 * BLOCK);
    await writes.all();
    await client.flush();
    await assertBlocks(client, 0, 24);
    const nr = await exhaustMetadata(pool, 100);
    assert.ok(nr > 50, `${nr} devices were created`);
    await until(pool, / 24\/32 - ro /);
    await pool.growMetadata(2 * MIB);
    const more = new Writes();
    for (let block = 24; block < 40; block++) more.start(client, block);
    await until(pool, / 32\/32 - out_of_data_space /);
    await pool.grow(64 * BLOCK);
    await more.all();
    await client.flush();
    await assertBlocks(client, 0, 40);
    await client.disconnect();
  },
  { dataBytes: 16 * BLOCK, metadataBytes: 128 * 4096 },
);
