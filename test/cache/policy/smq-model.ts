/**
 * SmqModel: the rules of smq once more, said as plainly as possible, with arrays of arrays and no
 * thought of speed (spec: cache, 15.2 to 15.9). What the policy does is compared with it step by
 * step.
 */
import { WorkOp } from '../../../src/cache/policy/policy.ts';

export interface ModelOptions {
  readonly nrCacheBlocks: number;
  readonly blockSectors: number;
  readonly originSectors: number;
  readonly isCleaner?: boolean;
}

export interface ModelWork {
  readonly op: number;
  readonly oblock: number;
  readonly cblock: number;
}

/** An entry, or a sentinel: of a cache queue, `id` is the cblock; of a sentinel, its set. */
interface Item {
  readonly isSentinel: boolean;
  readonly id: number;
  block: number;
  level: number;
  dirty: boolean;
  pending: boolean;
  hit: boolean;
}

type Queue = Item[][];

const JIFFIES_PER_SECOND = 100;
const LEVELS = 64;
const LIMIT = 4096;

const newItem = (id: number, level: number, isSentinel = false): Item => ({
  isSentinel,
  id,
  block: -1,
  level,
  dirty: true,
  pending: false,
  hit: false,
});

const newQueue = (): Queue => Array.from({ length: LEVELS }, () => []);
const levelOf = (queue: Queue, level: number): Item[] => queue[level] as Item[];
const elements = (list: readonly Item[]): Item[] => list.filter((item) => !item.isSentinel);
const nrElements = (queue: Queue): number => queue.flatMap(elements).length;

function push(queue: Queue, item: Item): void {
  levelOf(queue, item.level).push(item);
}

function take(queue: Queue, item: Item): void {
  const list = levelOf(queue, item.level);
  list.splice(list.indexOf(item), 1);
}

function peek(queue: Queue, nrLevels: number, cross: boolean): Item | undefined {
  for (const list of queue.slice(0, nrLevels)) {
    const item = cross ? elements(list)[0] : list[0];
    if (item !== undefined && !item.isSentinel) return item;
  }
  return undefined;
}

/** How many elements each level should have. */
function targets(nr: number, nrTopLevels: number, nrTop: number): number[] {
  const share = (n: number, levels: number): number[] =>
    Array.from({ length: levels }, (_, i) => Math.floor(n / levels) + (i < n % levels ? 1 : 0));
  if (nrTopLevels === 0) return share(nr, LEVELS);
  return [...share(Math.max(0, nr - nrTop), LEVELS - nrTopLevels), ...share(nrTop, nrTopLevels)];
}

function redistribute(queue: Queue, wanted: readonly number[]): void {
  const move = (item: Item, level: number): void => {
    take(queue, item);
    item.level = level;
    push(queue, item);
  };
  for (let level = 0; level < LEVELS - 1; level++) {
    const list = levelOf(queue, level);
    const target = wanted[level] as number;
    while (elements(list).length < target) {
      const oldest = queue.slice(level + 1).flatMap(elements)[0];
      if (oldest === undefined) break;
      move(oldest, level);
    }
    while (elements(list).length > target) move(elements(list).at(-1) as Item, level + 1);
  }
}

export class SmqModel {
  now = 0;
  readonly clean = newQueue();
  readonly dirty = newQueue();
  readonly hotspots = newQueue();
  free: Item[];
  /** What is mapped, by any order. */
  mapped: Item[] = [];
  reserved: Item[] = [];
  /** Handed in and not completed; those in `queue` have not been handed out. */
  work: ModelWork[] = [];
  queue: ModelWork[] = [];
  allowed = true;

  readonly #options: ModelOptions;
  readonly #blocksPerHotspot: number;
  readonly #nrHotspots: number;
  #hotspotHits = 0;
  #hotspotMisses = 0;
  #promoteLevel = LEVELS;
  #jump = 1;
  #writebackSet = 1;
  #demoteSet = 1;
  #nextWriteback = 10 * JIFFIES_PER_SECOND;
  #nextDemote = 60 * JIFFIES_PER_SECOND;
  #nextHotspot = 0;
  #nextCache = 0;

  constructor(options: ModelOptions) {
    this.#options = options;
    this.free = Array.from({ length: options.nrCacheBlocks }, (_, i) => newItem(i, 0));
    for (let level = 0; level < LEVELS; level++) {
      for (const set of [0, 1]) {
        push(this.clean, newItem(set, level, true));
        push(this.dirty, newItem(set, level, true));
      }
    }
    this.#nrHotspots = Math.max(Math.floor(options.nrCacheBlocks / 4), 1024);
    let sectors = 16 * options.blockSectors;
    while (sectors > options.blockSectors && sectors * this.#nrHotspots > options.originSectors) {
      sectors /= 2;
    }
    this.#blocksPerHotspot = sectors / options.blockSectors;
  }

