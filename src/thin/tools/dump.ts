/**
 * thin_dump: a pool's metadata as events for a writer (spec: tools, 3).
 *
 * The upper trees and all internal nodes are read before the first event, the leaves while the
 * events go out, so that a dump of any size is written as it is read. Damage ends it: what a dump
 * leaves out would be lost for good once it is restored.
 * Does not: choose roots where the superblock is damaged; see find-roots.ts.
 */
import { DmError } from '../../base/error.ts';
import type { ReadView } from '../../base/struct.ts';
import { keyAt, nrEntriesOf, valueOffset } from '../../persistent-data/btree/node.ts';
import { ReadFailure, type BlockReader } from '../../persistent-data/check/block-reader.ts';
import { dataBlockAt, MAPPING_SIZE, timeAt } from '../metadata/mapping.ts';
import { INCONSISTENT } from './check-trees.ts';
import { NO_METADATA_SNAP } from './check.ts';
import { LeafRuns } from './leaf-runs.ts';
import { BAD_SUPERBLOCK, readPoolSuperblock, type PoolSuperblock } from './pool-superblock.ts';
import type { DeviceInfo, PoolInfo, PoolVisitor } from './pool-visitor.ts';
import { TreeReader } from './tree-reader.ts';

/** Numbers that a user gives because the metadata's may be too low, or lost. */
export interface PoolOverrides {
  readonly transactionId?: bigint | undefined;
  readonly dataBlockSize?: number | undefined;
  readonly nrDataBlocks?: number | undefined;
}

export interface DumpOptions {
  /** Devices to dump; all, if not given. */
  readonly devIds?: readonly number[] | undefined;
  readonly skipMappings?: boolean;
}

/** A device to be dumped: what the details say, and where its mappings are. */
export interface DumpedDevice {
  readonly info: DeviceInfo;
  readonly root: number;
}

/** Everything that a dump needs to know before it reads mappings. */
export interface PoolSource {
  readonly info: PoolInfo;
  /** In order of id. */
  readonly devices: readonly DumpedDevice[];
}

/** The live superblock; throws EILSEQ or EIO if it cannot be used. */
export function liveSuperblock(reader: BlockReader): PoolSuperblock {
  return superblockAt(reader, 0);
}

/**
 * The superblock that a metadata snapshot is; `block` is where the user says it is, if he does.
 * Throws ENODATA if there is none, or none there.
 */
export function snapshotSuperblock(reader: BlockReader, block?: number): PoolSuperblock {
  const { heldRoot } = superblockAt(reader, 0);
  if (heldRoot === 0) throw new DmError('ENODATA', NO_METADATA_SNAP);
  if (block !== undefined && block !== heldRoot) {
    throw new DmError('ENODATA', 'metadata snapshot does not match that in superblock');
  }
  return superblockAt(reader, heldRoot);
}

function superblockAt(reader: BlockReader, blocknr: number): PoolSuperblock {
  const sb = readPoolSuperblock(reader, blocknr);
  if (!(sb instanceof ReadFailure)) return sb;
  throw new DmError(sb.kind === 'unreadable' ? 'EIO' : 'EILSEQ', BAD_SUPERBLOCK);
}

/** The source that a sound superblock describes. Throws EILSEQ or EIO if the trees are damaged. */
export function openSource(
  reader: BlockReader,
  sb: PoolSuperblock,
  overrides: PoolOverrides = {},
): PoolSource {
  const trees = new TreeReader(reader);
  const roots = trees.deviceRoots(sb.mappingRoot);
  const details = trees.details(sb.detailsRoot);
  if (roots.size !== details.size) throw new DmError('EILSEQ', INCONSISTENT);
  const devices = [...roots].map(([id, root]) => {
    const info = details.get(id);
    if (info === undefined) throw new DmError('EILSEQ', INCONSISTENT);
    return { info, root };
  });
  return { info: poolInfo(sb, overrides), devices };
}

