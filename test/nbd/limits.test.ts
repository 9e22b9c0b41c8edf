/**
 * Limits of a connection: payloads, requests and bytes in flight; backpressure without deadlock
 * (spec: nbd, 5, Limits).
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MemoryDevice } from '../../src/block/memory-device.ts';
import { Cmd, Err, u32, type Command, type Form, type Reply } from '../helpers/nbd-client.ts';
import { HeldDevice } from '../helpers/held-device.ts';
import { withDevice } from '../helpers/nbd-server.ts';
import { Random, seedOf } from '../helpers/random.ts';
import { runs } from '../helpers/stack.ts';

const MIB = 1 << 20;
const PAYLOAD_MAX = 32 * MIB;
const SIZE = 256 * MIB;

const ways = [
  { form: 'simple', byStream: false },
  { form: 'extended', byStream: true },
] as const;

for (const way of ways) {
  const name = `${way.form}, ${way.byStream ? 'stream' : 'socket'}`;

  test(`payloads of 32 MiB are served, more is drained and refused (${name})`, async () => {
    await withDevice(new MemoryDevice('disk', SIZE / 512), async (server) => {
      const client = await server.open('disk', way);
      const data = Buffer.alloc(PAYLOAD_MAX, 'abcdefg');
      await client.writeAt(MIB, data);
      const found = await client.readAt(MIB, PAYLOAD_MAX);
      assert.ok(found.equals(data));
      const long = { offset: 0, data: Buffer.alloc(PAYLOAD_MAX + 1) };
      assert.equal((await client.command(Cmd.WRITE, long)).error, Err.EINVAL);
      assert.equal((await client.command(Cmd.READ, { length: PAYLOAD_MAX + 1 })).error, Err.EINVAL);
      assert.equal(runs(await client.readAt(0, 4096)), '4096x00', 'it has not been written');
    });
  });

  test(`an absurd payload ends the connection at once (${name})`, async () => {
    await withDevice(new MemoryDevice('disk', SIZE / 512), async (server) => {
      for (const length of [PAYLOAD_MAX * 8 + 1, 0xffff_ffff]) {
        const client = await server.open('disk', way);
        const header = client.encode(Cmd.WRITE, { data: Buffer.alloc(0), length }, 1n);
        client.send(header);
        await client.closed;
        assert.match(server.log.take().join(), /dropped: a payload of/);
      }
    });
  });

  test(`a wrong request magic ends the connection (${name})`, async () => {
    const device = new MemoryDevice('disk', SIZE / 512);
    await withDevice(device, async (server) => {
      const client = await server.open('disk', way);
      const data = Buffer.alloc(512, 1);
      const good = client.encode(Cmd.WRITE, { data }, 1n);
      client.send(good, u32(0x12345678), good.subarray(4));
      await client.closed;
      assert.match(server.log.take().join(), /wrong request magic/);
    });
  });

  test(`requests beyond 512 in flight wait in the socket (${name})`, async () => {
    const device = new HeldDevice(new MemoryDevice('disk', SIZE / 512));
    await withDevice(device, async (server) => {
      const client = await server.open('disk', way);
      const reads = Array.from({ length: 5000 }, (_, i) =>
        client.command(Cmd.READ, { offset: i * 512, length: 512 }),
      );
      await device.whenHeld(512);
      await new Promise((resolve) => setTimeout(resolve, 30));
      assert.equal(device.heldMax, 512);
      const stop = device.releaseByChance(new Random(seedOf(4)));
      const replies = await Promise.all(reads);
      stop();
      assert.ok(replies.every(({ error }) => error === 0));
      assert.ok(device.heldMax <= 512);
    });
  });

  test(`bytes beyond 64 MiB in flight wait in the socket (${name})`, async () => {
    const device = new HeldDevice(new MemoryDevice('disk', SIZE / 512));
    await withDevice(device, async (server) => {
      const client = await server.open('disk', way);
      const writes = Array.from({ length: 100 }, (_, i) =>
        client.command(Cmd.WRITE, { offset: i * MIB, data: Buffer.alloc(MIB, i + 1) }),
      );
      await new Promise((resolve) => setTimeout(resolve, 200));
      assert.ok(device.heldMax >= 32, `only ${device.heldMax} MiB are in flight`);
      assert.ok(device.heldMax <= 65, `${device.heldMax} MiB are in flight`);
      device.releaseAll();
      assert.ok((await Promise.all(writes)).every(({ error }) => error === 0));
      for (let i = 0; i < 100; i++) {
        assert.equal((await client.readAt((i + 1) * MIB - 1, 1))[0], i + 1);
      }
    });
  });

  test(`a client that does not take its replies is not read, others are (${name})`, async () => {
    const device = new HeldDevice(new MemoryDevice('disk', SIZE / 512));
    device.holding = false;
    await withDevice(device, async (server) => {
      const slow = await server.open('disk', way);
      await slow.writeAt(0, Buffer.alloc(MIB, 9));
      slow.socket.pause();
      device.log.length = 0;
      const reads = Array.from({ length: 300 }, () => slow.command(Cmd.READ, { length: MIB }));
      await new Promise((resolve) => setTimeout(resolve, 200));
      const nrRead = device.log.length;
      assert.ok(nrRead >= 32 && nrRead <= 66, `${nrRead} MiB have been read`);
      const other = await server.open('disk', way);
      for (let i = 0; i < 50; i++) await other.writeAt(MIB + i * 512, Buffer.alloc(512, 3));
      assert.equal(runs(await other.readAt(MIB, 25600)), '25600x03');
      slow.socket.resume();
      for (const { error, data } of await Promise.all(reads)) {
        assert.equal(error, 0);
        assert.ok(data.every((byte) => byte === 9));
      }
    });
  });
}

test('a client that takes no reply does not make them pile up one by one', async () => {
  // Each reply that goes out alone is a write of its own for the socket: some hundred bytes of
  // memory for sixteen. A client that asks slowly and never reads could have had 64 MiB of those,
  // which cost the server gigabytes.
  const device = new HeldDevice(new MemoryDevice('disk', SIZE / 512));
  device.holding = false;
  await withDevice(device, async (server) => {
    const client = await server.open('disk', { byStream: true });
    client.socket.pause();
    const nrRequests = 12_000;
    const replies: Promise<Reply>[] = [];
    for (let i = 0; i < nrRequests; i++) {
      replies.push(client.command(Cmd.FLUSH));
      await new Promise((resolve) => setImmediate(resolve));
    }
    // The streams themselves hold some, too.
    const nrDone = device.log.length;
    assert.ok(nrDone >= 4096 && nrDone < 8192, `${nrDone} requests were read`);
    client.socket.resume();
    assert.ok((await Promise.all(replies)).every(({ error }) => error === 0));
    assert.equal(device.log.length, nrRequests);
  });
});

test('a client that asks for the map of a torn device all the time leaves others their turn', async () => {
  // A thousand such questions in one read of the socket held up every other client for over a
  // second.
  const device = new HeldDevice(new MemoryDevice('disk', SIZE / 512));
  device.holding = false;
  let nrVisits = 0;
  device.blockStatus = (sector, nrSectors, visit): void => {
    for (let at = sector; at < sector + nrSectors; at++) {
      nrVisits++;
      if (!visit(1, at % 2 === 0 ? 0 : 3)) return;
    }
  };
  await withDevice(device, async (server) => {
    const client = await server.open('disk', { form: 'structured', contexts: true });
    let visitsMax = 0;
    let isAsking = true;
    const turn = (): void => {
      visitsMax = Math.max(visitsMax, nrVisits);
      nrVisits = 0;
      if (isAsking) setImmediate(turn);
    };
    turn();
    const questions = Array.from({ length: 200 }, () =>
      client.command(Cmd.BLOCK_STATUS, { length: SIZE }),
    );
    for (const { error, extents } of await Promise.all(questions)) {
      assert.equal(error, 0);
      assert.equal(extents.length, 8192);
    }
    isAsking = false;
    assert.ok(visitsMax <= 2 * 16384, `${visitsMax} extents in one turn`);
  });
});

test('a stuck write does not let the memory behind others grow without bound', async () => {
  // Payloads lie where they were received: one that stays keeps all that was received with it.
  const device = new HeldDevice(new MemoryDevice('disk', SIZE / 512));
  await withDevice(device, async (server) => {
    const client = await server.open('disk');
    const data = Buffer.alloc(65536);
    const writes = Array.from({ length: 4000 }, (_, i) =>
      client.command(Cmd.WRITE, { offset: i * 65536, data }),
    );
    // Every sixteenth is stuck.
    const isStuck = ({ sector }: { sector: number }): boolean => (sector / 128) % 16 === 0;
    for (let quiet = 0; quiet < 20; quiet++) {
      for (let i = device.held.length - 1; i >= 0; i--) {
        if (isStuck(device.held[i] as { sector: number })) continue;
        device.release(i);
        quiet = 0;
      }
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    assert.ok(device.held.length >= 30, `only ${device.held.length} are stuck`);
    assert.ok(device.held.length <= 66, `${device.held.length} are stuck, a mebibyte behind each`);
    device.releaseAll();
    assert.ok((await Promise.all(writes)).every(({ error }) => error === 0));
  });
});

test('whatever the sizes and the order of completion, every request is answered', async () => {
  const seed = seedOf(5);
  const device = new HeldDevice(new MemoryDevice('disk', SIZE / 512));
  const stop = device.releaseByChance(new Random(seed));
  const sizes = [1, 511, 512, 4096, 4097, 65536, 300_000, 524_288, 524_289, MIB, 3 * MIB, 33 * MIB];
  await withDevice(device, async (server) => {
    const jobs = (['simple', 'structured', 'extended'] as Form[]).map(async (form, nr) => {
      const client = await server.open('disk', { form, byStream: nr === 1 });
      const random = new Random(seed + nr);
      // A region of its own, 64 MiB.
      const base = nr * 64 * MIB;
      const model = Buffer.alloc(64 * MIB);
      for (let round = 0; round < 6; round++) {
        // Writes do not overlap each other within a round.
        const replies: Promise<Reply>[] = [];
        for (let at = 0; at < 34 * MIB;) {
          const length = random.pick(sizes);
          const command: Command = { offset: base + at, data: Buffer.alloc(length, round + 1) };
          const tooLong = length > PAYLOAD_MAX;
          replies.push(client.command(Cmd.WRITE, command));
          if (!tooLong) model.fill(round + 1, at, at + length);
          else assert.equal((await (replies.pop() as Promise<Reply>)).error, Err.EINVAL);
          if (random.chance(0.1)) replies.push(client.command(Cmd.FLUSH));
          at += tooLong ? 1 : length + random.below(2 * MIB);
        }
        assert.ok((await Promise.all(replies)).every(({ error }) => error === 0));
        for (let at = 0; at < 34 * MIB; at += 16 * MIB) {
          const found = await client.readAt(base + at, 16 * MIB);
          const wanted = model.subarray(at, at + 16 * MIB);
          assert.ok(found.equals(wanted), `seed ${seed}, ${form}, round ${round}`);
        }
      }
    });
    await Promise.all(jobs);
  });
  stop();
});
