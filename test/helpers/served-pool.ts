/**
 * A pool and its volumes in a daemon that a whole file of tests shares: made over the control API,
 * used by real NBD clients, and looked into afterwards by Debian's thin_dump rather than by us.
 */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { after, before, test } from 'node:test';
import { exchange } from '../../src/cli/http-exchange.ts';
import type { DeviceInfo } from '../../src/daemon/api-types.ts';
import { assertClean } from './check.ts';
import { DaemonProcess, type DaemonProcessOptions } from './daemon.ts';
import { must, scratchDir, skipWithout } from './programs.ts';

export const KIB = 1024;
export const MIB = 1024 * KIB;
const SECTOR = 512;

export interface PoolShape {
  readonly blockSectors?: number;
  readonly dataBytes?: number;
  readonly metadataBytes?: number;
  /** The pool's feature arguments, with their count. */
  readonly features?: string;
  /** Metadata to begin with, as Debian's thin_restore takes it. */
  readonly xml?: string;
}

export interface CreateOptions {
  readonly readOnly?: boolean;
}

/** How long a device may stay open after its clients have ended. */
const IDLE_TIMEOUT_MS = 10_000;
let nrPools = 0;

/** A daemon, and the next one in its state directory after a crash. */
export class Host {
  readonly #options: DaemonProcessOptions;
  #daemon: DaemonProcess;

  private constructor(options: DaemonProcessOptions, daemon: DaemonProcess) {
    this.#options = options;
    this.#daemon = daemon;
  }

  static async start(options: DaemonProcessOptions): Promise<Host> {
    return new Host(options, await DaemonProcess.start(options));
  }

  get daemon(): DaemonProcess {
    return this.#daemon;
  }

  /** Kills the daemon without warning and starts another. */
  async crash(): Promise<void> {
    await this.#daemon.kill();
    this.#daemon = await DaemonProcess.start(this.#options);
  }
}

/** The control API of a daemon, as far as tests of clients need it. Failures reject. */
export class Control {
  readonly #host: Host;

  constructor(host: Host) {
    this.#host = host;
  }

  get daemon(): DaemonProcess {
    return this.#host.daemon;
  }

  /** Kills the daemon and starts another, which has no devices. */
  crash(): Promise<void> {
    return this.#host.crash();
  }

  async call<T>(method: string, resource: string, body?: object): Promise<T> {
    const socket = this.daemon.file('control.sock');
    const json = body === undefined ? undefined : JSON.stringify(body);
    const answer = await exchange(socket, method, `/v1${resource}`, json);
    const value: unknown = answer.body === '' ? undefined : JSON.parse(answer.body);
    if (answer.statusCode >= 400) {
      const { errno, message } = value as { errno: string; message: string };
      throw new Error(`${method} ${resource}: ${errno}: ${message}`);
    }
    return value as T;
  }

