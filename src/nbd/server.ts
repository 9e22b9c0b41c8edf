/**
 * NbdServer: listens on unix and TCP sockets and keeps the sessions (spec: nbd, 1 and 7).
 */
import fs from 'node:fs';
import net from 'node:net';
import type { Duplex } from 'node:stream';
import { DmError } from '../base/error.ts';
import { errnoOf } from '../base/errno.ts';
import type { Log } from '../base/log.ts';
import type { BlockDevice } from '../block/device.ts';
import type { ExportTable, OpenExport } from './export.ts';
import { Session } from './session.ts';
import { WriteRanges } from './write-ranges.ts';

/** Connections beyond this are refused. */
export const CONNECTIONS_MAX = 4096;
/** Commands in flight get this long to finish when the server closes. */
const CLOSE_GRACE_MS = 3_000;
/** A TCP client that is silent this long is asked whether it is still there. */
const KEEP_ALIVE_DELAY_MS = 60_000;
/** IANA's port for NBD. */
export const NBD_PORT = 10809;

export class NbdServer {
  readonly #exports: ExportTable;
  readonly #log: Log;
  readonly #servers: net.Server[] = [];
  readonly #sessions = new Set<Session>();
  readonly #ranges = new Map<BlockDevice, { ranges: WriteRanges; users: number }>();
  #idle: (() => void) | null = null;

  constructor(exports: ExportTable, log: Log) {
    this.#exports = exports;
    this.#log = log;
  }

  get nrSessions(): number {
    return this.#sessions.size;
  }

  /** Listens on a unix socket that only the owner may use; a stale one is replaced. */
  async listenUnix(socketPath: string): Promise<void> {
    await removeStale(socketPath);
    const mask = process.umask(0o177);
    try {
      await this.#listen((server) => server.listen(socketPath));
    } finally {
      process.umask(mask);
    }
  }

  /** Listens on TCP; resolves to the port, which the system chooses for port 0. */
  async listenTcp(host: string, port: number): Promise<number> {
    const server = await this.#listen((made) => made.listen(port, host));
    const address = server.address();
    return typeof address === 'object' && address !== null ? address.port : port;
  }

  /** Takes over a listening socket (systemd's descriptor 3). */
  async listenDescriptor(fd: number): Promise<void> {
    await this.#listen((server) => server.listen({ fd }));
  }

  async #listen(start: (server: net.Server) => void): Promise<net.Server> {
    const options = {
      noDelay: true,
      keepAlive: true,
      keepAliveInitialDelay: KEEP_ALIVE_DELAY_MS,
      allowHalfOpen: true,
      pauseOnConnect: true,
    };
    const server = net.createServer(options, (socket) => this.serve(socket));
    server.maxConnections = CONNECTIONS_MAX;
    await new Promise<void>((resolve, reject) => {
      server.once('error', (cause) => {
        reject(new DmError(errnoOf(cause), `cannot listen: ${cause.message}`, { cause }));
      });
      server.once('listening', resolve);
      start(server);
    });
    server.on('error', (error) => this.#log.write('error', `nbd: ${error.message}`));
    this.#servers.push(server);
    return server;
  }

  /**
   * Serves a client that is connected by `stream`: a socket that is paused since it was accepted,
   * or any other stream of bytes both ways.
   */
  serve(stream: Duplex): void {
    const session = new Session(stream, {
      exports: this.#exports,
      log: this.#log,
      rangesFor: (chosen) => this.#rangesFor(chosen),
      released: (chosen) => this.#releaseRanges(chosen.device),
      ended: (ended) => {
        this.#sessions.delete(ended);
        if (this.#sessions.size === 0) this.#idle?.();
      },
    });
    this.#sessions.add(session);
  }

  #rangesFor(chosen: OpenExport): WriteRanges {
    let shared = this.#ranges.get(chosen.device);
    if (shared === undefined) {
      shared = { ranges: new WriteRanges(), users: 0 };
      this.#ranges.set(chosen.device, shared);
    }
    shared.users++;
    return shared.ranges;
  }

  #releaseRanges(device: BlockDevice): void {
    const shared = this.#ranges.get(device);
    if (shared !== undefined && --shared.users === 0) this.#ranges.delete(device);
  }

  /** Stops listening, refuses new commands, and lets those in flight finish for a while. */
  async drain(): Promise<void> {
    for (const server of this.#servers.splice(0)) server.close();
    for (const session of [...this.#sessions]) session.shutDown();
    await this.#whenIdle(CLOSE_GRACE_MS);
  }

  /** Drains, then ends all connections. */
  async close(): Promise<void> {
    if (this.#servers.length > 0) await this.drain();
    for (const session of [...this.#sessions]) session.destroy();
    await this.#whenIdle(CLOSE_GRACE_MS);
  }

  async #whenIdle(limitMs: number): Promise<void> {
    if (this.#sessions.size === 0) return;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, limitMs);
      this.#idle = () => {
        clearTimeout(timer);
        resolve();
      };
    });
    this.#idle = null;
  }
}

/** Removes a socket that nobody answers on. Rejects with EBUSY if someone does. */
export async function removeStale(socketPath: string): Promise<void> {
  if (!fs.existsSync(socketPath)) return;
  const alive = await new Promise<boolean>((resolve) => {
    const probe = net.connect(socketPath);
    probe.once('connect', () => {
      probe.destroy();
      resolve(true);
    });
    probe.once('error', () => resolve(false));
  });
  if (alive) throw new DmError('EBUSY', `${socketPath}: another server listens there`);
  fs.unlinkSync(socketPath);
}
