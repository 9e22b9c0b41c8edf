/**
 * Option haggling, by a client that does everything right and everything wrong (spec: nbd, 2, 3).
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MemoryDevice } from '../../src/block/memory-device.ts';
import {
  ClosedError,
  contextData,
  infoData,
  Opt,
  Rep,
  sized,
  u16,
  u32,
  type NbdClient,
} from '../helpers/nbd-client.ts';
import { MapExports, withServer, type TestServer } from '../helpers/nbd-server.ts';

const SECTORS = 2048;

/** The transmission flags of a plain writable device. */
const PLAIN_FLAGS = 0b1101_0110_1101;
const DF_FLAG = 0x80;

function exports(): MapExports {
  return new MapExports({
    disk: new MemoryDevice('disk', SECTORS),
    'read only': new MemoryDevice('ro', SECTORS, { readOnly: true }),
    blocks: new MemoryDevice('blocks', SECTORS, { limits: { ioOpt: 65536 } }),
    dull: new MemoryDevice('dull', 1, {
      limits: { ioOpt: 3 * 4096, maxDiscardSectors: 0, discardZeroes: false },
    }),
  });
}

/** Runs `body` with a client that has been greeted; afterwards no export may be left open. */
async function haggle(
  body: (client: NbdClient, server: TestServer) => Promise<void>,
): Promise<void> {
  const table = exports();
  await withServer(table, async (server) => {
    const client = await server.connect();
    await client.greet();
    await body(client, server);
    client.destroy();
    await server.idle();
    assert.equal(table.nrOpen, 0, 'every export that was opened is closed');
  });
}

/** The server must close the connection without sending anything more. */
async function closedWithoutWords(client: NbdClient): Promise<void> {
  await client.closed;
  assert.equal(client.unread, 0);
}

/** The infos of GO's or INFO's replies, by type. */
async function infos(client: NbdClient, data: Buffer): Promise<Map<number, Buffer>> {
  const replies = await client.option(Opt.INFO, data);
  assert.equal(replies.at(-1)?.type, Rep.ACK);
  const found = replies.slice(0, -1).map(({ type, data: payload }) => {
    assert.equal(type, Rep.INFO);
    return [payload.readUInt16BE(0), payload.subarray(2)] as const;
  });
  return new Map(found);
}

test('the greeting offers fixed newstyle and no zeroes', async () => {
  await withServer(exports(), async (server) => {
    const client = await server.connect();
    const greeting = await client.greet();
    assert.equal(greeting.toString('latin1', 0, 16), 'NBDMAGICIHAVEOPT');
    assert.equal(greeting.readUInt16BE(16), 3);
  });
});

test('a client flag that was not offered ends the connection', async () => {
  await withServer(exports(), async (server) => {
    for (const flags of [4, 7, 0x8000_0003]) {
      const client = await server.connect();
      await client.greet(flags);
      await closedWithoutWords(client);
    }
    assert.match(server.log.take().join(), /unknown client flags/);
  });
});

test('a client without fixed newstyle may still use options', async () => {
  await withServer(exports(), async (server) => {
    const client = await server.connect();
    await client.greet(0);
    assert.deepEqual(await client.optionTypes(Opt.STRUCTURED_REPLY), [Rep.ACK]);
  });
});

test('a wrong option magic ends the connection', async () => {
  await haggle(async (client) => {
    client.send(Buffer.from('IHAVEOPS'), u32(Opt.LIST), u32(0));
    await closedWithoutWords(client);
  });
});

test('options that nobody knows, and those not supported, are drained and refused', async () => {
  await haggle(async (client) => {
    for (const option of [0, Opt.PEEK_EXPORT, Opt.STARTTLS, 12, 0xffff_ffff]) {
      for (const data of [Buffer.alloc(0), Buffer.alloc(5000, 0x55)]) {
        const [reply] = await client.option(option, data);
        assert.equal(reply?.type, Rep.UNSUP);
        assert.equal(reply?.option, option);
        assert.ok((reply?.data.length ?? 0) > 0, 'the error has a text for people');
      }
    }
    await client.go('disk');
  });
});

