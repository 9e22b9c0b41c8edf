/**
 * What a check found, for programs: plain data with stable names, numbers that fit JSON.
 */
import { formatDamage, isFatal, type Damage } from '../../persistent-data/check/damage.ts';
import { freeMetadataBlocks, type CheckResult } from './check.ts';

/** A finding as one line of text. */
export function damageLine(damage: Damage): string {
  return formatDamage(damage);
}

/** The result of a check and the lines that summed it up. */
export function checkReport(result: CheckResult, messages: readonly string[]): object {
  const { superblock: sb, damage } = result;
  return {
    ok: result.ok,
    // All 64 bits are the user's, so it is a text.
    transactionId: sb === null ? null : String(sb.transactionId),
    metadataFreeBlocks: sb === null ? null : freeMetadataBlocks(sb),
    needsCheck: sb === null ? null : sb.needsCheck && !result.clearedNeedsCheck,
    repaired: result.repaired,
    clearedNeedsCheck: result.clearedNeedsCheck,
    nrFatal: damage.nrFatal,
    nrNonFatal: damage.nrOther,
    messages,
    damage: damage.kept.map((found) => ({
      kind: found.kind,
      fatal: isFatal(found),
      where: found.where,
      path: found.path,
      block: found.blocknr,
      begin: found.begin,
      end: Number.isFinite(found.end) ? found.end : null,
      text: found.text,
    })),
  };
}
