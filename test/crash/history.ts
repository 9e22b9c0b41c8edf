/**
 * Histories of volumes: what was written when, what was promised when, and so what a volume may
 * hold after a power cut at any event. Time is counted in events of the disks' journal.
 *
 * Content is followed by sector, as the number of the write that put it there; 0 is zeroes.
 *  - durable: a write is promised at the end of a flush that was submitted after the write had
 *    ended, or, with FUA, at its own end.
 *  - Until then a sector may hold what was promised last, or what any later write put there.
 */
import { SECTOR_SIZE } from '../../src/base/numbers.ts';

/** Stamp of what no write put there: what lies under the volume is seen. */
export const UNMAPPED = 0xffff_fffe;

/** Stamp of a discard after which a sector may hold whatever was written to it, ever. */
export const ANYTHING = 0xffff_fffd;

/** Stamp of what nobody wrote there: old data of others, of another place, or a mixed sector. */
export const ALIEN = 0xffff_ffff;

/** An event that has not happened (yet). */
export const NEVER = Infinity;

/** From when until when something was under way, in events. */
export interface Span {
  readonly submit: number;
  end: number;
}

export interface WriteRecord extends Span {
  readonly begin: number;
  readonly endSector: number;
  /** The number of the write, or UNMAPPED for a discard. */
  readonly stamp: number;
  /** Event from which on it is durable. */
  durable: number;
  /** It ended with an error: any part of it may be there, and nothing is promised. */
  failed: boolean;
}

/** What may be in a volume at some event: see VolumeHistory.allowedAt. */
export interface Allowed {
  /** By sector: what was promised last. */
  readonly promised: Uint32Array;
  /** Whether a sector may hold `stamp`. */
  readonly may: (sector: number, stamp: number) => boolean;
}

export class VolumeHistory {
  readonly id: number;
  readonly nrSectors: number;
  /** Its content when it was made. */
  readonly base: Uint32Array;
  /** Its content now, as a read sees it. */
  readonly current: Uint32Array;
  /** What is seen where nothing is mapped: zeroes, or an external origin's content. */
  readonly under: Uint32Array;
  readonly created: Span;
  deleted: Span | null = null;
  readonly records: WriteRecord[] = [];

  constructor(id: number, created: Span, base: Uint32Array, under: Uint32Array) {
    this.id = id;
    this.created = created;
    this.nrSectors = base.length;
    this.under = under;
    this.base = base.slice();
    this.current = base.slice();
  }

  /** A write, or with stamp UNMAPPED a discard, that is about to be submitted. */
  begin(begin: number, endSector: number, stamp: number, submit: number): WriteRecord {
    const record: WriteRecord = {
      begin,
      endSector,
      stamp,
      submit,
      end: NEVER,
      durable: NEVER,
      failed: false,
    };
    this.records.push(record);
    return record;
  }

  /** It has ended well. */
  end(record: WriteRecord, event: number, isFua: boolean): void {
    record.end = event;
    if (isFua) record.durable = event;
    this.#apply(record, this.current);
  }

  /** It has ended with an error. */
  fail(record: WriteRecord, event: number): void {
    record.end = event;
    record.failed = true;
  }

  /** It had no effect after all. */
  forget(record: WriteRecord): void {
    this.records.splice(this.records.indexOf(record), 1);
  }

  /** A flush that was submitted at `submit` has ended well at `event`. */
  flushed(submit: number, event: number): void {
    for (const record of this.records) {
      if (record.end > submit || record.failed) continue;
      record.durable = Math.min(record.durable, event);
    }
  }

  /** A snapshot of it, as it is now. */
  snapshot(id: number, created: Span, under: Uint32Array): VolumeHistory {
    const snapshot = new VolumeHistory(id, created, this.current, under);
    const failed = this.records.filter((record) => record.failed);
    snapshot.records.push(...failed.map((record) => ({ ...record })));
    return snapshot;
  }

  /** What a cut just before `event` may leave: what had been promised by then must be there. */
  allowedAt(event: number): Allowed {
    const promised = this.base.slice();
    const since = new Float64Array(this.nrSectors).fill(-1);
    const unsure: WriteRecord[] = [];
    const sure = this.records.filter((record) => record.durable <= event);
    for (const record of sure.sort((a, b) => a.end - b.end)) {
      this.#apply(record, promised);
      since.fill(record.submit, record.begin, record.endSector);
    }
    for (const record of this.records) {
      if (record.submit < event && record.durable > event) unsure.push(record);
    }
    const may = (sector: number, stamp: number): boolean =>
      promised[sector] === stamp ||
      (promised[sector] === ANYTHING && stamp !== ALIEN) ||
      unsure.some(
        (record) =>
          record.begin <= sector &&
          sector < record.endSector &&
          this.#mayLeave(record, sector, stamp) &&
          record.end >= (since[sector] as number),
      );
    return { promised, may };
  }

  /** The discard of the data may be durable before the unmapping is: then there are zeroes. */
  #mayLeave(record: WriteRecord, sector: number, stamp: number): boolean {
    if (record.stamp === ANYTHING) return stamp !== ALIEN;
    if (record.stamp !== UNMAPPED) return stamp === record.stamp;
    return stamp === 0 || stamp === this.under[sector];
  }

  #apply({ stamp, begin, endSector }: WriteRecord, content: Uint32Array): void {
    if (stamp === UNMAPPED) content.set(this.under.subarray(begin, endSector), begin);
    else content.fill(stamp, begin, endSector);
  }
}

/** The word that fills sector `sector` after write `stamp`: not zero, and no other sector's. */
function wordOf(stamp: number, sector: number): number {
  return stamp === 0 ? 0 : (Math.imul(stamp, 4096) + sector + 1) >>> 0;
}

/** Highest number of a write, and one past the highest sector, that a word can tell apart. */
export const STAMP_MAX = 2 ** 20 - 1;
export const SECTORS_MAX = 4095;

/** Fills `data` with what write `stamp` writes from `sector` on. */
export function stampSectors(data: Buffer, stamp: number, sector: number): void {
  const words = new Uint32Array(data.buffer, data.byteOffset, data.length / 4);
  const perSector = SECTOR_SIZE / 4;
  for (let i = 0; i * perSector < words.length; i++) {
    words.fill(wordOf(stamp, sector + i), i * perSector, (i + 1) * perSector);
  }
}

/**
 * The number of the write that sector `sector`, found at `offset` of `data`, came from: 0 for
 * zeroes, ALIEN if it is none of ours, of another place, or mixed.
 */
export function stampOf(data: Uint8Array, offset: number, sector: number): number {
  const words = new Uint32Array(data.buffer, data.byteOffset + offset, SECTOR_SIZE / 4);
  const [first = 0] = words;
  for (let i = 1; i < words.length; i++) if (words[i] !== first) return ALIEN;
  if (first === 0) return 0;
  const stamp = Math.floor((first - 1 - sector) / 4096);
  return stamp > 0 && wordOf(stamp, sector) === first ? stamp : ALIEN;
}

/** What a stamp means. */
export function nameOf(stamp: number): string {
  if (stamp === 0) return 'zeroes';
  return stamp === ALIEN ? 'what nobody wrote there' : `write ${stamp}`;
}
