/**
 * Which leaves a dump shares: the examples of the spec, and random sequences against the rules as
 * they are written down there.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DeviceReader } from '../../../src/persistent-data/check/block-reader.ts';
import { dumpPool, type PoolSource } from '../../../src/thin/tools/dump.ts';
import type { PoolVisitor } from '../../../src/thin/tools/pool-visitor.ts';
import { Random, seedOf } from '../../helpers/random.ts';
import { Patient } from '../../helpers/thin-damage.ts';
import { BLOCK, deviceOf } from '../../helpers/thin-images.ts';

/** Leaves are blocks 1 to 99; internal nodes follow. */
const FIRST_INTERNAL = 100;

/** Trees over given leaves. Equal nodes are one block, as they are after a snapshot. */
class Forest {
  readonly patient = new Patient(Buffer.alloc(400 * BLOCK));
  readonly #nodes = new Map<string, number>();
  #next = FIRST_INTERNAL;

  #write(node: number, flags: number, keys: readonly number[], values: readonly number[]): void {
    const { patient } = this;
    const header = [flags, node, 0, keys.length, 252, 8];
    for (const [i, value] of header.entries()) patient.setU32(node, 4 + 4 * i, value);
    for (const [i, key] of keys.entries()) patient.setU64(node, patient.keyAt(i), key);
    for (const [i, value] of values.entries()) {
      patient.setU64(node, patient.valueAt(node, i), value);
    }
    patient.sealNode(node);
  }

  /** A leaf with one mapping, by which it is recognised. */
  leaf(leaf: number): number {
    this.#write(leaf, 2, [10 * leaf], [leaf * 2 ** 24]);
    return leaf;
  }

  node(children: readonly number[]): number {
    const key = children.join(' ');
    const known = this.#nodes.get(key);
    if (known !== undefined) return known;
    const node = this.#next++;
    const keys = children.map((_, i) => i);
    this.#write(node, 1, keys, children);
    this.#nodes.set(key, node);
    return node;
  }

  /** A tree of three levels whose leaves, in order, are `leaves`; the groups are random. */
  tree(leaves: readonly number[], random: Random): number {
    const groups: number[][] = [];
    for (const leaf of leaves) {
      const last = groups.at(-1);
      if (last === undefined || random.chance(0.4)) groups.push([leaf]);
      else last.push(leaf);
    }
    return this.node(groups.map((group) => this.node(group.map((leaf) => this.leaf(leaf)))));
  }
}

/** What a dump of devices with these roots writes: `def 1: 1 2 | ref 1, 3`. */
async function dumped(forest: Forest, roots: readonly number[]): Promise<string> {
  const parts: string[] = [];
  let items: string[] = [];
  let title = '';
  const begin = (text: string): void => {
    title = text;
    items = [];
  };
  const end = (): number => parts.push(`${title}${items.join(', ')}`);
  const visitor: PoolVisitor = {
    beginPool: () => undefined,
    endPool: () => undefined,
    beginDef: (name) => begin(`def ${name}: `),
    endDef: end,
    beginDevice: () => begin(''),
    endDevice: end,
    mapping: (_, dataBegin) => items.push(String(dataBegin)),
    ref: (name) => items.push(`ref ${name}`),
  };
  const zero = { mappedBlocks: 0, transactionId: 0n, creationTime: 0, snapshottedTime: 0 };
  const source: PoolSource = {
    info: {
      time: 0,
      transactionId: 0n,
      needsCheck: false,
      version: 2,
      dataBlockSize: 128,
      nrDataBlocks: 1,
    },
    devices: roots.map((root, id) => ({ root, info: { id, ...zero } })),
  };
  dumpPool(new DeviceReader(await deviceOf(forest.patient.bytes)), source, {}, visitor);
  return parts.join(' | ');
}

async function dumpedSequences(sequences: readonly number[][], random: Random): Promise<string> {
  const forest = new Forest();
  const roots = sequences.map((sequence) => forest.tree(sequence, random));
  return dumped(forest, roots);
}