test('data on an option that has none is refused, and the option has no effect', async () => {
  await haggle(async (client) => {
    for (const option of [Opt.LIST, Opt.STRUCTURED_REPLY, Opt.EXTENDED_HEADERS]) {
      assert.deepEqual(await client.optionTypes(option, Buffer.from('x')), [Rep.INVALID]);
    }
    await client.go('disk');
    assert.equal(client.transmissionFlags & DF_FLAG, 0);
  });
});

test('an oversized option is drained and refused, an absurd one ends the connection', async () => {
  await haggle(async (client) => {
    assert.deepEqual(await client.optionTypes(Opt.GO, Buffer.alloc(65537)), [Rep.TOO_BIG]);
    assert.deepEqual(await client.optionTypes(99, Buffer.alloc(3_000_000)), [Rep.TOO_BIG]);
    const [largest] = await client.option(99, Buffer.alloc(65536));
    assert.equal(largest?.type, Rep.UNSUP);
    client.send(Buffer.from('IHAVEOPT'), u32(Opt.GO), u32(0x7fff_ffff));
    await closedWithoutWords(client);
  });
});

test('LIST tells every export with its description', async () => {
  await haggle(async (client) => {
    const replies = await client.option(Opt.LIST);
    assert.equal(replies.at(-1)?.type, Rep.ACK);
    const names = replies.slice(0, -1).map(({ type, data }) => {
      assert.equal(type, Rep.SERVER);
      const length = data.readUInt32BE(0);
      const name = data.toString('utf8', 4, 4 + length);
      assert.equal(data.toString('utf8', 4 + length), `this is ${name}`);
      return name;
    });
    assert.deepEqual(names, ['disk', 'read only', 'blocks', 'dull']);
  });
});

test('INFO answers what is asked for, and no more', async () => {
  await haggle(async (client) => {
    const all = await infos(client, infoData('blocks', [0, 1, 2, 3, 17, 999]));
    assert.deepEqual([...all.keys()].sort(), [0, 1, 2, 3]);
    assert.equal(all.get(0)?.readBigUInt64BE(0), BigInt(SECTORS * 512));
    assert.equal(all.get(0)?.readUInt16BE(8), PLAIN_FLAGS);
    assert.equal(all.get(1)?.toString(), 'blocks');
    assert.equal(all.get(2)?.toString(), 'this is blocks');
    assert.equal(all.get(3)?.length, 12);
    assert.deepEqual(
      [0, 4, 8].map((at) => all.get(3)?.readUInt32BE(at)),
      [1, 65536, 32 << 20],
    );
    const few = await infos(client, infoData('blocks', []));
    assert.deepEqual([...few.keys()], [0]);
  });
});

test('a best size that is no power of two is not told as the preferred block size', async () => {
  await haggle(async (client) => {
    const found = await infos(client, infoData('dull', [3]));
    assert.equal(found.get(3)?.readUInt32BE(4), 4096);
  });
});

test('transmission flags say what the device can, given what was agreed on', async () => {
  await haggle(async (client) => {
    const flagsOf = async (name: string): Promise<number | undefined> =>
      (await infos(client, infoData(name, []))).get(0)?.readUInt16BE(8);
    assert.equal(await flagsOf('disk'), PLAIN_FLAGS);
    assert.equal(await flagsOf('read only'), 0b101_0000_1111);
    assert.equal(await flagsOf('dull'), 0b101_0100_1101, 'neither trim nor fast zeroes');
    await client.choose('structured');
    assert.equal(await flagsOf('disk'), PLAIN_FLAGS | DF_FLAG);
    await client.choose('extended');
    assert.equal(await flagsOf('disk'), PLAIN_FLAGS | DF_FLAG);
  });
});

test('INFO and then GO with the same parameters give the same answer', async () => {
  await haggle(async (client) => {
    await client.choose('structured');
    const data = infoData('blocks', [3, 1, 2]);
    const asked = await client.option(Opt.INFO, data);
    const taken = await client.option(Opt.GO, data);
    assert.deepEqual(
      taken.map(({ type, data: payload }) => [type, payload]),
      asked.map(({ type, data: payload }) => [type, payload]),
    );
    assert.equal((await client.readAt(0, 512)).length, 512, 'GO has entered transmission');
  });
});

