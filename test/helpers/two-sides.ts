/**
 * A workload's steps on both sides: on our stack, over files, and in a real kernel, over the same
 * files.
 */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { kernelModules, repoRoot, runInKernel } from './kernel.ts';
import { discard, fill, flush, read, Stack } from './stack.ts';
import { PIECE, type Shape, type Step } from './workload.ts';

const METADATA_BYTES = 16 * 1024 * 1024;

export interface Images {
  readonly meta: string;
  readonly data: string;
}

export function makeImages(dir: string, shape: Shape, name: string): Images {
  const images = { meta: path.join(dir, `${name}.meta`), data: path.join(dir, `${name}.data`) };
  fs.writeFileSync(images.meta, '');
  fs.truncateSync(images.meta, METADATA_BYTES);
  fs.writeFileSync(images.data, '');
  fs.truncateSync(images.data, shape.dataBlocks * shape.blockBytes);
  return images;
}

export function poolTable(shape: Shape, meta: string, data: string): string {
  const length = (shape.dataBlocks * shape.blockBytes) / 512;
  const words = [
    ...(shape.zeroing ? [] : ['skip_block_zeroing']),
    ...(shape.passdown === false ? ['no_discard_passdown'] : []),
  ];
  const features = [words.length, ...words].join(' ');
  return `0 ${length} thin-pool ${meta} ${data} ${shape.blockBytes / 512} 0 ${features}`;
}

const dataThere = (shape: Shape): string => (shape.passdown === true ? '/dev/loop0' : '/dev/ubdb');

export const thinTable = (shape: Shape, id: number): string =>
  `0 ${(shape.thinBlocks * shape.blockBytes) / 512} thin /dev/mapper/p ${id}`;

const snapMessage = ({ op }: { op: 'hold' | 'release' }): string =>
  op === 'hold' ? 'reserve_metadata_snap' : 'release_metadata_snap';

/** The status lines of the pool and of each device. */
export type Statuses = string[];

// --- here

export class Here {
  readonly #stack = new Stack();
  readonly #shape: Shape;

  constructor(shape: Shape) {
    this.#shape = shape;
  }

  async open(images: Images, ids: readonly number[]): Promise<void> {
    await this.#stack.create('p', poolTable(this.#shape, images.meta, images.data));
    for (const id of ids) await this.#stack.create(`t${id}`, thinTable(this.#shape, id));
  }

  async run(steps: readonly Step[]): Promise<void> {
    for (const step of steps) await this.#step(step);
  }

  async #step(step: Step): Promise<void> {
    const stack = this.#stack;
    const device = 'id' in step && step.op !== 'create' && step.op !== 'snap' ? `t${step.id}` : '';
    switch (step.op) {
      case 'create':
        await stack.message('p', `create_thin ${step.id}`);
        await stack.create(`t${step.id}`, thinTable(this.#shape, step.id));
        break;
      case 'snap':
        await stack.suspend(`t${step.origin}`);
        await stack.message('p', `create_snap ${step.id} ${step.origin}`);
        await stack.resume(`t${step.origin}`);
        await stack.create(`t${step.id}`, thinTable(this.#shape, step.id));
        break;
      case 'delete':
        await stack.remove(device);
        await stack.message('p', `delete ${step.id}`);
        break;
      case 'txid':
        await stack.message('p', `set_transaction_id ${step.from} ${step.to}`);
        break;
      case 'write':
        await fill(stack.device(device), step.offset, step.length, step.byte);
        if (step.sync) await flush(stack.device(device));
        break;
      case 'discard':
        await discard(stack.device(device), step.offset, step.length);
        break;
      case 'sync':
        await flush(stack.device(device));
        break;
      case 'hold':
      case 'release':
        await stack.message('p', snapMessage(step));
        break;
    }
  }

  async statuses(ids: readonly number[]): Promise<Statuses> {
    const names = ['p', ...ids.map((id) => `t${id}`)];
    return Promise.all(names.map((name) => this.#stack.status(name)));
  }

  async piece(id: number, piece: number): Promise<number | 'mixed'> {
    const bytes = await read(this.#stack.device(`t${id}`), piece * PIECE, PIECE);
    const first = bytes[0] as number;
    return bytes.every((byte) => byte === first) ? first : 'mixed';
  }

  async remove(name: string): Promise<void> {
    await this.#stack.remove(name);
  }

  async close(): Promise<void> {
    await this.#stack.registry.shutDown();
  }
}

// --- there

export function planLines(step: Step, shape: Shape): string[] {
  const create = (id: number): string =>
    `sh dmsetup create t${id} --table "${thinTable(shape, id)}"`;
  switch (step.op) {
    case 'create':
      return [`sh dmsetup message p 0 create_thin ${step.id}`, create(step.id)];
    case 'snap':
      return [
        `sync t${step.origin}`,
        `sh dmsetup suspend t${step.origin} && dmsetup message p 0 create_snap ${step.id} ` +
          `${step.origin} && dmsetup resume t${step.origin}`,
        create(step.id),
      ];
    case 'delete':
      return [
        `close t${step.id}`,
        `sh dmsetup remove t${step.id} && dmsetup message p 0 delete ${step.id}`,
      ];
    case 'txid':
      return [`sh dmsetup message p 0 set_transaction_id ${step.from} ${step.to}`];
    case 'write':
      return [
        `write t${step.id} ${step.offset} ${step.length} ${step.byte}${step.sync ? ' sync' : ''}`,
      ];
    case 'discard':
      return [`discard t${step.id} ${step.offset} ${step.length}`];
    case 'sync':
      return [`sync t${step.id}`];
    case 'hold':
    case 'release':
      return [`sh dmsetup message p 0 ${snapMessage(step)}`];
  }
}

/** Runs plan lines in the kernel on the images; resolves to what it printed. */
export async function inKernel(
  dir: string,
  images: Images,
  lines: readonly string[],
): Promise<string[]> {
  const plan = path.join(dir, 'plan');
  fs.writeFileSync(plan, `${lines.join('\n')}\n`);
  const script = `perl ${path.join(repoRoot, 'test/kernel/guest.pl')} ${plan}`;
  const disks = [images.meta, images.data];
  const { stdout, stderr } = await runInKernel(script, { disks, dir, seconds: 600 });
  assert.match(stdout, /finished\n$/, `${stdout.slice(-2000)}\n${stderr.slice(-2000)}`);
  return stdout.trim().split('\n');
}

/** The disks under kernel-run take no large discards; a loop device on a file in memory does. */
const LOOP =
  `modprobe -d ${kernelModules} loop && truncate -s $(blockdev --getsize64 /dev/ubdb) /run/data` +
  ' && losetup /dev/loop0 /run/data';

export const openThere = (shape: Shape, ids: readonly number[]): string[] => [
  ...(shape.passdown === true ? [`sh ${LOOP}`] : []),
  `sh dmsetup create p --table "${poolTable(shape, '/dev/ubda', dataThere(shape))}"`,
  ...ids.map((id) => `sh dmsetup create t${id} --table "${thinTable(shape, id)}"`),
];

export const closeThere = (ids: readonly number[]): string[] => [
  ...ids.flatMap((id) => [`close t${id}`, `sh dmsetup remove t${id}`]),
  'sh dmsetup remove p',
];

export const statusesThere = (ids: readonly number[]): string[] =>
  ['p', ...ids.map((id) => `t${id}`)].map((name) => `sh dmsetup status ${name}`);

export const readsThere = (ids: readonly number[], pieces: readonly number[]): string[] =>
  ids.flatMap((id) => pieces.map((piece) => `read t${id} ${piece * PIECE} ${PIECE}`));
