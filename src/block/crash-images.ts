/**
 * CrashImages: walks a journal of simulated disks from event to event, and at each one makes
 * images of what the disks could hold if the power were cut just then. The fault model is stated in
 * simulated-disk.ts.
 *
 * Invariant: `durable` of each disk is its first content and all effects that are promised to
 * stay and that no unpromised one precedes; `unsure` is the rest, in the order of effect.
 */
import type { Random } from '../base/random.ts';
import { BioOp } from './bio.ts';
import { MemoryDevice } from './memory-device.ts';
import {
  applyEntry,
  type JournalEntry,
  type JournalEvent,
  type SimulatedDisk,
} from './simulated-disk.ts';
import type { SparseBytes } from './sparse-bytes.ts';

interface DiskState {
  readonly durable: SparseBytes;
  /** Ended requests, in the order in which they ended. */
  unsure: JournalEntry[];
  readonly inFlight: Set<JournalEntry>;
  /** For each flush in flight, how many of `unsure` had ended when it was submitted. */
  readonly flushes: Map<JournalEntry, number>;
}

/** How a cut treats what is not promised to stay. */
export const LOSSES = ['all', 'none', 'some', 'torn', 'one', 'all but one'] as const;
export type Loss = (typeof LOSSES)[number];

export class CrashImages {
  readonly #journal: readonly JournalEvent[];
  readonly #disks = new Map<SimulatedDisk, DiskState>();
  #next = 0;

  constructor(journal: readonly JournalEvent[], disks: readonly SimulatedDisk[]) {
    this.#journal = journal;
    for (const disk of disks) {
      this.#disks.set(disk, {
        durable: disk.initial.clone(),
        unsure: [],
        inFlight: new Set(),
        flushes: new Map(),
      });
    }
  }

  /** Goes on to just before event `index`. */
  advance(index: number): void {
    for (; this.#next < index; this.#next++) {
      const event = this.#journal[this.#next] as JournalEvent;
      const state = this.#disks.get(event.entry.disk);
      if (state === undefined) continue;
      if (event.kind === 'submit') submitted(state, event.entry);
      else ended(state, event.entry);
    }
  }

  /** Requests on all disks that a cut now may lose. */
  get nrUnsure(): number {
    let nr = 0;
    for (const { unsure, inFlight } of this.#disks.values()) nr += unsure.length + inFlight.size;
    return nr;
  }

  /** What `disk` could hold after a cut now. */
  image(disk: SimulatedDisk, loss: Loss, random: Random): SparseBytes {
    const state = this.#disks.get(disk);
    if (state === undefined) throw new Error(`${disk.name} is not among the disks`);
    const image = state.durable.clone();
    const candidates = [...state.unsure, ...shuffled([...state.inFlight], random)];
    const chosen = random.below(candidates.length);
    for (const [i, entry] of candidates.entries()) {
      if (isPromised(entry, state)) {
        applyEntry(entry, image);
        continue;
      }
      const keeps = keepsSector(loss, i === chosen, random);
      if (keeps === true) applyEntry(entry, image);
      else if (keeps !== false) applyEntry(entry, image, keeps);
    }
    return image;
  }
}

/** A device over an image, for those who look at it. */
export function imageDevice(disk: SimulatedDisk, image: SparseBytes): MemoryDevice {
  return new MemoryDevice(disk.name, disk.sizeSectors, { bytes: image });
}

function submitted(state: DiskState, entry: JournalEntry): void {
  if (entry.op === BioOp.FLUSH) state.flushes.set(entry, state.unsure.length);
  else state.inFlight.add(entry);
}

function ended(state: DiskState, entry: JournalEntry): void {
  if (entry.op !== BioOp.FLUSH) {
    state.inFlight.delete(entry);
    state.unsure.push(entry);
    return;
  }
  const nr = state.flushes.get(entry) ?? 0;
  state.flushes.delete(entry);
  if (entry.status !== 0) return;
  for (const each of state.unsure.splice(0, nr)) applyEntry(each, state.durable);
  // Flushes in flight were promised less than they counted: part of it is durable by now.
  for (const [flush, counted] of state.flushes) {
    state.flushes.set(flush, Math.max(0, counted - nr));
  }
}

/** A FUA write that has ended is durable, although what came before it may not be. */
const isPromised = (entry: JournalEntry, state: DiskState): boolean =>
  entry.isFua && entry.status === 0 && !state.inFlight.has(entry);

/** Whether a cut keeps a request: as a whole, not at all, or by sector. */
function keepsSector(loss: Loss, isChosen: boolean, random: Random): boolean | (() => boolean) {
  switch (loss) {
    case 'all':
      return false;
    case 'none':
      return true;
    case 'some':
      return random.chance(0.5);
    case 'one':
      return !isChosen;
    case 'all but one':
      return isChosen;
    case 'torn': {
      const share = random.next();
      return () => random.chance(share);
    }
  }
}

function shuffled<T>(items: T[], random: Random): T[] {
  for (let i = items.length - 1; i > 0; i--) {
    const j = random.below(i + 1);
    [items[i], items[j]] = [items[j] as T, items[i] as T];
  }
  return items;
}