test('the empty name is the default export, told by its own name', async () => {
  await haggle(async (client) => {
    const found = await infos(client, infoData('', [1]));
    assert.equal(found.get(1)?.toString(), 'disk');
    await client.go('');
    assert.equal(client.size, BigInt(SECTORS * 512));
  });
});

test('an unknown export is refused by every option that names one', async () => {
  await haggle(async (client) => {
    await client.choose('structured');
    for (const option of [Opt.INFO, Opt.GO]) {
      const [reply] = await client.option(option, infoData('nobody', []));
      assert.equal(reply?.type, Rep.UNKNOWN);
      assert.match(reply?.data.toString() ?? '', /no export named 'nobody'/);
    }
    for (const option of [Opt.LIST_META_CONTEXT, Opt.SET_META_CONTEXT]) {
      assert.deepEqual(await client.optionTypes(option, contextData('nobody', [])), [Rep.UNKNOWN]);
    }
    await client.go('disk');
  });
});

test('lengths that do not add up are refused wherever they are', async () => {
  await haggle(async (client) => {
    await client.choose('structured');
    const good = infoData('disk', [3]);
    const wrongInfos = [
      Buffer.alloc(0),
      Buffer.alloc(3),
      good.subarray(0, -1),
      Buffer.concat([good, Buffer.from([0])]),
      Buffer.concat([u32(0xffff_ffff), good.subarray(4)]),
      Buffer.concat([u32(good.length - 5), good.subarray(4)]),
      Buffer.concat([sized('disk'), u16(0xffff), u16(3)]),
      sized('disk'),
    ];
    for (const data of wrongInfos) {
      for (const option of [Opt.INFO, Opt.GO]) {
        assert.deepEqual(
          await client.optionTypes(option, data),
          [Rep.INVALID],
          data.toString('hex'),
        );
      }
    }
    const context = contextData('disk', ['base:allocation']);
    const wrongContexts = [
      Buffer.alloc(0),
      context.subarray(0, -1),
      Buffer.concat([context, Buffer.from('x')]),
      Buffer.concat([sized('disk'), u32(0xffff_ffff), sized('base:allocation')]),
      Buffer.concat([sized('disk'), u32(1), u32(0xffff_fff0), Buffer.from('base:')]),
      sized('disk'),
    ];
    for (const data of wrongContexts) {
      for (const option of [Opt.LIST_META_CONTEXT, Opt.SET_META_CONTEXT]) {
        assert.deepEqual(
          await client.optionTypes(option, data),
          [Rep.INVALID],
          data.toString('hex'),
        );
      }
    }
    await client.go('disk');
  });
});

test('names that are too long, or no text, are refused', async () => {
  await haggle(async (client) => {
    const wrong = [Buffer.alloc(4097, 'n'), Buffer.from('di\0sk'), Buffer.from([0xff, 0xfe])];
    for (const name of wrong) {
      assert.deepEqual(await client.optionTypes(Opt.GO, infoData(name, [])), [Rep.INVALID]);
    }
    const longest = Buffer.alloc(4096, 'n');
    assert.deepEqual(await client.optionTypes(Opt.GO, infoData(longest, [])), [Rep.UNKNOWN]);
  });
});

for (const noZeroes of [false, true]) {
  const padding = noZeroes ? 'no zeroes' : '124 zeroes';
  test(`EXPORT_NAME answers with size, flags and ${padding}, then transmission`, async () => {
    await withServer(exports(), async (server) => {
      const client = await server.connect();
      await client.greet(noZeroes ? 3 : 1);
      client.sendOption(Opt.EXPORT_NAME, Buffer.from('disk'));
      const reply = await client.read(noZeroes ? 10 : 134);
      assert.equal(reply.readBigUInt64BE(0), BigInt(SECTORS * 512));
      assert.equal(reply.readUInt16BE(8), PLAIN_FLAGS);
      assert.ok(reply.subarray(10).every((byte) => byte === 0));
      await client.writeAt(512, Buffer.alloc(512, 0x77));
      assert.equal((await client.readAt(1023, 1))[0], 0x77);
      await client.disconnect();
    });
  });
}

