/**
 * IoStatistics: counters of a mapped device's I/O, by regions that users make with @stats messages
 * and by equal areas of them (spec: dm-core, 7.4). Answers to drivers/md/dm-stats.c.
 *
 * A bio counts in every area that it touches, with the sectors that fall into it. A device without
 * regions pays one test per bio for this.
 * Does not: merge requests, so that nothing is ever counted as merged; count flushes, which have no
 * sectors.
 */
import type { Clock } from '../base/clock.ts';
import { parseDecimal, U64_MAX } from '../base/numbers.ts';
import type { Bio } from '../block/bio.ts';

const NS_PER_MS = 1e6;
/** More areas than that in a region are refused, so that nobody fills the memory. */
const AREAS_MAX = 1 << 20;

/** Counters of one direction in one area. */
class Direction {
  nr = 0;
  sectors = 0;
  /** Time that its requests took, added up. */
  time = 0;
  inFlight = 0;
  /** Time with any of them in flight. */
  busy = 0;

  clear(): void {
    this.nr = 0;
    this.sectors = 0;
    this.time = 0;
    this.busy = 0;
  }
}

class Area {
  readonly begin: number;
  readonly length: number;
  readonly reads = new Direction();
  readonly writes = new Direction();
  readonly histogram: number[];
  #busy = 0;
  #weighted = 0;
  #stamp: number;

  constructor(begin: number, length: number, nrBounds: number, now: number) {
    this.begin = begin;
    this.length = length;
    this.histogram = new Array<number>(nrBounds === 0 ? 0 : nrBounds + 1).fill(0);
    this.#stamp = now;
  }

  /** Adds what passed since the last change. */
  round(now: number): void {
    const passed = now - this.#stamp;
    this.#stamp = now;
    const { reads, writes } = this;
    const inFlight = reads.inFlight + writes.inFlight;
    if (inFlight === 0) return;
    this.#busy += passed;
    this.#weighted += passed * inFlight;
    if (reads.inFlight > 0) reads.busy += passed;
    if (writes.inFlight > 0) writes.busy += passed;
  }

  clear(now: number): void {
    this.round(now);
    this.reads.clear();
    this.writes.clear();
    this.histogram.fill(0);
    this.#busy = 0;
    this.#weighted = 0;
  }

  /** As the kernel, with the length of all areas, also for a last one that is shorter. */
  line(now: number, step: number, units: (time: number) => number): string {
    this.round(now);
    const { reads, writes } = this;
    const directions = [reads, writes].flatMap(({ nr, sectors, time }) => [
      nr,
      0,
      sectors,
      units(time),
    ]);
    const inFlight = reads.inFlight + writes.inFlight;
    const times = [this.#busy, this.#weighted, reads.busy, writes.busy].map(units);
    const bins = this.histogram.length === 0 ? [] : [this.histogram.join(':')];
    const words = [`${this.begin}+${step}`, ...directions, inFlight, ...times, ...bins];
    return words.join(' ');
  }
}

class Region {
  readonly begin: number;
  readonly length: number;
  readonly step: number;
  readonly isPrecise: boolean;
  /** In the region's own unit: ms, or ns if precise. */
  readonly bounds: readonly number[];
  readonly program: string;
  readonly areas: Area[] = [];
  aux: string;

  constructor(wanted: Wanted, now: number) {
    this.begin = wanted.begin;
    this.length = wanted.length;
    this.step = wanted.step;
    this.isPrecise = wanted.isPrecise;
    this.bounds = wanted.bounds;
    this.program = wanted.program;
    this.aux = wanted.aux;
    const end = this.begin + this.length;
    for (let at = this.begin; at < end; at += this.step) {
      const length = Math.min(this.step, end - at);
      this.areas.push(new Area(at, length, this.bounds.length, now));
    }
  }

  /** Calls `visit` for each area that a range touches, with the sectors in it. */
  each(begin: number, end: number, visit: (area: Area, nrSectors: number) => void): void {
    const from = Math.max(begin, this.begin);
    const to = Math.min(end, this.begin + this.length);
    if (from >= to) return;
    const last = Math.floor((to - 1 - this.begin) / this.step);
    for (let i = Math.floor((from - this.begin) / this.step); i <= last; i++) {
      const area = this.areas[i] as Area;
      visit(area, Math.min(to, area.begin + area.length) - Math.max(from, area.begin));
    }
  }

