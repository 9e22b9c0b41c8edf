/**
 * A real kernel opens what is written here and finds in it what was meant; what it leaves behind is
 * understood here; and of damage both say the same.
 */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { DmError } from '../../../src/base/error.ts';
import { MemoryLog } from '../../../src/base/log.ts';
import { CacheMetadata } from '../../../src/cache/metadata/cache-metadata.ts';
import type { CacheFormat } from '../../../src/cache/metadata/superblock.ts';
import { readCacheImage } from '../../../src/cache/tools/cache-image.ts';
import { checkCache } from '../../../src/cache/tools/check.ts';
import { CachePatient } from '../../helpers/cache-damage.ts';
import { CacheMaker } from '../../helpers/cache-images.ts';
import {
  CACHE_BLOCK_SECTORS,
  inKernel,
  makeDisks,
  NR_METADATA_BLOCKS,
  NR_ORIGIN_BLOCKS,
} from '../../helpers/cache-kernel.ts';
import { assertSound, openCache, SMQ, type Shutdown } from '../../helpers/cache-states.ts';
import { skipWithoutKernel } from '../../helpers/kernel.ts';
import { runSync, scratchDir, skipWithout } from '../../helpers/programs.ts';
import { Random, seedOf } from '../../helpers/random.ts';
import { deviceOf } from '../../helpers/thin-images.ts';

const FORMATS: readonly CacheFormat[] = [1, 2];
const skip = skipWithoutKernel();

/** Lines of a script that puts an image on the metadata device and makes a cache of it. */
function cacheOf(image: string, format: CacheFormat, size: number): string[] {
  const features = format === 2 ? '2 metadata2 writeback' : '1 writeback';
  const origin = NR_ORIGIN_BLOCKS * CACHE_BLOCK_SECTORS;
  const table = `0 ${origin} cache /dev/ubda /dev/mapper/fast /dev/ubdc ${CACHE_BLOCK_SECTORS}`;
  return [
    `dd if=${image} of=/dev/ubda bs=64k oflag=direct conv=notrunc status=none`,
    'dmsetup suspend fast',
    `dmsetup load fast --table "0 ${size * CACHE_BLOCK_SECTORS} linear /dev/ubdb 0"`,
    'dmsetup resume fast',
    `dmsetup create c --table "${table} ${features} smq 2 migration_threshold 0"`,
  ];
}

const KEEP = 'dd if=/dev/ubda of=image$n bs=64k iflag=direct status=none; n=$((n + 1))';

/**
 * A clean shutdown with a share of the mapped blocks dirty, and with hints that a policy keeps: the
 * levels of clean and of dirty blocks are filled evenly, so that there is nothing to redistribute.
 */
function evenShutdown(random: Random, maker: CacheMaker): Shutdown {
  const mapped = [...maker.state.mappings.keys()];
  const hints = Array.from({ length: maker.state.size }, () => 0);
  for (const [i, cblock] of mapped.entries()) hints[cblock] = i % 64;
  const dblocks = Array.from({ length: NR_ORIGIN_BLOCKS }, (_, i) => i);
  return {
    dirty: new Set(mapped.slice(0, 64)),
    hints,
    policy: SMQ,
    discardBlockSize: CACHE_BLOCK_SECTORS,
    nrDiscards: NR_ORIGIN_BLOCKS,
    discards: new Set(dblocks.filter(() => random.chance(0.3))),
  };
}

async function madeHere(format: CacheFormat, random: Random): Promise<CacheMaker> {
  const options = { size: 600, nrBlocks: NR_METADATA_BLOCKS };
  const maker = await CacheMaker.make(format, random, options);
  await maker.insert(150, NR_ORIGIN_BLOCKS);
  await maker.remove(3);
  await maker.resize(1100);
  const left = maker.state.mappings.size;
  await maker.insert(256 - left, NR_ORIGIN_BLOCKS);
  await maker.shutDown(evenShutdown(random, maker));
  return maker;
}

