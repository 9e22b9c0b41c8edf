/**
 * Zeroing and copying of ranges between block devices, in pieces of bounded size.
 * Answers to dm_kcopyd_zero and dm_kcopyd_copy, and to blkdev_issue_zeroout.
 *
 * Both report through a callback, with 0 or the first errno number; some pieces may have been
 * written when they fail. A copier's buffers bound the memory of all its copies.
 */
import { assert } from '../base/error.ts';
import { SECTOR_SIZE } from '../base/numbers.ts';
import { Bio, BioOp } from './bio.ts';
import type { BlockDevice } from './device.ts';

export type Done = (status: number) => void;

/** Bytes of a copy buffer, and of the zeroes written where a device cannot make them. */
const BUFFER_BYTES = 512 * 1024;
const BUFFER_SECTORS = BUFFER_BYTES / SECTOR_SIZE;
const ZEROES = new Uint8Array(BUFFER_BYTES);

/**
 * Makes `nrSectors` read as zeroes: by write-zeroes where the device can, else by writing. `flags`
 * are BioFlag bits for write-zeroes (NOUNMAP).
 */
export function zeroRange(
  device: BlockDevice,
  sector: number,
  nrSectors: number,
  flags: number,
  done: Done,
): void {
  if (nrSectors === 0) {
    done(0);
    return;
  }
  const bio = new Bio();
  const end = sector + nrSectors;
  const max = device.limits.maxWriteZeroesSectors;
  bio.op = max > 0 ? BioOp.WRITE_ZEROES : BioOp.WRITE;
  bio.flags = max > 0 ? flags : 0;
  bio.data = ZEROES;
  let at = sector;
  inSteps((again) => {
    bio.onEnd = () => {
      at += bio.nrSectors;
      if (bio.status !== 0 || at === end) done(bio.status);
      else again();
    };
    bio.sector = at;
    bio.nrSectors = Math.min(end - at, max > 0 ? max : BUFFER_SECTORS);
    device.submit(bio);
  });
}

/**
 * Calls `step`, and again each time it calls `again`: by a loop if that is before it returns, since
 * a device may end a bio at once, and thousands of steps within each other would exhaust the stack.
 */
function inSteps(step: (again: () => void) => void): void {
  let wanted = false;
  let running = false;
  const again = (): void => {
    wanted = true;
    if (running) return;
    running = true;
    while (wanted) {
      wanted = false;
      step(again);
    }
    running = false;
  };
  again();
}

interface Place {
  readonly device: BlockDevice;
  readonly sector: number;
}

interface Job {
  readonly from: Place;
  readonly to: Place;
  readonly nrSectors: number;
  readonly done: Done;
  copied: number;
}

/**
 * Copies ranges; at most `nrBuffers` pieces are in memory at once, further copies wait their turn.
 */
export class Copier {
  readonly #idle: Uint8Array[] = [];
  readonly #waiting: Job[] = [];
  readonly #nrBuffersMax: number;
  #nrBuffers = 0;

  constructor(nrBuffers = 8) {
    this.#nrBuffersMax = nrBuffers;
  }

  /** Copies `nrSectors` (at least one); `done` is called at the end. */
  copy(from: Place, to: Place, nrSectors: number, done: Done): void {
    assert(nrSectors > 0, 'a copy is not empty');
    this.#waiting.push({ from, to, nrSectors, done, copied: 0 });
    this.#start();
  }

  #start(): void {
    while (this.#waiting.length > 0) {
      let buffer = this.#idle.pop();
      if (buffer === undefined) {
        if (this.#nrBuffers === this.#nrBuffersMax) return;
        this.#nrBuffers++;
        buffer = new Uint8Array(BUFFER_BYTES);
      }
      const job = this.#waiting.shift();
      assert(job !== undefined, 'a job waits');
      this.#run(job, buffer);
    }
  }

  /** Copies `job`, piece by piece. */
  #run(job: Job, buffer: Uint8Array): void {
    const bio = new Bio();
    bio.data = buffer;
    inSteps((again) => this.#piece(job, bio, buffer, again));
  }

  #piece(job: Job, bio: Bio, buffer: Uint8Array, again: () => void): void {
    const n = Math.min(job.nrSectors - job.copied, BUFFER_SECTORS);
    bio.nrSectors = n;
    bio.op = BioOp.READ;
    bio.sector = job.from.sector + job.copied;
    bio.onEnd = () => {
      if (bio.status !== 0) {
        this.#finish(job, buffer, bio.status);
        return;
      }
      bio.op = BioOp.WRITE;
      bio.nrSectors = n;
      bio.sector = job.to.sector + job.copied;
      bio.onEnd = () => {
        job.copied += n;
        if (bio.status !== 0 || job.copied === job.nrSectors) this.#finish(job, buffer, bio.status);
        else again();
      };
      job.to.device.submit(bio);
    };
    job.from.device.submit(bio);
  }

  #finish(job: Job, buffer: Uint8Array, status: number): void {
    this.#idle.push(buffer);
    job.done(status);
    this.#start();
  }
}
