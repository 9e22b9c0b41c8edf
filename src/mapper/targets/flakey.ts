/**
 * flakey: another device that is up for some seconds and down for some, again and again (spec:
 * dm-core, 9.4). Answers to drivers/md/dm-flakey.c.
 *
 *   loaded ─ up s ─► down s ─► up s ─► …     seconds are whole ones since the load
 *
 * Writes, flushes and discards are one direction, reads the other. The submitter's data is never
 * changed: a corrupted write is a copy.
 */
import type { Clock } from '../../base/clock.ts';
import { DmError } from '../../base/error.ts';
import { errno } from '../../base/errno.ts';
import { parseU32, SECTOR_SIZE } from '../../base/numbers.ts';
import { BioFlag, BioOp, type Bio } from '../../block/bio.ts';
import type { ExtentVisitor } from '../../block/device.ts';
import { parseSector } from '../table-grammar.ts';
import {
  MapResult,
  openDevice,
  Target,
  type StatusKind,
  type TargetContext,
  type TargetType,
  type UsedDevice,
} from '../target.ts';
import {
  flakeyFeatureWords,
  parseFlakeyFeatures,
  PROBABILITY_BASE,
  type FlakeyFeatures,
} from './flakey-features.ts';
import { deviceStatus } from './linear.ts';

/** The kernel's REQ_FUA and REQ_PREFLUSH: of its flags, those that bios have here. */
const REQ_FUA = 1 << 17;
const REQ_PREFLUSH = 1 << 18;

interface FlakeyOptions {
  readonly used: UsedDevice;
  readonly start: number;
  readonly upSeconds: number;
  readonly downSeconds: number;
  readonly features: FlakeyFeatures;
}

/** What the target remembers of a bio: whether it met the device when that was down. */
class FlakeyBio {
  isDown = false;
  /** What the submitter wrote, while a corrupted copy is on its way. */
  data: Uint8Array | null = null;
  dataOffset = 0;
}

class FlakeyTarget extends Target {
  override readonly hasEndIo = true;
  readonly #clock: Clock;
  readonly #options: FlakeyOptions;
  readonly #loadedMs: number;

  constructor(context: TargetContext, options: FlakeyOptions) {
    super(context, () => new FlakeyBio());
    this.#clock = context.clock;
    this.#options = options;
    this.#loadedMs = context.clock.nowMs();
    this.nrFlushBios = 1;
    this.nrDiscardBios = 1;
  }

  get #isDown(): boolean {
    const { upSeconds, downSeconds } = this.#options;
    const seconds = Math.floor((this.#clock.nowMs() - this.#loadedMs) / 1000);
    return seconds % (upSeconds + downSeconds) >= upSeconds;
  }

  override map(bio: Bio): MapResult {
    const perBio = bio.perBio as FlakeyBio;
    perBio.isDown = this.#isDown;
    perBio.data = null;
    if (perBio.isDown) {
      const status = bio.op === BioOp.READ ? this.#mapRead() : this.#mapWrite(bio, perBio);
      if (status !== null) {
        // What ends here was not changed by the device: `endIo` has nothing to do.
        perBio.isDown = false;
        bio.end(status);
        return MapResult.SUBMITTED;
      }
    }
    const { used, start } = this.#options;
    bio.device = used.device;
    if (bio.op !== BioOp.FLUSH) bio.sector += start - this.begin;
    return MapResult.REMAPPED;
  }

  /** Without any feature everything fails. */
  get #failsAll(): boolean {
    const { features } = this.#options;
    return (
      !features.errorReads &&
      !features.dropWrites &&
      !features.errorWrites &&
      features.corruption === null &&
      features.randomReadCorrupt === 0 &&
      features.randomWriteCorrupt === 0
    );
  }