  /** From milliseconds. */
  units(ms: number): number {
    return this.isPrecise ? Math.round(ms * NS_PER_MS) : Math.floor(ms);
  }

  bin(ms: number): number {
    const time = this.units(ms);
    const above = this.bounds.findIndex((bound) => time < bound);
    return above < 0 ? this.bounds.length : above;
  }

  line(id: number): string {
    const { begin, length, step, program, aux } = this;
    const precise = this.isPrecise ? ' precise_timestamps' : '';
    const histogram = this.bounds.length === 0 ? '' : ` histogram:${this.bounds.join(',')}`;
    return `${id}: ${begin}+${length} ${step} ${program} ${aux}${precise}${histogram}`;
  }
}

interface Wanted {
  begin: number;
  length: number;
  step: number;
  isPrecise: boolean;
  bounds: number[];
  program: string;
  aux: string;
}

/** A message that cannot be done. */
export type StatisticsFailure = 'bad parameters' | 'no such region' | 'unknown message';

export class IoStatistics {
  readonly #clock: Clock;
  readonly #regions = new Map<number, Region>();
  /** When each bio in flight was submitted. */
  readonly #begun = new Map<Bio, number>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Whether bios are to be shown to `begin` and `end`. */
  get isEmpty(): boolean {
    return this.#regions.size === 0 && this.#begun.size === 0;
  }

  /** A bio comes. */
  begin(bio: Bio): void {
    if (bio.nrSectors === 0) return;
    const now = this.#clock.nowMs();
    this.#begun.set(bio, now);
    for (const region of this.#regions.values()) {
      region.each(bio.sector, bio.endSector, (area) => {
        area.round(now);
        (bio.isWrite ? area.writes : area.reads).inFlight++;
      });
    }
  }

  /** It has ended; or goes back to where it waits, if not `isDone`, and will come again. */
  end(bio: Bio, isDone: boolean): void {
    const begun = this.#begun.get(bio);
    if (begun === undefined) return;
    this.#begun.delete(bio);
    const now = this.#clock.nowMs();
    for (const region of this.#regions.values()) {
      region.each(bio.sector, bio.endSector, (area, nrSectors) => {
        const direction = bio.isWrite ? area.writes : area.reads;
        // A region that was made meanwhile has not seen it come.
        if (direction.inFlight === 0) return;
        area.round(now);
        direction.inFlight--;
        if (!isDone) return;
        direction.nr++;
        direction.sectors += nrSectors;
        direction.time += now - begun;
        if (region.bounds.length > 0) (area.histogram[region.bin(now - begun)] as number)++;
      });
    }
  }

  // --- messages

  /** Does what `@stats_…` asks; returns the answer, or why it cannot be done. */
  message(
    [word = '', ...args]: readonly string[],
    deviceSectors: number,
  ): { answer: string } | { failure: StatisticsFailure } {
    const answer = this.#answer(word.toLowerCase(), args, deviceSectors);
    return typeof answer === 'string' ? { answer } : { failure: answer.failure };
  }

