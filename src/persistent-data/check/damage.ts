/**
 * Damage: what a check finds wrong, as a value. Nothing that checks throws because of what is on
 * the disk.
 *
 * A finding names the structure, the keys that lead to it, the block, and the range of keys that
 * cannot be trusted. Those that are not fatal lose space or time at most.
 */

/** What is wrong, and whether using the metadata could lose data. */
export const damageKinds = {
  /** The device cannot read the block. */
  unreadable: { fatal: true },
  /** The block's checksum is wrong for its kind. */
  checksum: { fatal: true },
  /** The block believes it is another one. */
  blocknr: { fatal: true },
  /** Header fields contradict each other. */
  structure: { fatal: true },
  /** Values are not of the structure's size. */
  'value-size': { fatal: true },
  /** Keys do not ascend, or do not fit a number. */
  order: { fatal: true },
  /** A key lies outside the range that the parent gives the node. */
  'key-range': { fatal: true },
  /** Leaves at different depths, or nodes that form a loop. */
  depth: { fatal: true },
  /** A pointer beyond the end of its device. */
  pointer: { fatal: true },
  /** One block used as two kinds of block. */
  'two-kinds': { fatal: true },
  /** Entries that should be there are missing. */
  missing: { fatal: true },
  /** A value that its owner's format does not allow. */
  value: { fatal: true },
  /** A reference count below the number of references. */
  'ref-count': { fatal: true },
  /** A reference count above the number of references. */
  leak: { fatal: false },
  /** A node is less than a third full. */
  fill: { fatal: false },
  /** A node's capacity is not the largest multiple of 3. */
  'max-entries': { fatal: false },
  /** A space map's free count or search hint is wrong for a bitmap. */
  hint: { fatal: false },
  /** A space map's number of blocks in use is wrong. */
  'nr-allocated': { fatal: false },
  /** Something left over where nothing should be, which nobody reads. */
  surplus: { fatal: false },
} as const;

export type DamageKind = keyof typeof damageKinds;

export interface Damage {
  readonly kind: DamageKind;
  /** The structure: `mapping tree`, `data space map`, … */
  readonly where: string;
  /** Keys of the levels above, outermost first. */
  readonly path: readonly number[];
  /** The metadata block at fault; null if no single one is. */
  readonly blocknr: number | null;
  /** Keys (blocks, for a space map; indices, for an array) that are affected: `[begin, end)`. */
  readonly begin: number;
  /** Infinity where the structure has no end. */
  readonly end: number;
  /** What was wanted and what was found. */
  readonly text: string;
}

export type Report = (damage: Damage) => void;

/** Whether using the metadata as it is could lose data. */
export function isFatal(damage: Damage): boolean {
  return damageKinds[damage.kind].fatal;
}

/** One line: `mapping tree/3, block 17, keys [5, 9): …`. */
export function formatDamage(damage: Damage): string {
  const block = damage.blocknr === null ? '' : `, block ${damage.blocknr}`;
  const where = [damage.where, ...damage.path].join('/');
  const end = damage.end === Infinity ? '∞' : damage.end;
  return `${where}${block}, keys [${damage.begin}, ${end}): ${damage.text} (${damage.kind})`;
}

/** The most findings that a DamageList keeps. */
const KEPT_MAX = 1000;

/** Collects findings: all are counted, the first are kept. */
export class DamageList {
  readonly kept: Damage[] = [];
  nrFatal = 0;
  nrOther = 0;
  readonly #byKind = new Map<DamageKind, number>();

  readonly report: Report = (damage) => {
    if (isFatal(damage)) this.nrFatal++;
    else this.nrOther++;
    this.#byKind.set(damage.kind, this.count(damage.kind) + 1);
    if (this.kept.length < KEPT_MAX) this.kept.push(damage);
  };

  /** Findings of one kind. */
  count(kind: DamageKind): number {
    return this.#byKind.get(kind) ?? 0;
  }

  /** The lines of the findings kept. */
  lines(): string[] {
    return this.kept.map(formatDamage);
  }
}
