/**
 * The part of a pool's check that looks at its trees: device details, the top level of the mapping
 * tree, and the mappings of each device (spec: tools, 2; thin, 1.3, 1.4 and 1.7).
 *
 * The live trees are checked before those of a metadata snapshot, so that what both share counts as
 * live. References to metadata blocks go to the run's table, those to data blocks to another.
 */
import { peekLe64 } from '../../base/struct.ts';
import type { ReadBlock } from '../../persistent-data/block.ts';
import { CheckRun } from '../../persistent-data/check/check-run.ts';
import { CountTable } from '../../persistent-data/check/count-table.ts';
import type { DamageKind } from '../../persistent-data/check/damage.ts';
import { ERRORS_MAX, type SubtreeSummary } from '../../persistent-data/check/node-table.ts';
import {
  checkTree,
  checkUpperLevel,
  eachEntry,
  type Subtree,
} from '../../persistent-data/check/tree-check.ts';
import { deviceDetails } from '../metadata/device-details.ts';
import { dataBlockAt, MAPPING_SIZE } from '../metadata/mapping.ts';

const DETAILS_TREE = 'device details tree';
const DEVICE_TREE = 'mapping tree';
const MAPPINGS = 'mappings';

/** The roots that a superblock, or a metadata snapshot, names. */
export interface TreeRoots {
  readonly mappingRoot: number;
  readonly detailsRoot: number;
}

/** The devices that the upper trees tell of. */
export interface Devices {
  /** Root of the mapping tree by device. */
  readonly roots: ReadonlyMap<number, number>;
  /** The number of mappings that the details promise, by device. */
  readonly mappedBlocks: ReadonlyMap<number, number>;
  /** Subtrees whose references are to be counted: those in nodes not seen before. */
  readonly fresh: readonly Subtree[];
}

export const INCONSISTENT = 'Inconsistency between the details tree and the mapping tree';

export class TreesCheck {
  /** References found to each data block. */
  readonly dataCounts = new CountTable();
  readonly #run: CheckRun;
  readonly #nrDataBlocks: number;
  readonly #say: (text: string) => void;

  /** `say` takes lines for the user that sum damage up. */
  constructor(run: CheckRun, nrDataBlocks: number, say: (text: string) => void) {
    this.#run = run;
    this.#nrDataBlocks = nrDataBlocks;
    this.#say = say;
  }

  /** Checks details tree and top level, and that they tell of the same devices. */
  checkDevices(roots: TreeRoots): Devices {
    const fresh: Subtree[] = [];
    const details = checkTree(this.#run, roots.detailsRoot, {
      name: DETAILS_TREE,
      valueSize: deviceDetails.size,
    });
    const upper = checkUpperLevel(this.#run, roots.mappingRoot, DEVICE_TREE);
    fresh.push(...upper.subtrees);
    const devices = { ...listDevices(this.#run, roots), fresh };
    if (details.nrErrors === 0 && upper.summary.nrErrors === 0) {
      this.#checkConsistency(devices, roots);
    }
    return devices;
  }

  /** Damaged trees lack devices anyway; in sound ones each device is in both. */
  #checkConsistency({ roots, mappedBlocks }: Devices, { detailsRoot }: TreeRoots): void {
    const lone = [
      ...[...roots.keys()].filter((id) => !mappedBlocks.has(id)),
      ...[...mappedBlocks.keys()].filter((id) => !roots.has(id)),
    ];
    for (const id of lone) {
      const where = roots.has(id) ? DETAILS_TREE : DEVICE_TREE;
      const text = `thin device ${id} is missing`;
      const place = { where, path: [], blocknr: detailsRoot, begin: id, end: id + 1 };
      this.#run.report({ ...place, kind: 'missing', text });
    }
    if (lone.length > 0) this.#say(INCONSISTENT);
  }

  /** Checks the mappings of the devices, and sums up what is wrong with each. */
  checkMappings(devices: Devices): void {
    for (const { key, root } of devices.fresh) {
      const summary = checkTree(
        this.#run,
        root,
        {
          name: MAPPINGS,
          valueSize: MAPPING_SIZE,
          visitLeaf: (leaf, path) => this.#countDataBlocks(leaf, path),
        },
        [key],
      );
      const expected = devices.mappedBlocks.get(key);
      // Of devices that share the top level with live ones, enough has been said.
      if (expected !== undefined) this.#judge(key, root, summary, expected);
    }
  }

  #countDataBlocks({ view, blocknr }: ReadBlock, path: readonly number[]): void {
    eachEntry(view, (key, offset) => {
      const block = dataBlockAt(view, offset);
      if (block < this.#nrDataBlocks) {
        this.dataCounts.add(block);
        return;
      }
      const place = { where: MAPPINGS, path, blocknr, begin: key, end: key + 1 };
      const text = `wanted a data block below ${this.#nrDataBlocks}, found ${block}`;
      this.#run.report({ ...place, kind: 'pointer', text });
    });
  }

  #judge(id: number, root: number, found: SubtreeSummary, expected: number): void {
    const { nrErrors, nrEntries } = found;
    if (found.height === 0) {
      this.#say(`Thin device ${id} is missing root with ${expected} mappings`);
    } else if (nrErrors > 0) {
      const errors = nrErrors < ERRORS_MAX ? String(nrErrors) : `${ERRORS_MAX}+`;
      const missing = Math.max(0, expected - nrEntries);
      this.#say(
        `Thin device ${id} has ${errors} errors and is missing ${missing} mappings, ` +
          `while expected ${expected}`,
      );
    } else if (nrEntries !== expected) {
      const counts = `expected ${expected}, actual ${nrEntries}`;
      this.#say(`Thin device ${id} has unexpected number of mappings, ${counts}`);
      const place = { where: MAPPINGS, path: [id], blocknr: root, begin: 0, end: Infinity };
      this.#run.report({ ...place, kind: 'value', text: `wanted ${expected}, found ${nrEntries}` });
    }
  }
}

/**
 * Reads both upper trees whole, also where they share nodes with trees checked before. What is
 * wrong with them is reported by the check.
 */
function listDevices(
  run: CheckRun,
  { mappingRoot, detailsRoot }: TreeRoots,
): Omit<Devices, 'fresh'> {
  const listing = new CheckRun(run.reader, () => undefined);
  const roots = new Map<number, number>();
  const mappedBlocks = new Map<number, number>();
  for (const { key, root } of checkUpperLevel(listing, mappingRoot, DEVICE_TREE).subtrees) {
    roots.set(key, root);
  }
  checkTree(listing, detailsRoot, {
    name: DETAILS_TREE,
    valueSize: deviceDetails.size,
    visitLeaf: ({ view }) =>
      eachEntry(view, (id, offset) => {
        mappedBlocks.set(id, peekLe64(view, offset + deviceDetails.mappedBlocks.offset));
      }),
  });
  return { roots, mappedBlocks };
}

/** Kinds of damage that make a node unusable. */
const NODE_DAMAGE: readonly DamageKind[] = [
  'unreadable',
  'checksum',
  'blocknr',
  'structure',
  'value-size',
  'order',
  'max-entries',
];

/** The lines that say how many nodes are damaged; `count` tells the findings of a kind. */
export function nodeErrorLines(count: (kind: DamageKind) => number): string[] {
  const nrNodes = NODE_DAMAGE.reduce((sum, kind) => sum + count(kind), 0);
  if (nrNodes === 0) return [];
  return [
    `${nrNodes} nodes in data mapping tree contain errors`,
    `${count('unreadable')} io errors, ${count('checksum')} checksum errors`,
  ];
}
