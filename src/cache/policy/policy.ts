/**
 * Policy: decides which origin blocks are cached where, and what is to be moved. The interface that
 * smq and cleaner stand behind. Answers to struct dm_cache_policy in
 * drivers/md/dm-cache-policy.h (spec: cache, 15.1).
 *
 * A policy does no I/O and knows no time but the jiffies that it is given. Its methods are called
 * from one place at a time and return at once.
 */

/** What a policy wants to be moved. */
export const WorkOp = { PROMOTE: 0, DEMOTE: 1, WRITEBACK: 2 } as const;
export type WorkOp = (typeof WorkOp)[keyof typeof WorkOp];

/** One item of background work; handed back with `completeBackgroundWork`. */
export interface PolicyWork {
  readonly op: WorkOp;
  readonly oblock: number;
  readonly cblock: number;
}

/** What a lookup finds; owned by the caller, filled by the lookup, valid until its next call. */
export interface LookupResult {
  /** The cblock, or -1 for a miss. */
  cblock: number;
  /** The policy may have queued background work: whoever does it should be woken. */
  mayHaveWork: boolean;
  /** Only by `lookupWithWork`, on a miss: a promotion that the caller now has to do. */
  work: PolicyWork | null;
}

/** A result for lookups to fill. */
export function makeLookupResult(): LookupResult {
  return { cblock: -1, mayHaveWork: false, work: null };
}

export interface Policy {
  /** As the status line shows it and the metadata stores it. */
  readonly name: string;
  readonly version: readonly [major: number, minor: number, patch: number];
  /** Bytes of a hint: 0 or 4. */
  readonly hintSize: number;

  /** Looks a block up for a read or write, and updates the statistics. Hot path. */
  lookup(oblock: number, isWrite: boolean, isFastPromote: boolean, out: LookupResult): void;
  /** As `lookup`, but a promotion is handed to the caller instead of being queued. */
  lookupWithWork(oblock: number, isWrite: boolean, isFastPromote: boolean, out: LookupResult): void;
  /** The next item to do, or null. */
  getBackgroundWork(isIdle: boolean): PolicyWork | null;
  completeBackgroundWork(work: PolicyWork, success: boolean): void;
  setDirty(cblock: number): void;
  clearDirty(cblock: number): void;
  /** A mapping of the metadata, at resume; `hint` is null if there is none that can be used. */
  loadMapping(oblock: number, cblock: number, isDirty: boolean, hint: number | null): void;
  /** Whether there is a mapping of `cblock`. */
  isMapped(cblock: number): boolean;
  /** Forgets a mapping; false if there is none. */
  invalidateMapping(cblock: number): boolean;
  getHint(cblock: number): number;
  /** Cblocks that are allocated. */
  readonly residency: number;
  /** Once a second, and at each generation of I/O (spec: cache, 13). */
  tick(): void;
  /** False in passthrough mode. */
  allowMigrations(allowed: boolean): void;
  /** Sets a tunable; false if there is none of that name or the value is no number. */
  setConfigValue(key: string, value: string): boolean;
  /** Tunables as words of the status line, with their count before them. */
  emitConfigValues(): string;
}

export interface PolicyOptions {
  /** Blocks of the fast device. */
  readonly nrCacheBlocks: number;
  /** Sectors of the target and of a block. */
  readonly originSectors: number;
  readonly blockSectors: number;
  /** Whole jiffies of 10 ms from some fixed point. */
  readonly jiffies: () => number;
  /** A line for the kernel's log. */
  readonly warn: (text: string) => void;
}
