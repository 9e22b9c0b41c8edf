/**
 * Checksums: the check values of CRC-32C, blocks that a real kernel made, and the native function
 * against its portable twin (spec: persistent-data, 2 and 2.1).
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { crc32c as crc32cNative } from '@node-rs/crc32';
import fc from 'fast-check';
import { arrayValidator } from '../../src/persistent-data/array-layout.ts';
import { asBlockNr, Block } from '../../src/persistent-data/block.ts';
import { nodeValidator } from '../../src/persistent-data/btree/node.ts';
import { checksum, checksumRaw, crc32cPortable } from '../../src/persistent-data/checksum.ts';
import { bitmapValidator, indexValidator } from '../../src/persistent-data/space-map/layout.ts';
import { hasSalt, SALT, type Validator } from '../../src/persistent-data/validator.ts';
import { superblockValidator } from '../../src/thin/metadata/superblock.ts';
import { silentLog } from '../../src/base/log.ts';
import { seedOf } from '../helpers/random.ts';

const ascii = (text: string): Uint8Array => new TextEncoder().encode(text);

test('the check value of CRC-32C, natively and portably', () => {
  assert.equal(crc32cPortable(ascii('123456789')), 0xe306_9283);
  assert.equal(crc32cNative(ascii('123456789')), 0xe306_9283);
  assert.equal(checksumRaw(ascii('123456789')), ~0xe306_9283 >>> 0);
});

test('CRC-32C of zeros, ones and a ramp, as RFC 3720 gives them', () => {
  assert.equal(crc32cPortable(new Uint8Array(32)), 0x8a91_36aa);
  assert.equal(crc32cPortable(new Uint8Array(32).fill(0xff)), 0x62a8_ab43);
  assert.equal(crc32cPortable(Uint8Array.from({ length: 32 }, (_, i) => i)), 0x46dd_794e);
});

test('the native function and its twin agree on any bytes, at any alignment', () => {
  const bytes = fc.uint8Array({ maxLength: 5000, size: 'max' });
  fc.assert(
    fc.property(bytes, fc.nat(9), (data, skip) => {
      const part = data.subarray(Math.min(skip, data.length));
      assert.equal(crc32cPortable(part), crc32cNative(part));
    }),
    { seed: seedOf(1), numRuns: 300 },
  );
});

/** A field of a worked example: offset, value; 8-byte values as a bigint. */
type Field = readonly [number, number | bigint];

interface Example {
  readonly what: string;
  readonly validator: Validator;
  readonly block: number;
  readonly fields: readonly Field[];
  readonly raw?: number;
  readonly stored: number;
}

const examples: Example[] = [
  {
    what: 'an empty leaf of 4-byte values',
    validator: nodeValidator,
    block: 5,
    fields: [
      [4, 2],
      [20, 336],
      [24, 4],
    ],
    raw: 0x41be_7317,
    stored: 0x41bf_aa04,
  },
  {
    what: 'a bitmap that is all free',
    validator: bitmapValidator,
    block: 8,
    fields: [],
    raw: 0x58b8_9fed,
    stored: 0x58bb_3366,
  },
  {
    what: 'a bitmap whose first eight counts are one',
    validator: bitmapValidator,
    block: 3,
    fields: [[16, 0xaaaan]],
    stored: 0xa19f_6375,
  },
  {
    what: 'a metadata index with one entry',
    validator: indexValidator,
    block: 1,
    fields: [
      [16, 3n],
      [24, 16312],
      [28, 8],
    ],
    raw: 0x18e2_14d4,
    stored: 0x18e0_660a,
  },
  {
    what: 'a metadata snapshot of a thin superblock',
    validator: superblockValidator,
    block: 25,
    fields: [
      [32, 27022010n],
      [40, 2],
      [320, 19n],
      [328, 21n],
      [336, 128],
      [340, 8],
      [344, 1024n],
    ],
    raw: 0xa261_c894,
    stored: 0xa263_bc92,
  },
  {
    what: 'an array block of 8-byte values',
    validator: arrayValidator,
    block: 19,
    fields: [
      [4, 509],
      [8, 32],
      [12, 8],
      [24, 0xffn],
    ],
    raw: 0x35fa_1889,
    stored: 0x1679_fec6,
  },
  {
    what: 'a mapping leaf of four blocks',
    validator: nodeValidator,
    block: 20,
    fields: [
      [4, 2],
      [16, 4],
      [20, 252],
      [24, 8],
      ...[0, 1, 2, 3].map((k): Field => [32 + 8 * k, BigInt(k)]),
      ...[0, 1, 2, 3].map((k): Field => [2048 + 8 * k, BigInt(k) << 24n]),
    ],
    stored: 0xf86c_2355,
  },
];

function blockOf(example: Example): Block {
  const block = new Block(new ArrayBuffer(4096), 0);
  block.blocknr = asBlockNr(example.block);
  for (const [offset, value] of example.fields) {
    if (typeof value === 'bigint') block.view.setBigUint64(offset, value, true);
    else block.view.setUint32(offset, value, true);
  }
  return block;
}

for (const example of examples) {
  test(`${example.what} gets the kernel's checksum and passes its check`, () => {
    const block = blockOf(example);
    example.validator.prepare(block);
    assert.equal(block.view.getUint32(0, true), example.stored);
    if (example.raw !== undefined) assert.equal(checksumRaw(block.body), example.raw);
    example.validator.check(block, silentLog);
    assert.ok(hasSalt(block, example.validator.salt));
  });
}

test('the salts tell the kinds of blocks apart', () => {
  const block = blockOf(examples[0] as Example);
  nodeValidator.prepare(block);
  const fitting = Object.entries(SALT).filter(([, salt]) => hasSalt(block, salt));
  assert.deepEqual(fitting, [['BTREE_NODE', 121107]]);
  assert.equal(new Set(Object.values(SALT)).size, Object.keys(SALT).length);
  assert.equal(checksum(block.body, 0), checksumRaw(block.body));
});
