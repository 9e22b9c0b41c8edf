/**
 * The faults that `npm run plant-faults` plants: each a change of the source that a tired person
 * could make, and the tests that must notice it.
 */

const CUTS = 'crash/power-cuts';

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
];
