/**
 * Table: an ordered list of targets that covers a mapped device without gaps, and the devices they
 * use. Answers to drivers/md/dm-table.c (spec: dm-core, 1 and 3).
 */
import { DmError } from '../base/error.ts';
import type { Log } from '../base/log.ts';
import { SECTOR_SIZE } from '../base/numbers.ts';
import { plainLimits, type Limits } from '../block/device.ts';
import type { MappedDevice } from './mapped-device.ts';
import type { UsedHandle } from './device-lookup.ts';
import type { Registry } from './registry.ts';
import { splitArgs, type TableLine } from './table-grammar.ts';
import type { StatusKind, Target, TargetType, UsedDevice } from './target.ts';

/** Sectors are plain numbers here. The kernel's limit, 2^54 - 1, is that of bytes in a loff_t. */
const SECTORS_MAX = Number.MAX_SAFE_INTEGER;

interface Row {
  readonly type: TargetType;
  readonly target: Target;
}

export class Table {
  readonly readOnly: boolean;
  readonly #rows: Row[] = [];
  readonly #used: UsedHandle[] = [];
  readonly #owner: MappedDevice;
  #limits: Limits = plainLimits();

  private constructor(owner: MappedDevice, readOnly: boolean) {
    this.#owner = owner;
    this.readOnly = readOnly;
  }

  /**
   * Builds a table from its lines. Rejects with a DmError, the kernel's lines in the log, and
   * everything opened so far released. `cwd` is what relative device paths start from.
   */
  static async build(
    registry: Registry,
    owner: MappedDevice,
    lines: readonly TableLine[],
    readOnly: boolean,
    cwd: string,
  ): Promise<Table> {
    const table = new Table(owner, readOnly);
    try {
      if (lines.length === 0) {
        registry.log.write('error', 'ioctl: populate_table: no targets specified');
        throw new DmError('EINVAL', 'no targets specified');
      }
      for (const line of lines) {
        try {
          await table.#add(registry, line, cwd, lines.length === 1);
        } catch (error) {
          registry.log.write('error', 'ioctl: error adding target to table');
          throw error;
        }
      }
    } catch (error) {
      await table.destroy();
      throw error;
    }
    return table;
  }

