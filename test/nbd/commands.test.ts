/**
 * Every command and flag over a memory device, in each form of replies (spec: nbd, 5).
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { errno } from '../../src/base/errno.ts';
import { MemoryDevice } from '../../src/block/memory-device.ts';
import { Cmd, Err, Flag, type Command, type Form, type NbdClient } from '../helpers/nbd-client.ts';
import { HeldDevice } from '../helpers/held-device.ts';
import { withDevice, type TestServer } from '../helpers/nbd-server.ts';
import { Random, seedOf } from '../helpers/random.ts';
import { runs } from '../helpers/stack.ts';

const MIB = 1 << 20;
const SIZE = 64 * MIB;
const forms: readonly Form[] = ['simple', 'structured', 'extended'];

interface Setting {
  readonly device: MemoryDevice;
  readonly server: TestServer;
  readonly client: NbdClient;
  readonly form: Form;
}

/** A test in each form of replies, on a fresh device of 64 MiB. */
function inEachForm(
  name: string,
  body: (setting: Setting) => Promise<void>,
  options: ConstructorParameters<typeof MemoryDevice>[2] = {},
): void {
  for (const form of forms) {
    test(`${name} (${form})`, async () => {
      const device = new MemoryDevice('disk', SIZE / 512, options);
      await withDevice(device, async (server) => {
        const client = await server.open('disk', { form, contexts: form !== 'simple' });
        await body({ device, server, client, form });
      });
    });
  }
}

async function errorOf(client: NbdClient, type: number, command: Command): Promise<number> {
  return (await client.command(type, command)).error;
}

inEachForm('reads give back what was written, at any offset and length', async ({ client }) => {
  const random = new Random(seedOf(1));
  const model = Buffer.alloc(MIB);
  for (let i = 0; i < 200; i++) {
    const offset = random.below(MIB);
    const length = random.between(1, Math.min(70_000, MIB - offset));
    if (random.chance(0.5)) {
      const data = Buffer.alloc(length, random.between(1, 255));
      await client.writeAt(offset, data, random.chance(0.2) ? Flag.FUA : 0);
      data.copy(model, offset);
    } else {
      const found = await client.readAt(offset, length);
      assert.ok(
        found.equals(model.subarray(offset, offset + length)),
        `seed ${seedOf(1)}, op ${i}`,
      );
    }
  }
  assert.ok((await client.readAt(0, MIB)).equals(model));
});

inEachForm('cookies come back with all their 64 bits', async ({ client }) => {
  for (const cookie of [
    0n,
    0xffff_ffff_ffff_ffffn,
    0x8000_0000_0000_0001n,
    0x1234_5678_9abc_def0n,
  ]) {
    assert.equal((await client.command(Cmd.READ, { length: 512, cookie })).cookie, cookie);
  }
});

inEachForm('the reply has the form that was agreed on', async ({ client, form }) => {
  const chunks = async (type: number, command: Command): Promise<readonly number[]> =>
    (await client.command(type, command)).chunks;
  await client.writeAt(0, Buffer.alloc(MIB, 1));
  const [data, none, error] = form === 'simple' ? [[], [], []] : [[1], [0], [0x8001]];
  const plain = form === 'extended' ? [0] : [];
  const plainError = form === 'extended' ? [0x8001] : [];
  assert.deepEqual(await chunks(Cmd.READ, { length: MIB }), data);
  assert.deepEqual(await chunks(Cmd.READ, { length: 0 }), none);
  assert.deepEqual(await chunks(Cmd.READ, { offset: SIZE, length: 1 }), error);
  assert.deepEqual(await chunks(Cmd.FLUSH, {}), plain);
  assert.deepEqual(await chunks(Cmd.WRITE, { data: Buffer.alloc(512) }), plain);
  assert.deepEqual(await chunks(99, {}), plainError);
});

