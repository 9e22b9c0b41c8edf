/**
 * Daemon: the process that keeps the mapped devices: registry, control API, NBD server, signals.
 *
 * What a clean stop leaves: every pool suspended, committed and closed. What SIGKILL leaves is what
 * a power cut of the host's programs would: the page cache's content, and metadata of the last
 * commit.
 */
import fs from 'node:fs';
import type { FastifyInstance } from 'fastify';
import { DmError } from '../base/error.ts';
import { errnoOf } from '../base/errno.ts';
import { lockFile, type FileLock } from '../block/open-devices.ts';
import { registerCache } from '../cache/target/index.ts';
import { Registry } from '../mapper/registry.ts';
import { delay } from '../mapper/targets/delay.ts';
import { flakey } from '../mapper/targets/flakey.ts';
import { logWrites } from '../mapper/targets/log-writes.ts';
import { errorTarget } from '../mapper/targets/error.ts';
import { linear } from '../mapper/targets/linear.ts';
import { striped } from '../mapper/targets/striped.ts';
import { zero } from '../mapper/targets/zero.ts';
import { NbdServer, removeStale } from '../nbd/server.ts';
import { registerThin } from '../thin/target/index.ts';
import type { PoolTable } from '../thin/target/pool-table.ts';
import { poolFaults } from '../thin/tools/check.ts';
import { makeApi } from './api.ts';
import { Attachments } from './attach/attachments.ts';
import { DaemonLog } from './daemon-log.ts';
import { DeviceExports } from './exports.ts';
import { SavedDevices } from './saved-devices.ts';
import type { StateDir } from './state-dir.ts';
import { DRIVER_VERSION, LIBRARY_VERSION, packageVersion } from './version.ts';

export interface DaemonOptions {
  readonly state: StateDir;
  readonly logLevel?: string;
  /** Check whole metadata after every commit. */
  readonly verify?: boolean;
  /** Serve NBD over TCP, too. */
  readonly tcp?: { readonly host: string; readonly port: number };
  /** Do as the kernel does where it loses data: for comparison only. */
  readonly kernelQuirks?: boolean;
  /** Bring back the devices that the last daemon had. */
  readonly restore?: boolean;
}

/** The first file descriptor that systemd passes. */
const LISTEN_FDS_START = 3;

export class Daemon {
  readonly registry: Registry;
  readonly log: DaemonLog;
  readonly #options: DaemonOptions;
  readonly #state: StateDir;
  readonly #pools: PoolTable;
  readonly #nbd: NbdServer;
  readonly #saved: SavedDevices;
  readonly #attachments: Attachments;
  #api: FastifyInstance | null = null;
  #lock: FileLock | null = null;
  /** The NBD socket is a service manager's, which listens on when this process has ended. */
  #isSocketPassed = false;
  #stopping: Promise<void> | null = null;
  readonly #stopped: Promise<void>;
  #reportStopped: () => void = () => undefined;

