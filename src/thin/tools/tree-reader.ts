/**
 * TreeReader: nodes of sound trees, for tools that use metadata rather than judge it: the first
 * damage ends them.
 */
import { DmError } from '../../base/error.ts';
import { peekLe64 } from '../../base/struct.ts';
import type { ReadBlock } from '../../persistent-data/block.ts';
import { DEPTH_MAX } from '../../persistent-data/btree/btree.ts';
import { isLeaf, nodeValidator } from '../../persistent-data/btree/node.ts';
import { ReadFailure, type BlockReader } from '../../persistent-data/check/block-reader.ts';
import {
  childrenOf,
  eachEntry,
  findNodeFault,
  type Children,
} from '../../persistent-data/check/tree-check.ts';
import { deviceDetails } from '../metadata/device-details.ts';
import type { DeviceInfo } from './pool-visitor.ts';

export class TreeReader {
  readonly #reader: BlockReader;

  constructor(reader: BlockReader) {
    this.#reader = reader;
  }

  /** Metadata blocks that there are. */
  get nrBlocks(): number {
    return this.#reader.nrBlocks;
  }

  /**
   * The node in `blocknr` of a tree whose values have `valueSize` bytes; valid until the next read.
   * Throws EILSEQ, or EIO.
   */
  node(blocknr: number, valueSize: number): ReadBlock {
    const node = this.#reader.read(blocknr, nodeValidator);
    if (node instanceof ReadFailure) {
      const errno = node.kind === 'unreadable' ? 'EIO' : 'EILSEQ';
      throw new DmError(errno, `block ${blocknr}: ${node.text}`);
    }
    const fault = findNodeFault(node.view, valueSize);
    if (fault !== null) throw new DmError('EILSEQ', `block ${blocknr}: ${fault.text}`);
    return node;
  }

  /** As `node`, for one that must be a leaf. */
  leaf(blocknr: number, valueSize: number): ReadBlock {
    const node = this.node(blocknr, valueSize);
    if (isLeaf(node.view)) return node;
    throw new DmError('EILSEQ', `block ${blocknr}: wanted a leaf, found an internal node`);
  }

  /** The children of a node that must be an internal one. */
  children(blocknr: number, valueSize: number): Children {
    const { view } = this.node(blocknr, valueSize);
    if (!isLeaf(view)) return childrenOf(view);
    throw new DmError('EILSEQ', `block ${blocknr}: wanted an internal node, found a leaf`);
  }

  /** Levels of nodes in the tree at `root`, by its first leaf. */
  height(root: number, valueSize: number): number {
    let blocknr = root;
    for (let height = 1; height <= DEPTH_MAX; height++) {
      const { view } = this.node(blocknr, valueSize);
      if (isLeaf(view)) return height;
      blocknr = childrenOf(view).blocknrs[0] as number;
    }
    throw new DmError('EILSEQ', `block ${root}: more than ${DEPTH_MAX} levels`);
  }

  /** Calls `visit` with each leaf of the tree at `root`, in key order. */
  eachLeaf(root: number, valueSize: number, visit: (leaf: ReadBlock) => void): void {
    this.#eachLeaf(root, this.height(root, valueSize), valueSize, visit);
  }

  #eachLeaf(
    blocknr: number,
    height: number,
    valueSize: number,
    visit: (leaf: ReadBlock) => void,
  ): void {
    if (height === 1) {
      visit(this.leaf(blocknr, valueSize));
      return;
    }
    for (const child of this.children(blocknr, valueSize).blocknrs) {
      this.#eachLeaf(child, height - 1, valueSize, visit);
    }
  }

  /** The top level of a mapping tree: root by device, in order. */
  deviceRoots(root: number): Map<number, number> {
    const roots = new Map<number, number>();
    this.eachLeaf(root, 8, ({ view }) =>
      eachEntry(view, (id, offset) => roots.set(id, peekLe64(view, offset))),
    );
    return roots;
  }

  /** The details of all devices, in order. */
  details(root: number): Map<number, DeviceInfo> {
    const devices = new Map<number, DeviceInfo>();
    this.eachLeaf(root, deviceDetails.size, ({ view }) =>
      eachEntry(view, (id, offset) => {
        devices.set(id, {
          id,
          mappedBlocks: peekLe64(view, offset + deviceDetails.mappedBlocks.offset),
          transactionId: deviceDetails.transactionId.getBig(view, offset),
          creationTime: deviceDetails.creationTime.get(view, offset),
          snapshottedTime: deviceDetails.snapshottedTime.get(view, offset),
        });
      }),
    );
    return devices;
  }
}
