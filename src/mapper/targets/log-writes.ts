/**
 * log-writes: another device, all of whose changes are recorded on a log device, in the order in
 * which they can be relied on (spec: dm-core, 9.6; block/logged-device.ts says how). Answers to
 * drivers/md/dm-log-writes.c.
 *
 * The log begins anew with each table. What a crash leaves: the entries that the last super
 * counted.
 */
import { DmError } from '../../base/error.ts';
import type { Bio } from '../../block/bio.ts';
import type { ExtentVisitor, Limits } from '../../block/device.ts';
import { LoggedDevice } from '../../block/logged-device.ts';
import { WriteLog } from '../../block/write-log.ts';
import {
  MapResult,
  openDevice,
  Target,
  type StatusKind,
  type TargetContext,
  type TargetType,
  type UsedDevice,
} from '../target.ts';
import { deviceStatus } from './linear.ts';

class LogWritesTarget extends Target {
  readonly #context: TargetContext;
  readonly #used: UsedDevice;
  readonly #logUsed: UsedDevice;
  readonly #log: WriteLog;
  readonly #logged: LoggedDevice;

  constructor(context: TargetContext, used: UsedDevice, logUsed: UsedDevice) {
    super(context);
    this.#context = context;
    this.#used = used;
    this.#logUsed = logUsed;
    const { logicalBlockSize } = used.device.limits;
    this.#log = new WriteLog(logUsed.device, logicalBlockSize, context.log);
    this.#logged = new LoggedDevice(used.device, this.#log);
    this.nrFlushBios = 1;
    this.nrDiscardBios = 1;
    this.message = (args) => this.#message(args);
  }

  override map(bio: Bio): MapResult {
    bio.device = this.#logged;
    return MapResult.REMAPPED;
  }

  async #message(args: readonly string[]): Promise<string> {
    const [word = '', text = ''] = args;
    if (args.length !== 2) {
      const wanted = `expect 2 arguments, got ${args.length}`;
      const line = `Invalid log-writes message arguments, ${wanted}`;
      this.#context.log.write('warn', `log-writes: ${line}`);
      throw new DmError('EINVAL', line);
    }
    if (word.toLowerCase() !== 'mark') {
      const line = `Unrecognised log writes target message received: ${word}`;
      this.#context.log.write('warn', `log-writes: ${line}`);
      throw new DmError('EINVAL', line);
    }
    this.#log.mark(text);
    await this.#log.written();
    return '';
  }

  override async destroy(): Promise<void> {
    this.#logged.close();
    await this.#log.close();
  }

  override status(kind: StatusKind): string {
    return kind === 'INFO' ? this.#log.status : `${this.#used.number} ${this.#logUsed.number}`;
  }

  override iterateDevices(visit: (used: UsedDevice, begin: number, length: number) => void): void {
    visit(this.#used, 0, this.length);
  }

  override ioHints(limits: Limits): void {
    const { logicalBlockSize, discardGranularity, maxDiscardSectors } = this.#logged.limits;
    limits.logicalBlockSize = logicalBlockSize;
    limits.discardGranularity = discardGranularity;
    limits.maxDiscardSectors = maxDiscardSectors;
    limits.discardZeroes = this.#logged.limits.discardZeroes;
    limits.maxWriteZeroesSectors = 0;
  }

  override readSync(sector: number, nrSectors: number, data: Uint8Array, offset: number): number {
    return this.#logged.readSync(sector, nrSectors, data, offset);
  }

  override blockStatus(sector: number, nrSectors: number, visit: ExtentVisitor): boolean {
    return deviceStatus(this.#logged, sector, nrSectors, visit);
  }
}

export const logWrites: TargetType = {
  name: 'log-writes',
  version: [1, 1, 0],
  construct(context, args) {
    const [reference, logReference] = args;
    if (reference === undefined || logReference === undefined) {
      throw new DmError('EINVAL', 'Invalid argument count');
    }
    const used = openDevice(context, reference, context.readOnly, 'Device lookup failed');
    const complaint = 'Log device lookup failed';
    const logUsed = openDevice(context, logReference, context.readOnly, complaint);
    return new LogWritesTarget(context, used, logUsed);
  },
};
