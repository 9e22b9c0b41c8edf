/**
 * The founding document's figure: 4 KiB random reads of mapped blocks, with the pool's worker idle
 * and with it busy (another volume being provisioned), and with the worker woken for each read, as
 * the kernel once did. In one process, on a device that does nothing, so that only the targets are
 * measured.
 */
import { Registry } from '../src/mapper/registry.ts';
import { parseTable } from '../src/mapper/table-grammar.ts';
import { registerThin } from '../src/thin/target/index.ts';
import { silentLog } from '../src/base/log.ts';
import { Bio, BioOp } from '../src/block/bio.ts';
import type { BlockDevice } from '../src/block/device.ts';
import { MemoryDevice } from '../src/block/memory-device.ts';

const BLOCKS = 16384;
const SPB = 128;

const BLOCK_OF_ZEROES = new Uint8Array(SPB * 512);

/** Everything succeeds at once and nothing is kept. */
class NothingDevice extends MemoryDevice {
  override submit(bio: Bio): void {
    bio.end(0);
  }
}

export interface WorkerFigures {
  readonly idle: number;
  readonly busy: number;
  readonly needlesslyWoken: number;
}

async function volume(registry: Registry, name: string, id: number): Promise<BlockDevice> {
  const pool = registry.get({ name: 'pool' });
  await registry.message(pool, 0, ['create_thin', String(id)]);
  const device = registry.create(name);
  const lines = parseTable(`0 ${BLOCKS * SPB * 64} thin /dev/mapper/pool ${id}`);
  await registry.load(device, lines);
  await registry.resume(device);
  return device;
}

/** A turn of the event loop comes after so many reads: as a client with a few in flight has it. */
const READS_PER_TURN = 4;
const ROUNDS = 5;

/** Reads per second; `between` is called once a turn. */
async function readRate(
  device: BlockDevice,
  nrReads: number,
  between: () => void,
  perRead: () => void,
): Promise<number> {
  const bio = new Bio();
  bio.onEnd = () => undefined;
  bio.data = new Uint8Array(4096);
  const begin = performance.now();
  for (let i = 0; i < nrReads; i++) {
    bio.op = BioOp.READ;
    bio.flags = 0;
    bio.sector = ((i * 7919) % BLOCKS) * SPB;
    bio.nrSectors = 8;
    bio.dataOffset = 0;
    device.submit(bio);
    perRead();
    if (i % READS_PER_TURN === 0) {
      between();
      await new Promise((resolve) => setImmediate(resolve));
    }
  }
  return (nrReads / (performance.now() - begin)) * 1000;
}

function provision(device: BlockDevice, block: number, done: () => void): void {
  const bio = new Bio();
  bio.op = BioOp.WRITE;
  bio.sector = block * SPB;
  bio.nrSectors = SPB;
  bio.data = BLOCK_OF_ZEROES;
  bio.onEnd = done;
  device.submit(bio);
}

/** Measures the three in turn, several times; `nrReads` reads each in all; the medians. */
export async function measureWorker(nrReads: number): Promise<WorkerFigures> {
  const registry = new Registry({ log: silentLog });
  const pools = registerThin(registry);
  registry.lookup.add('/dev/meta', new MemoryDevice('meta', 64 * 2048), '98:0');
  registry.lookup.add('/dev/data', new NothingDevice('data', BLOCKS * SPB * 64), '98:16');
  const poolDevice = registry.create('pool');
  const table = `0 ${BLOCKS * SPB * 64} thin-pool /dev/meta /dev/data ${SPB} 0`;
  await registry.load(poolDevice, parseTable(table));
  await registry.resume(poolDevice);
  const subject = await volume(registry, 'subject', 0);
  const other = await volume(registry, 'other', 1);
  for (let block = 0; block < BLOCKS; block++) {
    await new Promise<void>((resolve) => provision(subject, block, resolve));
  }
  const pool = pools.findByDevice(poolDevice);
  const nothing = (): void => undefined;
  let next = 0;
  const provisionOther = (): void => provision(other, next++ % (BLOCKS * 32), nothing);
  const wake = (): void => pool?.worker.wake();
  const rates: WorkerFigures[] = [];
  for (let round = 0; round <= ROUNDS; round++) {
    const n = nrReads / ROUNDS;
    const idle = await readRate(subject, n, nothing, nothing);
    const busy = await readRate(subject, n, provisionOther, nothing);
    const needlesslyWoken = await readRate(subject, n, nothing, wake);
    if (round > 0) rates.push({ idle, busy, needlesslyWoken }); // The first warms up.
  }
  await registry.shutDown();
  const middle = (key: keyof WorkerFigures): number =>
    rates.map((rate) => rate[key]).sort((a, b) => a - b)[Math.floor(ROUNDS / 2)] ?? NaN;
  return {
    idle: middle('idle'),
    busy: middle('busy'),
    needlesslyWoken: middle('needlesslyWoken'),
  };
}
