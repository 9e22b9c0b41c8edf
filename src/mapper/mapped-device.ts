/**
 * MappedDevice: a named device with a live table, perhaps an inactive one, and a state.
 * Answers to struct mapped_device and drivers/md/dm.c (spec: dm-core, 1.1 and 4).
 *
 *   create ──load──► inactive table ──resume──► live ◄──suspend/resume──► suspended
 *
 * Control operations on one device run one after the other. I/O that comes while the device is
 * suspended waits, without limit, and runs through the table that is live after the resume.
 * Besides its users, other devices' targets suspend a device, internally: that does not show, and
 * users' suspends and resumes wait until it is over. `#suspendLock` keeps the two apart.
 */
import { DmError } from '../base/error.ts';
import { errno } from '../base/errno.ts';
import type { Clock } from '../base/clock.ts';
import type { Log } from '../base/log.ts';
import { Mutex } from '../base/mutex.ts';
import type { Bio } from '../block/bio.ts';
import { BioFlag, BioOp, STATUS_REQUEUE } from '../block/bio.ts';
import { plainLimits, type BlockDevice, type ExtentVisitor, type Limits } from '../block/device.ts';
import { MAPPED_MAJOR } from '../block/open-devices.ts';
import { BioGate } from './bio-gate.ts';
import { BioSplitter, type BioOwner } from './bio-splitter.ts';
import { EventCounter } from './event-counter.ts';
import type { Geometry } from './geometry.ts';
import { IoStatistics } from './io-statistics.ts';
import { submitAfterFlush } from './preflush.ts';
import type { Table } from './table.ts';
import { Waiters } from './waiters.ts';

const NO_TABLE_LIMITS = plainLimits();

export interface SuspendOptions {
  /** Targets hand queued I/O back instead of finishing it; it runs again after the resume. */
  readonly noflush?: boolean;
  /** Gives up waiting for I/O in flight; the device stays active then. */
  readonly signal?: AbortSignal;
}

export class MappedDevice implements BlockDevice, BioOwner {
  readonly minor: number;
  readonly events = new EventCounter();
  /** Set by the registry, which keeps them unique. */
  dmName: string;
  uuid: string;
  /** The device goes when its last user closes it. */
  deferredRemove = false;
  /** For `dmsetup info` only: nothing reads ahead here. Null: as the limits suggest. */
  readAhead: { readonly sectors: number; readonly minimum?: boolean } | null = null;
  /** As `setgeometry` has set it; nothing here asks for it. */
  geometry: Geometry | null = null;
  readonly statistics: IoStatistics;
  readonly #log: Log;
  readonly #control = new Mutex();
  readonly #suspendLock = new Mutex();
  readonly #gate = new BioGate();
  #live: Table | null = null;
  #splitter: BioSplitter | null = null;
  #inactive: Table | null = null;
  #hadTable = false;
  #suspended = false;
  #nrInternalSuspends = 0;
  readonly #internallyResumed = new Waiters();
  #noflush = false;
  #openCount = 0;
  #onLastClose: (() => void) | null = null;
  #removed = false;

  constructor(minor: number, name: string, uuid: string, log: Log, clock: Clock) {
    this.minor = minor;
    this.statistics = new IoStatistics(clock);
    this.dmName = name;
    this.uuid = uuid;
    this.#log = log;
  }

  /** The kernel's name of the device; `dmName` is the user's. */
  get name(): string {
    return `dm-${this.minor}`;
  }

  get number(): string {
    return `${MAPPED_MAJOR}:${this.minor}`;
  }

  get live(): Table | null {
    return this.#live;
  }

  get inactive(): Table | null {
    return this.#inactive;
  }

  /** Suspended by a user; an internal suspend does not show. */
  get isSuspended(): boolean {
    return this.#suspended;
  }

  /** The suspend that runs or holds was asked for without flush. */
  get isNoflushSuspending(): boolean {
    return this.#noflush;
  }

  get isRemoved(): boolean {
    return this.#removed;
  }

  /** A table was loaded at some time: from then on the kernel has a disk for the device. */
  get hadTable(): boolean {
    return this.#hadTable;
  }

  get readOnly(): boolean {
    return this.#live?.readOnly ?? false;
  }

  get sizeSectors(): number {
    return this.#live?.sizeSectors ?? 0;
  }

  get limits(): Limits {
    return this.#live?.limits ?? NO_TABLE_LIMITS;
  }

  refreshSize(): void {}

  // --- users