const seed = seedOf(21);
test(`a kernel finds what was written here, and keeps it (seed ${seed})`, { skip }, async () => {
  const random = new Random(seed);
  const { dir, remove } = scratchDir();
  try {
    const makers: CacheMaker[] = [];
    const lines: string[] = [];
    for (const format of FORMATS) {
      for (const isClean of [true, false]) {
        const maker = await madeHere(format, random);
        if (!isClean) await maker.reopen();
        const image = path.join(dir, `made${makers.length}`);
        fs.writeFileSync(image, maker.image);
        lines.push(...cacheOf(image, format, 1100), 'dmsetup status c', 'dmsetup remove c', KEEP);
        makers.push(maker);
      }
    }
    const { images, statuses } = await inKernel(dir, makeDisks(dir), 2, [], lines);
    for (const [i, maker] of makers.entries()) {
      const { state } = maker;
      const what = `format ${maker.format}, ${state.shutdown === null ? 'in use' : 'clean'}`;
      const dirty = state.shutdown?.dirty ?? new Set(state.mappings.keys());
      const fields = statuses[i]?.split(' ') ?? [];
      assert.equal(fields[6], `${state.mappings.size}/1100`, what);
      assert.deepEqual(fields.slice(7, 11), Object.values(state.counters).map(String), what);
      assert.equal(fields[13], String(dirty.size), what);

      const device = await deviceOf(images[i] as Buffer);
      await assertSound(device, what);
      const found = readCacheImage(device);
      const mappings = [...state.mappings].sort(([a], [b]) => a - b);
      assert.deepEqual(
        found.mappings,
        mappings.map(([cblock, oblock]) => ({ cblock, oblock, isDirty: dirty.has(cblock) })),
        what,
      );
      assert.deepEqual(found.superblock.counters, state.counters, what);
      assert.deepEqual(found.superblock.policy, SMQ, what);
      assert.deepEqual(new Set(found.discards), state.shutdown?.discards ?? new Set(), what);
      if (state.shutdown !== null) assert.deepEqual(found.hints, state.shutdown.hints, what);
    }
  } finally {
    remove();
  }
});

test(
  'a block that a kernel leaves behind when it shrinks an array is accepted, and then removed',
  { skip },
  async () => {
    const { dir, remove } = scratchDir();
    try {
      const steps = [
        { op: 'create', size: 600 },
        { op: 'remove' },
        { op: 'create', size: 509 },
        { op: 'remove' },
      ] as const;
      const { images } = await inKernel(dir, makeDisks(dir), 2, steps);
      const image = images.at(-1) as Buffer;
      const found = await checkCache(await deviceOf(image));
      assert.deepEqual(
        found.damage.kept.map(({ kind, where, begin }) => [kind, where, begin]),
        [['surplus', 'mapping array', 509]],
      );
      assert.ok(found.ok);

      for (const size of [600, 400]) {
        const device = await deviceOf(image);
        const metadata = await openCache(device);
        assert.equal(metadata.nrCacheBlocks, 509);
        metadata.loadMappings(SMQ, () => assert.fail('it has none'));
        metadata.resize(size);
        if (size > 509) metadata.insertMapping(599, 7);
        await metadata.commit(false);
        await assertSound(device, `resized to ${size}`);
      }
    } finally {
      remove();
    }
  },
);

// --- damage

type Harm = (patient: CachePatient) => void;

const unclean: Harm = (p) => p.setSuperblock(4, 0);
const breakRoot =
  (root: 'mappingRoot' | 'hintRoot' | 'discardRoot' | 'dirtyRoot'): Harm =>
  (p) =>
    p.setU32(p[root], 0, 1);
const breakBlock =
  (root: 'mappingRoot' | 'hintRoot' | 'discardRoot' | 'dirtyRoot', index: number): Harm =>
  (p) =>
    p.setU32(p.arrayBlocks(p[root])[index] as number, 0, 1);
const cutShort =
  (root: 'mappingRoot' | 'hintRoot' | 'discardRoot' | 'dirtyRoot'): Harm =>
  (p) => {
    const last = p.arrayBlocks(p[root]).at(-1) as number;
    p.setU32(last, 8, 10);
    p.sealArray(last);
  };