  #device<T>(method: string, name: string, rest = '', body?: object): Promise<T> {
    return this.call(method, `/devices/${encodeURIComponent(name)}${rest}`, body);
  }

  async create(name: string, table: string, options: CreateOptions = {}): Promise<void> {
    await this.call('POST', '/devices', { name, table, ...options });
  }

  /** Removes a device that nobody uses; EBUSY otherwise. */
  async remove(name: string, query = ''): Promise<void> {
    await this.#device('DELETE', name, query);
  }

  async load(name: string, table: string, options: CreateOptions = {}): Promise<void> {
    await this.#device('PUT', name, '/table', { table, ...options });
  }

  async suspend(name: string): Promise<void> {
    await this.#device('POST', name, '/suspend', {});
  }

  async resume(name: string): Promise<void> {
    await this.#device('POST', name, '/resume', {});
  }

  async message(name: string, words: string): Promise<void> {
    await this.#device('POST', name, '/message', { sector: 0, message: words.split(' ') });
  }

  info(name: string): Promise<DeviceInfo> {
    return this.#device('GET', name);
  }

  async status(name: string): Promise<string> {
    const { lines } = await this.#device<{ lines: string[] }>('GET', name, '/status');
    return lines.join('\n');
  }

  /** The URI, as `devmapper uri` prints it. */
  async uri(name: string): Promise<string> {
    return (await this.#device<{ uri: string }>('GET', name, '/uri')).uri;
  }

  /** Removes all devices; rejects if a session still has one open after a while. */
  async removeAll(): Promise<void> {
    const deadline = Date.now() + IDLE_TIMEOUT_MS;
    while ((await this.call<{ kept: number }>('DELETE', '/devices')).kept > 0) {
      assert.ok(Date.now() < deadline, 'the sessions of clients that are gone end');
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }
}

export class ServedPool extends Control {
  readonly metadata: string;
  readonly data: string;
  readonly blockBytes: number;
  readonly #poolTable: (dataBytes: number) => string;
  /** thin_restore 0.9 leaks a metadata block and writes free counts that only thin_check takes. */
  readonly #isRestored: boolean;
  #isClosed = false;

  #dataBytes: number;

  private constructor(host: Host, shape: PoolShape) {
    super(host);
    const { blockSectors = 128, features, xml } = shape;
    this.#dataBytes = shape.dataBytes ?? 256 * MIB;
    this.#isRestored = xml !== undefined;
    const nr = nrPools++;
    this.metadata = this.daemon.disk(`metadata-${nr}`, shape.metadataBytes ?? 4 * MIB);
    this.data = this.daemon.disk(`data-${nr}`, this.#dataBytes);
    this.blockBytes = blockSectors * SECTOR;
    const disks = `${this.metadata} ${this.data}`;
    this.#poolTable = (bytes) =>
      `0 ${bytes / SECTOR} thin-pool ${disks} ${blockSectors} 0 ${features ?? ''}`;
  }

  /** Makes the device `pool`. */
  static async make(host: Host, shape: PoolShape = {}): Promise<ServedPool> {
    const pool = new ServedPool(host, shape);
    if (shape.xml !== undefined) {
      const file = pool.daemon.file('metadata.xml');
      fs.writeFileSync(file, shape.xml);
      await must('thin_restore', ['-i', file, '-o', pool.metadata]);
    }
    await pool.#createPool();
    return pool;
  }

  #createPool(): Promise<void> {
    return this.create('pool', this.#poolTable(this.#dataBytes));
  }

  /** Kills the daemon, and opens the pool in another. */
  override async crash(): Promise<void> {
    await super.crash();
    await this.#createPool();
  }

  /** Gives the pool a larger data device. */
  async grow(dataBytes: number): Promise<void> {
    this.#dataBytes = dataBytes;
    fs.truncateSync(this.data, dataBytes);
    await this.load('pool', this.#poolTable(dataBytes));
    await this.resume('pool');
  }

  /** Gives the pool a larger metadata device. */
  async growMetadata(metadataBytes: number): Promise<void> {
    fs.truncateSync(this.metadata, metadataBytes);
    await this.suspend('pool');
    await this.resume('pool');
  }

  /** The table of a volume of thin device `id`. */
  table(id: number, bytes: number, externalOrigin = ''): string {
    return `0 ${bytes / SECTOR} thin /dev/mapper/pool ${id} ${externalOrigin}`;
  }

  /** Makes a thin device and the volume of it; resolves to its URI. */
  async volume(name: string, id: number, bytes: number): Promise<string> {
    await this.message('pool', `create_thin ${id}`);
    await this.create(name, this.table(id, bytes));
    return this.uri(name);
  }

  /** Makes a snapshot of a volume, and a volume of it; resolves to its URI. */
  async snapshot(
    name: string,
    id: number,
    origin: { readonly name: string; readonly id: number; readonly bytes: number },
  ): Promise<string> {
    await this.suspend(origin.name);
    await this.message('pool', `create_snap ${id} ${origin.id}`);
    await this.resume(origin.name);
    await this.create(name, this.table(id, origin.bytes));
    return this.uri(name);
  }

  /** How many blocks of a volume are mapped, as its status says. */
  async nrMapped(name: string): Promise<number> {
    return (Number((await this.status(name)).split(' ')[3]) * SECTOR) / this.blockBytes;
  }

  /** Removes all devices, which commits and closes the metadata, and checks what is left of it. */
  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    await this.removeAll();
    if (this.#isRestored) await must('thin_check', [this.metadata]);
    else await assertClean(this.metadata);
  }

  /** Data blocks by virtual block of a thin device, as Debian's thin_dump has it. After `close`. */
  async mappings(id: number): Promise<Map<number, number>> {
    assert.ok(this.#isClosed, 'the metadata is looked at when it is closed');
    const xml = await must('thin_dump', [this.metadata]);
    const device = new RegExp(`<device dev_id="${id}" [^]*?</device>`).exec(xml)?.[0] ?? '';
    const found = new Map<number, number>();
    const number = (attributes: string, name: string): number | undefined => {
      const text = new RegExp(`\\b${name}="([0-9]+)"`).exec(attributes)?.[1];
      return text === undefined ? undefined : Number(text);
    };
    for (const [, kind, attributes = ''] of device.matchAll(/<(single|range)_mapping ([^>]*)>/g)) {
      const single = kind === 'single';
      const origin = number(attributes, single ? 'origin_block' : 'origin_begin');
      const data = number(attributes, single ? 'data_block' : 'data_begin');
      const length = single ? 1 : number(attributes, 'length');
      assert.ok(origin !== undefined && data !== undefined && length !== undefined, attributes);
      for (let i = 0; i < length; i++) found.set(origin + i, data + i);
    }
    return found;
  }

  /** A thin device's content, put together from thin_dump's mappings and the data file. */
  async content(id: number, bytes: number): Promise<Buffer> {
    const content = Buffer.alloc(bytes);
    const fd = fs.openSync(this.data, 'r');
    for (const [block, dataBlock] of await this.mappings(id)) {
      const at = block * this.blockBytes;
      if (at >= bytes) continue;
      const length = Math.min(this.blockBytes, bytes - at);
      fs.readSync(fd, content, at, length, dataBlock * this.blockBytes);
    }
    fs.closeSync(fd);
    return content;
  }
}

/** Words for the tests of one file. */
export interface ServedTests {
  /** A test with a pool of its own, which afterwards is closed and must be clean. */
  test(name: string, body: (pool: ServedPool) => Promise<void>, shape?: PoolShape): void;
}

/** Tests that need `programs`, around one daemon. */
export function servedTests(
  programs: readonly string[],
  options: DaemonProcessOptions & { readonly skip?: string | false } = {},
): ServedTests {
  const skip =
    skipWithout('thin_check', 'thin_dump', 'thin_restore', ...programs) || (options.skip ?? false);
  const { dir, remove } = scratchDir();
  let host: Host | null = null;
  before(async () => {
    if (skip === false) host = await Host.start({ ...options, dir });
  });
  after(async () => {
    const code = await host?.daemon.stop();
    remove();
    assert.equal(code ?? 0, 0, host?.daemon.log);
  });
  return {
    test(name, body, shape) {
      test(name, { skip, timeout: 60_000 }, async () => {
        assert.ok(host !== null);
        const pool = await ServedPool.make(host, shape);
        try {
          await body(pool);
          await pool.close();
          fs.rmSync(pool.data);
        } catch (error) {
          // Whatever is wrong with it, the next test has nothing to do with it.
          await host.crash();
          throw error;
        }
      });
    },
  };
}
