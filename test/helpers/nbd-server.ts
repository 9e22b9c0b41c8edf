/**
 * An NBD server in the test's own process, with exports of the test's making, on a unix socket in a
 * scratch directory.
 */
import path from 'node:path';
import { Duplex } from 'node:stream';
import { MemoryLog } from '../../src/base/log.ts';
import type { BlockDevice } from '../../src/block/device.ts';
import type { ExportTable, OpenExport } from '../../src/nbd/export.ts';
import { NbdServer } from '../../src/nbd/server.ts';
import { contextData, NbdClient, Opt, Rep, type Form } from './nbd-client.ts';
import { scratchDir } from './programs.ts';

/** Exports by name; the first is the default. Counts who has one open. */
export class MapExports implements ExportTable {
  readonly devices: Map<string, BlockDevice>;
  nrOpen = 0;

  constructor(devices: Readonly<Record<string, BlockDevice>>) {
    this.devices = new Map(Object.entries(devices));
  }

  list(): { name: string; description: string }[] {
    return [...this.devices.keys()].map((name) => ({ name, description: `this is ${name}` }));
  }

  open(name: string): OpenExport | null {
    const found = name === '' ? [...this.devices.keys()][0] : name;
    const device = found === undefined ? undefined : this.devices.get(found);
    if (found === undefined || device === undefined) return null;
    this.nrOpen++;
    return {
      name: found,
      description: `this is ${found}`,
      device,
      close: () => void this.nrOpen--,
    };
  }
}

export interface ConnectOptions {
  readonly form?: Form;
  /** Select base:allocation. */
  readonly contexts?: boolean;
  /** Connect by a pair of streams rather than a socket. */
  readonly byStream?: boolean;
}

export class TestServer {
  readonly log = new MemoryLog();
  readonly server: NbdServer;
  readonly socketPath: string;
  readonly #removeDir: () => void;
  readonly #clients: NbdClient[] = [];

  private constructor(exports: ExportTable) {
    const { dir, remove } = scratchDir();
    this.socketPath = path.join(dir, 'nbd.sock');
    this.#removeDir = remove;
    this.server = new NbdServer(exports, this.log);
  }

  static async start(exports: ExportTable): Promise<TestServer> {
    const started = new TestServer(exports);
    await started.server.listenUnix(started.socketPath);
    return started;
  }

  /** A connection, before the greeting is read. */
  async connect(): Promise<NbdClient> {
    const client = await NbdClient.connect(this.socketPath);
    this.#clients.push(client);
    return client;
  }

  /** As `connect`, by a pair of streams that are no sockets. */
  connectByStream(): NbdClient {
    const [ours, theirs] = streamPair();
    this.server.serve(theirs);
    const client = new NbdClient(ours);
    this.#clients.push(client);
    return client;
  }

  /** A connection in transmission. */
  async open(name: string, options: ConnectOptions = {}): Promise<NbdClient> {
    const client = options.byStream === true ? this.connectByStream() : await this.connect();
    await client.greet();
    await client.choose(options.form ?? 'simple');
    if (options.contexts === true) {
      const types = await client.optionTypes(
        Opt.SET_META_CONTEXT,
        contextData(name, ['base:allocation']),
      );
      if (types[0] !== Rep.META_CONTEXT) throw new Error('base:allocation is refused');
    }
    await client.go(name);
    return client;
  }

  /** Resolves when the server has no session left. */
  async idle(): Promise<void> {
    while (this.server.nrSessions > 0) await new Promise((resolve) => setTimeout(resolve, 2));
  }

  async close(): Promise<void> {
    for (const client of this.#clients) client.destroy();
    await this.server.close();
    this.#removeDir();
  }
}

/** Runs `body` with a server of `exports`, which is closed afterwards. */
export async function withServer(
  exports: ExportTable,
  body: (server: TestServer) => Promise<void>,
): Promise<void> {
  const server = await TestServer.start(exports);
  try {
    await body(server);
  } finally {
    await server.close();
  }
}

/** As withServer, with `device` as the export `disk`. */
export function withDevice(
  device: BlockDevice,
  body: (server: TestServer) => Promise<void>,
): Promise<void> {
  return withServer(new MapExports({ disk: device }), body);
}

/** One of two streams, each of which receives what is written to the other. */
class StreamEnd extends Duplex {
  peer: StreamEnd | null = null;
  #taken: (() => void) | null = null;

  override _read(): void {
    this.peer?.writeOn();
  }

  /** The peer has room again. */
  writeOn(): void {
    const taken = this.#taken;
    this.#taken = null;
    taken?.();
  }

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    // The bytes are the writer's again once `done` is called.
    if (this.peer?.push(Buffer.from(chunk)) === true) done();
    else this.#taken = done;
  }

  override _final(done: () => void): void {
    this.peer?.push(null);
    done();
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    if (this.peer?.destroyed === false) this.peer.destroy();
    done(error);
  }
}

function streamPair(): [Duplex, Duplex] {
  const [one, two] = [new StreamEnd(), new StreamEnd()];
  one.peer = two;
  two.peer = one;
  return [one, two];
}
