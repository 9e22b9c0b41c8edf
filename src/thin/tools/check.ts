/**
 * thin_check: whether a thin pool's metadata is sound, and the repair of what is harmless to repair
 * (spec: tools, 2).
 *
 *   superblock ─► device trees ─► those of the metadata snapshot ─► mappings ─► both space maps
 *              └► repair: new space maps in free blocks, flush, superblock, flush
 *
 * All damage is reported, not only the first; nothing on the disk makes a check throw or loop.
 * Counts above the references found mean something only if all references were found: with damaged
 * trees they are not reported.
 * Invariants: a check writes nothing unless it is to repair or to clear needs_check, found nothing
 *   fatal, and found something to do. What a crash during repair leaves: the old metadata, or the
 *   new.
 * Does not: print; a listener is told of everything as it happens.
 */
import { present } from '../../base/error.ts';
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
import {
  SpaceMapCheck,
  type Comparison,
  type SpaceMapRoot,
} from '../../persistent-data/check/space-map-check.ts';
import { SpaceMapRepair, writeSpaceMapRoot } from '../../persistent-data/check/space-map-repair.ts';
import {
  NEEDS_CHECK,
  superblock,
  SUPERBLOCK_LOCATION,
  superblockValidator,
} from '../metadata/superblock.ts';
import { nodeErrorLines, TreesCheck } from './check-trees.ts';
import { BAD_SUPERBLOCK, readPoolSuperblock, type PoolSuperblock } from './pool-superblock.ts';

export interface CheckOptions {
  readonly superBlockOnly?: boolean;
  /** Look at no device's mappings, and so at no counts. */
  readonly skipMappings?: boolean;
  /** Look at the metadata snapshot only. */
  readonly metadataSnap?: boolean;
  readonly overrideMappingRoot?: number;
  readonly overrideDetailsRoot?: number;
  readonly ignoreNonFatalErrors?: boolean;
  /** Repair counts that are too high, and clear needs_check. */
  readonly autoRepair?: boolean;
  /** Repair as well; for old callers it may go with looking at less. */
  readonly clearNeedsCheck?: boolean;
}

export interface CheckListener {
  /** The superblock is sound. */
  superblock?(sb: PoolSuperblock): void;
  /** A part of the check begins. */
  phase?(name: string): void;
  damage?(damage: Damage): void;
  /** Lines that sum up. */
  message?(text: string): void;
}

export interface CheckResult {
  /** Null if it cannot be had. */
  readonly superblock: PoolSuperblock | null;
  /** All that was found, repaired or not. */
  readonly damage: DamageList;
  readonly repaired: boolean;
  readonly clearedNeedsCheck: boolean;
  /** Nothing is wrong, or no longer, or only what was to be ignored. */
  readonly ok: boolean;
}

export const NO_METADATA_SNAP = 'no current metadata snap';

/** Free blocks of the metadata space map, as its root record tells. */
export function freeMetadataBlocks({ metadataSpaceMap: map }: PoolSuperblock): number {
  return map.nrBlocks - map.nrAllocated;
}

/** Checks the metadata on `device`, which is written only for a repair. */
export async function checkPool(
  device: BlockDevice,
  options: CheckOptions = {},
  listener: CheckListener = {},
): Promise<CheckResult> {
  const check = new PoolCheck(new DeviceReader(device), options, listener);
  check.run();
  return check.finish(device);
}

/**
 * What is wrong with the metadata on `device`, leaks included, a line a fault. It is read before
 * this returns, so that a pool in use can be looked at between two of its commits.
 */
export function poolFaults(device: BlockDevice): string[] {
  const said: string[] = [];
  const check = new PoolCheck(new DeviceReader(device), {}, { message: (text) => said.push(text) });
  check.run();
  return [...check.damage.lines(), ...said];
}

/** Where damage is that no tree or space map has. */
const inSuperblock: Place = { where: 'superblock', path: [], blocknr: 0, begin: 0, end: 0 };

/** What repair sets right: space-map contents that nothing else depends on. */
const REPAIRABLE: readonly DamageKind[] = ['leak', 'hint', 'nr-allocated', 'surplus'];

class PoolCheck {
  readonly #reader: BlockReader;
  readonly #options: CheckOptions;
  readonly #listener: CheckListener;
  readonly #damage = new DamageList();
  readonly #run: CheckRun;
  /** Before each finding's `where`: what is looked at belongs to the metadata snapshot. */
  #prefix = '';
  #superblock: PoolSuperblock | null = null;
  #trees: TreesCheck | null = null;
  /** What the phase under way has found. */
  #phaseDamage = new DamageList();
  /** References are missing that damage hides: a count above those found is no leak. */
  #referencesHidden = false;
  #refused = false;
  /** Findings in the space maps that a repair would set right. */
  readonly #nrRepairable = { data: 0, metadata: 0 };