inEachForm('a hole is sent as a hole, unless one piece of data is asked for', async (setting) => {
  const { client, form } = setting;
  await client.writeAt(4 * MIB, Buffer.alloc(512, 1));
  const hole = await client.command(Cmd.READ, { offset: 0, length: MIB });
  assert.deepEqual(hole.chunks, form === 'simple' ? [] : [2]);
  assert.equal(runs(hole.data), `${MIB}x00`);
  const whole = await client.command(Cmd.READ, { offset: 0, length: MIB, flags: Flag.DF });
  assert.deepEqual(whole.chunks, form === 'simple' ? [] : [1]);
  assert.equal(runs(whole.data), `${MIB}x00`);
  const mixed = await client.command(Cmd.READ, { offset: 3 * MIB, length: 2 * MIB });
  assert.equal(runs(mixed.data), `${MIB}x00 512x01 ${MIB - 512}x00`);
});

inEachForm('zero lengths succeed without effect, anywhere up to the end', async ({ client }) => {
  await client.writeAt(0, Buffer.alloc(4096, 1));
  const types = [Cmd.READ, Cmd.WRITE, Cmd.TRIM, Cmd.CACHE, Cmd.WRITE_ZEROES];
  for (const type of types) {
    for (const offset of [0, 1, 511, SIZE]) {
      assert.equal(await errorOf(client, type, { offset, length: 0 }), 0, `${type} at ${offset}`);
    }
  }
  assert.equal(await errorOf(client, Cmd.BLOCK_STATUS, { length: 0 }), Err.EINVAL);
  assert.equal(runs(await client.readAt(0, 4096)), '4096x01');
});

/** Ranges that are not inside the device. */
const beyond: readonly { offset: number | bigint; length: number }[] = [
  { offset: SIZE, length: 1 },
  { offset: SIZE - 511, length: 512 },
  { offset: SIZE + 512, length: 512 },
  { offset: SIZE + 512, length: 0 },
  { offset: 0, length: SIZE + 1 },
  { offset: 2 ** 53, length: 4096 },
  { offset: 0x7fff_ffff_ffff_ffffn, length: 4096 },
  { offset: 0xffff_ffff_ffff_ffffn, length: 1 },
  { offset: 0xffff_ffff_ffff_f000n, length: 4096 },
];

inEachForm('past the end: ENOSPC for what writes, EINVAL for the rest', async ({ client }) => {
  for (const range of beyond) {
    const where = `at ${range.offset} + ${range.length}`;
    for (const type of [Cmd.READ, Cmd.TRIM, Cmd.CACHE, Cmd.BLOCK_STATUS]) {
      assert.equal(await errorOf(client, type, range), Err.EINVAL, `${type} ${where}`);
    }
    assert.equal(await errorOf(client, Cmd.WRITE_ZEROES, range), Err.ENOSPC, where);
    if (range.length > MIB) continue;
    const data = Buffer.alloc(range.length);
    assert.equal(await errorOf(client, Cmd.WRITE, { offset: range.offset, data }), Err.ENOSPC);
  }
  await client.flush();
});

test('64-bit lengths that run past 2^64 are past the end', async () => {
  await withDevice(new MemoryDevice('disk', SIZE / 512), async (server) => {
    const client = await server.open('disk', { form: 'extended', contexts: true });
    const huge = [0xffff_ffff_ffff_ffffn, 0x8000_0000_0000_0000n, 1n << 53n, 1n << 32n];
    for (const length of huge) {
      for (const offset of [0n, 4096n, 0xffff_ffff_ffff_f000n]) {
        assert.equal(await errorOf(client, Cmd.READ, { offset, length }), Err.EINVAL);
        assert.equal(await errorOf(client, Cmd.TRIM, { offset, length }), Err.EINVAL);
        assert.equal(await errorOf(client, Cmd.BLOCK_STATUS, { offset, length }), Err.EINVAL);
        assert.equal(await errorOf(client, Cmd.WRITE_ZEROES, { offset, length }), Err.ENOSPC);
      }
    }
  });
});

/** Bits that each command may carry. */
const allowed: Readonly<Record<number, number>> = {
  [Cmd.READ]: Flag.FUA | Flag.DF,
  [Cmd.FLUSH]: Flag.FUA,
  [Cmd.TRIM]: Flag.FUA,
  [Cmd.CACHE]: Flag.FUA,
  [Cmd.WRITE_ZEROES]: Flag.FUA | Flag.NO_HOLE | Flag.FAST_ZERO,
  [Cmd.BLOCK_STATUS]: Flag.FUA | Flag.REQ_ONE,
};

