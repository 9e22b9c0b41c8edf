/** Table text and its words, as dmsetup and the kernel split them. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  parseSector,
  parseTable,
  splitArgs,
  TableFormatError,
} from '../../src/mapper/table-grammar.ts';
import { seedOf } from '../helpers/random.ts';
import { Stack } from '../helpers/stack.ts';

const one = (text: string): string => {
  const [line, ...more] = parseTable(text);
  assert.ok(line !== undefined);
  assert.equal(more.length, 0);
  return `${line.start}|${line.length}|${line.type}|${line.params}`;
};

test('a line is start, length, type and the rest', () => {
  assert.equal(one('0 100 zero'), '0|100|zero|');
  assert.equal(one('5 7 linear /dev/x 12'), '5|7|linear|/dev/x 12');
  assert.equal(one('  00 \t 0100   linear   /dev/x  12  '), '0|100|linear|/dev/x  12  ');
  assert.equal(one('0 10zero'), '0|10|zero|');
  assert.equal(one('+0+10 zero'), '0|10|zero|');
  assert.equal(one('0 10 5 6'), '0|10|5|6');
});

test('lines that are empty or comments do not count, those of several targets do', () => {
  const text = '# a table\n\n0 8 zero\n   \n\t# more\n8 8 error and more\n';
  assert.deepEqual(
    parseTable(text).map(({ start, type, params }) => [start, type, params]),
    [
      [0, 'zero', ''],
      [8, 'error', 'and more'],
    ],
  );
  assert.deepEqual(parseTable(''), []);
  assert.deepEqual(parseTable('\n \n#0 1 zero'), []);
});

/*
 * The rest of a line was matched by `.*`, which takes no carriage return. A table from an editor
 * that ends lines so was refused where it had parameters; dmsetup takes it.
 */
test('lines may end as on other systems', () => {
  const [first, second] = parseTable('0 10 linear /dev/x 0\r\n10 10 zero\r\n\r\n');
  assert.deepEqual(splitArgs(first?.params ?? ''), ['/dev/x', '0']);
  assert.equal(second?.type, 'zero');
  assert.deepEqual(splitArgs(second?.params ?? ''), []);
});

test('text that cannot be split is refused with the number of its line', () => {
  const wrong: [text: string, line: number][] = [
    ['0 100', 1],
    ['0', 1],
    ['zero', 1],
    ['x 100 zero', 1],
    ['0 y zero', 1],
    ['0,100,zero', 1],
    ['0x10 8', 1],
    ['-- 8 zero', 1],
    ['0 8 zero\n8 8', 2],
    ['# comment\n\n0 8 zero\nfoo\n', 4],
  ];
  for (const [text, line] of wrong) {
    assert.throws(
      () => parseTable(text),
      (error) => {
        assert.ok(error instanceof TableFormatError);
        assert.equal(error.message, `Invalid format on line ${line}`);
        assert.equal(error.line, line);
        return true;
      },
      text,
    );
  }
});

test('a type name has at most 15 bytes', () => {
  assert.equal(one('0 8 fifteen-letters'), '0|8|fifteen-letters|');
  for (const type of ['sixteen--letters', 'ääääääää']) {
    assert.throws(() => parseTable(`0 8 ${type}`), {
      message: `Target type name ${type} is too long.`,
    });
  }
});

test('numbers are 64 bits: negative ones become huge, larger ones stay at the largest', () => {
  const startOf = (text: string): number | undefined => parseTable(`${text} 8 zero`)[0]?.start;
  assert.equal(startOf('9007199254740991'), 2 ** 53 - 1);
  assert.equal(startOf('-1'), 2 ** 64);
  assert.equal(startOf('-0'), 0);
  assert.equal(startOf('-18446744073709551615'), 1);
  assert.equal(startOf('18446744073709551616'), 2 ** 64);
  assert.equal(startOf(`1${'0'.repeat(40)}`), 2 ** 64);
});

test('a sector is digits; what is beyond every device stays beyond it', () => {
  for (const [text, sector] of [
    ['0', 0],
    ['007', 7],
    ['9007199254740990', 2 ** 53 - 2],
    ['9007199254740991', 2 ** 53 - 1],
    ['9007199254740993', 2 ** 53 - 1],
    ['18446744073709551616', 2 ** 53 - 1],
    ['9'.repeat(400), 2 ** 53 - 1],
  ] as const) {
    assert.equal(parseSector(text), sector, text);
  }
  for (const text of ['', '-1', '+1', '0x10', '1s', ' 1', '1 ', '1.0', '1e3', '٣']) {
    assert.equal(parseSector(text), undefined, text);
  }
});

test('parameters are split at white space, a backslash takes the next character as it is', () => {
  for (const [text, ...words] of [
    [''],
    [' \t\v\f\r '],
    ['a', 'a'],
    [' a  bb\tc\vd\fe\r', 'a', 'bb', 'c', 'd', 'e'],
    ['a\\ b c', 'a b', 'c'],
    ['a\\\\b', 'a\\b'],
    ['\\a\\b', 'ab'],
    ['\\  x', ' ', 'x'],
    ['end\\', 'end\\'],
    ['"quotes are" plain', '"quotes', 'are"', 'plain'],
  ] as [string, ...string[]][]) {
    assert.deepEqual(splitArgs(text), words, JSON.stringify(text));
  }
});

test('any words, written with backslashes, are read as they were', () => {
  const word = fc.string({ minLength: 1, unit: fc.constantFrom('a', '0', ' ', '\\', '\t', '"') });
  fc.assert(
    fc.property(fc.array(word), fc.constantFrom(' ', '\t', ' \r'), (words, blank) => {
      const text = words.map((one) => one.replace(/[ \t\\]/g, '\\$&')).join(blank);
      assert.deepEqual(splitArgs(text), words);
    }),
    { seed: seedOf(1), numRuns: 300 },
  );
});

test('any table, written down, is read as it was', () => {
  const line = fc.record({
    start: fc.nat(),
    length: fc.nat(),
    type: fc.constantFrom('zero', 'linear', 'a-b_c.d', '0day'),
    params: fc.array(fc.constantFrom('/dev/x', '254:0', '#', '-1', 'ü')),
  });
  fc.assert(
    fc.property(fc.array(line), fc.constantFrom('\n', '\n\n', '\n# 0 1 zero\n'), (lines, end) => {
      const text = lines
        .map(({ start, length, type, params }) => [start, length, type, ...params].join(' '))
        .join(end);
      assert.deepEqual(
        parseTable(text),
        lines.map((one) => ({ ...one, params: one.params.join(' ') })),
      );
    }),
    { seed: seedOf(1), numRuns: 200 },
  );
});

test('a table that ends above 2^53 - 1 sectors is refused, an offset above is beyond every device', async () => {
  const stack = new Stack();
  stack.disk('ubda', 1024);
  await stack.create('a', `0 ${Number.MAX_SAFE_INTEGER} zero`);
  const refused = async (table: string, line: string): Promise<void> => {
    stack.log.take();
    await assert.rejects(stack.create('b', table), { errno: 'EINVAL' });
    assert.equal(stack.log.take()[0], line);
  };
  await refused('0 9007199254740992 zero', 'table: 254:1: too large device');
  await refused('-1 8 zero', 'table: 254:1: too large device');
  await refused(
    '0 8 linear /dev/ubda 18446744073709551616',
    'table: 254:1: ubda too small for target: start=9007199254740991, len=8, dev_size=1024',
  );
});