/** Formats, size that the cache is to have (1100 before), what is done to the image. */
const harms: Record<string, [formats: readonly CacheFormat[], size: number, ...harms: Harm[]]> = {
  'mapping root': [FORMATS, 1100, breakRoot('mappingRoot')],
  'first mappings': [FORMATS, 1100, breakBlock('mappingRoot', 0)],
  'later mappings': [FORMATS, 1100, breakBlock('mappingRoot', 1)],
  'mappings cut short': [FORMATS, 1100, cutShort('mappingRoot')],
  'hint root': [FORMATS, 1100, breakRoot('hintRoot')],
  'hint root, unclean': [FORMATS, 1100, unclean, breakRoot('hintRoot')],
  'first hints': [FORMATS, 1100, breakBlock('hintRoot', 0)],
  'later hints': [FORMATS, 1100, breakBlock('hintRoot', 1)],
  'hints cut short': [FORMATS, 1100, cutShort('hintRoot')],
  'dirty root': [[2], 1100, breakRoot('dirtyRoot')],
  'dirty root, unclean': [[2], 1100, unclean, breakRoot('dirtyRoot')],
  'dirty bits': [[2], 1100, breakBlock('dirtyRoot', 0)],
  'dirty bits cut short': [[2], 1100, cutShort('dirtyRoot')],
  'discard root': [FORMATS, 1100, breakRoot('discardRoot')],
  'discard bits': [FORMATS, 1100, breakBlock('discardRoot', 0)],
  'discards cut short': [FORMATS, 1100, cutShort('discardRoot')],
  'discard root, unclean': [FORMATS, 1100, unclean, breakRoot('discardRoot')],
  'space map': [FORMATS, 1100, (p) => p.setU32(p.bitmapRoot(), 0, 1)],
  'mapping root, shrunk': [FORMATS, 600, breakRoot('mappingRoot')],
  'first mappings that go': [FORMATS, 600, breakBlock('mappingRoot', 1)],
  'last mappings that go': [[1], 600, breakBlock('mappingRoot', 2)],
  'mappings that go, cut short': [FORMATS, 600, cutShort('mappingRoot')],
  'dirty root, shrunk': [[2], 600, breakRoot('dirtyRoot')],
  'dirty bits, shrunk': [[2], 600, breakBlock('dirtyRoot', 0)],
  'dirty bits that go, cut short': [[2], 300, cutShort('dirtyRoot')],
};

/** What is said up to the end of the resume: by the library, of the operation that failed. */
async function saidHere(image: Buffer, format: CacheFormat, size: number): Promise<string[]> {
  const log = new MemoryLog();
  const options = { dataBlockSize: CACHE_BLOCK_SECTORS, mayFormat: false, format };
  const errorLine = ({ code }: DmError): string => `error = -${code}`;
  try {
    const metadata = await CacheMetadata.open(await deviceOf(image), log, {
      ...options,
      kernelQuirks: true,
    });
    metadata.resize(size);
    metadata.loadMappings(SMQ, () => undefined);
    metadata.loadDiscards(() => undefined);
  } catch (error) {
    assert.ok(error instanceof DmError);
    if ('operation' in error) log.write('error', `${String(error.operation)} ${errorLine(error)}`);
  }
  return log.lines;
}

/** The kernel's lines, of those that the library speaks of, in the same form. */
function asHere(lines: readonly string[]): string[] {
  return lines
    .map((line) => /metadata operation '(\w+)' failed: (.*)/.exec(line)?.slice(1).join(' ') ?? line)
    .filter((line) => !/^(cache|table|ioctl): /.test(line));
}

/** The kernel leaves out lines of one kind beyond the tenth in five seconds. */
const LIMITED_LINES_MAX = 10;
const LIMIT_SECONDS = 5.5;

test('of damage the kernel’s log hears what a kernel says', { skip }, async () => {
  const { dir, remove } = scratchDir();
  try {
    const lines = ['set +e', 'say() { echo "<3>device-mapper: CASE $1" >/dev/kmsg; }'];
    const expected = new Map<string, string[]>();
    let nrLimited = 0;
    for (const format of FORMATS) {
      const { image } = await madeHere(format, new Random(7));
      for (const [name, [formats, size, ...each]] of Object.entries(harms)) {
        if (!formats.includes(format)) continue;
        const patient = new CachePatient(image);
        // All blocks are clean, so that a cache may shrink.
        if (size < 1100) for (let c = 0; c < 1100; c++) makeClean(patient, c);
        for (const harm of each) harm(patient);
        const id = expected.size;
        fs.writeFileSync(path.join(dir, `bad${id}`), patient.bytes);
        const here = await saidHere(patient.bytes, format, size);
        expected.set(`${name}, format ${format}`, here);
        // Of no kind are there more lines than of the block manager's, but one of the operation.
        const nr = Math.max(1, here.filter((line) => line.startsWith('block manager: ')).length);
        if (nrLimited + nr > LIMITED_LINES_MAX) {
          lines.push(`sleep ${LIMIT_SECONDS}`);
          nrLimited = 0;
        }
        nrLimited += nr;
        lines.push(
          `say ${id}`,
          ...cacheOf(`bad${id}`, format, size),
          'say after',
          'dmsetup remove c',
        );
      }
    }
    const { log } = await inKernel(dir, makeDisks(dir), 2, [], [...lines, 'true']);
    const said = new Map<string, string[]>();
    let id = '';
    for (const line of log) {
      const text = /device-mapper: (.*)$/.exec(line)?.[1];
      const mark = /^CASE (\w+)/.exec(text ?? '')?.[1];
      if (mark !== undefined) id = mark;
      else if (text !== undefined) said.set(id, [...(said.get(id) ?? []), text]);
    }
    for (const [i, [name, here]] of [...expected].entries()) {
      assert.deepEqual(here, asHere(said.get(String(i)) ?? []), name);
    }
  } finally {
    remove();
  }
});