inEachForm('each flag is taken where it has a meaning, and refused elsewhere', async (setting) => {
  const { client, form } = setting;
  for (const [type, bits] of Object.entries(allowed)) {
    if (Number(type) === Cmd.BLOCK_STATUS && form === 'simple') continue;
    for (let bit = 0; bit < 16; bit++) {
      const flags = 1 << bit;
      if (flags === Flag.PAYLOAD_LEN) continue; // Another test's.
      if (flags === Flag.NO_HOLE || flags === Flag.FAST_ZERO) await client.flush();
      const error = await errorOf(client, Number(type), { length: 65536, flags });
      assert.equal(error, (bits & flags) !== 0 ? 0 : Err.EINVAL, `command ${type}, bit ${bit}`);
    }
  }
  for (let bit = 0; bit < 16; bit++) {
    if (bit === 5) continue;
    const data = Buffer.alloc(512);
    const error = await errorOf(client, Cmd.WRITE, { data, flags: 1 << bit });
    assert.equal(error, bit === 0 ? 0 : Err.EINVAL, `write, bit ${bit}`);
  }
});

inEachForm('an unknown command is refused, and the next one is understood', async ({ client }) => {
  for (const type of [Cmd.RESIZE, 9, 255, 0xffff]) {
    assert.equal(await errorOf(client, type, { offset: 1, length: 512 }), Err.EINVAL);
  }
  await client.flush();
});

inEachForm('a flush may name a range, which means nothing', async ({ client }) => {
  assert.equal(await errorOf(client, Cmd.FLUSH, { offset: SIZE * 2, length: 1 }), 0);
});

inEachForm(
  'a read-only export refuses what writes with EPERM, after taking its payload',
  async ({ client }) => {
    for (const type of [Cmd.TRIM, Cmd.WRITE_ZEROES]) {
      assert.equal(await errorOf(client, type, { length: 4096 }), Err.EPERM);
    }
    assert.equal(await errorOf(client, Cmd.WRITE, { data: Buffer.alloc(1 << 17) }), Err.EPERM);
    assert.equal(await errorOf(client, Cmd.WRITE, { data: Buffer.alloc(7) }), Err.EPERM);
    assert.equal(runs(await client.readAt(0, 4096)), '4096x00');
    await client.flush();
    assert.equal(await errorOf(client, Cmd.CACHE, { length: 4096 }), 0);
  },
  { readOnly: true },
);

// --- what each command does below

/** Runs `body` with a device that writes down what it is asked for, filled with ones. */
async function observed(
  form: Form,
  body: (client: NbdClient, device: HeldDevice) => Promise<void>,
  limits: NonNullable<ConstructorParameters<typeof MemoryDevice>[2]>['limits'] = {},
): Promise<void> {
  const device = new HeldDevice(new MemoryDevice('disk', SIZE / 512, { limits }));
  device.holding = false;
  await withDevice(device, async (server) => {
    const client = await server.open('disk', { form });
    await client.writeAt(0, Buffer.alloc(MIB, 1));
    device.log.length = 0;
    await body(client, device);
  });
}

test('FUA goes down with a write, and follows a trim or write-zeroes as a flush', async () => {
  await observed('simple', async (client, device) => {
    await client.writeAt(0, Buffer.alloc(512), Flag.FUA);
    assert.deepEqual(device.log.splice(0), ['WRITE(FUA) 0+1']);
    await client.writeAt(3, Buffer.alloc(5), Flag.FUA);
    assert.deepEqual(device.log.splice(0), ['READ 0+1', 'WRITE(FUA) 0+1']);
    await client.command(Cmd.TRIM, { length: 4096, flags: Flag.FUA });
    assert.deepEqual(device.log.splice(0), ['DISCARD 0+8', 'FLUSH 0+0']);
    await client.command(Cmd.WRITE_ZEROES, { length: 4096, flags: Flag.FUA });
    assert.deepEqual(device.log.splice(0), ['WRITE_ZEROES 0+8', 'FLUSH 0+0']);
    await client.command(Cmd.READ, { length: 512, flags: Flag.FUA });
    assert.deepEqual(device.log.splice(0), ['READ 0+1']);
  });
});

