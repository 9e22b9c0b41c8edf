/**
 * World: what the users of a pool have been promised, and whether what is found after a power cut
 * keeps it.
 */
import assert from 'node:assert/strict';
import { SECTOR_SIZE } from '../../src/base/numbers.ts';
import type { BlockDevice } from '../../src/block/device.ts';
import { checkPool } from '../../src/thin/tools/check.ts';
import { NEVER, nameOf, stampOf, type Span, type VolumeHistory } from './history.ts';
import { assertSharingIsSafe, readPoolImage, type DeviceImage } from './pool-image.ts';

/** Sectors of a data block. */
export const BLOCK_SECTORS = 128;
const BLOCK_BYTES = BLOCK_SECTORS * SECTOR_SIZE;

/** A change of the pool's transaction id. */
interface IdChange extends Span {
  readonly to: number;
}

/** What a cut left. */
export interface Found {
  readonly transactionId: number;
  /** Content by device, in stamps by sector. */
  readonly contents: Map<number, Uint32Array>;
}

export class World {
  readonly volumes: VolumeHistory[] = [];
  readonly #idChanges: IdChange[];

  constructor(transactionId: number) {
    this.#idChanges = [{ submit: -1, end: -1, to: transactionId }];
  }

  /** The volume with this id that is not deleted. */
  volume(id: number): VolumeHistory {
    const volume = this.volumes.findLast((each) => each.id === id && each.deleted === null);
    assert.ok(volume !== undefined, `volume ${id} exists`);
    return volume;
  }

  /** Volumes that were made, and that nobody tried to delete. */
  get ids(): number[] {
    const there = this.volumes.filter(({ created, deleted }) => created.end !== NEVER && !deleted);
    return there.map(({ id }) => id);
  }

  /** Whether a volume of this id may be there: its creation or its deletion may have failed. */
  mayExist(id: number): boolean {
    return this.volumes.some((each) => each.id === id && (each.deleted?.end ?? NEVER) === NEVER);
  }

  get transactionId(): number {
    return (this.#idChanges.at(-1) as IdChange).to;
  }

  changeTransactionId(to: number, submit: number): Span {
    const change = { submit, end: NEVER, to };
    this.#idChanges.push(change);
    return change;
  }

  /** A commit of the whole pool that was asked for at `submit` has ended well at `event`. */
  committed(submit: number, event: number): void {
    for (const volume of this.volumes) volume.flushed(submit, event);
  }

  /**
   * Checks what a cut just before `event` left: the metadata is sound, everything promised is
   * there, and nothing that was never written.
   */
  async verify(event: number, metadata: BlockDevice, data: BlockDevice): Promise<Found> {
    const { damage } = await checkPool(metadata);
    assert.deepEqual(damage.lines(), [], 'the metadata is sound');
    const pool = readPoolImage(metadata);
    assertSharingIsSafe(pool);
    this.#verifyTransactionId(event, pool.transactionId);
    const contents = new Map<number, Uint32Array>();
    const known = new Set<number>();
    for (const volume of this.volumes) {
      const { mayExist, mustExist } = existence(volume, event);
      if (!mayExist) continue;
      known.add(volume.id);
      const device = pool.devices.get(volume.id);
      if (device !== undefined) {
        contents.set(volume.id, verifyContent(volume, event, device, data));
      } else {
        assert.ok(!mustExist, `device ${volume.id} exists`);
      }
    }
    for (const id of pool.devices.keys()) assert.ok(known.has(id), `device ${id} is deleted`);
    return { transactionId: pool.transactionId, contents };
  }

  #verifyTransactionId(event: number, found: number): void {
    const sure = this.#idChanges.findLastIndex(({ end }) => end <= event);
    const possible = this.#idChanges.slice(sure).filter(({ submit }) => submit < event);
    const wanted = possible.map(({ to }) => to);
    assert.ok(wanted.includes(found), `transaction id ${found} is one of ${wanted.join(', ')}`);
  }
}

function existence(
  { created, deleted }: VolumeHistory,
  event: number,
): { mayExist: boolean; mustExist: boolean } {
  return {
    mayExist: created.submit < event && (deleted === null || deleted.end > event),
    mustExist: created.end <= event && (deleted === null || deleted.submit >= event),
  };
}

const $block = new Uint8Array(BLOCK_BYTES);

function verifyContent(
  volume: VolumeHistory,
  event: number,
  { mappings }: DeviceImage,
  data: BlockDevice,
): Uint32Array {
  const content = volume.under.slice();
  for (const [virtual, { block }] of mappings) {
    assert.equal(data.readSync(block * BLOCK_SECTORS, BLOCK_SECTORS, $block, 0), 0);
    const begin = virtual * BLOCK_SECTORS;
    for (let i = 0; i < BLOCK_SECTORS; i++) {
      content[begin + i] = stampOf($block, i * SECTOR_SIZE, begin + i);
    }
  }
  const { promised, may } = volume.allowedAt(event);
  for (let sector = 0; sector < content.length; sector++) {
    const stamp = content[sector] as number;
    if (stamp === promised[sector]) continue;
    if (may(sector, stamp)) continue;
    assert.fail(
      `device ${volume.id}, sector ${sector}: found ${nameOf(stamp)}, promised ` +
        `${nameOf(promised[sector] as number)}`,
    );
  }
  return content;
}
