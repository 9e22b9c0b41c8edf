/**
 * Damages to an image of thin pool metadata: each changes one thing of a live structure, seeded,
 * and says which of the upstream checkers look for it. Checksums are right again afterwards, unless
 * they are what is damaged.
 */
import { checksum } from '../../src/persistent-data/checksum.ts';
import { SALT } from '../../src/persistent-data/validator.ts';
import type { Random } from './random.ts';
import { BLOCK } from './thin-images.ts';

/** An image being damaged, with words for its structures. All offsets are as on the disk. */
export class Patient {
  readonly bytes: Buffer;

  constructor(image: Buffer) {
    this.bytes = Buffer.from(image);
  }

  u32(block: number, offset: number): number {
    return this.bytes.readUInt32LE(block * BLOCK + offset);
  }

  u64(block: number, offset: number): number {
    return Number(this.bytes.readBigUInt64LE(block * BLOCK + offset));
  }

  setU32(block: number, offset: number, value: number): void {
    this.bytes.writeUInt32LE(value >>> 0, block * BLOCK + offset);
  }

  setU64(block: number, offset: number, value: number | bigint): void {
    this.bytes.writeBigUInt64LE(BigInt.asUintN(64, BigInt(value)), block * BLOCK + offset);
  }

  /** Gives a block the checksum of its kind. */
  seal(block: number, salt: number): void {
    const body = this.bytes.subarray(block * BLOCK + 4, (block + 1) * BLOCK);
    this.setU32(block, 0, checksum(body, salt));
  }

  sealNode(block: number): void {
    this.seal(block, SALT.BTREE_NODE);
  }

  sealSuperblock(): void {
    this.seal(0, SALT.THIN_SUPERBLOCK);
  }

  get heldRoot(): number {
    return this.u64(0, 56);
  }

  get mappingRoot(): number {
    return this.u64(0, 320);
  }

  get detailsRoot(): number {
    return this.u64(0, 328);
  }

  // --- nodes

  nr(node: number): number {
    return this.u32(node, 16);
  }

  isLeaf(node: number): boolean {
    return this.u32(node, 4) === 2;
  }

  keyAt(index: number): number {
    return 32 + 8 * index;
  }

  valueAt(node: number, index: number): number {
    return 32 + 8 * this.u32(node, 20) + index * this.u32(node, 24);
  }

  child(node: number, index: number): number {
    return this.u64(node, this.valueAt(node, index));
  }

  children(node: number): number[] {
    return Array.from({ length: this.nr(node) }, (_, i) => this.child(node, i));
  }

  /** All nodes of a tree, each once. */
  nodes(root: number): number[] {
    const below = this.isLeaf(root) ? [] : this.children(root).flatMap((n) => this.nodes(n));
    return [...new Set([root, ...below])];
  }

  /** The nodes of all mapping trees, each once; without `withTop` those of the devices only. */
  mappingNodes(): number[] {
    const leaves = this.nodes(this.mappingRoot).filter((node) => this.isLeaf(node));
    const roots = leaves.flatMap((leaf) => this.children(leaf));
    return [...new Set(roots.flatMap((root) => this.nodes(root)))];
  }

  // --- space maps: at 64 of the superblock that of the data, at 192 that of the metadata

  bitmapRoot(map: 64 | 192): number {
    return this.u64(0, map + 16);
  }

  overflowRoot(map: 64 | 192): number {
    return this.u64(0, map + 24);
  }

  /** Where the bitmap block of index entry 0 is. */
  bitmap(map: 64 | 192): number {
    const root = this.bitmapRoot(map);
    if (map === 192) return this.u64(root, 16);
    const [leaf = root] = this.nodes(root).filter((node) => this.isLeaf(node));
    return this.u64(leaf, this.valueAt(leaf, 0));
  }

  /** The count of a block of the first bitmap, 3 for 3 and more. */
  count(map: 64 | 192, block: number): number {
    const byte = this.bytes[this.bitmap(map) * BLOCK + 16 + (block >> 2)] as number;
    const raw = (byte >> ((block & 3) * 2)) & 3;
    return ((raw & 1) << 1) | (raw >> 1);
  }

