/**
 * Finding the roots of a pool whose superblock, or whose newest trees, are damaged: the strategy of
 * thin_repair (spec: tools, 5), which only reads.
 *
 *   1. Trees are found by looking at every block (node-classes.ts).
 *   2. A tree of devices and one of details are a pair if they know the same devices and agree on
 *      how much is mapped. If the superblock's are a pair, they are it.
 *   3. Otherwise the pair with the newest mappings is taken, and a superblock made up for it.
 *   4. Without any pair, details are made up for the newest tree of devices, so that all its data
 *      counts as shared: writes copy, nothing is overwritten in place.
 */
import { DmError } from '../../base/error.ts';
import { isLeaf } from '../../persistent-data/btree/node.ts';
import { ReadFailure, type BlockReader } from '../../persistent-data/check/block-reader.ts';
import { childrenOf, eachEntry } from '../../persistent-data/check/tree-check.ts';
import { dataBlockAt, MAPPING_SIZE, timeAt } from '../metadata/mapping.ts';
import { VERSION } from '../metadata/superblock.ts';
import { openSource, type PoolOverrides, type PoolSource } from './dump.ts';
import { NodeClass, NodeClasses } from './node-classes.ts';
import { readPoolSuperblock, type PoolSuperblock } from './pool-superblock.ts';
import type { DeviceInfo } from './pool-visitor.ts';
import { TreeReader } from './tree-reader.ts';

/** A tree of devices, and all that is needed to judge it. */
interface DeviceTree {
  readonly roots: ReadonlyMap<number, number>;
  readonly nrMappings: number;
}

interface DetailsTree {
  readonly devices: ReadonlyMap<number, DeviceInfo>;
  readonly nrMappings: number;
}

/** What the mappings of a tree of devices tell. */
interface Ages {
  /** Mappings by time. */
  readonly times: ReadonlyMap<number, number>;
  /** Highest data block; 0 without mappings. */
  readonly highestBlock: number;
}

/**
 * The best source that the metadata offers. `say` is told what had to be made up. Throws DmError
 * whose message is for the user if there is none, or if an option is needed.
 */
export function findSource(
  reader: BlockReader,
  overrides: PoolOverrides,
  say: (text: string) => void,
): PoolSource {
  return new RootSearch(reader, overrides, say).find();
}

class RootSearch {
  readonly #reader: BlockReader;
  readonly #trees: TreeReader;
  readonly #overrides: PoolOverrides;
  readonly #say: (text: string) => void;
  readonly #classes: NodeClasses;
  readonly #old: PoolSuperblock | null;

  constructor(reader: BlockReader, overrides: PoolOverrides, say: (text: string) => void) {
    this.#reader = reader;
    this.#trees = new TreeReader(reader);
    this.#overrides = overrides;
    this.#say = say;
    this.#classes = new NodeClasses(reader);
    const old = readPoolSuperblock(reader, 0);
    this.#old = old instanceof ReadFailure ? null : old;
  }

  find(): PoolSource {
    const current = this.#current();
    if (current !== null) return current;
    const trees = this.#classes.roots(NodeClass.DEVICES).map((root) => this.#deviceTree(root));
    const details = this.#classes.roots(NodeClass.DETAILS).map((root) => this.#detailsTree(root));
    const partnerOf = (tree: DeviceTree): DetailsTree | undefined =>
      details.find((candidate) => arePair(tree, candidate));
    const paired = this.#newest(trees.filter((tree) => partnerOf(tree) !== undefined));
    if (paired !== null) return this.#rebuild(paired, partnerOf(paired)?.devices ?? null);
    const lone = this.#newest(trees);
    if (lone === null) throw new DmError('ENODATA', 'no compatible roots found');
    this.#say(`found ${trees.length} mapping trees without device details`);
    return this.#rebuild(lone, null);
  }