test('a trim is rounded inwards to whole logical blocks', async () => {
  await observed('simple', async (client, device) => {
    assert.equal(await errorOf(client, Cmd.TRIM, { offset: 1, length: 2047 }), 0);
    assert.deepEqual(device.log.splice(0), ['DISCARD 1+3']);
    assert.equal(await errorOf(client, Cmd.TRIM, { offset: 1, length: 1022 }), 0);
    assert.equal(await errorOf(client, Cmd.TRIM, { offset: 513, length: 510 }), 0);
    assert.deepEqual(device.log.splice(0), [], 'no whole block, nothing to do');
    assert.equal(runs(await client.readAt(0, 4096)), '512x01 1536x00 2048x01');
  });
});

test('a trim is cut at the largest discard of the device', async () => {
  const limits = { maxDiscardSectors: 3 };
  await observed(
    'simple',
    async (client, device) => {
      assert.equal(await errorOf(client, Cmd.TRIM, { length: 4096 }), 0);
      assert.deepEqual(device.log, ['DISCARD 0+3', 'DISCARD 3+3', 'DISCARD 6+2']);
    },
    limits,
  );
});

test('a trim is cut where the units of the device end', async () => {
  const limits = { maxDiscardSectors: 35, discardGranularity: 8192 };
  await observed(
    'simple',
    async (client, device) => {
      assert.equal(await errorOf(client, Cmd.TRIM, { offset: 512, length: 100 * 512 }), 0);
      assert.deepEqual(device.log, [
        'DISCARD 1+31',
        'DISCARD 32+32',
        'DISCARD 64+32',
        'DISCARD 96+5',
      ]);
    },
    limits,
  );
});

test('a trim of a device that cannot discard is refused', async () => {
  const limits = { maxDiscardSectors: 0, discardZeroes: false };
  await observed(
    'simple',
    async (client) => {
      assert.equal(await errorOf(client, Cmd.TRIM, { length: 4096 }), Err.EINVAL);
    },
    limits,
  );
});

test('write-zeroes zeroes exactly its range, whatever the alignment', async () => {
  await observed('structured', async (client) => {
    const random = new Random(seedOf(2));
    const model = Buffer.alloc(MIB, 1);
    for (let i = 0; i < 100; i++) {
      const offset = random.below(MIB);
      const length = random.between(1, Math.min(5000, MIB - offset));
      const flags = random.chance(0.5) ? Flag.NO_HOLE : 0;
      assert.equal(await errorOf(client, Cmd.WRITE_ZEROES, { offset, length, flags }), 0);
      model.fill(0, offset, offset + length);
    }
    assert.ok((await client.readAt(0, MIB)).equals(model), `seed ${seedOf(2)}`);
  });
});

test('write-zeroes keeps the space with NO_HOLE, and may free it without', async () => {
  await observed('simple', async (client, device) => {
    await client.command(Cmd.WRITE_ZEROES, { length: 4096, flags: Flag.NO_HOLE });
    await client.command(Cmd.WRITE_ZEROES, { length: 4096 });
    assert.deepEqual(device.log, ['WRITE_ZEROES(NOUNMAP) 0+8', 'WRITE_ZEROES 0+8']);
  });
});

test('write-zeroes of a device that has none writes zeroes', async () => {
  const limits = { maxWriteZeroesSectors: 0, maxDiscardSectors: 0, discardZeroes: false };
  await observed(
    'simple',
    async (client, device) => {
      assert.equal(await errorOf(client, Cmd.WRITE_ZEROES, { length: MIB }), 0);
      assert.deepEqual(device.log, ['WRITE 0+1024', 'WRITE 1024+1024']);
      assert.equal(runs(await client.readAt(0, MIB)), `${MIB}x00`);
    },
    limits,
  );
});

