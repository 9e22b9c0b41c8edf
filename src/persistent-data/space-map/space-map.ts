/**
 * The interface of a space map: reference counts of the blocks of some device.
 * Answers to struct dm_space_map. A count above zero means that the block is in use.
 */

export interface SpaceMap<Nr extends number> {
  /** Blocks managed. */
  readonly nrBlocks: number;
  /** Blocks free, as the status line shows them (spec: persistent-data, 6.7). */
  readonly nrFree: number;

  /** The reference count. Throws EINVAL beyond the end. */
  count(block: Nr): number;
  /** Whether the count is above one; cheaper than `count`, and may err to yes (see each map). */
  countIsMoreThanOne(block: Nr): boolean;

  /**
   * Add or take one reference of each block in `[begin, end)`. Taking one from a free block is
   * EINVAL.
   */
  inc(begin: number, end: number): void;
  dec(begin: number, end: number): void;

  /**
   * Allocates a block that is free now and was free at the last commit; its count is 1. Throws
   * ENOSPC.
   */
  newBlock(): Nr;

  /** Writes what is only in memory into the map's own blocks; the new state becomes the old one. */
  commit(): void;

  /** Manages `extra` more blocks, all free. */
  extend(extra: number): void;
}