  /** What the superblock names, if it is sound. */
  #current(): PoolSource | null {
    const sb = this.#old;
    if (sb === null) return null;
    if (!this.#isDeviceTree(sb.mappingRoot)) return null;
    if (this.#classes.classOf(sb.detailsRoot) !== NodeClass.DETAILS) return null;
    const tree = this.#deviceTree(sb.mappingRoot);
    if (!arePair(tree, this.#detailsTree(sb.detailsRoot))) return null;
    return openSource(this.#reader, sb, this.#overrides);
  }

  /** A tree without devices is a leaf without entries, which could be of mappings as well. */
  #isDeviceTree(root: number): boolean {
    const nodeClass = this.#classes.classOf(root);
    if (nodeClass === NodeClass.DEVICES) return true;
    return nodeClass === NodeClass.MAPPINGS && this.#classes.nrMappings(root) === 0;
  }

  #deviceTree(blocknr: number): DeviceTree {
    const roots = this.#trees.deviceRoots(blocknr);
    return { roots, nrMappings: this.#classes.nrMappings(blocknr) };
  }

  #detailsTree(blocknr: number): DetailsTree {
    const devices = this.#trees.details(blocknr);
    let nrMappings = 0;
    for (const { mappedBlocks } of devices.values()) nrMappings += mappedBlocks;
    return { devices, nrMappings };
  }

  /** The tree with the newest mappings; null of none. */
  #newest(trees: readonly DeviceTree[]): DeviceTree | null {
    const aged = trees.map((tree) => ({ tree, times: descending(this.#ages(tree).times) }));
    aged.sort((a, b) => compareTimes(a.times, b.times));
    return aged[0]?.tree ?? null;
  }

  /** Reads each leaf once, and counts it as often as devices reach it. */
  #ages({ roots }: DeviceTree): Ages {
    const times = new Map<number, number>();
    let highestBlock = 0;
    let level = new Map<number, number>();
    const levels: Map<number, number>[] = [];
    for (const root of roots.values()) {
      const height = this.#trees.height(root, MAPPING_SIZE);
      addTo((levels[height] ??= new Map<number, number>()), root, 1);
    }
    for (let height = levels.length - 1; height >= 1; height--) {
      for (const [node, n] of levels[height] ?? []) addTo(level, node, n);
      const below = new Map<number, number>();
      for (const [blocknr, nrPaths] of level) {
        const { view } = this.#trees.node(blocknr, MAPPING_SIZE);
        if (!isLeaf(view)) {
          for (const child of childrenOf(view).blocknrs) addTo(below, child, nrPaths);
          continue;
        }
        eachEntry(view, (_, offset) => {
          addTo(times, timeAt(view, offset), nrPaths);
          highestBlock = Math.max(highestBlock, dataBlockAt(view, offset));
        });
      }
      level = below;
    }
    return { times, highestBlock };
  }

  /** A source for a tree of devices; `details` null if they have to be made up. */
  #rebuild(tree: DeviceTree, details: ReadonlyMap<number, DeviceInfo> | null): PoolSource {
    const old = this.#old;
    const dataBlockSize = this.#overrides.dataBlockSize ?? old?.dataBlockSize;
    if (dataBlockSize === undefined) {
      const text = 'data block size needs to be provided due to corruption in the superblock';
      throw new DmError('EINVAL', text);
    }
    const { times, highestBlock } = this.#ages(tree);
    const given = this.#overrides.transactionId ?? old?.transactionId ?? 0n;
    const highest = highestOf(details);
    const transactionId = maxBig(given, highest.transactionId + 1n);
    const newestTime = Math.max(
      0,
      highest.time,
      ...descending(times)
        .slice(0, 1)
        .map(([t]) => t),
    );
    const inventedTime = newestTime + 1;
    const time = Math.max(old?.time ?? 0, details === null ? inventedTime : newestTime);
    const nrDataBlocks = this.#overrides.nrDataBlocks ?? old?.dataSpaceMap.nrBlocks ?? 0;
    const devices = [...tree.roots].map(([id, root]) => ({
      root,
      info: details?.get(id) ?? {
        id,
        mappedBlocks: this.#classes.nrMappings(root),
        transactionId: transactionId - 1n,
        creationTime: time,
        snapshottedTime: time,
      },
    }));
    return {
      info: {
        time,
        transactionId,
        needsCheck: false,
        version: VERSION,
        dataBlockSize,
        nrDataBlocks: Math.max(nrDataBlocks, highestBlock + 1),
      },
      devices,
    };
  }
}

function arePair(tree: DeviceTree, details: DetailsTree): boolean {
  if (tree.nrMappings !== details.nrMappings) return false;
  if (tree.roots.size !== details.devices.size) return false;
  return [...tree.roots.keys()].every((id) => details.devices.has(id));
}

function highestOf(details: ReadonlyMap<number, DeviceInfo> | null): {
  transactionId: bigint;
  time: number;
} {
  let transactionId = 0n;
  let time = 0;
  for (const device of details?.values() ?? []) {
    transactionId = maxBig(transactionId, device.transactionId);
    time = Math.max(time, device.creationTime, device.snapshottedTime);
  }
  return { transactionId, time };
}

function maxBig(a: bigint, b: bigint): bigint {
  return a > b ? a : b;
}

function addTo(counts: Map<number, number>, key: number, n: number): void {
  counts.set(key, (counts.get(key) ?? 0) + n);
}

/** A histogram as (time, count), the newest first. */
function descending(times: ReadonlyMap<number, number>): [number, number][] {
  return [...times].sort(([a], [b]) => b - a);
}

/** Orders histograms: the newest time first, then the one with more of it, then the next time. */
function compareTimes(a: readonly [number, number][], b: readonly [number, number][]): number {
  for (let i = 0; i < Math.min(a.length, b.length); i++) {
    const [timeA, countA] = a[i] as [number, number];
    const [timeB, countB] = b[i] as [number, number];
    if (timeA !== timeB) return timeB - timeA;
    if (countA !== countB) return countB - countA;
  }
  return b.length - a.length;
}