test('EXPORT_NAME of an unknown export, or with an impossible name, can only hang up', async () => {
  for (const name of [Buffer.from('nobody'), Buffer.alloc(5000, 'n'), Buffer.from([0xff])]) {
    await haggle(async (client) => {
      client.sendOption(Opt.EXPORT_NAME, name);
      await closedWithoutWords(client);
    });
  }
});

test('EXPORT_NAME has no place after extended headers', async () => {
  await haggle(async (client) => {
    await client.choose('extended');
    client.sendOption(Opt.EXPORT_NAME, Buffer.from('disk'));
    await closedWithoutWords(client);
  });
});

test('ABORT is acknowledged, with or without data, and ends the connection', async () => {
  for (const data of [Buffer.alloc(0), Buffer.from('bye')]) {
    await haggle(async (client) => {
      assert.deepEqual(await client.optionTypes(Opt.ABORT, data), [Rep.ACK]);
      await closedWithoutWords(client);
    });
  }
});

test('a client that aborts and closes at once disturbs nobody', async () => {
  await haggle(async (client, server) => {
    const other = await server.open('disk');
    client.sendOption(Opt.ABORT);
    client.destroy();
    await other.writeAt(0, Buffer.alloc(512, 1));
    await other.disconnect();
  });
});

test('what a client sends after ABORT is thrown away, however much it is', async () => {
  await haggle(async (client, server) => {
    client.sendOption(Opt.ABORT);
    const noise = Buffer.alloc(1 << 20, 0x49);
    for (let i = 0; i < 20; i++) client.send(noise);
    await server.idle();
  });
});

test('structured replies may be asked for twice, but not after extended headers', async () => {
  await haggle(async (client) => {
    assert.deepEqual(await client.optionTypes(Opt.STRUCTURED_REPLY), [Rep.ACK]);
    assert.deepEqual(await client.optionTypes(Opt.STRUCTURED_REPLY), [Rep.ACK]);
    assert.deepEqual(await client.optionTypes(Opt.EXTENDED_HEADERS), [Rep.ACK]);
    assert.deepEqual(await client.optionTypes(Opt.EXTENDED_HEADERS), [Rep.ACK]);
    assert.deepEqual(await client.optionTypes(Opt.STRUCTURED_REPLY), [Rep.EXT_HEADER_REQD]);
    client.form = 'extended';
    await client.go('disk');
    assert.equal((await client.readAt(0, 512)).length, 512);
  });
});

// --- metadata contexts

/** Names that a context option is answered with, each with its id. */
async function contexts(client: NbdClient, option: number, data: Buffer): Promise<string[]> {
  const replies = await client.option(option, data);
  assert.equal(replies.at(-1)?.type, Rep.ACK);
  return replies.slice(0, -1).map(({ type, data: payload }) => {
    assert.equal(type, Rep.META_CONTEXT);
    return `${payload.readUInt32BE(0)} ${payload.toString('utf8', 4)}`;
  });
}

test('LIST_META_CONTEXT answers each form of query', async () => {
  await haggle(async (client) => {
    await client.choose('structured');
    const list = (queries: string[]): Promise<string[]> =>
      contexts(client, Opt.LIST_META_CONTEXT, contextData('disk', queries));
    const base = ['0 base:allocation'];
    assert.deepEqual(await list([]), base, 'no query: everything');
    assert.deepEqual(await list(['base:']), base, 'a namespace: all in it');
    assert.deepEqual(await list(['base:allocation']), base);
    assert.deepEqual(await list(['qemu:', 'base:', 'base:allocation']), base, 'and only once');
    assert.deepEqual(await list(['qemu:dirty-bitmap:x', 'x-nobody:', 'base:other', 'base']), []);
  });
});

test('SET_META_CONTEXT selects base:allocation by its full name only', async () => {
  await haggle(async (client) => {
    await client.choose('structured');
    const set = (queries: string[]): Promise<string[]> =>
      contexts(client, Opt.SET_META_CONTEXT, contextData('disk', queries));
    assert.deepEqual(await set([]), []);
    assert.deepEqual(await set(['base:', 'qemu:dirty']), []);
    assert.deepEqual(await set(['x:y', 'base:allocation']), ['1 base:allocation']);
    await client.go('disk');
    assert.equal(await client.map(0, 4096), '4096:3');
  });
});

