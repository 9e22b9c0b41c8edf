/**
 * Where checks take blocks from: a device read block by block, with failures as values.
 *
 * Reads what is on the device and keeps nothing: a check of a pool in use sees its last commit.
 * Does not: write, or cache; see BlockManager.
 */
import { DmError } from '../../base/error.ts';
import { errno } from '../../base/errno.ts';
import { divDown } from '../../base/numbers.ts';
import { silentLog } from '../../base/log.ts';
import type { BlockDevice } from '../../block/device.ts';
import { asBlockNr, Block, BLOCK_SECTORS, BLOCK_SIZE, type ReadBlock } from '../block.ts';
import { METADATA_BLOCKS_MAX } from '../space-map/layout.ts';
import { hasSalt, type Validator } from '../validator.ts';

/** Why a block cannot be had as the kind that was asked for. */
export class ReadFailure {
  readonly kind: 'unreadable' | 'checksum' | 'blocknr' | 'structure';
  readonly text: string;

  constructor(kind: ReadFailure['kind'], text: string) {
    this.kind = kind;
    this.text = text;
  }
}

export interface BlockReader {
  readonly nrBlocks: number;
  /** The block, checked as `validator`'s kind; valid until the next call. */
  read(blocknr: number, validator: Validator): ReadBlock | ReadFailure;
}

export class DeviceReader implements BlockReader {
  readonly #device: BlockDevice;
  readonly #block = new Block(new ArrayBuffer(BLOCK_SIZE), 0);

  constructor(device: BlockDevice) {
    this.#device = device;
  }

  /** Blocks that metadata can use: a larger device is not used beyond. */
  get nrBlocks(): number {
    const nrBlocks = divDown(this.#device.sizeSectors, BLOCK_SECTORS);
    return Math.min(nrBlocks, METADATA_BLOCKS_MAX);
  }

  read(blocknr: number, validator: Validator): ReadBlock | ReadFailure {
    const block = this.#block;
    const code =
      blocknr < this.nrBlocks
        ? this.#device.readSync(blocknr * BLOCK_SECTORS, BLOCK_SECTORS, block.bytes, 0)
        : errno.EIO;
    if (code !== 0) return new ReadFailure('unreadable', `cannot read block ${blocknr}`);
    block.blocknr = asBlockNr(blocknr);
    try {
      validator.check(block, silentLog);
    } catch (error) {
      return classify(block, validator, error);
    }
    return block;
  }
}

function classify(block: Block, validator: Validator, error: unknown): ReadFailure {
  if (!(error instanceof DmError)) throw error;
  if (error.errno === 'ENOTBLK') return new ReadFailure('blocknr', error.message);
  const kind = hasSalt(block, validator.salt) ? 'structure' : 'checksum';
  return new ReadFailure(kind, error.message);
}
