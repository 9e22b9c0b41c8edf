/**
 * striped: chunks laid out over several devices in turn (spec: dm-core, 9.3).
 * Answers to drivers/md/dm-stripe.c.
 *
 *   chunk k = floor(s / chunk) lives on stripe k mod n at offset + floor(k / n) * chunk + s mod
 *   chunk
 */
import { DmError } from '../../base/error.ts';
import { errno } from '../../base/errno.ts';
import { parseU32, SECTOR_SIZE } from '../../base/numbers.ts';
import { BioOp, type Bio } from '../../block/bio.ts';
import type { ExtentVisitor, Limits } from '../../block/device.ts';
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
import { deviceStatus } from './linear.ts';

/** Failed requests of one stripe that raise an event each; more are only counted. */
const ERROR_EVENTS_MAX = 14;

interface Stripe {
  readonly used: UsedDevice;
  readonly start: number;
  errors: number;
}

/** Where a sector of the target lies. Filled by `locate`. */
interface Place {
  stripe: number;
  sector: number;
}

class StripedTarget extends Target {
  readonly #stripes: readonly Stripe[];
  readonly #chunkSectors: number;
  readonly #place: Place = { stripe: 0, sector: 0 };
  readonly #raiseEvent: () => void;
  override readonly hasEndIo = true;

  constructor(context: TargetContext, stripes: readonly Stripe[], chunkSectors: number) {
    super(context);
    this.#stripes = stripes;
    this.#chunkSectors = chunkSectors;
    this.#raiseEvent = () => context.owner.events.raise();
    this.maxIoSectors = chunkSectors;
    this.nrFlushBios = stripes.length;
    this.nrDiscardBios = stripes.length;
    this.nrWriteZeroesBios = stripes.length;
  }

  override map(bio: Bio): MapResult {
    if (bio.op === BioOp.FLUSH) {
      bio.device = this.#stripe(bio.targetBioNr).used.device;
      return MapResult.REMAPPED;
    }
    if (bio.op === BioOp.DISCARD || bio.op === BioOp.WRITE_ZEROES) return this.#mapRange(bio);
    this.#locate(bio.sector - this.begin);
    bio.device = this.#stripe(this.#place.stripe).used.device;
    bio.sector = this.#place.sector;
    return MapResult.REMAPPED;
  }