  get residency(): number {
    return this.#options.nrCacheBlocks - this.free.length;
  }

  hint(cblock: number): number {
    return this.mapped.find(({ id }) => id === cblock)?.level ?? 0;
  }

  lookup(
    oblock: number,
    isWrite: boolean,
    isFast: boolean,
    handsOut: boolean,
  ): { cblock: number; mayHaveWork: boolean; work: ModelWork | null } {
    const found = this.mapped.find(({ block }) => block === oblock);
    if (found !== undefined) {
      this.#hit(found);
      return { cblock: found.id, mayHaveWork: false, work: null };
    }
    const hotspot = this.#accessHotspot(Math.floor(oblock / this.#blocksPerHotspot));
    const isFastWrite = isFast && isWrite && this.free.length > 0;
    if (!isFastWrite && hotspot.level < this.#promoteLevel) {
      return { cblock: -1, mayHaveWork: false, work: null };
    }
    const work = this.#promote(oblock, handsOut);
    return { cblock: -1, mayHaveWork: true, work: handsOut ? work : null };
  }

  #hit(item: Item): void {
    if (item.pending || item.hit) return;
    item.hit = true;
    const old = 1 - this.#writebackSet;
    this.#requeue(this.#queueOf(item), item, 1, item.dirty ? [old, this.#writebackSet] : null);
  }

  /** `sets`: before whose sentinel the displaced element goes if it had none, or one, before it. */
  #requeue(queue: Queue, item: Item, jump: number, sets: readonly number[] | null): void {
    const level = Math.min(LEVELS - 1, item.level + jump);
    if (level > item.level) {
      const list = levelOf(queue, level);
      const displaced = elements(list)[0];
      if (displaced !== undefined) {
        const nrPassed = list.indexOf(displaced);
        take(queue, displaced);
        displaced.level = item.level;
        const lower = levelOf(queue, item.level);
        const set = sets?.[nrPassed];
        const place = lower.findIndex(({ isSentinel, id }) => isSentinel && id === set);
        lower.splice(place < 0 ? lower.length : place, 0, displaced);
      }
    }
    take(queue, item);
    item.level = level;
    push(queue, item);
  }

  #accessHotspot(block: number): Item {
    const known = this.hotspots.flat().find((item) => item.block === block);
    if (known !== undefined) {
      if (known.level >= 48) this.#hotspotHits++;
      else this.#hotspotMisses++;
      this.#requeue(this.hotspots, known, known.hit ? 0 : this.#jump, null);
      known.hit = true;
      return known;
    }
    this.#hotspotMisses++;
    const nr = nrElements(this.hotspots);
    let item = newItem(nr, 0);
    if (nr === this.#nrHotspots) {
      item = peek(this.hotspots, LEVELS, true) as Item;
      take(this.hotspots, item);
    }
    item.hit = false;
    item.block = block;
    push(this.hotspots, item);
    return item;
  }

  #promote(oblock: number, handsOut: boolean): ModelWork | null {
    if (!this.allowed || this.#options.isCleaner === true) return null;
    if (this.free.length === 0) {
      const nrDemotions = this.work.filter(({ op }) => op === WorkOp.DEMOTE).length;
      const isTargetMet = nrDemotions >= Math.floor((this.#options.nrCacheBlocks * 25) / 100);
      if (!isTargetMet) this.#queueDemotion();
      return null;
    }
    if (this.work.some((work) => work.oblock === oblock)) return null;
    const item = this.free.shift() as Item;
    if (this.work.length === LIMIT) {
      this.free.push(item);
      return null;
    }
    Object.assign(item, { level: 0, dirty: true, pending: true, block: oblock });
    this.reserved.push(item);
    const work = { op: WorkOp.PROMOTE, oblock, cblock: item.id };
    this.work.push(work);
    if (!handsOut) this.queue.push(work);
    return work;
  }

  #queueDemotion(): void {
    const item = peek(this.clean, LEVELS / 2, true);
    if (item !== undefined) this.#queueWork(this.clean, item, WorkOp.DEMOTE);
    else if (nrElements(this.dirty) > 0) this.#queueWriteback(false);
  }

  #queueWriteback(isIdle: boolean): void {
    const item = peek(this.dirty, LEVELS, isIdle);
    if (item !== undefined) this.#queueWork(this.dirty, item, WorkOp.WRITEBACK);
  }

  #queueWork(queue: Queue, item: Item, op: number): void {
    take(queue, item);
    if (this.work.length === LIMIT || this.work.some(({ oblock }) => oblock === item.block)) {
      levelOf(queue, item.level).unshift(item);
      return;
    }
    item.pending = true;
    const work = { op, oblock: item.block, cblock: item.id };
    this.work.push(work);
    this.queue.push(work);
  }

  getWork(isIdle: boolean): ModelWork | null {
    if (this.queue.length === 0 && (isIdle || this.#options.isCleaner === true)) {
      this.#queueWriteback(isIdle);
    }
    return this.queue.pop() ?? null;
  }

  complete(op: number, cblock: number, success: boolean): void {
    this.work = this.work.filter((work) => work.op !== op || work.cblock !== cblock);
    const item = [...this.mapped, ...this.reserved].find(({ id }) => id === cblock) as Item;
    item.pending = false;
    this.reserved = this.reserved.filter((other) => other !== item);
    if (op === WorkOp.PROMOTE && success) {
      item.level = LEVELS - 1;
      this.mapped.push(item);
      push(this.#queueOf(item), item);
    } else if (op === WorkOp.PROMOTE || (op === WorkOp.DEMOTE && success)) {
      this.#forget(item);
    } else {
      push(this.#queueOf(item), item);
    }
  }

  setDirty(cblock: number, dirty: boolean): void {
    const item = this.mapped.find(({ id }) => id === cblock) as Item;
    if (!item.pending) take(this.#queueOf(item), item);
    item.dirty = dirty;
    if (!item.pending) push(this.#queueOf(item), item);
  }

  load(oblock: number, cblock: number, dirty: boolean, hint: number | null): void {
    const item = this.free.find(({ id }) => id === cblock) as Item;
    this.free = this.free.filter((other) => other !== item);
    const product = Number((BigInt(cblock) * 0x61c88647n) % 2n ** 32n);
    const random = Math.floor(product / 2 ** 23) % LEVELS;
    const level = hint === null ? random : Math.min(hint, LEVELS - 1);
    Object.assign(item, { level, dirty, pending: false, block: oblock });
    this.mapped.push(item);
    levelOf(this.#queueOf(item), level).unshift(item);
  }

  invalidate(cblock: number): boolean {
    const item = this.mapped.find(({ id }) => id === cblock);
    if (item === undefined) return false;
    take(this.#queueOf(item), item);
    this.#forget(item);
    return true;
  }

  tick(): void {
    const { now } = this;
    if (now > this.#nextWriteback) {
      this.#nextWriteback = now + 10 * JIFFIES_PER_SECOND;
      this.#writebackSet = 1 - this.#writebackSet;
      this.#moveSentinels(this.dirty, this.#writebackSet);
    }
    if (now > this.#nextDemote) {
      this.#nextDemote = now + 60 * JIFFIES_PER_SECOND;
      this.#demoteSet = 1 - this.#demoteSet;
      this.#moveSentinels(this.clean, this.#demoteSet);
    }
    for (const item of this.hotspots.flat()) item.hit = false;
    const nr = this.#hotspotHits + this.#hotspotMisses;
    const confidence = nr === 0 ? 0 : Math.floor((256 * this.#hotspotHits) / nr);
    const rating = confidence < 16 ? 0 : confidence < 32 ? 1 : 2;
    this.#promoteLevel = [48, 32, 0][rating] as number;
    if (now > this.#nextHotspot) {
      this.#nextHotspot = now + JIFFIES_PER_SECOND;
      this.#jump = [4, 2, 1][rating] as number;
      const nrThatFit = Math.floor(this.#options.nrCacheBlocks / this.#blocksPerHotspot);
      const nrTop = Math.min(Math.floor(this.#nrHotspots / LEVELS), nrThatFit);
      redistribute(this.hotspots, targets(nrElements(this.hotspots), 8, nrTop));
      this.#hotspotHits = 0;
      this.#hotspotMisses = 0;
    }
    if (now > this.#nextCache) {
      this.#nextCache = now + 60 * JIFFIES_PER_SECOND;
      for (const item of [...this.mapped, ...this.free, ...this.reserved]) item.hit = false;
      for (const queue of [this.dirty, this.clean]) {
        redistribute(queue, targets(nrElements(queue), 0, 0));
      }
    }
  }

  #moveSentinels(queue: Queue, set: number): void {
    for (const list of queue) {
      const at = list.findIndex(({ isSentinel, id }) => isSentinel && id === set);
      list.push(...list.splice(at, 1));
    }
  }

  #queueOf(item: Item): Queue {
    return item.dirty ? this.dirty : this.clean;
  }

  #forget(item: Item): void {
    this.mapped = this.mapped.filter((other) => other !== item);
    this.free.push(item);
  }
}
