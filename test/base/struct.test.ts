/**
 * Layouts declared once: a declaration that does not add up is refused when the module loads, and
 * fields read and write what the bytes say.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { DmError } from '../../src/base/error.ts';
import {
  be16,
  be32,
  be64,
  bytes,
  getLe64,
  le32,
  le64,
  le64Packed,
  peekLe64,
  setLe64,
  struct,
} from '../../src/base/struct.ts';
import { seedOf } from '../helpers/random.ts';

test('fields lie one after the other, and have their size', () => {
  const s = struct(28, { a: le32, b: le32, c: le64, d: bytes(5), e: be16, f: bytes(1), g: le32 });
  assert.deepEqual(
    [s.a, s.b, s.c, s.d, s.e, s.f, s.g].map((field) => [field.offset, field.size]),
    [
      [0, 4],
      [4, 4],
      [8, 8],
      [16, 5],
      [21, 2],
      [23, 1],
      [24, 4],
    ],
  );
  assert.equal(s.size, 28);
});

test('a declaration that is misaligned or does not add up is refused', () => {
  assert.throws(() => struct(12, { a: le32, b: le64 }), /field b at 4 is aligned to 8/);
  assert.throws(() => struct(9, { a: bytes(1), b: le64 }), /aligned/);
  assert.throws(() => struct(16, { a: le32, b: le32 }), /add up to 16 bytes, not 8/);
  assert.equal(struct(12, { a: le32, b: le64Packed }).b.offset, 4);
});

test('disk fields are little-endian, wire fields big-endian', () => {
  const s = struct(16, { a: le32, b: be32, c: be16, d: be16, e: bytes(4) });
  const view = new DataView(new ArrayBuffer(20));
  s.a.set(view, 4, 0x0102_0304);
  s.b.set(view, 4, 0x0102_0304);
  s.c.set(view, 4, 0x0102);
  const found = [...new Uint8Array(view.buffer, 4, 10)];
  assert.deepEqual(found, [4, 3, 2, 1, 1, 2, 3, 4, 1, 2]);
  assert.equal(s.a.get(view, 4), 0x0102_0304);
  assert.equal(s.b.get(view, 4), 0x0102_0304);
});

test('a 64-bit number is exact below 2^53, and refused from there on', () => {
  const view = new DataView(new ArrayBuffer(8));
  fc.assert(
    fc.property(fc.maxSafeNat(), (n) => {
      setLe64(view, 0, n);
      assert.equal(view.getBigUint64(0, true), BigInt(n));
      assert.equal(getLe64(view, 0), n);
      assert.equal(peekLe64(view, 0), n);
    }),
    { seed: seedOf(1) },
  );
  fc.assert(
    fc.property(fc.bigInt(2n ** 53n, 2n ** 64n - 1n), (n) => {
      view.setBigUint64(0, n, true);
      assert.throws(
        () => getLe64(view, 0),
        (error) => error instanceof DmError && error.message.includes(String(n)),
      );
      assert.ok(peekLe64(view, 0) >= 2 ** 53);
      assert.equal(struct(8, { n: le64 }).n.getBig(view, 0), n);
    }),
    { seed: seedOf(1) },
  );
});

test('an offset from the wire that exceeds 2^53 is a number above any size', () => {
  const s = struct(8, { n: be64 });
  const view = new DataView(new ArrayBuffer(8));
  view.setBigUint64(0, 2n ** 64n - 1n);
  assert.ok(s.n.get(view, 0) >= 2 ** 63);
  s.n.set(view, 0, 2 ** 40 + 5);
  assert.equal(view.getBigUint64(0), 2n ** 40n + 5n);
});
