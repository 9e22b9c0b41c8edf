/**
 * Damages to an image of cache metadata: each changes one thing of a live structure, seeded, and
 * says whether Debian's cache_check looks for it. Checksums are right again afterwards, unless they
 * are what is damaged.
 */
import { SALT } from '../../src/persistent-data/validator.ts';
import type { Random } from './random.ts';
import { Patient } from './thin-damage.ts';
import { BLOCK } from './thin-images.ts';

const AT = {
  flags: 4,
  version: 40,
  hintSize: 60,
  spaceMap: 64,
  mappingRoot: 192,
  hintRoot: 200,
  discardRoot: 208,
  nrCacheBlocks: 240,
  incompatFlags: 252,
  dirtyRoot: 284,
} as const;

const HEADER = 24;

/** An image being damaged, with words for a cache's structures. */
export class CachePatient extends Patient {
  #mappingBlocks: number[] | null = null;

  get version(): number {
    return this.u32(0, AT.version);
  }

  get isClean(): boolean {
    return (this.u32(0, AT.flags) & 1) !== 0;
  }

  override get mappingRoot(): number {
    return this.u64(0, AT.mappingRoot);
  }

  get hintRoot(): number {
    return this.u64(0, AT.hintRoot);
  }

  get discardRoot(): number {
    return this.u64(0, AT.discardRoot);
  }

  get dirtyRoot(): number {
    return this.u64(0, AT.dirtyRoot);
  }

  get nrCacheBlocks(): number {
    return this.u32(0, AT.nrCacheBlocks);
  }

  // There is one space map, and it is the metadata's, wherever the root record is.

  override bitmapRoot(): number {
    return this.u64(0, AT.spaceMap + 16);
  }

  override overflowRoot(): number {
    return this.u64(0, AT.spaceMap + 24);
  }

  override sealSuperblock(): void {
    this.seal(0, SALT.CACHE_SUPERBLOCK);
  }

  setSuperblock(offset: number, value: number): void {
    this.setU32(0, offset, value);
    this.sealSuperblock();
  }

  /** The array blocks of the array whose index tree is at `root`, in order. */
  arrayBlocks(root: number): number[] {
    const leaves = this.nodes(root).filter((node) => this.isLeaf(node));
    return leaves.flatMap((leaf) => this.children(leaf));
  }

  sealArray(block: number): void {
    this.seal(block, SALT.ARRAY);
  }

  /** Where the mapping of a cblock is; mapping arrays are not moved here. */
  #mappingAt(cblock: number): { block: number; offset: number } {
    this.#mappingBlocks ??= this.arrayBlocks(this.mappingRoot);
    const block = this.#mappingBlocks[Math.floor(cblock / 509)] as number;
    return { block, offset: HEADER + 8 * (cblock % 509) };
  }

  setMapping(cblock: number, oblock: number, flags: number): void {
    const { block, offset } = this.#mappingAt(cblock);
    this.setU64(block, offset, (BigInt(oblock) << 16n) | BigInt(flags));
    this.sealArray(block);
  }

  mapping(cblock: number): { oblock: number; flags: number } {
    const { block, offset } = this.#mappingAt(cblock);
    const value = this.u64(block, offset);
    return { oblock: Math.floor(value / 2 ** 16), flags: value % 2 ** 16 };
  }

  /** A cblock that holds something, or one that does not; none is -1. */
  cblock(isMapped: boolean, random: Random): number {
    const first = random.below(this.nrCacheBlocks);
    for (let i = 0; i < this.nrCacheBlocks; i++) {
      const cblock = (first + i) % this.nrCacheBlocks;
      if (((this.mapping(cblock).flags & 1) !== 0) === isMapped) return cblock;
    }
    return -1;
  }
}

export interface CacheDamage {
  readonly name: string;
  /** Damages; false if the image has nothing that could be damaged so. */
  readonly apply: (patient: CachePatient, random: Random) => boolean;
  /** Debian's cache_check 0.9.0 does not look for it. */
  readonly notByDebian?: boolean;
}

const ROOTS = ['mappingRoot', 'hintRoot', 'discardRoot', 'dirtyRoot'] as const;