  setCount(map: 64 | 192, block: number, count: number): void {
    const bitmap = this.bitmap(map);
    const at = bitmap * BLOCK + 16 + (block >> 2);
    const shift = (block & 3) * 2;
    const raw = ((count & 1) << 1) | (count >> 1);
    this.bytes[at] = ((this.bytes[at] as number) & ~(3 << shift)) | (raw << shift);
    this.seal(bitmap, SALT.BITMAP);
  }
}

export interface ThinDamage {
  readonly name: string;
  /** Damages; false if the image has nothing that could be damaged so. */
  readonly apply: (patient: Patient, random: Random) => boolean;
  /** Debian's thin_check 0.9.0 does not look for it. */
  readonly notByDebian?: boolean;
  /** Nor does the newest. */
  readonly notByNewest?: boolean;
}

const DATA = 64;
const METADATA = 192;

function pickWith<T>(random: Random, items: readonly T[], ok: (item: T) => boolean): T | undefined {
  const good = items.filter(ok);
  return good.length === 0 ? undefined : random.pick(good);
}

/** Damages some node out of `nodes` that is `ok`. */
function inNode(
  nodes: (patient: Patient) => number[],
  ok: (patient: Patient, node: number) => boolean,
  damage: (patient: Patient, node: number, random: Random) => void,
): ThinDamage['apply'] {
  return (patient, random) => {
    const node = pickWith(random, nodes(patient), (n) => ok(patient, n));
    if (node === undefined) return false;
    damage(patient, node, random);
    return true;
  };
}

const anyNode = (patient: Patient): number[] => [
  ...patient.nodes(patient.mappingRoot),
  ...patient.nodes(patient.detailsRoot),
  ...patient.mappingNodes(),
];
const always = (): boolean => true;
const hasEntries = (patient: Patient, node: number): boolean => patient.nr(node) > 0;
const hasTwo = (patient: Patient, node: number): boolean => patient.nr(node) >= 2;
const isInternal = (patient: Patient, node: number): boolean => !patient.isLeaf(node);
const isFilledLeaf = (patient: Patient, node: number): boolean =>
  patient.isLeaf(node) && patient.nr(node) > 0;

/** Whether the second child of a node is there, is or is no leaf, and can be given a lower key. */
function lowersChild(patient: Patient, node: number, leaf: boolean): boolean {
  if (!isInternal(patient, node) || !hasTwo(patient, node)) return false;
  return patient.u64(node, patient.keyAt(1)) > 2 && patient.isLeaf(patient.child(node, 1)) === leaf;
}

function lowerChild(patient: Patient, node: number): void {
  const child = patient.child(node, 1);
  patient.setU64(child, patient.keyAt(0), 1);
  patient.sealNode(child);
}

/** Sets a u32 of a node's header; the newest checker overlooks some of that in empty nodes. */
function header(offset: number, value: (old: number, random: Random) => number) {
  return inNode(anyNode, hasEntries, (patient, node, random) => {
    patient.setU32(node, offset, value(patient.u32(node, offset), random));
    patient.sealNode(node);
  });
}

/** Changes the count of a block that has, or does not have, one. */
function wrongCount(map: 64 | 192, wanted: (count: number) => boolean, by: number) {
  return (patient: Patient, random: Random): boolean => {
    const nrBlocks = Math.min(patient.u64(0, map), 16320);
    const blocks = Array.from({ length: nrBlocks }, (_, block) => block);
    const block = pickWith(random, blocks, (b) => wanted(patient.count(map, b)));
    if (block === undefined) return false;
    patient.setCount(map, block, patient.count(map, block) + by);
    return true;
  };
}

const isUsed = (count: number): boolean => count === 1 || count === 2;
const isFree = (count: number): boolean => count === 0;

function badChecksum(blocks: (patient: Patient) => number[]): ThinDamage['apply'] {
  return (patient, random) => {
    const block = random.pick(blocks(patient));
    patient.bytes[block * BLOCK + random.below(BLOCK)]! ^= 1 << random.below(8);
    return true;
  };
}