  constructor(options: DaemonOptions) {
    this.#options = options;
    this.#state = options.state;
    this.log = new DaemonLog(options.logLevel ?? 'info');
    this.registry = new Registry({ log: this.log });
    // In the order of the kernel's modules, so that `targets` lists them alike.
    this.registry.register(delay);
    this.registry.register(flakey);
    this.registry.register(logWrites);
    this.registry.register(errorTarget);
    this.registry.register(linear);
    this.registry.register(striped);
    this.#pools = registerThin(
      this.registry,
      options.verify === true ? { verify: poolFaults } : {},
    );
    registerCache(this.registry, { kernelQuirks: options.kernelQuirks ?? false });
    this.registry.register(zero);
    this.#saved = new SavedDevices(this.registry, options.state.tablesFile, this.log);
    this.#attachments = new Attachments({
      dir: options.state.attachedDir,
      nbdSocket: options.state.nbdSocket,
      log: this.log,
      uriOf: (name) => this.uriOf(name),
    });
    this.#nbd = new NbdServer(new DeviceExports(this.registry), this.log);
    this.#stopped = new Promise((resolve) => (this.#reportStopped = resolve));
  }

  /** Starts serving. Rejects with EBUSY if another daemon has the state directory. */
  async start(): Promise<void> {
    fs.mkdirSync(this.#state.dir, { recursive: true, mode: 0o700 });
    this.#lock = this.#takeLock();
    try {
      fs.writeFileSync(this.#state.pidFile, `${process.pid}\n`, { mode: 0o644 });
      await this.#attachments.begin();
      // Before anybody can ask for a device.
      await this.#saved.begin(this.#options.restore === true);
      await this.#listenNbd();
      // Last: who finds this socket finds everything else.
      this.#api = await this.#listenApi();
    } catch (error) {
      await this.#stop();
      throw error;
    }
    this.log.pino.info({ stateDir: this.#state.dir, pid: process.pid }, 'devmapper daemon started');
  }

  #takeLock(): FileLock {
    const { lockFile: path, dir } = this.#state;
    fs.closeSync(fs.openSync(path, 'a', 0o600));
    try {
      return lockFile(path, true);
    } catch (cause) {
      if (!(cause instanceof DmError) || cause.errno !== 'EBUSY') throw cause;
      throw new DmError('EBUSY', `another daemon has the state directory ${dir}`, { cause });
    }
  }

  async #listenNbd(): Promise<void> {
    const { LISTEN_FDS, LISTEN_PID } = process.env;
    if (LISTEN_FDS !== undefined && Number(LISTEN_PID) === process.pid) {
      this.#isSocketPassed = true;
      await this.#nbd.listenDescriptor(LISTEN_FDS_START);
    } else {
      await this.#nbd.listenUnix(this.#state.nbdSocket);
    }
    const { tcp } = this.#options;
    if (tcp !== undefined) {
      const port = await this.#nbd.listenTcp(tcp.host, tcp.port);
      this.log.pino.info({ host: tcp.host, port }, 'NBD over TCP');
    }
  }

  async #listenApi(): Promise<FastifyInstance> {
    const { controlSocket } = this.#state;
    await removeStale(controlSocket);
    const api = await makeApi({
      registry: this.registry,
      pools: this.#pools,
      attachments: this.#attachments,
      log: this.log,
      version: () => ({
        library: LIBRARY_VERSION,
        driver: DRIVER_VERSION,
        devmapper: packageVersion(),
        pid: process.pid,
        nbdSocket: this.#state.nbdSocket,
      }),
      uriOf: (name) => this.uriOf(name),
      settled: () => this.#saved.settled(),
      stopSoon: () => setImmediate(() => void this.stop()),
    });
    const mask = process.umask(0o177);
    try {
      await api.listen({ path: controlSocket });
    } catch (cause) {
      const text = `cannot listen on ${controlSocket}: ${(cause as Error).message}`;
      throw new DmError(errnoOf(cause), text, { cause });
    } finally {
      process.umask(mask);
    }
    return api;
  }

  /** The NBD URI of a device. */
  uriOf(name: string): string {
    const socket = encodeURIComponent(this.#state.nbdSocket).replaceAll('%2F', '/');
    return `nbd+unix:///${encodeURIComponent(name)}?socket=${socket}`;
  }

  /** Stops on SIGINT and SIGTERM. */
  stopOnSignals(): void {
    for (const signal of ['SIGINT', 'SIGTERM'] as const) {
      process.on(signal, () => {
        this.log.pino.info(`${signal}: shutting down`);
        void this.stop();
      });
    }
  }

  /** Resolves when the daemon has been stopped. */
  get stopped(): Promise<void> {
    return this.#stopped;
  }

  /** Whether it has been told to stop. */
  get isStopping(): boolean {
    return this.#stopping !== null;
  }

  /** Finishes what is in flight, suspends, commits and closes everything. */
  stop(): Promise<void> {
    this.#stopping ??= this.#stop().finally(this.#reportStopped);
    return this.#stopping;
  }

  async #stop(): Promise<void> {
    // What is in the state directory then is another daemon's.
    if (this.#lock === null) return;
    // While they can still write what is in their caches.
    await this.#attachments.end();
    await this.#nbd.drain();
    // What goes from now on comes back with the next daemon.
    await this.#saved.end();
    await this.registry.shutDown();
    await this.#nbd.close();
    await this.#api?.close();
    fs.rmSync(this.#state.pidFile, { force: true });
    if (!this.#isSocketPassed) fs.rmSync(this.#state.nbdSocket, { force: true });
    fs.rmSync(this.#state.controlSocket, { force: true });
    this.#lock.release();
    this.#lock = null;
    this.log.pino.info('devmapper daemon stopped');
  }
}
