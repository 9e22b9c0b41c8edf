/**
 * The faults that `npm run plant-faults` plants: each a change of the source that a tired person
 * could make, and the tests that must notice it.
 */

const CUTS = 'crash/power-cuts';
const CACHE_CUTS = 'crash/cache-power-cuts';
const CACHE_HAZARDS = 'crash/cache-hazards';

export const faults = [
  {
    name: 'no data flush before the commit',
    file: 'src/thin/metadata/pool-metadata.ts',
    from: 'await this.#preCommit();',
    to: '',
    tests: [CUTS, 'thin/target/founding-facts'],
  },
  {
    name: 'a FUA overwrite completed early',
    file: 'src/thin/target/prepare.ts',
    from: 'else this.#pool.worker.commitThenEnd(bio);',
    to: 'else bio.end(0);',
    tests: [CUTS, 'thin/target/founding-facts'],
  },
  {
    name: 'a shared discard passed down',
    file: 'src/thin/target/discard.ts',
    from: 'this.#pool.metadata.isDataBlockFree(asDataBlock(block));',
    to: 'asDataBlock(block) >= 0;',
    tests: [CUTS, 'thin/target/founding-facts'],
  },
  {
    name: 'a discard passed down before the commit',
    file: 'src/thin/target/discard.ts',
    from: '!run.shared || parts.length === 0',
    to: 'true',
    tests: ['crash/found-by-cuts'],
  },
  {
    name: 'a freed data block reused in the same transaction',
    file: 'src/persistent-data/space-map/disk.ts',
    from: 'findCommonFree(this.#old, this.#begin, this.#map.nrBlocks, skip)',
    to: 'findCommonFree(this.#map.oldView(), 0, this.#map.nrBlocks, skip)',
    tests: [CUTS, 'persistent-data/space-map/disk'],
  },
  {
    name: 'a freed metadata block reused in the same transaction',
    file: 'src/persistent-data/space-map/metadata.ts',
    from: 'findCommonFree(this.#old, this.#begin,',
    to: 'findCommonFree(this.#map.oldView(), 0,',
    tests: [CUTS, 'persistent-data/space-map/metadata'],
  },
  {
    name: 'zeroing skipped',
    file: 'src/thin/target/prepare.ts',
    from: 'if (!this.#pool.features.zeroNewBlocks) this.insert(mapping);',
    to: 'if (!this.#overwrites(bio)) this.insert(mapping);',
    tests: [CUTS, 'thin/target/scenarios'],
  },
  {
    name: 'the rest of a short external origin not zeroed',
    file: 'src/thin/target/prepare.ts',
    from: 'const zeroRest = length < sectorsPerBlock && features.zeroNewBlocks;',
    to: 'const zeroRest = length < 0 && features.zeroNewBlocks;',
    tests: [CUTS],
  },
  {
    name: "a shadowed node's children not counted",
    file: 'src/persistent-data/btree/shadow.ts',
    from: 'if (tree.tm.shadowWasShared) incChildren(tree, node);',
    to: '',
    tests: [CUTS, 'persistent-data/btree/nested'],
  },
  {
    name: 'the superblock written before the flush',
    file: 'src/persistent-data/transaction-manager.ts',
    from: '    this.spaceMap.commit();\n    // A crash here leaves the old state: the old superblock refers to none of these blocks.\n    await this.blocks.flush();',
    to: '    this.spaceMap.commit();',
    tests: [CUTS],
  },
  {
    name: 'time not advanced by a snapshot',
    file: 'src/thin/metadata/pool-metadata.ts',
    from: '      this.#time++;\n',
    to: '',
    tests: [CUTS, 'thin/target/scenarios'],
  },
  {
    name: 'a mapping inserted before its copy completed',
    file: 'src/thin/target/prepare.ts',
    from: 'this.#pool.copier.copy(from, to, length, (status) => this.actionDone(mapping, status));',
    to: 'this.actionDone(mapping, 0); this.#pool.copier.copy(from, to, length, () => undefined);',
    tests: [CUTS],
  },
  {
    name: 'a mapping inserted before its block is zeroed',
    file: 'src/thin/target/prepare.ts',
    from: 'zeroRange(device, sector, length, 0, (status) => this.actionDone(mapping, status));',
    to: 'this.actionDone(mapping, 0); zeroRange(device, sector, length, 0, () => undefined);',
    tests: [CUTS],
  },
  {
    name: 'the overflow count tree off by one',
    file: 'src/persistent-data/space-map/low-level.ts',
    from: 'this.#count.view.setUint32(0, IN_OVERFLOW_TREE, true);',
    to: 'this.#count.view.setUint32(0, IN_OVERFLOW_TREE + 1, true);',
    tests: [CUTS, 'persistent-data/space-map/disk'],
  },
  {
    name: 'a flush acknowledged without a commit',
    file: 'src/thin/target/pool.ts',
    from: 'if (!thin.triggersCommit(bio)) (bio.device as BlockDevice).submit(bio);',
    to: 'if (bio.op === 2 || !thin.triggersCommit(bio)) (bio.device as BlockDevice).submit(bio);',
    tests: [CUTS],
  },
  {
    name: 'a copy that does not wait for reads of the shared block',
    file: 'src/thin/target/prepare.ts',
    from: 'if (!this.#pool.worker.sharedReads.add(mapping)) mapping.nrActions--;',
    to: 'mapping.nrActions--;',
    tests: ['thin/target/founding-facts'],
  },
  {
    name: "a cache's dirty bits believed after a crash",
    file: 'src/cache/metadata/cache-metadata.ts',
    from: 'dirtyOf(cblock, flags) || !isClean;',
    to: 'dirtyOf(cblock, flags);',
    tests: [CACHE_CUTS],
  },
  {
    name: 'a cache in passthrough mode after a crash',
    file: 'src/cache/target/loading.ts',
    from: 'if (!cleanWhenOpened) {',
    to: 'if (false) {',
    tests: ['cache/founding-document'],
  },
  {
    name: 'a cache marked as in use too late',
    file: 'src/cache/target/loading.ts',
    from: 'if (!this.#cache.kernelQuirks) await this.#markInUse();',
    to: '',
    tests: [CACHE_CUTS, CACHE_HAZARDS],
  },
  {
    name: 'a cache marked clean too early',
    file: 'src/cache/target/cache-target.ts',
    from: 'await this.cache.commit(false);',
    to: 'await this.cache.commit(true);',
    tests: ['cache/founding-document'],
  },
  {
    name: 'a cache block gone before its writeback is durable',
    file: 'src/cache/target/cache.ts',
    from: 'if (isOriginBehind) flushes.push(flushDevice(this.origin));',
    to: '',
    tests: [CACHE_CUTS],
  },
  {
    name: 'a cache write acknowledged before the origin has it',
    file: 'src/cache/target/cache-target.ts',
    from: 'if (--nrLeft === 0) bio.end(status);',
    to: 'if (--nrLeft === 1) bio.end(status);',
    tests: [CACHE_CUTS],
  },
  {
    name: 'a cache block mapped before its copy',
    file: 'src/cache/target/migrations.ts',
    from: 'if (this.#isCopyNeeded(work)) this.#copyBlock(migration);',
    to: 'if (work.op !== 0 && this.#isCopyNeeded(work)) this.#copyBlock(migration);',
    tests: [CACHE_CUTS],
  },
  {
    name: 'a cache block that passthrough leaves valid',
    file: 'src/cache/target/migrations.ts',
    from: '\n      metadata.removeMapping(cblock);',
    to: '',
    tests: [CACHE_CUTS, 'cache/target/scenarios'],
  },
];