function poolInfo(sb: PoolSuperblock, overrides: PoolOverrides): PoolInfo {
  const { nrBlocks } = sb.dataSpaceMap;
  const given = overrides.transactionId ?? 0n;
  return {
    time: sb.time,
    transactionId: given > sb.transactionId ? given : sb.transactionId,
    needsCheck: sb.needsCheck,
    version: sb.version,
    dataBlockSize: overrides.dataBlockSize ?? sb.dataBlockSize,
    nrDataBlocks: Math.max(overrides.nrDataBlocks ?? 0, nrBlocks),
  };
}

/** Tells `visitor` all of `source`. Throws EILSEQ or EIO at the first damage. */
export function dumpPool(
  reader: BlockReader,
  source: PoolSource,
  options: DumpOptions,
  visitor: PoolVisitor,
): void {
  const { devIds, skipMappings } = options;
  const devices = source.devices.filter(({ info }) => devIds?.includes(info.id) ?? true);
  const trees = new TreeReader(reader);
  const runs = new LeafRuns(trees);
  if (skipMappings !== true) for (const { root } of devices) runs.add(root);
  visitor.beginPool(source.info);
  const mappings = new MappingDump(trees, runs, visitor);
  if (skipMappings !== true) for (const head of runs.sharedRuns()) mappings.def(head);
  for (const { info, root } of devices) {
    visitor.beginDevice(info);
    if (skipMappings !== true) mappings.device(root);
    visitor.endDevice();
  }
  visitor.endPool();
}

/** Reads leaves and joins their mappings into runs. */
class MappingDump {
  readonly #trees: TreeReader;
  readonly #runs: LeafRuns;
  readonly #visitor: PoolVisitor;
  // The run of mappings that may go on; length 0 for none.
  #begin = 0;
  #dataBegin = 0;
  #length = 0;
  #time = 0;
  /** Leaves still to come of the shared run that was referred to last. */
  #nrToSkip = 0;

  constructor(trees: TreeReader, runs: LeafRuns, visitor: PoolVisitor) {
    this.#trees = trees;
    this.#runs = runs;
    this.#visitor = visitor;
  }

  /** The run of shared leaves that begins with `head`. */
  def(head: number): void {
    this.#visitor.beginDef(String(head));
    for (let leaf = head; leaf !== 0; leaf = this.#runs.next(leaf)) this.#leaf(leaf);
    this.#flush();
    this.#visitor.endDef();
  }

  /** All mappings of the tree at `root`, those of shared leaves as refs. */
  device(root: number): void {
    this.#nrToSkip = 0;
    this.#subtree(root);
    this.#flush();
  }

  #subtree(blocknr: number): void {
    const nrLeaves = this.#runs.nrLeavesBelow(blocknr);
    if (this.#nrToSkip >= nrLeaves) {
      this.#nrToSkip -= nrLeaves;
    } else if (this.#runs.heightOf(blocknr) > 1) {
      const { blocknrs } = this.#trees.children(blocknr, MAPPING_SIZE);
      for (const child of blocknrs) this.#subtree(child);
    } else if (this.#runs.isShared(blocknr)) {
      this.#flush();
      this.#visitor.ref(String(blocknr));
      this.#nrToSkip = this.#runs.runLength(blocknr) - 1;
    } else {
      this.#leaf(blocknr);
    }
  }

  #leaf(blocknr: number): void {
    const { view } = this.#trees.leaf(blocknr, MAPPING_SIZE);
    const nr = nrEntriesOf(view);
    const values = valueOffset(view, 0);
    for (let i = 0; i < nr; i++) this.#add(keyAt(view, i), view, values + i * MAPPING_SIZE);
  }

  #add(key: number, view: ReadView, offset: number): void {
    const block = dataBlockAt(view, offset);
    const time = timeAt(view, offset);
    const length = this.#length;
    if (
      length > 0 &&
      time === this.#time &&
      key === this.#begin + length &&
      block === this.#dataBegin + length
    ) {
      this.#length = length + 1;
      return;
    }
    this.#flush();
    this.#begin = key;
    this.#dataBegin = block;
    this.#length = 1;
    this.#time = time;
  }

  #flush(): void {
    if (this.#length === 0) return;
    this.#visitor.mapping(this.#begin, this.#dataBegin, this.#length, this.#time);
    this.#length = 0;
  }
}