test('SET_META_CONTEXT before structured replies is refused', async () => {
  await haggle(async (client) => {
    const data = contextData('disk', ['base:allocation']);
    assert.deepEqual(await client.optionTypes(Opt.SET_META_CONTEXT, data), [Rep.INVALID]);
  });
});

/** What voids a selection made before. */
const voiding: Record<string, { option: number; data: Buffer; go: string }> = {
  'replaced by an empty selection': {
    option: Opt.SET_META_CONTEXT,
    data: contextData('disk', []),
    go: 'disk',
  },
  'replaced by a selection that fails': {
    option: Opt.SET_META_CONTEXT,
    data: contextData('nobody', ['base:allocation']),
    go: 'disk',
  },
  'replaced by a crooked one': { option: Opt.SET_META_CONTEXT, data: Buffer.alloc(1), go: 'disk' },
  'made for another export': { option: Opt.LIST, data: Buffer.alloc(0), go: 'blocks' },
};

for (const [how, { option, data, go }] of Object.entries(voiding)) {
  test(`a context selection is void when ${how}`, async () => {
    await haggle(async (client) => {
      await client.choose('structured');
      const selected = contextData('disk', ['base:allocation']);
      assert.equal((await client.optionTypes(Opt.SET_META_CONTEXT, selected)).length, 2);
      await client.option(option, data);
      await client.go(go);
      await assert.rejects(client.map(0, 4096), /errno 22/);
    });
  });
}

test('a context selection outlives a GO that was refused, and counts for the default', async () => {
  await haggle(async (client) => {
    await client.choose('structured');
    await client.option(Opt.SET_META_CONTEXT, contextData('disk', ['base:allocation']));
    await assert.rejects(client.go('nobody'), /refused/);
    await client.go('');
    assert.equal(await client.map(0, 4096), '4096:3');
  });
});

// --- the stream of options

test('options may come one byte at a time, or all at once with requests behind them', async () => {
  await haggle(async (client, server) => {
    const bytes = Buffer.concat([
      Buffer.from('IHAVEOPT'),
      u32(Opt.GO),
      u32(infoData('disk', []).length),
      infoData('disk', []),
    ]);
    for (const byte of bytes) {
      client.send(Buffer.from([byte]));
      await new Promise((resolve) => setImmediate(resolve));
    }
    assert.equal((await client.readOptionReply()).type, Rep.INFO);
    assert.equal((await client.readOptionReply()).type, Rep.ACK);

    const hasty = await server.connect();
    hasty.send(u32(3), bytes, hasty.encode(0, { length: 512 }, 7n), hasty.encode(2, {}, 0n));
    await hasty.read(18);
    await hasty.readOptionReply();
    await hasty.readOptionReply();
    const reply = await hasty.read(16 + 512);
    assert.equal(reply.readBigUInt64BE(8), 7n);
    await hasty.closed;
    hasty.destroy();
  });
});

test('a client that asks and asks without reading the answers is not read any further', async () => {
  await haggle(async (client, server) => {
    client.socket.pause();
    const list = Buffer.concat([Buffer.from('IHAVEOPT'), u32(Opt.LIST), u32(0)]);
    const lists = Buffer.alloc(list.length * 65536, list);
    let taken = false;
    client.socket.write(lists, () => (taken = true));
    await new Promise((resolve) => setTimeout(resolve, 300));
    assert.equal(taken, false, 'the server has stopped reading');
    const other = await server.open('disk');
    await other.disconnect();
    client.socket.resume();
    assert.equal((await client.readOptionReply()).type, Rep.SERVER);
    while (!taken) await new Promise((resolve) => setTimeout(resolve, 5));
  });
});

test('a connection that is closed during haggling leaves nothing behind', async () => {
  await haggle(async (client, server) => {
    const half = await server.connect();
    half.send(u32(3), Buffer.from('IHAVEO'));
    half.socket.end();
    await assert.rejects(
      (async () => {
        await half.read(18);
        await half.read(1);
      })(),
      ClosedError,
    );
    client.destroy();
    await server.idle();
  });
});