test('a large range is zeroed by writing without exhausting the stack', async () => {
  const limits = { maxWriteZeroesSectors: 0, maxDiscardSectors: 0, discardZeroes: false };
  const device = new MemoryDevice('disk', (16 * 1024 * MIB) / 512, { limits });
  let nrWrites = 0;
  const counting = new HeldDevice(device);
  counting.submit = (bio): void => {
    nrWrites++;
    bio.end(0);
  };
  await withDevice(counting, async (server) => {
    const client = await server.open('disk');
    const length = 0xffff_fe00;
    assert.equal(await errorOf(client, Cmd.WRITE_ZEROES, { length }), 0);
    assert.equal(nrWrites, 8192);
  });
});

test('a failing write-zeroes reports what the device said', async () => {
  const device = new HeldDevice(new MemoryDevice('disk', SIZE / 512));
  await withDevice(device, async (server) => {
    const client = await server.open('disk');
    const zeroed = client.command(Cmd.WRITE_ZEROES, { length: 4096 });
    await device.whenHeld(1);
    device.fail(errno.ENOSPC);
    assert.equal((await zeroed).error, Err.ENOSPC);
  });
});

test('fast zeroes succeed where unmapping does it all, and else change nothing', async () => {
  const limits = { discardGranularity: 65536 };
  await observed(
    'simple',
    async (client, device) => {
      const fast = (offset: number, length: number, more = 0): Promise<number> =>
        errorOf(client, Cmd.WRITE_ZEROES, { offset, length, flags: Flag.FAST_ZERO | more });
      assert.equal(await fast(0, 65536 + 4096), Err.ENOTSUP, 'the edge has data');
      assert.equal(await fast(4096, 65536), Err.ENOTSUP);
      assert.equal(await fast(0, 65536, Flag.NO_HOLE), Err.ENOTSUP, 'provisioning is not fast');
      assert.deepEqual(device.log.splice(0), []);
      assert.equal(runs(await client.readAt(0, MIB)), `${MIB}x01`);
      assert.equal(await fast(65536, 2 * 65536), 0);
      assert.equal(await fast(65536 + 512, 4096), 0, 'a hole is zero already');
      assert.equal(
        runs(await client.readAt(0, MIB)),
        `65536x01 ${2 * 65536}x00 ${MIB - 3 * 65536}x01`,
      );
    },
    limits,
  );
  const cannot = { discardZeroes: false };
  await observed(
    'simple',
    async (client) => {
      const command = { length: 65536, flags: Flag.FAST_ZERO };
      assert.equal(await errorOf(client, Cmd.WRITE_ZEROES, command), Err.ENOTSUP);
    },
    cannot,
  );
});

test('the cache command reads what is allocated, once, and nothing else', async () => {
  await observed('simple', async (client, device) => {
    assert.equal(await errorOf(client, Cmd.CACHE, { offset: 700_000, length: 50 * MIB }), 0);
    assert.deepEqual(device.log, ['READ 1367+512', 'READ 1879+169']);
  });
});

// --- errors from below

for (const [status, wire] of [
  [errno.EIO, Err.EIO],
  [errno.ENOSPC, Err.ENOSPC],
  [errno.EPERM, Err.EPERM],
  [errno.ENOMEM, errno.ENOMEM],
  [errno.EROFS, Err.EIO],
  [errno.EILSEQ, Err.EIO],
  [errno.EOPNOTSUPP, Err.EINVAL],
] as const) {
  test(`errno ${status} of the device travels as ${wire}, for every command`, async () => {
    for (const form of forms) {
      const device = new HeldDevice(new MemoryDevice('disk', SIZE / 512));
      await withDevice(device, async (server) => {
        const client = await server.open('disk', { form });
        const commands: [number, Command][] = [
          [Cmd.READ, { length: 4096 }],
          [Cmd.READ, { offset: 1, length: 10 }],
          [Cmd.WRITE, { data: Buffer.alloc(4096) }],
          [Cmd.WRITE, { offset: 9, data: Buffer.alloc(9) }],
          [Cmd.FLUSH, {}],
          [Cmd.TRIM, { length: 4096 }],
        ];
        for (const [type, command] of commands) {
          const reply = client.command(type, command);
          await device.whenHeld(1);
          device.fail(status);
          assert.equal((await reply).error, wire, `${form} command ${type}`);
        }
      });
    }
  });
}

