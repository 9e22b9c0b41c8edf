/**
 * PoolXmlWriter: a pool as the tools' XML, byte for byte as their newest version writes it
 * (spec: tools, 1 and 3): two blanks of indent, no newline at the end, flags only when there are
 * any.
 */
import type { TextSink } from '../../base/text-sink.ts';
import type { DeviceInfo, PoolInfo, PoolVisitor } from './pool-visitor.ts';

export class PoolXmlWriter implements PoolVisitor {
  readonly #sink: TextSink;

  constructor(sink: TextSink) {
    this.#sink = sink;
  }

  beginPool(pool: PoolInfo): void {
    const flags = pool.needsCheck ? ' flags="1"' : '';
    this.#sink.write(
      `<superblock uuid="" time="${pool.time}" transaction="${pool.transactionId}"${flags}` +
        ` version="${pool.version}" data_block_size="${pool.dataBlockSize}"` +
        ` nr_data_blocks="${pool.nrDataBlocks}">\n`,
    );
  }

  endPool(): void {
    this.#sink.write('</superblock>');
  }

  beginDef(name: string): void {
    this.#sink.write(`  <def name="${name}">\n`);
  }

  endDef(): void {
    this.#sink.write('  </def>\n');
  }

  beginDevice(device: DeviceInfo): void {
    this.#sink.write(
      `  <device dev_id="${device.id}" mapped_blocks="${device.mappedBlocks}"` +
        ` transaction="${device.transactionId}" creation_time="${device.creationTime}"` +
        ` snap_time="${device.snapshottedTime}">\n`,
    );
  }

  endDevice(): void {
    this.#sink.write('  </device>\n');
  }

  mapping(begin: number, dataBegin: number, length: number, time: number): void {
    this.#sink.write(
      length === 1
        ? `    <single_mapping origin_block="${begin}" data_block="${dataBegin}" time="${time}"/>\n`
        : `    <range_mapping origin_begin="${begin}" data_begin="${dataBegin}"` +
            ` length="${length}" time="${time}"/>\n`,
    );
  }

  ref(name: string): void {
    this.#sink.write(`    <ref name="${name}"/>\n`);
  }
}