  /** The status with which a read ends at once; null: the device answers. */
  #mapRead(): number | null {
    return this.#failsAll || this.#options.features.errorReads ? errno.EIO : null;
  }

  #mapWrite(bio: Bio, perBio: FlakeyBio): number | null {
    const { features } = this.#options;
    if (this.#failsAll || features.errorWrites) return errno.EIO;
    if (features.dropWrites) return 0;
    if (bio.op === BioOp.WRITE) this.#corruptWrite(bio, perBio);
    return null;
  }

  #corruptWrite(bio: Bio, perBio: FlakeyBio): void {
    const { corruption, randomWriteCorrupt } = this.#options.features;
    const length = bio.nrSectors * SECTOR_SIZE;
    const change = changeOf(bio, length, corruption, randomWriteCorrupt);
    if (change === null) return;
    perBio.data = bio.data;
    perBio.dataOffset = bio.dataOffset;
    // Not `slice`: of a Buffer, that would be the same memory.
    bio.data = new Uint8Array(bio.data.subarray(bio.dataOffset, bio.dataOffset + length));
    bio.dataOffset = 0;
    bio.data[change.index] = change.value;
  }

  override endIo(bio: Bio): number {
    const perBio = bio.perBio as FlakeyBio;
    if (perBio.data !== null) {
      bio.data = perBio.data;
      bio.dataOffset = perBio.dataOffset;
      perBio.data = null;
    }
    if (!perBio.isDown || bio.op !== BioOp.READ || bio.status !== 0) return bio.status;
    const { corruption, randomReadCorrupt } = this.#options.features;
    const length = bio.nrSectors * SECTOR_SIZE;
    const change = changeOf(bio, length, corruption, randomReadCorrupt);
    if (change !== null) bio.data[bio.dataOffset + change.index] = change.value;
    return bio.status;
  }

  override status(kind: StatusKind): string {
    if (kind === 'INFO') return '';
    const { used, start, upSeconds, downSeconds, features } = this.#options;
    const words = flakeyFeatureWords(features);
    return `${used.number} ${start} ${upSeconds} ${downSeconds} ${words}`;
  }

  override iterateDevices(visit: (used: UsedDevice, begin: number, length: number) => void): void {
    const { used, start } = this.#options;
    visit(used, start, this.length);
  }

  override readSync(sector: number, nrSectors: number, data: Uint8Array, offset: number): number {
    if (this.#isDown && this.#mapRead() !== null) return errno.EIO;
    const { used, start } = this.#options;
    return used.device.readSync(sector + start - this.begin, nrSectors, data, offset);
  }

  override blockStatus(sector: number, nrSectors: number, visit: ExtentVisitor): boolean {
    const { used, start } = this.#options;
    return deviceStatus(used.device, sector + start - this.begin, nrSectors, visit);
  }
}

/** Which byte of a bio's data becomes what; null: none. */
function changeOf(
  bio: Bio,
  length: number,
  corruption: FlakeyFeatures['corruption'],
  probability: number,
): { index: number; value: number } | null {
  if (corruption !== null && corruption.isWrite === (bio.op === BioOp.WRITE)) {
    const { byte, value, flags } = corruption;
    if (byte <= length && (reqFlags(bio) & flags) === flags) return { index: byte - 1, value };
  }
  if (probability === 0 || Math.random() * PROBABILITY_BASE >= probability) return null;
  return { index: below(length), value: below(256) };
}

const below = (n: number): number => Math.floor(Math.random() * n);

function reqFlags(bio: Bio): number {
  const fua = (bio.flags & BioFlag.FUA) !== 0 ? REQ_FUA : 0;
  return (bio.flags & BioFlag.PREFLUSH) !== 0 ? fua | REQ_PREFLUSH : fua;
}

export const flakey: TargetType = {
  name: 'flakey',
  version: [1, 5, 0],
  construct(context, args) {
    const [reference, offset, up, down, ...rest] = args;
    if (reference === undefined || offset === undefined || up === undefined || down === undefined) {
      throw new DmError('EINVAL', 'Invalid argument count');
    }
    const start = parseSector(offset);
    if (start === undefined) throw new DmError('EINVAL', 'Invalid device sector');
    const upSeconds = parseU32(up);
    if (upSeconds === undefined) throw new DmError('EINVAL', 'Invalid up interval');
    const downSeconds = parseU32(down);
    // The kernel's word for either of them.
    if (downSeconds === undefined) throw new DmError('EINVAL', 'Invalid up interval');
    if (upSeconds + downSeconds === 0) {
      throw new DmError('EINVAL', 'Total (up + down) interval is zero');
    }
    const features = parseFlakeyFeatures(rest);
    const used = openDevice(context, reference, context.readOnly, 'Device lookup failed');
    return new FlakeyTarget(context, { used, start, upSeconds, downSeconds, features });
  },
};