// --- order

inEachForm('commands end in the order in which the device does them', async ({ device, form }) => {
  const held = new HeldDevice(device);
  await withDevice(held, async (server) => {
    const client = await server.open('disk', { form });
    const data = Array.from({ length: 8 }, (_, i) => Buffer.alloc(4096, i + 1));
    const writes = data.map((bytes, i) =>
      client.command(Cmd.WRITE, { offset: i * 4096, data: bytes, cookie: BigInt(i) }),
    );
    await held.whenHeld(8);
    for (const index of [7, 0, 5, 1, 1, 2, 0, 0]) held.release(index);
    assert.ok((await Promise.all(writes)).every(({ error }) => error === 0));
    assert.deepEqual(client.order.map(Number), [7, 0, 6, 2, 3, 5, 1, 4]);
    const reads = data.map((_, i) => client.command(Cmd.READ, { offset: i * 4096, length: 4096 }));
    await held.whenHeld(8);
    for (let i = 7; i >= 0; i--) held.release(i);
    for (const [i, { data: found }] of (await Promise.all(reads)).entries()) {
      assert.ok(found.equals(data[i] as Buffer), `read ${i}`);
    }
  });
});

test('a flush is sent down after the writes that were answered, on any connection', async () => {
  const device = new HeldDevice(new MemoryDevice('disk', SIZE / 512));
  await withDevice(device, async (server) => {
    const [one, two] = [await server.open('disk'), await server.open('disk')];
    const first = one.command(Cmd.WRITE, { data: Buffer.alloc(512) });
    const second = two.command(Cmd.WRITE, { offset: 512, data: Buffer.alloc(512) });
    await device.whenHeld(2);
    device.release();
    await first;
    const flush = two.command(Cmd.FLUSH);
    await device.whenHeld(2);
    assert.deepEqual(device.log.slice(0, 2).sort(), ['WRITE 0+1', 'WRITE 1+1']);
    assert.equal(device.log[2], 'FLUSH 0+0');
    device.releaseAll();
    assert.deepEqual(
      (await Promise.all([second, flush])).map(({ error }) => error),
      [0, 0],
    );
  });
});

// --- block status

for (const form of ['structured', 'extended'] as const) {
  test(`block status tells the extents of the range, merged and clamped (${form})`, async () => {
    const device = new MemoryDevice('disk', SIZE / 512);
    await withDevice(device, async (server) => {
      const client = await server.open('disk', { form, contexts: true });
      const K = 1024;
      await client.writeAt(64 * K, Buffer.alloc(192 * K, 1));
      await client.writeAt(512 * K, Buffer.alloc(512, 1));
      assert.equal(await client.map(0, 64 * K), '65536:3');
      assert.equal(await client.map(0, MIB), '65536:3 196608:0 262144:3 65536:0 458752:3');
      assert.equal(await client.map(100 * K, 10), '10:0');
      assert.equal(await client.map(1, 65536), '65535:3 1:0');
      assert.equal(await client.map(0, MIB, Flag.REQ_ONE), '65536:3');
      assert.equal(await client.map(64 * K, MIB, Flag.REQ_ONE), '196608:0', 'equal ones merge');
      assert.equal(await client.map(SIZE - 1, 1), '1:3');
    });
  });
}

test('block status without a selected context is refused', async () => {
  await withDevice(new MemoryDevice('disk', SIZE / 512), async (server) => {
    for (const form of forms) {
      const client = await server.open('disk', { form });
      assert.equal(await errorOf(client, Cmd.BLOCK_STATUS, { length: 512 }), Err.EINVAL);
    }
  });
});