export const thinDamages: readonly ThinDamage[] = [
  { name: 'a flipped bit in the superblock', apply: badChecksum(() => [0]) },
  { name: 'a flipped bit in a node', apply: badChecksum(anyNode) },
  {
    name: 'a flipped bit in a space map block',
    apply: badChecksum((patient) =>
      ([DATA, METADATA] as const).flatMap((map) => [
        patient.bitmapRoot(map),
        patient.overflowRoot(map),
        patient.bitmap(map),
      ]),
    ),
  },
  {
    name: 'a root beyond the end of the device',
    apply: (patient, random) => {
      patient.setU64(0, random.pick([80, 88, 208, 216, 320, 328]), 1e9 + random.below(1e9));
      patient.sealSuperblock();
      return true;
    },
  },
  {
    name: 'mapping root and details root exchanged',
    apply: (patient) => {
      const { mappingRoot, detailsRoot } = patient;
      patient.setU64(0, 320, detailsRoot);
      patient.setU64(0, 328, mappingRoot);
      patient.sealSuperblock();
      return true;
    },
  },
  { name: 'a node of both kinds', apply: header(4, () => 3) },
  { name: 'a node of neither kind', apply: header(4, () => 0) },
  {
    name: 'a node that is another block',
    apply: inNode(anyNode, always, (patient, node, random) => {
      patient.setU64(node, 8, node + random.between(1, 9));
      patient.sealNode(node);
    }),
  },
  { name: 'more entries than fit', apply: header(16, (_, random) => random.between(253, 2 ** 31)) },
  { name: 'room for an odd number of entries', apply: header(20, (old) => old - 1) },
  { name: 'room beyond the block', apply: header(20, (_, random) => random.between(600, 2 ** 31)) },
  { name: 'values of another size', apply: header(24, (old) => (old === 8 ? 4 : 8)) },
  {
    name: 'keys out of order',
    apply: inNode(anyNode, hasTwo, (patient, node, random) => {
      const i = random.below(patient.nr(node) - 1);
      const first = patient.u64(node, patient.keyAt(i));
      patient.setU64(node, patient.keyAt(i), patient.u64(node, patient.keyAt(i + 1)));
      patient.setU64(node, patient.keyAt(i + 1), first);
      patient.sealNode(node);
    }),
  },
  {
    name: 'the same key twice',
    apply: inNode(anyNode, hasTwo, (patient, node, random) => {
      const i = random.below(patient.nr(node) - 1);
      patient.setU64(node, patient.keyAt(i + 1), patient.u64(node, patient.keyAt(i)));
      patient.sealNode(node);
    }),
  },
  {
    name: 'a child beyond the end of the device',
    apply: inNode(anyNode, isInternal, (patient, node, random) => {
      const i = random.below(patient.nr(node));
      patient.setU64(node, patient.valueAt(node, i), random.pick([2 ** 40, 2 ** 62]));
      patient.sealNode(node);
    }),
  },
  {
    name: 'a node that is its own child',
    apply: inNode(anyNode, isInternal, (patient, node, random) => {
      patient.setU64(node, patient.valueAt(node, random.below(patient.nr(node))), node);
      patient.sealNode(node);
    }),
  },
  {
    name: 'the wrong child',
    apply: inNode(
      anyNode,
      (patient, node) => isInternal(patient, node) && hasTwo(patient, node),
      (patient, node) => {
        patient.setU64(node, patient.valueAt(node, 0), patient.child(node, 1));
        patient.sealNode(node);
      },
    ),
  },
  {
    name: 'a child with lower keys than its parent says',
    apply: inNode(
      (patient) => patient.mappingNodes(),
      (patient, node) => lowersChild(patient, node, true),
      lowerChild,
    ),
  },
  {
    name: 'an internal node with a lower key than its parent says',
    apply: inNode(
      (patient) => patient.mappingNodes(),
      (patient, node) => lowersChild(patient, node, false),
      lowerChild,
    ),
    notByNewest: true,
  },
  {
    name: 'a leaf less than a third full',
    apply: inNode(
      (patient) => patient.mappingNodes(),
      (patient, node) => isInternal(patient, node) && hasTwo(patient, node),
      (patient, node, random) => {
        const child = patient.child(node, random.below(patient.nr(node)));
        patient.setU32(child, 16, random.between(1, 80));
        patient.sealNode(child);
      },
    ),
  },
  {
    name: 'a mapping to another data block',
    apply: inNode(
      (patient) => patient.mappingNodes(),
      isFilledLeaf,
      (patient, node, random) => {
        const at = patient.valueAt(node, random.below(patient.nr(node)));
        const value = patient.bytes.readBigUInt64LE(node * BLOCK + at);
        patient.setU64(node, at, value + (BigInt(random.between(1, 9)) << 24n));
        patient.sealNode(node);
      },
    ),
    notByDebian: true,
  },
  {
    name: 'a mapping beyond the data device',
    apply: inNode(
      (patient) => patient.mappingNodes(),
      isFilledLeaf,
      (patient, node, random) => {
        const at = patient.valueAt(node, random.below(patient.nr(node)));
        patient.setU64(node, at, 2n ** 63n + BigInt(random.below(1e9)));
        patient.sealNode(node);
      },
    ),
    notByDebian: true,
  },
  {
    name: 'a device without details',
    apply: inNode(
      (patient) => [patient.detailsRoot],
      isFilledLeaf,
      (patient, node) => {
        patient.setU32(node, 16, patient.nr(node) - 1);
        patient.sealNode(node);
      },
    ),
    notByDebian: true,
  },
  {
    name: 'details without a device',
    apply: inNode(
      (patient) => [patient.mappingRoot],
      isFilledLeaf,
      (patient, node) => {
        patient.setU32(node, 16, patient.nr(node) - 1);
        patient.sealNode(node);
      },
    ),
  },
  {
    name: 'details with a wrong number of mappings',
    apply: inNode(
      (patient) => patient.nodes(patient.detailsRoot),
      isFilledLeaf,
      (patient, node, random) => {
        const at = patient.valueAt(node, random.below(patient.nr(node)));
        patient.setU64(node, at, patient.u64(node, at) + random.between(1, 99));
        patient.sealNode(node);
      },
    ),
    notByDebian: true,
  },
  { name: 'a metadata count too low', apply: wrongCount(METADATA, isUsed, -1) },
  { name: 'a data count too low', apply: wrongCount(DATA, isUsed, -1), notByDebian: true },
  { name: 'a leaked metadata block', apply: wrongCount(METADATA, isFree, 1) },
  { name: 'a leaked data block', apply: wrongCount(DATA, isFree, 1), notByDebian: true },
  {
    name: 'a count of three without overflow entry',
    apply: wrongCount(METADATA, (count) => count === 2, 1),
  },
  {
    name: 'a wrong overflow count',
    apply: (patient, random) => {
      const leaves = patient
        .nodes(patient.overflowRoot(METADATA))
        .filter((node) => isFilledLeaf(patient, node));
      if (leaves.length === 0) return false;
      const leaf = random.pick(leaves);
      const at = patient.valueAt(leaf, random.below(patient.nr(leaf)));
      patient.setU32(leaf, at, patient.u32(leaf, at) + random.pick([-1, 1, 99]));
      patient.sealNode(leaf);
      return true;
    },
  },
  {
    name: 'an index entry that names another block',
    apply: (patient, random) => {
      const index = patient.bitmapRoot(METADATA);
      patient.setU64(index, 16, patient.u64(index, 16) + random.between(1, 3));
      patient.seal(index, SALT.INDEX);
      return true;
    },
  },
  {
    name: 'wrong free counts and hints',
    apply: (patient, random) => {
      const index = patient.bitmapRoot(METADATA);
      const offset = random.pick([24, 28]);
      patient.setU32(index, offset, patient.u32(index, offset) + random.between(1, 99));
      patient.seal(index, SALT.INDEX);
      return true;
    },
    notByDebian: true,
    notByNewest: true,
  },
  {
    name: 'a wrong number of allocated blocks',
    apply: (patient, random) => {
      const map = random.pick([DATA, METADATA]);
      patient.setU64(0, map + 8, patient.u64(0, map + 8) + random.between(1, 99));
      patient.sealSuperblock();
      return true;
    },
    notByDebian: true,
    notByNewest: true,
  },
  {
    name: 'wrong magic',
    apply: (patient, random) => {
      patient.setU64(0, 32, random.below(1e9));
      patient.sealSuperblock();
      return true;
    },
    notByDebian: true,
    notByNewest: true,
  },
  {
    name: 'a superblock that is another block',
    apply: (patient, random) => {
      patient.setU64(0, 8, random.between(1, 99));
      patient.sealSuperblock();
      return true;
    },
    notByDebian: true,
    notByNewest: true,
  },
  {
    name: 'unknown incompatible features',
    apply: (patient, random) => {
      patient.setU32(0, 360, 1 << random.below(31));
      patient.sealSuperblock();
      return true;
    },
    notByDebian: true,
    notByNewest: true,
  },
];
