/**
 * PoolTextWriter: a pool for people, as thin_dump's human_readable format (spec: tools, 3). Ranges
 * are inclusive, blank lines follow defs and devices.
 */
import type { TextSink } from '../../base/text-sink.ts';
import type { DeviceInfo, PoolInfo, PoolVisitor } from './pool-visitor.ts';

export class PoolTextWriter implements PoolVisitor {
  readonly #sink: TextSink;

  constructor(sink: TextSink) {
    this.#sink = sink;
  }

  beginPool(pool: PoolInfo): void {
    const flags = pool.needsCheck ? 1 : 0;
    this.#sink.write(
      `begin superblock: "", ${pool.time}, ${pool.transactionId}, ${flags}, ${pool.version}, ` +
        `${pool.dataBlockSize}, ${pool.nrDataBlocks}\n`,
    );
  }

  endPool(): void {
    this.#sink.write('end superblock\n');
  }

  beginDef(name: string): void {
    this.#sink.write(`def: ${name}\n`);
  }

  endDef(): void {
    this.#sink.write('\n');
  }

  beginDevice(device: DeviceInfo): void {
    this.#sink.write(
      `device: ${device.id}\n` +
        `mapped_blocks: ${device.mappedBlocks}\n` +
        `transaction: ${device.transactionId}\n` +
        `creation time: ${device.creationTime}\n` +
        `snap time: ${device.snapshottedTime}\n`,
    );
  }

  endDevice(): void {
    this.#sink.write('\n');
  }

  mapping(begin: number, dataBegin: number, length: number, time: number): void {
    const virt = `(${begin}..${begin + length - 1})`;
    const data = `(${dataBegin}..${dataBegin + length - 1})`;
    this.#sink.write(`    ${virt} -> ${data}, ${time}\n`);
  }

  ref(name: string): void {
    this.#sink.write(`    ref: ${name}\n`);
  }
}