  get openCount(): number {
    return this.#openCount;
  }

  open(): void {
    this.#openCount++;
  }

  close(): void {
    this.#openCount--;
    if (this.#openCount === 0) this.#onLastClose?.();
  }

  /** `act` is called whenever the last user has closed the device. */
  set onLastClose(act: () => void) {
    this.#onLastClose = act;
  }

  // --- I/O; hot path

  submit(bio: Bio): void {
    if ((bio.flags & BioFlag.PREFLUSH) !== 0 && bio.op !== BioOp.FLUSH) {
      submitAfterFlush(this, bio);
      return;
    }
    if (this.#splitter !== null) {
      if (!this.#gate.enter(bio)) return;
      if (!this.statistics.isEmpty) this.statistics.begin(bio);
      this.#splitter.process(bio);
      return;
    }
    if (!this.#removed) {
      this.#log.write('error', `core: ${this.number}: mapping table unavailable, erroring io`);
    }
    bio.end(errno.EIO);
  }

  bioDone(bio: Bio, status: number): void {
    this.#gate.leave(); // First, so that a submitter that throws is not counted for ever.
    if (!this.statistics.isEmpty) this.statistics.end(bio, status !== STATUS_REQUEUE);
    if (status !== STATUS_REQUEUE) bio.end(status);
    else if (this.#noflush) this.#gate.keep(bio);
    else bio.end(errno.EIO);
  }

  mapThrew(error: unknown): void {
    const { stack = String(error) } = error as Error;
    this.#log.write('error', `core: ${this.number}: bug: ${stack}`);
  }

  readSync(sector: number, nrSectors: number, data: Uint8Array, dataOffset: number): number {
    const table = this.#live;
    if (table === null || sector + nrSectors > table.sizeSectors) return errno.EIO;
    let done = 0;
    while (done < nrSectors) {
      const at = sector + done;
      const target = table.find(at);
      const n = Math.min(target.begin + target.length - at, nrSectors - done);
      const status = target.readSync(at, n, data, dataOffset + done * 512);
      if (status !== 0) return status;
      done += n;
    }
    return 0;
  }

  blockStatus(sector: number, nrSectors: number, visit: ExtentVisitor): void {
    const table = this.#live;
    if (table === null || this.#gate.isClosed) {
      visit(nrSectors, 0);
      return;
    }
    const end = sector + nrSectors;
    for (let at = sector; at < end;) {
      const target = table.findOrNull(at);
      if (target === null) {
        visit(end - at, 0); // The device below another one can be smaller than that one's table.
        return;
      }
      const n = Math.min(target.begin + target.length, end) - at;
      if (!target.blockStatus(at, n, visit)) return;
      at += n;
    }
  }

  // --- control

  /** Runs `work` when no other control operation on this device runs. */
  exclusively<T>(work: () => Promise<T>): Promise<T> {
    return this.#control.run(work);
  }

  /** Puts `table` in the inactive place; an earlier one is destroyed. */
  async setInactive(table: Table): Promise<void> {
    const old = this.#inactive;
    this.#inactive = table;
    this.#hadTable = true;
    await old?.destroy();
  }

  /** Drops the inactive table. */
  async clear(): Promise<void> {
    const old = this.#inactive;
    this.#inactive = null;
    await old?.destroy();
  }

  /**
   * Suspends; does nothing if suspended already. Rejects with EINTR if `signal` comes while I/O is
   * in flight. To be called within `exclusively`.
   */
  async suspend(options: SuspendOptions = {}): Promise<void> {
    await this.#betweenInternalSuspends(async () => {
      if (this.#suspended) return;
      await this.#quiesce(options.noflush === true, options.signal);
      this.#suspended = true;
    }, options.signal);
  }

  /** Runs `work` when no other device's target suspends this one; EINTR if `signal` comes first. */
  async #betweenInternalSuspends(work: () => Promise<void>, signal?: AbortSignal): Promise<void> {
    for (;;) {
      const done = await this.#suspendLock.run(async () => {
        if (this.#nrInternalSuspends > 0) return false;
        await work();
        return true;
      });
      if (done) return;
      // It may be over by now: nothing would wake this one up.
      if (this.#nrInternalSuspends > 0 && !(await this.#internallyResumed.wait(signal))) {
        throw new DmError('EINTR', `${this.dmName}: gave up waiting for an internal resume`);
      }
    }
  }