/** The rules, word for word. */
function expected(sequences: readonly number[][]): string {
  const before = new Map<number, Set<number>>();
  const after = new Map<number, Set<number>>();
  const found = new Map<number, number>();
  for (const sequence of sequences) {
    for (const [i, leaf] of sequence.entries()) {
      found.set(leaf, (found.get(leaf) ?? 0) + 1);
      if (!before.has(leaf)) before.set(leaf, new Set());
      if (!after.has(leaf)) after.set(leaf, new Set());
      if (i > 0) before.get(leaf)?.add(sequence[i - 1] as number);
      if (i + 1 < sequence.length) after.get(leaf)?.add(sequence[i + 1] as number);
    }
  }
  const heads = new Set<number>();
  const tails = new Set<number>();
  for (const sequence of sequences) {
    heads.add(sequence[0] as number);
    tails.add(sequence.at(-1) as number);
  }
  for (const [leaf, leaves] of before) if (leaves.size > 1) heads.add(leaf);
  for (const [leaf, leaves] of after) if (leaves.size > 1) tails.add(leaf);
  for (let size = -1; size !== heads.size + tails.size;) {
    size = heads.size + tails.size;
    for (const tail of tails) for (const leaf of after.get(tail) ?? []) heads.add(leaf);
    for (const head of heads) for (const leaf of before.get(head) ?? []) tails.add(leaf);
  }
  const defs = new Map<number, number[]>();
  const devices = sequences.map((sequence) => {
    const items: string[] = [];
    let run: number[] = [];
    for (const leaf of sequence) {
      if (heads.has(leaf)) run = [];
      run.push(leaf);
      if (!tails.has(leaf)) continue;
      const head = run[0] as number;
      if ((found.get(head) as number) > 1) {
        items.push(`ref ${head}`);
        defs.set(head, run);
      } else items.push(...run.map(String));
    }
    return items.join(', ');
  });
  const named = [...defs]
    .sort(([a], [b]) => a - b)
    .map(([head, run]) => `def ${head}: ${run.join(', ')}`);
  return [...named, ...devices].join(' | ');
}

const examples: readonly [number[][], string][] = [
  [
    [
      [1, 2],
      [1, 2, 3],
    ],
    'def 1: 1, 2 | ref 1 | ref 1, 3',
  ],
  [
    [
      [1, 2, 3, 4],
      [2, 3, 4, 5],
    ],
    'def 2: 2, 3, 4 | 1, ref 2 | ref 2, 5',
  ],
  [
    [
      [1, 2],
      [2, 1],
    ],
    'def 1: 1 | def 2: 2 | ref 1, ref 2 | ref 2, ref 1',
  ],
  [
    [
      [2, 3, 4, 5],
      [2, 3, 4, 6],
      [1, 3, 4, 5],
    ],
    'def 2: 2 | def 3: 3, 4 | def 5: 5 | ref 2, ref 3, ref 5 | ref 2, ref 3, 6 | 1, ref 3, ref 5',
  ],
];

for (const [sequences, wanted] of examples) {
  test(`leaves ${sequences.map((s) => s.join(' ')).join(' and ')} are cut into runs`, async () => {
    assert.equal(expected(sequences), wanted, 'the rules give the example');
    for (let seed = 0; seed < 4; seed++) {
      assert.equal(await dumpedSequences(sequences, new Random(seed)), wanted);
    }
  });
}

test('random sequences are cut as the rules say, however the nodes above are shared', async () => {
  const seed = seedOf(1);
  const random = new Random(seed);
  for (let round = 0; round < 150; round++) {
    const sequences: number[][] = [];
    for (let n = random.between(1, 6); n > 0; n--) {
      const base = sequences.length > 0 && random.chance(0.8) ? random.pick(sequences) : [];
      const sequence = base.filter(() => random.chance(0.85));
      const fresh = Array.from({ length: random.below(4) }, () => random.between(1, 30));
      const at = random.below(sequence.length + 1);
      sequence.splice(at, 0, ...fresh.filter((leaf) => !sequence.includes(leaf)));
      sequences.push(sequence.length > 0 ? [...new Set(sequence)] : [random.between(1, 30)]);
    }
    const where = `seed ${seed}, round ${round}: ${JSON.stringify(sequences)}`;
    assert.equal(await dumpedSequences(sequences, random), expected(sequences), where);
  }
});

test('nodes that multiply themselves level by level are refused, not followed', async () => {
  const forest = new Forest();
  let level = Array.from({ length: 40 }, (_, i) => forest.leaf(i + 1));
  const roots: number[] = [];
  for (let height = 2; height < 7; height++) {
    const below = level;
    // Each node has all nodes of the level below, in an order of its own.
    level = below.map((_, i) => forest.node([...below.slice(i), ...below.slice(0, i)]));
    roots.push(...level);
  }
  await assert.rejects(dumped(forest, roots), /more leaves than there are blocks/);
});

test('a loop of nodes is refused', async () => {
  const forest = new Forest();
  const root = forest.node([forest.node([forest.leaf(1)]), forest.node([forest.leaf(2)])]);
  const { patient } = forest;
  patient.setU64(root, patient.valueAt(root, 1), root);
  patient.sealNode(root);
  await assert.rejects(dumped(forest, [root]), /is at different depths/);
});
