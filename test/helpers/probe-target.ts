/**
 * A target type that writes down what the mapper core does to it, and that does with bios, messages
 * and hooks what a test wants.
 *
 *   probe <tag> [DEVICE] [max=N] [flushes=N] [discards=N] [zeroes=N] [block=BYTES]
 *
 * With a device, bios go there, shifted as `linear` does from sector 0; without, they end well.
 */
import { BioOp, type Bio } from '../../src/block/bio.ts';
import type { Limits } from '../../src/block/device.ts';
import { DmError } from '../../src/base/error.ts';
import {
  MapResult,
  openDevice,
  Target,
  type StatusKind,
  type TargetContext,
  type TargetType,
  type UsedDevice,
} from '../../src/mapper/target.ts';

const words: Record<BioOp, string> = {
  [BioOp.READ]: 'read',
  [BioOp.WRITE]: 'write',
  [BioOp.FLUSH]: 'flush',
  [BioOp.DISCARD]: 'discard',
  [BioOp.WRITE_ZEROES]: 'zeroes',
};

/** What happens in a hook: nothing, a wait, or an exception. */
export type Hook = (hook: string, tag: string) => void | Promise<void>;

export class ProbeType implements TargetType {
  readonly name = 'probe';
  readonly version = [1, 0, 0] as const;
  /** Everything that happened, in order: `a map read 0+8`, `a presuspend`, … */
  readonly log: string[] = [];
  /** Targets that were made and not destroyed. */
  nrAlive = 0;
  /** What is done with a bio; null: what the target was made for. */
  onMap: ((bio: Bio, tag: string) => MapResult) | null = null;
  /** What the end of a bio makes of its status; null: nothing. */
  onEndIo: ((bio: Bio, tag: string) => number) | null = null;
  /** Called in each hook, after it is logged. */
  onHook: Hook = () => undefined;

  construct(context: TargetContext, args: readonly string[]): Target {
    const [tag = '', ...rest] = args;
    const options = new Map<string, number>();
    let used: UsedDevice | null = null;
    for (const word of rest) {
      const [name = '', value] = word.split('=');
      if (value !== undefined) options.set(name, Number(value));
      else used = openDevice(context, word, context.readOnly, 'Device lookup failed');
    }
    this.log.push(`${tag} construct`);
    if (tag === 'refused') throw new DmError('ENOSPC', 'Refused by the probe');
    return new ProbeTarget(this, context, tag, used, options);
  }

  /** The log since the last call, without lines that `skip` matches. */
  take(skip?: RegExp): string[] {
    return this.log.splice(0).filter((line) => skip?.test(line) !== true);
  }
}

class ProbeTarget extends Target {
  readonly #type: ProbeType;
  readonly #tag: string;
  readonly #used: UsedDevice | null;
  readonly #block: number;
  override readonly hasEndIo = true;

  constructor(
    type: ProbeType,
    context: TargetContext,
    tag: string,
    used: UsedDevice | null,
    options: ReadonlyMap<string, number>,
  ) {
    super(context);
    this.#type = type;
    this.#tag = tag;
    this.#used = used;
    this.#block = options.get('block') ?? 0;
    this.maxIoSectors = options.get('max') ?? 0;
    this.nrFlushBios = options.get('flushes') ?? 1;
    this.nrDiscardBios = options.get('discards') ?? 1;
    this.nrWriteZeroesBios = options.get('zeroes') ?? 1;
    type.nrAlive++;
    this.message = (words) => {
      type.log.push(`${tag} message ${words.join(' ')}`);
      return words[0] === 'echo' ? words.slice(1).join(' ') : '';
    };
  }

  override map(bio: Bio): MapResult {
    const range = bio.op === BioOp.FLUSH ? '' : ` ${bio.sector}+${bio.nrSectors}`;
    const copy = bio.targetBioNr === 0 ? '' : ` #${bio.targetBioNr}`;
    this.#type.log.push(`${this.#tag} map ${words[bio.op]}${range}${copy}`);
    if (this.#type.onMap !== null) return this.#type.onMap(bio, this.#tag);
    if (this.#used === null) {
      bio.end(0);
      return MapResult.SUBMITTED;
    }
    bio.device = this.#used.device;
    bio.sector -= this.begin;
    return MapResult.REMAPPED;
  }

  override endIo(bio: Bio): number {
    return this.#type.onEndIo?.(bio, this.#tag) ?? bio.status;
  }

  async #hook(name: string): Promise<void> {
    this.#type.log.push(`${this.#tag} ${name}`);
    await this.#type.onHook(name, this.#tag);
  }

  override presuspend(): Promise<void> {
    return this.#hook('presuspend');
  }

  override presuspendUndo(): void {
    this.#type.log.push(`${this.#tag} presuspendUndo`);
  }

  override postsuspend(): Promise<void> {
    return this.#hook('postsuspend');
  }

  override preresume(): Promise<void> {
    return this.#hook('preresume');
  }

  override resume(): void {
    this.#type.log.push(`${this.#tag} resume`);
  }

  override async destroy(): Promise<void> {
    this.#type.nrAlive--;
    await this.#hook('destroy');
  }

  override status(kind: StatusKind): string {
    return kind === 'INFO' ? '' : this.#tag;
  }

  override iterateDevices(visit: (used: UsedDevice, begin: number, length: number) => void): void {
    if (this.#used !== null) visit(this.#used, 0, this.length);
  }

  override ioHints(limits: Limits): void {
    if (this.#block > 0) limits.logicalBlockSize = this.#block;
    if (this.#used === null) {
      limits.maxDiscardSectors = 0x7f_ffff;
      limits.maxWriteZeroesSectors = 0x7f_ffff;
      limits.discardGranularity = 512;
    }
  }
}
