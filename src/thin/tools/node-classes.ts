/**
 * NodeClasses: what each block of a metadata device could be a node of, with nothing to go by but
 * the blocks themselves (spec: tools, 5).
 *
 *   leaf of 24-byte values                                          details
 *   leaf of 8-byte values, all of them roots of mapping subtrees    devices (the top level)
 *   any other leaf of 8-byte values                                 mappings
 *   internal node                                                   what all its children are
 *
 * A node counts only if its checksum and all below it are sound, and its children in order of key.
 * Stale nodes, left over from earlier transactions, are among them: that is what makes older states
 * of a pool recoverable.
 */
import { peekLe64, type ReadView } from '../../base/struct.ts';
import {
  isLeaf,
  keyAt,
  nodeValidator,
  nrEntriesOf,
  valueOffset,
  valueSizeOf,
} from '../../persistent-data/btree/node.ts';
import { ReadFailure, type BlockReader } from '../../persistent-data/check/block-reader.ts';
import {
  childrenOf,
  findNodeFault,
  type Children,
} from '../../persistent-data/check/tree-check.ts';
import { deviceDetails } from '../metadata/device-details.ts';
import { MAPPING_SIZE } from '../metadata/mapping.ts';

export const NodeClass = {
  /** Not looked at yet. */
  UNKNOWN: 0,
  /** Being looked at: meeting it again below itself is a loop. */
  OPEN: 1,
  /** No sound node of any tree that matters. */
  NONE: 2,
  MAPPINGS: 3,
  DEVICES: 4,
  DETAILS: 5,
} as const;

type NodeClass = (typeof NodeClass)[keyof typeof NodeClass];

export class NodeClasses {
  readonly #reader: BlockReader;
  readonly #classes: Uint8Array;
  readonly #heights: Uint8Array;
  readonly #referenced: Uint8Array;
  /** Mappings below, those of shared nodes as often as they are reached. */
  readonly #nrMappings: Float64Array;
  readonly #firstKeys: Float64Array;
  readonly #lastKeys: Float64Array;

  /** Looks at every block of `reader`. */
  constructor(reader: BlockReader) {
    const { nrBlocks } = reader;
    this.#reader = reader;
    this.#classes = new Uint8Array(nrBlocks);
    this.#heights = new Uint8Array(nrBlocks);
    this.#referenced = new Uint8Array(nrBlocks);
    this.#nrMappings = new Float64Array(nrBlocks);
    this.#firstKeys = new Float64Array(nrBlocks);
    this.#lastKeys = new Float64Array(nrBlocks);
    for (let blocknr = 1; blocknr < nrBlocks; blocknr++) this.#classify(blocknr);
  }

  classOf(blocknr: number): NodeClass {
    return (this.#classes[blocknr] ?? NodeClass.NONE) as NodeClass;
  }

  nrMappings(blocknr: number): number {
    return this.#nrMappings[blocknr] as number;
  }

  /** Sound nodes of a class that no other sound node refers to, in order of block number. */
  roots(wanted: NodeClass): number[] {
    const found: number[] = [];
    for (const [blocknr, nodeClass] of this.#classes.entries()) {
      if (nodeClass === wanted && this.#referenced[blocknr] === 0) found.push(blocknr);
    }
    return found;
  }

  #classify(blocknr: number): NodeClass {
    if (blocknr === 0 || blocknr >= this.#classes.length) return NodeClass.NONE;
    const known = this.classOf(blocknr);
    if (known === NodeClass.OPEN) return NodeClass.NONE;
    if (known !== NodeClass.UNKNOWN) return known;
    this.#classes[blocknr] = NodeClass.OPEN;
    const found = this.#look(blocknr);
    this.#classes[blocknr] = found;
    return found;
  }

  #look(blocknr: number): NodeClass {
    const node = this.#reader.read(blocknr, nodeValidator);
    if (node instanceof ReadFailure) return NodeClass.NONE;
    const { view } = node;
    const isDetails = valueSizeOf(view) === deviceDetails.size;
    const size = isDetails ? deviceDetails.size : MAPPING_SIZE;
    if (findNodeFault(view, size) !== null) return NodeClass.NONE;
    if (!isLeaf(view)) return this.#lookBelow(blocknr, childrenOf(view));
    const nr = nrEntriesOf(view);
    this.#heights[blocknr] = 1;
    this.#firstKeys[blocknr] = nr > 0 ? keyAt(view, 0) : Infinity;
    this.#lastKeys[blocknr] = nr > 0 ? keyAt(view, nr - 1) : -Infinity;
    if (isDetails) return NodeClass.DETAILS;
    this.#nrMappings[blocknr] = nr;
    if (!this.#mayBeDevices(view)) return NodeClass.MAPPINGS;
    return this.#lookAtSubtrees(blocknr, childrenOf(view));
  }

  /** A mapping to data block 0 looks like a small block number, too. */
  #mayBeDevices(view: ReadView): boolean {
    const nr = nrEntriesOf(view);
    for (let i = 0; i < nr; i++) {
      const value = peekLe64(view, valueOffset(view, i));
      if (value === 0 || value >= this.#classes.length) return false;
    }
    return nr > 0;
  }

  #lookAtSubtrees(blocknr: number, { blocknrs }: Children): NodeClass {
    let nrMappings = 0;
    for (const root of blocknrs) {
      if (this.#classify(root) !== NodeClass.MAPPINGS) return NodeClass.MAPPINGS;
      nrMappings += this.nrMappings(root);
    }
    this.#nrMappings[blocknr] = nrMappings;
    for (const root of blocknrs) this.#referenced[root] = 1;
    return NodeClass.DEVICES;
  }

  #lookBelow(blocknr: number, { keys, blocknrs }: Children): NodeClass {
    const first = blocknrs[0] as number;
    const nodeClass = this.#classify(first);
    if (nodeClass === NodeClass.NONE) return NodeClass.NONE;
    let nrMappings = 0;
    let lastKey = -Infinity;
    for (const [i, child] of blocknrs.entries()) {
      if (this.#classify(child) !== nodeClass) return NodeClass.NONE;
      if (this.#heights[child] !== this.#heights[first]) return NodeClass.NONE;
      const firstKey = this.#firstKeys[child] as number;
      if (firstKey <= lastKey || firstKey < (keys[i] as number)) return NodeClass.NONE;
      lastKey = this.#lastKeys[child] as number;
      if (lastKey >= (keys[i + 1] ?? Infinity)) return NodeClass.NONE;
      nrMappings += this.nrMappings(child);
    }
    this.#heights[blocknr] = (this.#heights[first] as number) + 1;
    this.#firstKeys[blocknr] = this.#firstKeys[first] as number;
    this.#lastKeys[blocknr] = lastKey;
    this.#nrMappings[blocknr] = nrMappings;
    for (const child of blocknrs) this.#referenced[child] = 1;
    return nodeClass;
  }
}