  async #add(registry: Registry, line: TableLine, cwd: string, alone: boolean): Promise<void> {
    const { log } = registry;
    const prefix = `table: ${this.#owner.number}: `;
    const refuse = (text: string): DmError => {
      log.write('error', prefix + text);
      return new DmError('EINVAL', text);
    };
    if (line.length === 0) throw refuse('zero-length target');
    if (line.start + line.length > SECTORS_MAX) throw refuse('too large device');
    const type = registry.targetType(line.type);
    if (type === undefined) throw refuse(`${line.type}: unknown target type`);
    // A target that must be alone is refused before it touches anything, if it is not.
    const first = this.#rows[0]?.type ?? (alone ? undefined : type);
    if (first?.singleton === true) {
      throw refuse(`target type ${first.name} must appear alone in table`);
    }
    if (type.singleton === true && this.#rows.length > 0) {
      throw this.#refuseTarget(log, type, 'singleton target type must appear alone in table');
    }
    if (type.alwaysWriteable === true && this.readOnly) {
      throw this.#refuseTarget(log, type, 'target type may not be included in a read-only table');
    }
    if (line.start !== this.sizeSectors) throw this.#refuseTarget(log, type, 'Gap in table');
    try {
      const target = await type.construct(
        {
          begin: line.start,
          length: line.length,
          readOnly: this.readOnly,
          owner: this.#owner,
          log,
          clock: registry.clock,
          getDevice: (reference, readOnly) => this.#use(registry, reference, readOnly, cwd),
        },
        splitArgs(line.params),
      );
      this.#rows.push({ type, target });
    } catch (error) {
      if (error instanceof DmError) this.#refuseTarget(log, type, error.message, error);
      throw error;
    }
  }

  #refuseTarget(log: Log, type: TargetType, text: string, cause?: DmError): DmError {
    const error = cause ?? new DmError('EINVAL', text);
    log.write('error', `table: ${this.#owner.number}: ${type.name}: ${text} (-${error.errno})`);
    return error;
  }

  #use(registry: Registry, reference: string, readOnly: boolean, cwd: string): UsedDevice {
    const handle = registry.lookup.use(reference, readOnly, cwd, this.#owner);
    const known = this.#used.find(
      (used) => used.identity === handle.identity && used.readOnly === handle.readOnly,
    );
    if (known !== undefined) {
      handle.releaseSoon();
      return known;
    }
    this.#used.unshift(handle);
    return handle;
  }

  get sizeSectors(): number {
    const last = this.#rows.at(-1)?.target;
    return last === undefined ? 0 : last.begin + last.length;
  }

  get nrTargets(): number {
    return this.#rows.length;
  }

  get limits(): Limits {
    return this.#limits;
  }

  /** Devices in use, the one opened last first. */
  get devices(): readonly UsedHandle[] {
    return this.#used;
  }

  *targets(): Iterable<Target> {
    for (const row of this.#rows) yield row.target;
  }

  *rows(): Iterable<Row> {
    yield* this.#rows;
  }

  /** The type that this table is of, if it must not be replaced by another. */
  get immutableType(): TargetType | null {
    const type = this.#rows[0]?.type;
    return type?.immutable === true ? type : null;
  }

  get firstType(): TargetType | null {
    return this.#rows[0]?.type ?? null;
  }

  /** The target that maps `sector`, which is inside the table. Hot path. */
  find(sector: number): Target {
    const rows = this.#rows;
    let low = 0;
    let high = rows.length;
    while (high - low > 1) {
      const middle = (low + high) >>> 1;
      if ((rows[middle] as Row).target.begin <= sector) low = middle;
      else high = middle;
    }
    return (rows[low] as Row).target;
  }

  /** As `find`, null for a sector beyond the end. */
  findOrNull(sector: number): Target | null {
    return sector < this.sizeSectors ? this.find(sector) : null;
  }

  /**
   * Stacks the limits of the underlying devices, and checks the areas of them that are used. Throws
   * EINVAL; the log says which device. A device of size 0 is not checked, as in the kernel.
   */
  calculateLimits(log: Log): void {
    const all: Limits[] = [];
    for (const { target } of this.#rows) {
      const below: Limits[] = [];
      target.iterateDevices((used) => {
        used.device.refreshSize();
        below.push(used.device.limits);
      });
      const limits = stackLimits(below);
      target.ioHints(limits);
      if (target.nrDiscardBios === 0) forbidDiscards(limits);
      if (target.nrWriteZeroesBios === 0) limits.maxWriteZeroesSectors = 0;
      all.push(limits);
      target.iterateDevices((used, begin, length) => {
        const problem = areaProblem(used, begin, length);
        if (problem === null) return;
        log.write('error', `table: ${this.#owner.number}: ${problem}`);
        throw new DmError('EINVAL', problem);
      });
    }
    this.#limits = stackLimits(all);
    this.#checkAlignment(all, log);
  }

  /**
   * A request is made of whole blocks of this device; cut at target boundaries, its pieces must be
   * made of whole blocks of the targets, whose own limits are `own`.
   */
  #checkAlignment(own: readonly Limits[], log: Log): void {
    const bytes = this.#limits.logicalBlockSize;
    const block = bytes / SECTOR_SIZE;
    const refuse = (line: number, { begin, length }: Target): DmError => {
      const where = `table line ${line} (start sect ${begin} len ${length})`;
      const problem = `${where} not aligned to h/w logical block size ${bytes}`;
      log.write('warn', `table: ${this.#owner.number}: ${problem}`);
      return new DmError('EINVAL', problem);
    };
    for (const [line, { target }] of this.#rows.entries()) {
      const ownBlock = (own[line] as Limits).logicalBlockSize / SECTOR_SIZE;
      const untilBlock = (block - (target.begin % block)) % block;
      if (untilBlock < target.length && untilBlock % ownBlock !== 0) throw refuse(line, target);
    }
    const last = this.#rows.at(-1)?.target;
    if (last && this.sizeSectors % block !== 0) throw refuse(this.nrTargets, last);
  }

  /** Status or parameters of each target: `<start> <length> <type> <text>`. */
  async lines(kind: StatusKind, noflush: boolean, only?: string): Promise<string[]> {
    const lines: string[] = [];
    for (const { type, target } of this.#rows) {
      if (only !== undefined && type.name !== only) continue;
      const text = await target.status(kind, noflush);
      lines.push(`${target.begin} ${target.length} ${type.name} ${text}`);
    }
    return lines;
  }

  /** Ends the targets, last first, and releases the devices. */
  async destroy(): Promise<void> {
    for (const { target } of this.#rows.splice(0).reverse()) await target.destroy();
    for (const handle of this.#used.splice(0)) await handle.release();
  }
}

/** What is wrong with a target's area of a device, in the kernel's words; null if nothing. */
function areaProblem(used: UsedDevice, begin: number, length: number): string | null {
  const { name, sizeSectors, limits } = used.device;
  if (sizeSectors === 0) return null;
  if (begin >= sizeSectors || begin + length > sizeSectors) {
    const area = `start=${begin}, len=${length}, dev_size=${sizeSectors}`;
    return `${name} too small for target: ${area}`;
  }
  const block = limits.logicalBlockSize / SECTOR_SIZE;
  const aligned = `not aligned to h/w logical block size ${limits.logicalBlockSize} of ${name}`;
  if (begin % block !== 0) return `start=${begin} ${aligned}`;
  if (length % block !== 0) return `len=${length} ${aligned}`;
  return null;
}

/** Limits that satisfy all of `below`; what one of them cannot do, the whole cannot. */
function stackLimits(below: readonly Limits[]): Limits {
  const top = plainLimits();
  for (const one of below) {
    top.logicalBlockSize = Math.max(top.logicalBlockSize, one.logicalBlockSize);
    top.physicalBlockSize = Math.max(top.physicalBlockSize, one.physicalBlockSize);
    top.ioMin = Math.max(top.ioMin, one.ioMin);
    top.ioOpt = Math.max(top.ioOpt, one.ioOpt);
    top.discardGranularity = Math.max(top.discardGranularity, one.discardGranularity);
  }
  if (below.length > 0) {
    top.maxDiscardSectors = Math.min(...below.map((one) => one.maxDiscardSectors));
    top.maxWriteZeroesSectors = Math.min(...below.map((one) => one.maxWriteZeroesSectors));
    top.discardZeroes = below.every((one) => one.discardZeroes);
  }
  if (top.maxDiscardSectors === 0) forbidDiscards(top);
  return top;
}

function forbidDiscards(limits: Limits): void {
  limits.maxDiscardSectors = 0;
  limits.discardGranularity = 0;
  limits.discardZeroes = false;
}
