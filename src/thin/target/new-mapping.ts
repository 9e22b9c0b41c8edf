/**
 * NewMapping: a data block on its way into a thin device: its content is prepared, then the mapping
 * is inserted, then the I/O that asked for it goes on.
 * Answers to struct dm_thin_new_mapping (spec: thin, 8.4 and 8.5).
 *
 *   reserved ──zero, copy or overwrite; earlier reads of a shared block──► prepared ──worker──►
 *   inserted
 *
 * What a crash leaves before the insertion is committed: the old mapping, or none; the block is
 * free.
 */
import type { Bio } from '../../block/bio.ts';
import type { DataBlock } from '../../persistent-data/space-map/disk.ts';
import type { Cell } from './cells.ts';
import type { ThinTarget } from './thin-target.ts';

export class NewMapping {
  readonly thin: ThinTarget;
  readonly virtBlock: number;
  readonly dataBlock: DataBlock;
  /** Held until the mapping is inserted: the virtual block, or the shared block that is copied. */
  readonly cell: Cell;
  /** The bio that writes the whole block, so that nothing else prepares it. */
  overwrite: Bio | null = null;
  /** The overwriting bio's own completion. */
  overwriteEnd: ((bio: Bio) => void) | null = null;
  /** First error of a preparation. */
  status = 0;
  /** Preparations that have not ended. */
  nrActions: number;

  constructor(
    thin: ThinTarget,
    virtBlock: number,
    dataBlock: DataBlock,
    cell: Cell,
    nrActions: number,
  ) {
    this.thin = thin;
    this.virtBlock = virtBlock;
    this.dataBlock = dataBlock;
    this.cell = cell;
    this.nrActions = nrActions;
  }
}
