/**
 * delay: other devices, some time later: one for reads, one for writes, one for flushes (spec:
 * dm-core, 9.5). Answers to drivers/md/dm-delay.c.
 *
 * Delayed bios wait in the order of their time. A suspend lets them go at once.
 */
import type { Clock, Timer } from '../../base/clock.ts';
import { DmError } from '../../base/error.ts';
import { parseU32 } from '../../base/numbers.ts';
import { BioOp, type Bio } from '../../block/bio.ts';
import type { BlockDevice, ExtentVisitor } from '../../block/device.ts';
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

/** A device, where on it, how much later, and how many bios wait for it. */
interface Route {
  readonly used: UsedDevice;
  readonly start: number;
  readonly delayMs: number;
  nrDelayed: number;
}

interface DelayedBio {
  readonly bio: Bio;
  readonly route: Route;
  readonly dueMs: number;
}

class DelayTarget extends Target {
  readonly #clock: Clock;
  readonly #read: Route;
  readonly #write: Route;
  readonly #flush: Route;
  /** As the table named them. */
  readonly #named: readonly Route[];
  readonly #delayed: DelayedBio[] = [];
  #timer: Timer | null = null;
  #mayDelay = true;

  constructor(context: TargetContext, routes: readonly Route[]) {
    super(context);
    this.#clock = context.clock;
    this.#named = routes;
    [this.#read, this.#write, this.#flush] = routesByClass(routes);
    this.nrFlushBios = 1;
    this.nrDiscardBios = 1;
  }

  override map(bio: Bio): MapResult {
    const route = this.#routeOf(bio);
    bio.device = route.used.device;
    if (bio.op !== BioOp.FLUSH) bio.sector += route.start - this.begin;
    if (route.delayMs === 0 || !this.#mayDelay) return MapResult.REMAPPED;
    const delayed = { bio, route, dueMs: this.#clock.nowMs() + route.delayMs };
    const after = this.#delayed.findLastIndex(({ dueMs }) => dueMs <= delayed.dueMs);
    this.#delayed.splice(after + 1, 0, delayed);
    route.nrDelayed++;
    this.#arm();
    return MapResult.SUBMITTED;
  }

  #routeOf(bio: Bio): Route {
    if (bio.op === BioOp.READ) return this.#read;
    return bio.op === BioOp.FLUSH ? this.#flush : this.#write;
  }

  #arm(): void {
    this.#timer?.cancel();
    this.#timer = null;
    const [first] = this.#delayed;
    if (first === undefined) return;
    const wait = Math.max(0, first.dueMs - this.#clock.nowMs());
    this.#timer = this.#clock.after(wait, () => this.#letGo(this.#clock.nowMs()));
  }

  /** Sends on what is due by `nowMs`. */
  #letGo(nowMs: number): void {
    for (let first = this.#delayed[0]; first !== undefined; first = this.#delayed[0]) {
      if (first.dueMs > nowMs) break;
      this.#delayed.shift();
      first.route.nrDelayed--;
      (first.bio.device as BlockDevice).submit(first.bio);
    }
    this.#arm();
  }

  override presuspend(): void {
    this.#mayDelay = false;
    this.#letGo(Infinity);
  }

  override presuspendUndo(): void {
    this.#mayDelay = true;
  }

  override resume(): void {
    this.#mayDelay = true;
  }

  override destroy(): void {
    this.#timer?.cancel();
  }

  override status(kind: StatusKind): string {
    if (kind === 'INFO') {
      return [this.#read, this.#write, this.#flush].map(({ nrDelayed }) => nrDelayed).join(' ');
    }
    return this.#named
      .map(({ used, start, delayMs }) => `${used.number} ${start} ${delayMs}`)
      .join(' ');
  }

  override iterateDevices(visit: (used: UsedDevice, begin: number, length: number) => void): void {
    for (const { used, start } of this.#named) visit(used, start, this.length);
  }

  override readSync(sector: number, nrSectors: number, data: Uint8Array, offset: number): number {
    const { used, start } = this.#read;
    return used.device.readSync(sector + start - this.begin, nrSectors, data, offset);
  }

  override blockStatus(sector: number, nrSectors: number, visit: ExtentVisitor): boolean {
    const { used, start } = this.#read;
    return deviceStatus(used.device, sector + start - this.begin, nrSectors, visit);
  }
}

/** Routes of reads, writes and flushes: what is not named goes where the class before it goes. */
function routesByClass(routes: readonly Route[]): [Route, Route, Route] {
  const [read, write, flush] = routes;
  // Each class counts its own bios, also where two share a device.
  const copyOf = (route: Route): Route => ({ ...route });
  const reads = read as Route;
  const writes = write ?? copyOf(reads);
  return [reads, writes, flush ?? copyOf(writes)];
}

function parseRoute(context: TargetContext, words: readonly string[]): Route {
  const [reference = '', offset = '', ms = ''] = words;
  const start = parseSector(offset);
  if (start === undefined) throw new DmError('EINVAL', 'Invalid device sector');
  const delayMs = parseU32(ms);
  if (delayMs === undefined) throw new DmError('EINVAL', 'Invalid delay');
  const used = openDevice(context, reference, context.readOnly, 'Device lookup failed');
  return { used, start, delayMs, nrDelayed: 0 };
}

export const delay: TargetType = {
  name: 'delay',
  version: [1, 3, 0],
  construct(context, args) {
    if (![3, 6, 9].includes(args.length)) {
      throw new DmError('EINVAL', 'Requires exactly 3, 6 or 9 arguments');
    }
    const routes: Route[] = [];
    for (let i = 0; i < args.length; i += 3) {
      routes.push(parseRoute(context, args.slice(i, i + 3)));
    }
    return new DelayTarget(context, routes);
  },
};