  #stripe(index: number): Stripe {
    return this.#stripes[index] as Stripe;
  }

  #locate(offset: number): void {
    const chunk = Math.floor(offset / this.#chunkSectors);
    const stripe = chunk % this.#stripes.length;
    const row = Math.floor(chunk / this.#stripes.length);
    this.#place.stripe = stripe;
    this.#place.sector =
      this.#stripe(stripe).start + row * this.#chunkSectors + (offset % this.#chunkSectors);
  }

  /** One copy a stripe: each does the part of the range that lies on it, which is contiguous. */
  #mapRange(bio: Bio): MapResult {
    const index = bio.targetBioNr;
    const begin = this.#boundary(bio.sector - this.begin, index);
    const end = this.#boundary(bio.sector - this.begin + bio.nrSectors, index);
    if (begin >= end) {
      bio.end(0);
      return MapResult.SUBMITTED;
    }
    const stripe = this.#stripe(index);
    bio.device = stripe.used.device;
    bio.sector = stripe.start + begin;
    bio.nrSectors = end - begin;
    return MapResult.REMAPPED;
  }

  /** How many sectors of stripe `index` lie before `offset` of the target. */
  #boundary(offset: number, index: number): number {
    const chunk = Math.floor(offset / this.#chunkSectors);
    const stripe = chunk % this.#stripes.length;
    const row = Math.floor(chunk / this.#stripes.length);
    if (index < stripe) return (row + 1) * this.#chunkSectors;
    const partial = index === stripe ? offset % this.#chunkSectors : 0;
    return row * this.#chunkSectors + partial;
  }

  override endIo(bio: Bio): number {
    const { status } = bio;
    if (status > 0 && status !== errno.EOPNOTSUPP && bio.device !== null) this.#countError(bio);
    return status;
  }

  /** Several stripes may be on the device that failed: it cannot be told which was meant. */
  #countError(bio: Bio): void {
    let isNews = false;
    for (const stripe of this.#stripes) {
      if (stripe.used.device !== bio.device) continue;
      stripe.errors++;
      isNews ||= stripe.errors <= ERROR_EVENTS_MAX;
    }
    if (isNews) this.#raiseEvent();
  }

  override status(kind: StatusKind): string {
    const n = this.#stripes.length;
    if (kind === 'TABLE') {
      const places = this.#stripes.map(({ used, start }) => `${used.number} ${start}`);
      return `${n} ${this.#chunkSectors} ${places.join(' ')}`;
    }
    const devices = this.#stripes.map(({ used }) => used.number).join(' ');
    const health = this.#stripes.map(({ errors }) => (errors > 0 ? 'D' : 'A')).join('');
    return `${n} ${devices} 1 ${health}`;
  }

  override iterateDevices(visit: (used: UsedDevice, begin: number, length: number) => void): void {
    for (const { used, start } of this.#stripes) {
      visit(used, start, this.length / this.#stripes.length);
    }
  }

  override ioHints(limits: Limits): void {
    const chunkBytes = this.#chunkSectors * SECTOR_SIZE;
    limits.ioMin = chunkBytes;
    limits.ioOpt = chunkBytes * this.#stripes.length;
  }

  override readSync(sector: number, nrSectors: number, data: Uint8Array, offset: number): number {
    for (let done = 0; done < nrSectors;) {
      const n = this.#pieceAt(sector + done, nrSectors - done);
      const { device } = this.#stripe(this.#place.stripe).used;
      const at = offset + done * SECTOR_SIZE;
      const status = device.readSync(this.#place.sector, n, data, at);
      if (status !== 0) return status;
      done += n;
    }
    return 0;
  }

  override blockStatus(sector: number, nrSectors: number, visit: ExtentVisitor): boolean {
    for (let done = 0; done < nrSectors;) {
      const n = this.#pieceAt(sector + done, nrSectors - done);
      const { device } = this.#stripe(this.#place.stripe).used;
      if (!deviceStatus(device, this.#place.sector, n, visit)) return false;
      done += n;
    }
    return true;
  }

  /** Locates `sector`; how much of `nrSectors` from there lies in the same chunk. */
  #pieceAt(sector: number, nrSectors: number): number {
    const offset = sector - this.begin;
    this.#locate(offset);
    return Math.min(this.#chunkSectors - (offset % this.#chunkSectors), nrSectors);
  }
}

export const striped: TargetType = {
  name: 'striped',
  version: [1, 6, 0],
  construct(context, args) {
    if (args.length < 2) throw new DmError('EINVAL', 'Not enough arguments');
    const nrStripes = parseU32(args[0] ?? '');
    if (nrStripes === undefined || nrStripes === 0) {
      throw new DmError('EINVAL', 'Invalid stripe count');
    }
    const chunkSectors = parseU32(args[1] ?? '');
    if (chunkSectors === undefined || chunkSectors === 0) {
      throw new DmError('EINVAL', 'Invalid chunk_size');
    }
    if (context.length % nrStripes !== 0) {
      throw new DmError('EINVAL', 'Target length not divisible by number of stripes');
    }
    if ((context.length / nrStripes) % chunkSectors !== 0) {
      throw new DmError('EINVAL', 'Target length not divisible by chunk size');
    }
    if (args.length !== 2 + 2 * nrStripes) {
      throw new DmError('EINVAL', 'Not enough destinations specified');
    }
    const stripes: Stripe[] = [];
    for (let i = 2; i < args.length; i += 2) {
      stripes.push(parseStripe(context, args[i] ?? '', args[i + 1] ?? ''));
    }
    return new StripedTarget(context, stripes, chunkSectors);
  },
};

function parseStripe(context: TargetContext, reference: string, offset: string): Stripe {
  const complaint = "Couldn't parse stripe destination";
  const start = parseSector(offset);
  if (start === undefined) throw new DmError('EINVAL', complaint);
  return { used: openDevice(context, reference, context.readOnly, complaint), start, errors: 0 };
}