const words: Record<(typeof ROOTS)[number], string> = {
  mappingRoot: 'mappings',
  hintRoot: 'hints',
  discardRoot: 'discard bits',
  dirtyRoot: 'dirty bits',
};

/** What can be wrong with any of the arrays. */
function arrayDamages(name: (typeof ROOTS)[number]): CacheDamage[] {
  // It says that it examines the discard bits, and does not.
  const notByDebian = name === 'dirtyRoot' || name === 'discardRoot';
  const damage = (
    text: string,
    apply: (patient: CachePatient, root: number, random: Random) => boolean,
    options: { notByDebian?: boolean } = {},
  ): CacheDamage => ({
    name: `${words[name]}: ${text}`,
    notByDebian: notByDebian || options.notByDebian === true,
    apply: (patient, random) => {
      const root = patient[name];
      return root !== 0 && apply(patient, root, random);
    },
  });
  const ofBlock =
    (edit: (patient: CachePatient, block: number) => void) =>
    (patient: CachePatient, root: number, random: Random): boolean => {
      const blocks = patient.arrayBlocks(root);
      if (blocks.length === 0) return false;
      edit(patient, random.pick(blocks));
      return true;
    };
  return [
    damage(
      'a wrong checksum in an array block',
      ofBlock((p, block) => p.setU32(block, 0, 7)),
    ),
    damage(
      'an array block that is another one',
      ofBlock((p, block) => {
        p.setU64(block, 16, block + 1);
        p.sealArray(block);
      }),
    ),
    damage(
      'values of another size',
      ofBlock((p, block) => {
        p.setU32(block, 12, 16);
        p.setU32(block, 4, Math.floor((BLOCK - HEADER) / 16));
        p.setU32(block, 8, 10);
        p.sealArray(block);
      }),
      { notByDebian: true },
    ),
    damage(
      'more values than fit a block',
      ofBlock((p, block) => {
        p.setU32(block, 8, 2000);
        p.sealArray(block);
      }),
      { notByDebian: true },
    ),
    damage('a value less at the end', (p, root) => {
      const block = p.arrayBlocks(root).at(-1);
      if (block === undefined || (name === 'hintRoot' && !p.isClean)) return false;
      p.setU32(block, 8, p.u32(block, 8) - 1);
      p.sealArray(block);
      return true;
    }),
    damage('a root that is no node', (p, root) => {
      p.setU32(root, 0, 1);
      return true;
    }),
    damage('an index that leads out of the device', (p, root, random) => {
      const leaves = p.nodes(root).filter((node) => p.isLeaf(node) && p.nr(node) > 0);
      if (leaves.length === 0) return false;
      const leaf = random.pick(leaves);
      p.setU64(leaf, p.valueAt(leaf, random.below(p.nr(leaf))), 2 ** 40);
      p.sealNode(leaf);
      return true;
    }),
    damage(
      'an index in which two entries are one block',
      (p, root) => {
        const leaf = p.nodes(root).find((node) => p.isLeaf(node) && p.nr(node) > 1);
        if (leaf === undefined) return false;
        p.setU64(leaf, p.valueAt(leaf, 1), p.child(leaf, 0));
        p.sealNode(leaf);
        return true;
      },
      { notByDebian: true },
    ),
    damage('an index without its first entry', (p, root) => {
      const leaf = p.nodes(root).find((node) => p.isLeaf(node) && p.nr(node) > 1);
      if (leaf === undefined || (name === 'hintRoot' && !p.isClean)) return false;
      p.setU64(leaf, p.keyAt(0), 1);
      p.setU64(leaf, p.keyAt(1), 2);
      p.sealNode(leaf);
      return true;
    }),
  ];
}