  #answer(
    word: string,
    args: readonly string[],
    deviceSectors: number,
  ): string | { failure: StatisticsFailure } {
    const [id, ...rest] = args;
    switch (word) {
      case '@stats_create':
        return this.#create(args, deviceSectors);
      case '@stats_list':
        return args.length > 1 ? BAD : this.#list(args[0]);
      case '@stats_delete':
        return rest.length > 0 ? BAD : this.#with(id, (_region, nr) => this.#delete(nr));
      case '@stats_clear':
        return rest.length > 0 ? BAD : this.#with(id, (region) => this.#clear(region.areas));
      case '@stats_set_aux': {
        const [aux] = rest;
        if (rest.length !== 1 || aux === undefined) return BAD;
        return this.#with(id, (region) => {
          region.aux = aux;
          return '';
        });
      }
      case '@stats_print':
      case '@stats_print_clear':
        return this.#print(id, rest, word === '@stats_print_clear');
      default:
        return { failure: 'unknown message' };
    }
  }

  #create(args: readonly string[], deviceSectors: number): string | typeof BAD {
    const wanted = parseWanted(args, deviceSectors);
    if (wanted === null) return BAD;
    let id = 0;
    while (this.#regions.has(id)) id++;
    this.#regions.set(id, new Region(wanted, this.#clock.nowMs()));
    return String(id);
  }

  #delete(id: number): string {
    this.#regions.delete(id);
    if (this.#regions.size === 0) this.#begun.clear();
    return '';
  }

  #clear(areas: readonly Area[]): string {
    for (const area of areas) area.clear(this.#clock.nowMs());
    return '';
  }

  #list(program: string | undefined): string {
    return [...this.#regions]
      .sort(([a], [b]) => a - b)
      .filter(([, region]) => program === undefined || region.program === program)
      .map(([id, region]) => region.line(id))
      .join('\n');
  }

  #print(
    id: string | undefined,
    range: readonly string[],
    clears: boolean,
  ): string | { failure: StatisticsFailure } {
    const [first, count] = range.map((word) => number(word));
    if (![0, 2].includes(range.length)) return BAD;
    if (range.length === 2 && (first === undefined || count === undefined)) return BAD;
    return this.#with(id, (region) => {
      const areas = region.areas.slice(first ?? 0, (first ?? 0) + (count ?? Infinity));
      const now = this.#clock.nowMs();
      const lines = areas.map((area) => area.line(now, region.step, (ms) => region.units(ms)));
      if (clears) this.#clear(areas);
      return lines.join('\n');
    });
  }

  #with(
    text: string | undefined,
    act: (region: Region, id: number) => string,
  ): string | { failure: StatisticsFailure } {
    const id = text === undefined ? undefined : number(text);
    if (id === undefined) return BAD;
    const region = this.#regions.get(id);
    return region === undefined ? { failure: 'no such region' } : act(region, id);
  }
}

const BAD = { failure: 'bad parameters' } as const;

function number(text: string): number | undefined {
  const value = /^[0-9]+$/.test(text) ? parseDecimal(text, U64_MAX) : undefined;
  return value === undefined ? undefined : Number(value);
}

/** The parameters of @stats_create; null if they cannot be. */
function parseWanted(args: readonly string[], deviceSectors: number): Wanted | null {
  const [range = '', stepText = '', ...rest] = args;
  const match = /^([0-9]+)\+([0-9]+)$/.exec(range);
  const [begin, length] =
    range === '-' ? [0, deviceSectors] : [number(match?.[1] ?? ''), number(match?.[2] ?? '')];
  if (begin === undefined || length === undefined || length === 0) return null;
  if (begin + length > Number.MAX_SAFE_INTEGER) return null;
  const parts = stepText.startsWith('/') ? number(stepText.slice(1)) : undefined;
  const step = parts === undefined ? number(stepText) : parts === 0 ? 0 : Math.ceil(length / parts);
  if (step === undefined || step === 0 || length / step > AREAS_MAX) return null;
  const wanted: Wanted = {
    begin,
    length,
    step,
    isPrecise: false,
    bounds: [],
    program: '-',
    aux: '-',
  };
  const nrOptions = number(rest[0] ?? '');
  if (nrOptions !== undefined) {
    rest.shift();
    if (nrOptions > rest.length) return null;
    for (const option of rest.splice(0, nrOptions)) if (!setOption(wanted, option)) return null;
  }
  const [program, aux, ...more] = rest;
  if (more.length > 0) return null;
  return { ...wanted, program: program ?? '-', aux: aux ?? '-' };
}

function setOption(wanted: Wanted, option: string): boolean {
  if (option.toLowerCase() === 'precise_timestamps') {
    wanted.isPrecise = true;
    return true;
  }
  const list = /^histogram:(.+)$/i.exec(option)?.[1];
  if (list === undefined) return false;
  let last = 0;
  for (const text of list.split(',')) {
    const bound = number(text);
    if (bound === undefined || bound <= last) return false;
    wanted.bounds.push(bound);
    last = bound;
  }
  return true;
}
