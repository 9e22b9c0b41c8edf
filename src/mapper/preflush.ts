/**
 * A flush that carries data (PREFLUSH): an empty flush, then the data without the mark (spec:
 * dm-core, 5).
 */
import { Bio, BioFlag, BioOp } from '../block/bio.ts';
import type { BlockDevice } from '../block/device.ts';

/** Submits a flush to `device`, and `bio` behind it; what fails first ends the bio. */
export function submitAfterFlush(device: BlockDevice, bio: Bio): void {
  const flush = new Bio();
  flush.op = BioOp.FLUSH;
  flush.onEnd = (ended) => {
    if (ended.status !== 0) {
      bio.end(ended.status);
      return;
    }
    bio.flags &= ~BioFlag.PREFLUSH;
    device.submit(bio);
  };
  device.submit(flush);
}
