/**
 * CheckRun: what all checks of one metadata device share: the reader, the references found to each
 * block, and what is known of each B-tree node seen. A block is read once, however many structures
 * share it.
 */
import type { ReadBlock } from '../block.ts';
import type { Validator } from '../validator.ts';
import { ReadFailure, type BlockReader } from './block-reader.ts';
import { CountTable } from './count-table.ts';
import type { Damage, Report } from './damage.ts';
import { NodeTable } from './node-table.ts';

/** Where in the metadata something is: the parts of a Damage that say so. */
export type Place = Omit<Damage, 'kind' | 'text'>;

export class CheckRun {
  readonly reader: BlockReader;
  readonly report: Report;
  /** References found to each metadata block. */
  readonly counts = new CountTable();
  readonly nodes: NodeTable;
  /** What a block is used as, as an index into `#uses`; 0 is not at all. */
  readonly #useOf: Uint8Array;
  readonly #uses: string[] = ['nothing'];

  constructor(reader: BlockReader, report: Report) {
    this.reader = reader;
    this.report = report;
    this.nodes = new NodeTable(reader.nrBlocks);
    this.#useOf = new Uint8Array(reader.nrBlocks);
  }

  /**
   * Counts a reference to a block from `place`, which takes it for a part of `use`. Whether it is
   * the first: only then is there anything to read; null if the reference is damage, which has been
   * reported.
   */
  reference(blocknr: number, use: string, place: Place): boolean | null {
    if (blocknr >= this.reader.nrBlocks) {
      const text = `wanted a metadata block below ${this.reader.nrBlocks}, found ${blocknr}`;
      this.report({ ...place, kind: 'pointer', text });
      return null;
    }
    this.counts.add(blocknr);
    const index = this.#indexOf(use);
    const seenAs = this.#useOf[blocknr] as number;
    if (seenAs === 0) {
      this.#useOf[blocknr] = index;
      return true;
    }
    if (seenAs === index) return false;
    const text = `block ${blocknr} is used as ${this.#uses[seenAs]} and as ${use}`;
    this.report({ ...place, kind: 'two-kinds', text });
    return null;
  }

  /** The block; null if it cannot be had, which has been reported. Valid until the next read. */
  read(blocknr: number, validator: Validator, place: Place): ReadBlock | null {
    const block = this.reader.read(blocknr, validator);
    if (!(block instanceof ReadFailure)) return block;
    this.report({ ...place, blocknr, kind: block.kind, text: block.text });
    return null;
  }

  #indexOf(use: string): number {
    const index = this.#uses.indexOf(use);
    return index > 0 ? index : this.#uses.push(use) - 1;
  }
}
