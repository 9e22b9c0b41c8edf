/**
 * The counters of a cache's status line (spec: cache, 9 and 11.6).
 */
import type { HitCounters } from '../metadata/superblock.ts';

export class Statistics implements HitCounters {
  readHits = 0;
  readMisses = 0;
  writeHits = 0;
  writeMisses = 0;
  /** Since the table was made. */
  demotions = 0;
  promotions = 0;

  load(from: HitCounters): void {
    this.readHits = from.readHits;
    this.readMisses = from.readMisses;
    this.writeHits = from.writeHits;
    this.writeMisses = from.writeMisses;
  }

  /** Hot path. */
  hit(isWrite: boolean): void {
    if (isWrite) this.writeHits = (this.writeHits + 1) >>> 0;
    else this.readHits = (this.readHits + 1) >>> 0;
  }

  /** Hot path. */
  miss(isWrite: boolean): void {
    if (isWrite) this.writeMisses = (this.writeMisses + 1) >>> 0;
    else this.readMisses = (this.readMisses + 1) >>> 0;
  }
}
