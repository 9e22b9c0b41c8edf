/**
 * The same operations, each committed, leave the same metadata image here as in a real kernel:
 * every block, stale ones included, but for the superblock's root tails and its checksum, which the
 * kernel leaves uninitialised memory in (spec: persistent-data, 6.9).
 */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { MemoryDevice } from '../../src/block/memory-device.ts';
import { plainLimits } from '../../src/block/device.ts';
import { runInKernel, skipWithoutKernel } from '../helpers/kernel.ts';
import { Random, seedOf } from '../helpers/random.ts';
import { discard, fill, Stack } from '../helpers/stack.ts';

const BLOCK = 4096;

/** One step; the same words drive both sides. */
type Step =
  | { op: 'write'; thin: number; block: number; blocks: number }
  | { op: 'discard'; thin: number; block: number; blocks: number }
  | { op: 'create'; thin: number }
  | { op: 'delete'; thin: number }
  | { op: 'snap'; thin: number; origin: number };

interface Plan {
  readonly metadataBlocks: number;
  readonly dataBlocks: number;
  readonly thinBlocks: number;
  readonly steps: Step[];
}

function plan(seed: number, nrSteps: number, shape: { thinBlocks: number; idsMax: number }): Plan {
  const random = new Random(seed);
  const steps: Step[] = [{ op: 'create', thin: 0 }];
  const live = [0];
  while (steps.length < nrSteps) {
    const thin = random.pick(live);
    const block = random.below(shape.thinBlocks);
    const roll = random.next();
    if (roll < 0.7) steps.push({ op: 'write', thin, block, blocks: 1 });
    else if (roll < 0.85) {
      const blocks = Math.min(random.between(1, 40), shape.thinBlocks - block);
      steps.push({ op: 'discard', thin, block, blocks });
    } else if (roll < 0.95 && live.length < shape.idsMax) {
      const id = random.between(1, 500);
      if (live.includes(id)) continue;
      live.push(id);
      if (random.chance(0.3)) steps.push({ op: 'create', thin: id });
      else steps.push({ op: 'snap', thin: id, origin: thin });
    } else if (live.length > 1) {
      live.splice(live.indexOf(thin), 1);
      steps.push({ op: 'delete', thin });
    }
  }
  return { metadataBlocks: 1024, dataBlocks: 8192, thinBlocks: shape.thinBlocks, steps };
}

const poolTable = (p: Plan): string =>
  `0 ${p.dataBlocks * 128} thin-pool /dev/ubda /dev/ubdb 128 0 1 skip_block_zeroing`;

/** Runs a plan here; returns the metadata image. */
async function runHere(p: Plan): Promise<Buffer> {
  const stack = new Stack();
  const meta = stack.disk('ubda', p.metadataBlocks * 8);
  const limits = plainLimits();
  stack.disk('ubdb', new MemoryDevice('ubdb', p.dataBlocks * 128, { limits }));
  await stack.create('p', poolTable(p));
  for (const step of p.steps) {
    if (step.op === 'create') await stack.message('p', `create_thin ${step.thin}`);
    else if (step.op === 'delete') await stack.message('p', `delete ${step.thin}`);
    else if (step.op === 'snap')
      await stack.message('p', `create_snap ${step.thin} ${step.origin}`);
    else {
      const table = `0 ${p.thinBlocks * 128} thin /dev/mapper/p ${step.thin}`;
      const device = await stack.create('t', table);
      if (step.op === 'write') await fill(device, step.block * 65536, 4096, 0x11);
      else await discard(device, step.block * 65536, step.blocks * 65536);
      await stack.status('p');
      await stack.remove('t');
    }
  }
  await stack.remove('p');
  const image = Buffer.alloc(p.metadataBlocks * BLOCK);
  assert.equal(meta.readSync(0, p.metadataBlocks * 8, image, 0), 0);
  return image;
}

function shellOf(step: Step, p: Plan): string {
  if (step.op === 'create') return `dmsetup message p 0 create_thin ${step.thin}`;
  if (step.op === 'delete') return `dmsetup message p 0 delete ${step.thin}`;
  if (step.op === 'snap') return `dmsetup message p 0 create_snap ${step.thin} ${step.origin}`;
  const table = `0 ${p.thinBlocks * 128} thin /dev/mapper/p ${step.thin}`;
  const create = `dmsetup create t --table "${table}"`;
  const act =
    step.op === 'write'
      ? `dd if=/run/in of=/dev/mapper/t bs=4k count=1 seek=${step.block * 16} oflag=direct 2>/run/e`
      : `blkdiscard -o ${step.block * 65536} -l ${step.blocks * 65536} /dev/mapper/t`;
  return [create, act, 'dmsetup status p >/dev/null', 'dmsetup remove t'].join('; ');
}

async function runThere(p: Plan, dir: string): Promise<Buffer> {
  const meta = path.join(dir, 'meta.img');
  const data = path.join(dir, 'data.img');
  fs.writeFileSync(meta, '');
  fs.truncateSync(meta, p.metadataBlocks * BLOCK);
  fs.writeFileSync(data, '');
  fs.truncateSync(data, p.dataBlocks * 65536);
  const script = [
    'set -e',
    'head -c 4096 /dev/zero >/run/in',
    `dmsetup create p --table "${poolTable(p)}"`,
    ...p.steps.map((step) => shellOf(step, p)),
    'dmsetup remove p',
    'echo finished',
  ].join('\n');
  const result = await runInKernel(script, { disks: [meta, data], dir, seconds: 600 });
  assert.match(result.stdout, /finished/, result.stdout + result.stderr);
  return fs.readFileSync(meta);
}

/** Numbers of the blocks that differ. */
function difference(here: Buffer, there: Buffer): number[] {
  const found: number[] = [];
  for (const image of [here, there]) {
    image.fill(0, 0, 4); // checksum
    image.fill(0, 64 + 32, 192);
    image.fill(0, 192 + 32, 320);
  }
  for (let at = 0; at < here.length; at += BLOCK) {
    if (here.compare(there, at, at + BLOCK, at, at + BLOCK) !== 0) found.push(at / BLOCK);
  }
  return found;
}

const shapes = [
  { name: 'few devices, spread writes', thinBlocks: 2048, idsMax: 6 },
  { name: 'dense writes on many snapshots', thinBlocks: 128, idsMax: 40 },
  { name: 'one device, deep tree', thinBlocks: 8192, idsMax: 2 },
];

for (const [index, shape] of shapes.entries()) {
  const seed = seedOf(100 + index);
  const skip = skipWithoutKernel();
  test(`500 steps leave the kernel's image: ${shape.name} (seed ${seed})`, { skip }, async () => {
    const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'devmapper-test-'));
    try {
      const p = plan(seed, 500, shape);
      const here = await runHere(p);
      const there = await runThere(p, dir);
      if (process.env['DM_KEEP']) fs.writeFileSync(`${process.env['DM_KEEP']}.here${index}`, here);
      if (process.env['DM_KEEP'])
        fs.writeFileSync(`${process.env['DM_KEEP']}.there${index}`, there);
      assert.deepEqual(difference(here, there), []);
    } finally {
      fs.rmSync(dir, { recursive: true });
    }
  });
}
