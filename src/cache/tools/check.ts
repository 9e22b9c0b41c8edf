/**
 * cache_check: whether a cache's metadata is sound, and the repair of what is harmless to repair
 * (spec: tools, 14).
 *
 *   superblock ─► mappings ─► dirty bits ─► hints ─► discards ─► metadata space map
 *              └► repair: a new space map in free blocks, flush, superblock, flush
 *
 * All damage is reported, not only the first; nothing on the disk makes a check throw or loop.
 * Counts above the references found mean something only if all references were found: with damaged
 * arrays they are not reported. What is left over in an array, where nobody looks, is reported, but
 * metadata with it is sound: the kernel and cache_restore leave such things.
 * Invariants: a check writes nothing unless it is to repair or to clear needs_check, found nothing
 *   fatal, and found something to do. What a crash during repair leaves: the old metadata, or the
 *   new.
 * Does not: print; a listener is told of everything as it happens.
 */
import { silentLog } from '../../base/log.ts';
import type { BlockDevice } from '../../block/device.ts';
import { BlockManager } from '../../persistent-data/block-manager.ts';
import {
  DeviceReader,
  ReadFailure,
  type BlockReader,
} from '../../persistent-data/check/block-reader.ts';
import { CheckRun, type Place } from '../../persistent-data/check/check-run.ts';
import { DamageList, type Damage, type DamageKind } from '../../persistent-data/check/damage.ts';
import { SpaceMapCheck } from '../../persistent-data/check/space-map-check.ts';
import { SpaceMapRepair, writeSpaceMapRoot } from '../../persistent-data/check/space-map-repair.ts';
import {
  NEEDS_CHECK,
  superblock,
  SUPERBLOCK_LOCATION,
  superblockValidator,
} from '../metadata/superblock.ts';
import { readCacheSuperblock, type CacheSuperblock } from './cache-superblock.ts';
import { ArraysCheck, type CacheVisitor } from './check-arrays.ts';

export interface CheckOptions {
  readonly superBlockOnly?: boolean;
  /** Leave out a part; then no counts are compared either. */
  readonly skipMappings?: boolean;
  readonly skipHints?: boolean;
  readonly skipDiscards?: boolean;
  readonly ignoreNonFatalErrors?: boolean;
  /** Repair counts that are too high, and clear needs_check. */
  readonly autoRepair?: boolean;
  /** Repair as well. */
  readonly clearNeedsCheck?: boolean;
}

export interface CheckListener extends CacheVisitor {
  /** The superblock is sound. */
  superblock?(sb: CacheSuperblock): void;
  /** A part of the check begins. */
  phase?(name: string): void;
  damage?(damage: Damage): void;
  /** Lines that sum up. */
  message?(text: string): void;
}

export interface CheckResult {
  /** Null if it cannot be had. */
  readonly superblock: CacheSuperblock | null;
  /** All that was found, repaired or not. */
  readonly damage: DamageList;
  readonly repaired: boolean;
  readonly clearedNeedsCheck: boolean;
  /** Nothing is wrong, or no longer, or only what does not matter or was to be ignored. */
  readonly ok: boolean;
}

/** Checks the metadata on `device`, which is written only for a repair. */
export async function checkCache(
  device: BlockDevice,
  options: CheckOptions = {},
  listener: CheckListener = {},
): Promise<CheckResult> {
  const check = new CacheCheck(new DeviceReader(device), options, listener);
  check.run();
  return check.finish(device);
}

/** Where damage is that no array or space map has. */
const inSuperblock: Place = { where: 'superblock', path: [], blocknr: 0, begin: 0, end: 0 };

/** What repair sets right in the space map. */
const REPAIRABLE: readonly DamageKind[] = ['leak', 'hint', 'nr-allocated', 'surplus'];

class CacheCheck {
  readonly #reader: BlockReader;
  readonly #options: CheckOptions;
  readonly #listener: CheckListener;
  readonly #damage = new DamageList();
  readonly #run: CheckRun;
  #superblock: CacheSuperblock | null = null;
  /** References are missing that damage hides: a count above those found is no leak. */
  #referencesHidden = false;
  /** Findings in the space map that a repair would set right. */
  #nrRepairable = 0;
  /** Findings in arrays that do not matter. */
  #nrAccepted = 0;

  constructor(reader: BlockReader, options: CheckOptions, listener: CheckListener) {
    this.#reader = reader;
    this.#options = options;
    this.#listener = listener;
    this.#run = new CheckRun(reader, (damage) => this.#report(damage));
  }

  #report(damage: Damage): void {
    if (damage.kind === 'leak' && this.#referencesHidden) return;
    this.#damage.report(damage);
    this.#listener.damage?.(damage);
  }

