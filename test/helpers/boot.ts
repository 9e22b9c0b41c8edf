/**
 * What ends with a boot: a clock that stops, and the way to disks that outlive it. A crash is
 * `stop()`, and another Boot on the same devices.
 */
import type { Clock, Timer } from '../../src/base/clock.ts';
import type { Random } from '../../src/base/random.ts';
import type { Bio } from '../../src/block/bio.ts';
import type { BlockDevice, ExtentVisitor, Limits } from '../../src/block/device.ts';

/** The clock of one boot: when that stops, so does all that waits for it. */
export class Boot implements Clock {
  readonly #clock: Clock;
  isStopped = false;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  stop(): void {
    this.isStopped = true;
  }

  nowMs(): number {
    return this.#clock.nowMs();
  }

  after(delayMs: number, fire: () => void): Timer {
    return this.#clock.after(delayMs, () => {
      if (!this.isStopped) fire();
    });
  }

  soon(run: () => void): void {
    this.after(0, run);
  }
}

const LATENCY_MS = 1;

/** A device as seen by one boot: requests take their time and end in any order. */
export class BootDevice implements BlockDevice {
  readonly #boot: Boot;
  readonly #device: BlockDevice;
  readonly #random: Random;

  constructor(boot: Boot, device: BlockDevice, random: Random) {
    this.#boot = boot;
    this.#device = device;
    this.#random = random;
  }

  get name(): string {
    return this.#device.name;
  }

  get sizeSectors(): number {
    return this.#device.sizeSectors;
  }

  get readOnly(): boolean {
    return this.#device.readOnly;
  }

  get limits(): Limits {
    return this.#device.limits;
  }

  refreshSize(): void {
    this.#device.refreshSize();
  }

  readSync(sector: number, nrSectors: number, data: Uint8Array, dataOffset: number): number {
    return this.#device.readSync(sector, nrSectors, data, dataOffset);
  }

  blockStatus(sector: number, nrSectors: number, visit: ExtentVisitor): void {
    this.#device.blockStatus(sector, nrSectors, visit);
  }

  submit(bio: Bio): void {
    this.#boot.after(this.#random.next() * LATENCY_MS, () => this.#device.submit(bio));
  }
}
