/**
 * What a check knows of each B-tree node once it has visited it, by block number: enough to judge
 * the node's place under another parent without reading it again.
 */

/** Errors are counted up to here; more are `ERRORS_MAX` too. */
export const ERRORS_MAX = 255;

const State = { UNSEEN: 0, OPEN: 1, DONE: 2 } as const;

/** What a subtree holds. */
export interface SubtreeSummary {
  /** Levels of nodes; 0 if nothing of it can be used. */
  readonly height: number;
  /** Entries in sound leaves. */
  readonly nrEntries: number;
  /** Nodes at fault, up to ERRORS_MAX. */
  readonly nrErrors: number;
  /** First and last key; meaningless without entries. */
  readonly firstKey: number;
  readonly lastKey: number;
}

/** The summary of a subtree that cannot be used at all. */
export const lostSubtree: SubtreeSummary = {
  height: 0,
  nrEntries: 0,
  nrErrors: 1,
  firstKey: Infinity,
  lastKey: -Infinity,
};

/** Typed arrays over all blocks of the device; the system gives memory only for the parts used. */
export class NodeTable {
  readonly #state: Uint8Array;
  readonly #heights: Uint8Array;
  readonly #errors: Uint8Array;
  readonly #entries: Float64Array;
  readonly #firstKeys: Float64Array;
  readonly #lastKeys: Float64Array;

  constructor(nrBlocks: number) {
    this.#state = new Uint8Array(nrBlocks);
    this.#heights = new Uint8Array(nrBlocks);
    this.#errors = new Uint8Array(nrBlocks);
    this.#entries = new Float64Array(nrBlocks);
    this.#firstKeys = new Float64Array(nrBlocks);
    this.#lastKeys = new Float64Array(nrBlocks);
  }

  /** A node's subtree is being visited: meeting it again below itself is a loop. */
  open(blocknr: number): void {
    this.#state[blocknr] = State.OPEN;
  }

  isOpen(blocknr: number): boolean {
    return this.#state[blocknr] === State.OPEN;
  }

  /** A node's subtree has been visited. */
  close(blocknr: number, summary: SubtreeSummary): void {
    this.#state[blocknr] = State.DONE;
    this.#heights[blocknr] = summary.height;
    this.#errors[blocknr] = Math.min(summary.nrErrors, ERRORS_MAX);
    this.#entries[blocknr] = summary.nrEntries;
    this.#firstKeys[blocknr] = summary.firstKey;
    this.#lastKeys[blocknr] = summary.lastKey;
  }

  /** What was found below a node that has been visited. */
  summary(blocknr: number): SubtreeSummary {
    return {
      height: this.#heights[blocknr] as number,
      nrEntries: this.#entries[blocknr] as number,
      nrErrors: this.#errors[blocknr] as number,
      firstKey: this.#firstKeys[blocknr] as number,
      lastKey: this.#lastKeys[blocknr] as number,
    };
  }
}