  #say(text: string): void {
    this.#listener.message?.(text);
  }

  #phase(name: string): void {
    this.#listener.phase?.(name);
  }

  /** Looks at everything that the options ask for. */
  run(): void {
    this.#phase('superblock');
    const sb = this.#checkSuperblock();
    if (sb === null) return;
    this.#listener.superblock?.(sb);
    const { superBlockOnly, skipMappings, skipHints, skipDiscards } = this.#options;
    if (superBlockOnly === true) return;
    const arrays = new ArraysCheck(this.#run, sb, this.#listener);
    if (skipMappings !== true) {
      this.#phase('mapping array');
      arrays.checkMappings();
    }
    if (sb.version > 1) {
      this.#phase('dirty bitset');
      arrays.checkDirtyBits(skipMappings !== true && this.#damage.nrFatal === 0);
    }
    if (skipHints !== true) {
      this.#phase(arrays.hasHints ? 'hint array' : 'no hint array present');
      arrays.checkHints();
    }
    if (skipDiscards !== true) {
      this.#phase('discard bitset');
      arrays.checkDiscards();
    }
    this.#nrAccepted = this.#damage.count('surplus');
    const skipped = [skipMappings, skipHints, skipDiscards].includes(true);
    if (!skipped) this.#checkSpaceMap(sb);
  }

  #checkSuperblock(): CacheSuperblock | null {
    this.#run.reference(SUPERBLOCK_LOCATION, inSuperblock.where, inSuperblock);
    const sb = readCacheSuperblock(this.#reader);
    if (sb instanceof ReadFailure) {
      this.#run.report({ ...inSuperblock, kind: sb.kind, text: sb.text });
      return null;
    }
    this.#superblock = sb;
    const refuse = (text: string): void =>
      this.#run.report({ ...inSuperblock, kind: 'value', text });
    // No cache with these can be opened, however sound the rest may be.
    if (sb.incompatFlags !== 0) refuse(`unknown incompatible features ${sb.incompatFlags}`);
    if (sb.dataBlockSize === 0) refuse('the data block size is 0');
    if (!Number.isSafeInteger(sb.discardBlockSize)) {
      refuse(`the discard block size is ${sb.discardBlockSize}`);
    }
    const { nrBlocks } = sb.metadataSpaceMap;
    if (nrBlocks > this.#reader.nrBlocks) {
      refuse(`wanted a device of ${nrBlocks} metadata blocks, found ${this.#reader.nrBlocks}`);
    }
    return sb;
  }

  #checkSpaceMap(sb: CacheSuperblock): void {
    this.#phase('metadata space map');
    const map = SpaceMapCheck.scanMetadata(this.#run, 'metadata space map', sb.metadataSpaceMap);
    // Something fatal was found that is not just a wrong number.
    const { nrFatal } = this.#damage;
    this.#referencesHidden =
      nrFatal > this.#damage.count('ref-count') + this.#damage.count('value');
    const { nrBad, nrLeaked } = map.compare(this.#run.counts);
    const nrFound = REPAIRABLE.reduce((sum, kind) => sum + this.#damage.count(kind), 0);
    this.#nrRepairable = nrFound - this.#nrAccepted;
    if (nrBad > 0) this.#say(`${nrBad} metadata blocks have bad reference counts`);
    if (nrLeaked > 0 && !this.#referencesHidden) {
      this.#say(`${nrLeaked} metadata blocks have leaked`);
    }
  }

  // --- repair

  /** Repairs what was found and clears needs_check, as far as asked for and safe. */
  async finish(device: BlockDevice): Promise<CheckResult> {
    const damage = this.#damage;
    const sb = this.#superblock;
    if (sb === null || damage.nrFatal > 0) {
      this.#say('metadata contains errors');
      return { superblock: sb, damage, repaired: false, clearedNeedsCheck: false, ok: false };
    }
    const { autoRepair, clearNeedsCheck, ignoreNonFatalErrors } = this.#options;
    const mayWrite = autoRepair === true || clearNeedsCheck === true;
    const repaired = mayWrite && this.#nrRepairable > 0;
    const nrLeft = damage.nrOther - this.#nrAccepted - (repaired ? this.#nrRepairable : 0);
    const ok = nrLeft === 0 || ignoreNonFatalErrors === true;
    const clears = mayWrite && ok && sb.needsCheck;
    if (repaired || clears) await this.#write(device, sb, repaired, clears);
    else this.#advise();
    return { superblock: sb, damage, repaired, clearedNeedsCheck: clears, ok };
  }

  #advise(): void {
    if (this.#nrRepairable === 0) return;
    this.#say('metadata space map contains leaks');
    this.#say('perhaps you wanted to run with --auto-repair');
  }

  async #write(
    device: BlockDevice,
    sb: CacheSuperblock,
    repairs: boolean,
    clears: boolean,
  ): Promise<void> {
    const blocks = new BlockManager(device, silentLog);
    const { metadataSpaceMap } = sb;
    let root = null;
    if (repairs) {
      this.#say('Repairing metadata leaks.');
      const repair = new SpaceMapRepair(blocks, this.#run.counts, metadataSpaceMap.nrBlocks);
      root = repair.metadata(metadataSpaceMap);
      await blocks.flush();
    }
    // A crash here leaves the old space map: the superblock refers to none of the new blocks.
    const { view } = blocks.write(SUPERBLOCK_LOCATION, superblockValidator);
    if (root !== null) writeSpaceMapRoot(view, superblock.metadataSpaceMapRoot.offset, root);
    if (clears) superblock.flags.set(view, 0, superblock.flags.get(view, 0) & ~NEEDS_CHECK);
    await blocks.flush();
    if (clears) this.#say('Cleared needs_check flag');
  }
}
