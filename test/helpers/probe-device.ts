/**
 * ProbeDevice: a block device that writes down what it is asked, in one log that several may share,
 * and that can hold bios back until a test lets them go, or make them fail.
 */
import type { Bio } from '../../src/block/bio.ts';
import { BioFlag, BioOp } from '../../src/block/bio.ts';
import type { BlockDevice, ExtentVisitor, Limits } from '../../src/block/device.ts';

/** What a probe saw: `D write 128+8 FUA`, `M flush`, … */
export type ProbeLog = string[];

const words: Record<BioOp, string> = {
  [BioOp.READ]: 'read',
  [BioOp.WRITE]: 'write',
  [BioOp.FLUSH]: 'flush',
  [BioOp.DISCARD]: 'discard',
  [BioOp.WRITE_ZEROES]: 'zero',
};

export class ProbeDevice implements BlockDevice {
  readonly name: string;
  readonly #below: BlockDevice;
  readonly #letter: string;
  readonly #log: ProbeLog;
  #holds: (bio: Bio) => boolean = () => false;
  #fails: (bio: Bio) => number = () => 0;
  readonly #held: Bio[] = [];

  /** Reads are not logged. */
  constructor(letter: string, below: BlockDevice, log: ProbeLog) {
    this.name = below.name;
    this.#letter = letter;
    this.#below = below;
    this.#log = log;
  }

  get sizeSectors(): number {
    return this.#below.sizeSectors;
  }

  get readOnly(): boolean {
    return this.#below.readOnly;
  }

  get limits(): Limits {
    return this.#below.limits;
  }

  refreshSize(): void {
    this.#below.refreshSize();
  }

  submit(bio: Bio): void {
    if (bio.op !== BioOp.READ) this.#log.push(this.#describe(bio));
    const status = this.#fails(bio);
    if (status !== 0) bio.end(status);
    else if (this.#holds(bio)) this.#held.push(bio);
    else this.#below.submit(bio);
  }

  #describe(bio: Bio): string {
    const fua = (bio.flags & BioFlag.FUA) === 0 ? '' : ' FUA';
    if (bio.op === BioOp.FLUSH) return `${this.#letter} flush`;
    return `${this.#letter} ${words[bio.op]} ${bio.sector}+${bio.nrSectors}${fua}`;
  }

  /** From now on bios that `which` names are held back. */
  hold(which: (bio: Bio) => boolean): void {
    this.#holds = which;
  }

  /** How many bios are held back now. */
  get nrHeld(): number {
    return this.#held.length;
  }

  /** Holds nothing back any more and lets everything go. */
  release(): void {
    this.#holds = () => false;
    for (const bio of this.#held.splice(0)) this.#below.submit(bio);
  }

  /** From now on `which` says with what errno number a bio fails; 0 for not. */
  fail(which: (bio: Bio) => number): void {
    this.#fails = which;
  }

  readSync(sector: number, nrSectors: number, data: Uint8Array, dataOffset: number): number {
    return this.#below.readSync(sector, nrSectors, data, dataOffset);
  }

  blockStatus(sector: number, nrSectors: number, visit: ExtentVisitor): void {
    this.#below.blockStatus(sector, nrSectors, visit);
  }
}