export const cacheDamages: readonly CacheDamage[] = [
  {
    name: 'superblock: a wrong checksum',
    apply: (p) => {
      p.setU32(0, 0, 5);
      return true;
    },
  },
  {
    name: 'superblock: a wrong magic number',
    apply: (p) => {
      p.setSuperblock(32, 6142003);
      return true;
    },
  },
  {
    name: 'superblock: a version from the future',
    apply: (p) => {
      p.setSuperblock(AT.version, 3);
      return true;
    },
  },
  {
    name: 'superblock: an unknown incompatible feature',
    notByDebian: true,
    apply: (p) => {
      p.setSuperblock(AT.incompatFlags, 4);
      return true;
    },
  },
  {
    name: 'superblock: a size of hints that nobody has',
    notByDebian: true,
    apply: (p) => {
      if (p.hintRoot === 0) return false;
      p.setSuperblock(AT.hintSize, 12);
      return true;
    },
  },
  {
    name: 'superblock: a format 2 without dirty bits',
    notByDebian: true,
    apply: (p) => {
      if (p.version !== 2) return false;
      p.setU64(0, AT.dirtyRoot, 0);
      p.sealSuperblock();
      return true;
    },
  },
  {
    name: 'superblock: more cache blocks than mappings',
    apply: (p) => {
      p.setSuperblock(AT.nrCacheBlocks, p.nrCacheBlocks + 2000);
      return true;
    },
  },
  {
    name: 'mappings: an unknown flag',
    notByDebian: true,
    apply: (p, random) => {
      const cblock = random.below(p.nrCacheBlocks);
      const { oblock, flags } = p.mapping(cblock);
      p.setMapping(cblock, oblock, flags | 4);
      return true;
    },
  },
  {
    name: 'mappings: an unmapped block that names an origin block',
    notByDebian: true,
    apply: (p, random) => {
      p.setMapping(p.cblock(false, random), 77, 0);
      return true;
    },
  },
  {
    name: 'mappings: a dirty flag where none may be',
    notByDebian: true,
    apply: (p, random) => {
      if (p.version === 1) {
        p.setMapping(p.cblock(false, random), 0, 2);
        return true;
      }
      const cblock = p.cblock(true, random);
      if (cblock < 0) return false;
      p.setMapping(cblock, p.mapping(cblock).oblock, 3);
      return true;
    },
  },
  {
    name: 'mappings: an origin block that is mapped twice',
    apply: (p, random) => {
      const mapped = p.cblock(true, random);
      if (mapped < 0) return false;
      p.setMapping(p.cblock(false, random), p.mapping(mapped).oblock, 1);
      return true;
    },
  },
  {
    name: 'mappings: an origin block beyond the end of the origin',
    notByDebian: true,
    apply: (p, random) => {
      if (!p.isClean || p.u64(0, 224) === 0) return false;
      p.setMapping(p.cblock(false, random), 2 ** 40, 1);
      return true;
    },
  },
  ...ROOTS.flatMap(arrayDamages),
  {
    name: 'space map: a wrong checksum in a bitmap',
    notByDebian: true,
    apply: (p) => {
      p.setU32(p.bitmap(192), 0, 3);
      return true;
    },
  },
  {
    name: 'space map: a wrong checksum in the index',
    notByDebian: true,
    apply: (p) => {
      p.setU32(p.bitmapRoot(), 0, 3);
      return true;
    },
  },
  {
    name: 'space map: a block in use that counts as free',
    notByDebian: true,
    apply: (p) => {
      p.setCount(192, p.mappingRoot, 0);
      return true;
    },
  },
];

/** Damages that cost space at most. */
export const harmlessCacheDamages: readonly CacheDamage[] = [
  {
    name: 'a block that nobody uses and that is counted',
    apply: (p, random) => {
      const nrBlocks = p.u64(0, AT.spaceMap);
      const free = Array.from({ length: nrBlocks }, (_, i) => i).filter(
        (b) => p.count(192, b) === 0,
      );
      p.setCount(192, random.pick(free), random.pick([1, 2]));
      return true;
    },
  },
  {
    name: 'a count that is too high',
    apply: (p) => {
      p.setCount(192, p.mappingRoot, 2);
      return true;
    },
  },
  {
    name: 'a wrong number of blocks in use',
    apply: (p) => {
      p.setU64(0, AT.spaceMap + 8, p.u64(0, AT.spaceMap + 8) + 3);
      p.sealSuperblock();
      return true;
    },
  },
];