  async #quiesce(noflush: boolean, signal?: AbortSignal): Promise<void> {
    this.#noflush = noflush;
    for (const target of this.#live?.targets() ?? []) await target.presuspend();
    this.#gate.close();
    if (!(await this.#gate.whenDrained(signal))) {
      this.#noflush = false;
      for (const target of this.#live?.targets() ?? []) target.presuspendUndo();
      this.#openGate();
      throw new DmError('EINTR', `${this.dmName}: gave up waiting for I/O in flight`);
    }
    for (const target of this.#live?.targets() ?? []) await target.postsuspend();
  }

  /**
   * Makes the inactive table live, if there is one, and lets I/O go on. Rejects with a DmError:
   * EINVAL without any table; the targets' refusals. To be called within `exclusively`.
   */
  async resume(options: SuspendOptions = {}): Promise<void> {
    const old = this.#live;
    const fresh = this.#inactive;
    if (fresh !== null) {
      if (!this.#suspended) await this.suspend(options);
      this.#inactive = null;
      try {
        this.#checkNoLoop(fresh);
        fresh.calculateLimits(this.#log);
      } catch (error) {
        await fresh.destroy();
        throw error;
      }
      this.#live = fresh;
      this.#splitter = new BioSplitter(fresh, this);
    }
    try {
      if (this.#suspended) await this.#resumeLive(options.signal);
    } finally {
      if (fresh !== null) await old?.destroy();
    }
  }

  async #resumeLive(signal?: AbortSignal): Promise<void> {
    await this.#betweenInternalSuspends(async () => {
      const table = this.#live;
      if (table === null) throw new DmError('EINVAL', `${this.dmName} has no table`);
      await this.#preresume(table);
      for (const target of table.targets()) target.resume();
      this.#suspended = false;
      this.#noflush = false;
      this.#openGate();
    }, signal);
  }

  async #preresume(table: Table): Promise<void> {
    for (const { type, target } of table.rows()) {
      try {
        await target.preresume();
      } catch (error) {
        if (error instanceof DmError) {
          const text = `preresume failed, error = -${error.code}`;
          this.#log.write('error', `table: ${this.number}: ${type.name}: ${text}`);
        }
        throw error;
      }
    }
  }

  #openGate(): void {
    this.#gate.open((bio) => this.submit(bio));
  }

  /** A device that maps onto itself would be asked for ever. */
  #checkNoLoop(table: Table): void {
    const seen = new Set<MappedDevice>();
    const uses = (from: Table | null): boolean =>
      from?.devices.some(({ device }) => {
        if (device === this) return true;
        if (!(device instanceof MappedDevice) || seen.has(device)) return false;
        seen.add(device);
        return uses(device.live);
      }) ?? false;
    if (!uses(table)) return;
    this.#log.write('error', `table: ${this.number}: the device would map onto itself`);
    throw new DmError('EINVAL', `${this.dmName} would map onto itself`);
  }

  /**
   * Suspends on behalf of another device's target: I/O in flight finishes or is handed back, new
   * I/O waits. Users see the device as active. Answers to dm_internal_suspend_noflush.
   */
  internalSuspend(): Promise<void> {
    return this.#suspendLock.run(async () => {
      this.#nrInternalSuspends++;
      if (this.#nrInternalSuspends > 1 || this.#suspended) return;
      await this.#quiesce(true);
    });
  }

  /** Takes one internal suspend back. */
  internalResume(): void {
    this.#nrInternalSuspends--;
    if (this.#nrInternalSuspends > 0) return;
    if (!this.#suspended) {
      for (const target of this.#live?.targets() ?? []) target.resume();
      this.#noflush = false;
      this.#openGate();
    }
    this.#internallyResumed.wake();
  }

  /** I/O that waits for a resume ends with EIO: for a daemon that stops. */
  abandon(): void {
    if (this.#gate.isClosed) this.#gate.abandon();
  }

  /**
   * Takes the device out of service for good; its tables are destroyed, waiting I/O ends with EIO.
   * With `noflush`, I/O that targets have queued ends so too instead of being waited for.
   */
  async destroy(options: SuspendOptions = {}): Promise<void> {
    this.#removed = true;
    await this.#suspendLock.run(async () => {
      if (!this.#suspended && this.#nrInternalSuspends === 0) {
        await this.#quiesce(options.noflush === true);
      }
      this.#suspended = true;
    });
    this.#splitter = null;
    this.#gate.abandon();
    const tables = [this.#live, this.#inactive];
    this.#live = null;
    this.#inactive = null;
    for (const table of tables) await table?.destroy();
    this.events.close();
  }
}
