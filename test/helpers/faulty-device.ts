/**
 * FaultyDevice: a device in which a chosen read, write or flush fails, for the error paths of
 * metadata.
 */
import type { Bio } from '../../src/block/bio.ts';
import type { BlockDevice, ExtentVisitor, Limits } from '../../src/block/device.ts';

export class FaultyDevice implements BlockDevice {
  readonly below: BlockDevice;
  /** Synchronous reads so far. */
  nrReads = 0;
  /** Says with what errno number the read of a sector fails, given how many went before; 0: not. */
  failRead: (sector: number, nrReads: number) => number = () => 0;
  /** As failRead, for what is submitted. */
  failBio: (bio: Bio) => number = () => 0;

  constructor(below: BlockDevice) {
    this.below = below;
  }

  get name(): string {
    return this.below.name;
  }

  get sizeSectors(): number {
    return this.below.sizeSectors;
  }

  get readOnly(): boolean {
    return this.below.readOnly;
  }

  get limits(): Limits {
    return this.below.limits;
  }

  refreshSize(): void {
    this.below.refreshSize();
  }

  /** Nothing fails any more. */
  heal(): void {
    this.failRead = () => 0;
    this.failBio = () => 0;
  }

  submit(bio: Bio): void {
    const status = this.failBio(bio);
    if (status !== 0) bio.end(status);
    else this.below.submit(bio);
  }

  readSync(sector: number, nrSectors: number, data: Uint8Array, dataOffset: number): number {
    const status = this.failRead(sector, this.nrReads++);
    if (status !== 0) return status;
    return this.below.readSync(sector, nrSectors, data, dataOffset);
  }

  blockStatus(sector: number, nrSectors: number, visit: ExtentVisitor): void {
    this.below.blockStatus(sector, nrSectors, visit);
  }
}
