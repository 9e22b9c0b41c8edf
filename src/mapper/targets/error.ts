/**
 * error: every read and write fails (spec: dm-core, 9.2). Answers to the error target in
 * dm-target.c.
 */
import type { Bio } from '../../block/bio.ts';
import { MapResult, Target, type TargetType } from '../target.ts';

class ErrorTarget extends Target {
  override map(_bio: Bio): MapResult {
    return MapResult.KILL;
  }

  override status(): string {
    return '';
  }
}

export const errorTarget: TargetType = {
  name: 'error',
  version: [1, 5, 0],
  construct: (context) => new ErrorTarget(context),
};