/** Takes the dirty mark off a block, wherever the format keeps it. */
function makeClean(patient: CachePatient, cblock: number): void {
  const { oblock, flags } = patient.mapping(cblock);
  if ((flags & 2) !== 0) patient.setMapping(cblock, oblock, 1);
  if (patient.version === 1 || cblock % 64 !== 0) return;
  const [block = 0] = patient.arrayBlocks(patient.dirtyRoot);
  patient.setU64(block, 24 + cblock / 8, 0);
  patient.sealArray(block);
}

// --- Debian's tools

const tools = skipWithout('cache_check', 'cache_dump', 'cache_restore');

test('Debian’s tools find what was written here', { skip: tools }, async () => {
  const { dir, remove } = scratchDir();
  try {
    const maker = await madeHere(1, new Random(seedOf(22)));
    const file = path.join(dir, 'metadata');
    fs.writeFileSync(file, maker.image);
    const checked = runSync('cache_check', [file]);
    assert.equal(checked.code, 0, checked.stderr);
    const { stdout } = runSync('cache_dump', [file]);
    const { mappings, shutdown } = maker.state;
    const sorted = [...mappings].sort(([a], [b]) => a - b);
    const wantedMappings = sorted.map(([cblock, oblock]) => {
      const isDirty = String(shutdown?.dirty.has(cblock));
      return `<mapping cache_block="${cblock}" origin_block="${oblock}" dirty="${isDirty}"/>`;
    });
    const wantedHints = sorted.map(([cblock]) => {
      const data = Buffer.alloc(4);
      data.writeUInt32LE(shutdown?.hints[cblock] ?? 0);
      return `<hint cache_block="${cblock}" data="${data.toString('base64')}"/>`;
    });
    assert.deepEqual(stdout.match(/<mapping .*>/g), wantedMappings);
    assert.deepEqual(stdout.match(/<hint .*>/g), wantedHints);
    assert.match(stdout, /block_size="64" nr_cache_blocks="1100" policy="smq" hint_width="4"/);
  } finally {
    remove();
  }
});

test('metadata that Debian’s cache_restore makes is opened', { skip: tools }, async () => {
  const sizes = 'block_size="64" nr_cache_blocks="1024"';
  const xml = `<superblock uuid="" ${sizes} policy="smq" hint_width="4">
  <mappings>
    <mapping cache_block="0" origin_block="5" dirty="true"/>
    <mapping cache_block="1" origin_block="6" dirty="false"/>
    <mapping cache_block="1000" origin_block="7" dirty="true"/>
  </mappings>
  <hints>
    <hint cache_block="0" data="CQAAAA=="/>
    <hint cache_block="1" data="CgAAAA=="/>
    <hint cache_block="1000" data="CwAAAA=="/>
  </hints>
</superblock>
`;
  const { dir, remove } = scratchDir();
  try {
    fs.writeFileSync(path.join(dir, 'xml'), xml);
    for (const format of FORMATS) {
      const file = path.join(dir, `metadata${format}`);
      fs.writeFileSync(file, '');
      fs.truncateSync(file, 1 << 20);
      const version = String(format);
      const args = ['-i', path.join(dir, 'xml'), '-o', file, '--metadata-version', version];
      assert.equal(runSync('cache_restore', args).code, 0);
      const device = await deviceOf(fs.readFileSync(file));
      // In format 1 it leaves a bitset behind that nothing refers to.
      const { ok, damage } = await checkCache(device, { autoRepair: true });
      assert.ok(ok, damage.lines().join('\n'));
      assert.equal(damage.count('leak'), format === 1 ? 1 : 0);
      assert.equal(damage.count('surplus'), format === 2 ? 1 : 0);
      const { superblock, hints } = readCacheImage(device);
      assert.deepEqual([superblock.version, superblock.policy.hintSize], [format, 0]);
      assert.deepEqual([hints?.[0], hints?.[1], hints?.[1000]], [9, 10, 11]);
      const found: unknown[] = [];
      const metadata = await openCache(device);
      metadata.loadMappings(SMQ, (...mapping) => found.push(mapping));
      // Its size of hints is 0, so that they are not used.
      assert.deepEqual(found, [
        [5, 0, true, null],
        [6, 1, false, null],
        [7, 1000, true, null],
      ]);
      metadata.setDirtyBits(() => false);
      metadata.writeHints(SMQ, () => 1);
      await metadata.commit(true);
      await assertSound(device, `format ${format}`);
    }
  } finally {
    remove();
  }
});