test('one block-status reply does a bounded amount of work and is gone on from', async () => {
  const tib = 2 ** 40;
  const device = new HeldDevice(new MemoryDevice('disk', tib / 512));
  let nrVisits = 0;
  device.blockStatus = (sector, nrSectors, visit): void => {
    for (let at = sector; at < sector + nrSectors; at++) {
      nrVisits++;
      if (!visit(1, at % 2 === 0 ? 0 : 3)) return;
    }
  };
  await withDevice(device, async (server) => {
    const client = await server.open('disk', { form: 'extended', contexts: true });
    const reply = await client.command(Cmd.BLOCK_STATUS, { offset: 512, length: tib - 512 });
    assert.equal(reply.extents.length, 8192);
    assert.deepEqual(reply.extents.slice(0, 2), [
      { bytes: 512, flags: 3 },
      { bytes: 512, flags: 0 },
    ]);
    assert.ok(nrVisits <= 16384, `looked at ${nrVisits} extents`);
    const one = await client.command(Cmd.BLOCK_STATUS, { length: 512, flags: Flag.REQ_ONE });
    assert.deepEqual(one.extents, [{ bytes: 512, flags: 0 }]);
  });
});

test('an extent of 4 GiB and more is told whole, by extended headers', async () => {
  const tib = 2 ** 40;
  await withDevice(new MemoryDevice('disk', tib / 512), async (server) => {
    const extended = await server.open('disk', { form: 'extended', contexts: true });
    const reply = await extended.command(Cmd.BLOCK_STATUS, { length: tib });
    const bytes = reply.extents.reduce((sum, extent) => sum + extent.bytes, 0);
    assert.equal(reply.extents.length, 1);
    assert.ok(bytes >= 2 ** 30, 'as much as one reply may look at');
    const structured = await server.open('disk', { form: 'structured', contexts: true });
    const compact = await structured.command(Cmd.BLOCK_STATUS, { length: 0xffff_ffff });
    assert.equal(compact.extents.length, 1);
  });
});

// --- extended headers

test('64-bit lengths reach the device in one command', async () => {
  const tib = 2 ** 40;
  await withDevice(new MemoryDevice('disk', tib / 512), async (server) => {
    const client = await server.open('disk', { form: 'extended' });
    await client.writeAt(6 * 2 ** 30, Buffer.alloc(65536, 1));
    assert.equal(await errorOf(client, Cmd.CACHE, { length: tib }), 0);
    assert.equal(await errorOf(client, Cmd.TRIM, { length: 8 * 2 ** 30 }), 0);
    assert.equal(runs(await client.readAt(6 * 2 ** 30, 65536)), '65536x00');
    await client.writeAt(6 * 2 ** 30, Buffer.alloc(65536, 1));
    assert.equal(await errorOf(client, Cmd.WRITE_ZEROES, { offset: 1, length: tib - 2 }), 0);
    assert.equal(runs(await client.readAt(6 * 2 ** 30, 65536)), '65536x00');
  });
});

test('a payload on a command that has none is drained and the command refused', async () => {
  await withDevice(new MemoryDevice('disk', SIZE / 512), async (server) => {
    const client = await server.open('disk', { form: 'extended', contexts: true });
    for (const type of [Cmd.READ, Cmd.FLUSH, Cmd.TRIM, Cmd.WRITE_ZEROES, Cmd.BLOCK_STATUS, 77]) {
      for (const bytes of [1, 512, 100_000]) {
        const data = Buffer.alloc(bytes, 0x25);
        assert.equal(await errorOf(client, type, { data }), Err.EINVAL, `${type}, ${bytes} bytes`);
      }
    }
    assert.equal(await errorOf(client, Cmd.WRITE, { length: 512 }), Err.EINVAL, 'without payload');
    await client.writeAt(0, Buffer.alloc(512, 5));
    assert.equal(runs(await client.readAt(0, 512)), '512x05');
  });
});

test('a compact request does not know the payload flag', async () => {
  await withDevice(new MemoryDevice('disk', SIZE / 512), async (server) => {
    const client = await server.open('disk', { form: 'structured' });
    const data = Buffer.alloc(512);
    assert.equal(await errorOf(client, Cmd.WRITE, { data, flags: Flag.PAYLOAD_LEN }), Err.EINVAL);
    await client.flush();
  });
});