  constructor(reader: BlockReader, options: CheckOptions, listener: CheckListener) {
    this.#reader = reader;
    this.#options = options;
    this.#listener = listener;
    this.#run = new CheckRun(reader, (damage) => this.#report(damage));
  }

  get damage(): DamageList {
    return this.#damage;
  }

  #report(damage: Damage): void {
    if (damage.kind === 'leak' && this.#referencesHidden) return;
    const found = { ...damage, where: this.#prefix + damage.where };
    this.#damage.report(found);
    this.#phaseDamage.report(found);
    this.#listener.damage?.(found);
  }

  #say(text: string): void {
    this.#listener.message?.(this.#prefix + text);
  }

  #beginPhase(name: string): void {
    this.#phaseDamage = new DamageList();
    // The snapshot's trees, mostly shared with the live ones, are a part of the same phases.
    const isRepeated = this.#prefix !== '' && this.#options.metadataSnap !== true;
    if (!isRepeated) this.#listener.phase?.(name);
  }

  /** Looks at everything that the options ask for. */
  run(): void {
    const sb = this.#checkSuperblock();
    if (sb === null) return;
    const { metadataSnap, superBlockOnly } = this.#options;
    const wantsSnap = metadataSnap === true;
    if (wantsSnap && sb.heldRoot === 0) {
      this.#say(NO_METADATA_SNAP);
      this.#refused = true;
      return;
    }
    this.#listener.superblock?.(sb);
    if (superBlockOnly === true) return;
    this.#trees = new TreesCheck(this.#run, sb.dataSpaceMap.nrBlocks, (text) => this.#say(text));
    if (wantsSnap) this.#checkTrees(this.#trees, this.#readSnapshot(sb.heldRoot));
    else this.#checkLive(this.#trees, sb);
  }

  // --- superblock

  #checkSuperblock(): PoolSuperblock | null {
    this.#run.reference(0, inSuperblock.where, inSuperblock);
    const sb = readPoolSuperblock(this.#reader, 0);
    if (sb instanceof ReadFailure) {
      this.#run.report({ ...inSuperblock, kind: sb.kind, text: sb.text });
      this.#say(BAD_SUPERBLOCK);
      return null;
    }
    this.#superblock = sb;
    const refuse = (text: string): void =>
      this.#run.report({ ...inSuperblock, kind: 'value', text });
    // No pool with these can be opened, however sound the rest may be.
    if (sb.incompatFlags !== 0) refuse(`unknown incompatible features ${sb.incompatFlags}`);
    const { nrBlocks } = sb.metadataSpaceMap;
    if (nrBlocks > this.#reader.nrBlocks) {
      refuse(`wanted a device of ${nrBlocks} metadata blocks, found ${this.#reader.nrBlocks}`);
    }
    return sb;
  }

  #readSnapshot(heldRoot: number): PoolSuperblock | null {
    this.#prefix = 'metadata snap: ';
    const place = { ...inSuperblock, blocknr: heldRoot };
    if (this.#run.reference(heldRoot, 'metadata snapshot', place) === null) return null;
    const sb = readPoolSuperblock(this.#reader, heldRoot);
    if (!(sb instanceof ReadFailure)) return sb;
    this.#run.report({ ...place, kind: sb.kind, text: sb.text });
    this.#say(BAD_SUPERBLOCK);
    return null;
  }

  // --- trees

  #checkLive(trees: TreesCheck, sb: PoolSuperblock): void {
    this.#checkTrees(trees, sb);
    if (sb.heldRoot !== 0) this.#checkTrees(trees, this.#readSnapshot(sb.heldRoot));
    this.#prefix = '';
    if (this.#options.skipMappings !== true) this.#checkSpaceMaps(trees, sb);
  }

  #checkTrees(trees: TreesCheck, sb: PoolSuperblock | null): void {
    if (sb === null) return;
    const { overrideMappingRoot, overrideDetailsRoot, skipMappings } = this.#options;
    const isLive = sb === this.#superblock;
    this.#beginPhase('device details tree');
    const devices = trees.checkDevices({
      mappingRoot: (isLive ? overrideMappingRoot : undefined) ?? sb.mappingRoot,
      detailsRoot: (isLive ? overrideDetailsRoot : undefined) ?? sb.detailsRoot,
    });
    if (skipMappings === true) return;
    this.#beginPhase('mapping tree');
    trees.checkMappings(devices);
    const found = this.#phaseDamage;
    for (const line of nodeErrorLines((kind) => found.count(kind))) this.#say(line);
    if (found.nrFatal > 0) this.#say('Check of mappings failed');
  }

  // --- space maps

  #checkSpaceMaps(trees: TreesCheck, sb: PoolSuperblock): void {
    this.#beginPhase('data space map');
    this.#referencesHidden = this.#hidesReferences();
    const data = SpaceMapCheck.scanDisk(this.#run, 'data space map', sb.dataSpaceMap);
    this.#sumUp('data', data.compare(trees.dataCounts));
    this.#beginPhase('metadata space map');
    const map = sb.metadataSpaceMap;
    const metadata = SpaceMapCheck.scanMetadata(this.#run, 'metadata space map', map);
    this.#referencesHidden = this.#hidesReferences();
    this.#sumUp('metadata', metadata.compare(this.#run.counts));
  }

  /** Whether something fatal was found that is not just a wrong number. */
  #hidesReferences(): boolean {
    return this.#damage.nrFatal > this.#damage.count('ref-count') + this.#damage.count('value');
  }

  #sumUp(which: 'data' | 'metadata', { nrBad, nrLeaked }: Comparison): void {
    const found = this.#phaseDamage;
    this.#nrRepairable[which] = REPAIRABLE.reduce((sum, kind) => sum + found.count(kind), 0);
    if (nrBad > 0) this.#say(`${nrBad} ${which} blocks have bad reference counts`);
    if (nrLeaked > 0 && !this.#referencesHidden) {
      this.#say(`${nrLeaked} ${which} blocks have leaked`);
    }
    if (found.nrFatal > 0) this.#say(`${which} space map: Fatal errors in ${which} space map`);
  }

  // --- repair

  /** Repairs what was found and clears needs_check, as far as asked for and safe. */
  async finish(device: BlockDevice): Promise<CheckResult> {
    const damage = this.#damage;
    const sb = this.#superblock;
    if (this.#refused || sb === null || damage.nrFatal > 0) {
      return { superblock: sb, damage, repaired: false, clearedNeedsCheck: false, ok: false };
    }
    const { autoRepair, clearNeedsCheck, ignoreNonFatalErrors } = this.#options;
    const mayWrite = autoRepair === true || clearNeedsCheck === true;
    const { data, metadata } = this.#nrRepairable;
    const repaired = mayWrite && data + metadata > 0;
    const nrLeft = damage.nrOther - (repaired ? data + metadata : 0);
    const ok = nrLeft === 0 || ignoreNonFatalErrors === true;
    const clears = mayWrite && ok && sb.needsCheck;
    if (repaired || clears) await this.#write(device, sb, repaired, clears);
    else this.#advise();
    return { superblock: sb, damage, repaired, clearedNeedsCheck: clears, ok };
  }

  #advise(): void {
    const { data, metadata } = this.#nrRepairable;
    if (data > 0) this.#say('data space map contains leaks');
    if (metadata > 0) this.#say('metadata space map contains leaks');
    if (data + metadata > 0) this.#say('perhaps you wanted to run with --auto-repair');
  }

  async #write(
    device: BlockDevice,
    sb: PoolSuperblock,
    repairs: boolean,
    clears: boolean,
  ): Promise<void> {
    const blocks = new BlockManager(device, silentLog);
    const roots = repairs ? this.#repairSpaceMaps(blocks, sb) : null;
    if (roots !== null) await blocks.flush();
    // A crash here leaves the old space maps: the superblock refers to none of the new blocks.
    const { view } = blocks.write(SUPERBLOCK_LOCATION, superblockValidator);
    if (roots !== null) {
      writeSpaceMapRoot(view, superblock.dataSpaceMapRoot.offset, roots.data);
      writeSpaceMapRoot(view, superblock.metadataSpaceMapRoot.offset, roots.metadata);
    }
    if (clears) superblock.flags.set(view, 0, superblock.flags.get(view, 0) & ~NEEDS_CHECK);
    await blocks.flush();
    if (clears) this.#say('Cleared needs_check flag');
  }

  #repairSpaceMaps(
    blocks: BlockManager,
    sb: PoolSuperblock,
  ): { data: SpaceMapRoot; metadata: SpaceMapRoot } {
    const trees = present(this.#trees, 'space maps are compared after the trees');
    const repair = new SpaceMapRepair(blocks, this.#run.counts, sb.metadataSpaceMap.nrBlocks);
    if (this.#nrRepairable.data > 0) this.#say('Repairing data leaks.');
    const data = repair.disk(sb.dataSpaceMap, trees.dataCounts);
    // The metadata map changes with it, if only because repairing takes blocks.
    if (this.#nrRepairable.metadata > 0) this.#say('Repairing metadata leaks.');
    return { data, metadata: repair.metadata(sb.metadataSpaceMap) };
  }
}
