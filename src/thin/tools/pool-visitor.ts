/**
 * PoolVisitor: a pool's metadata as a sequence of events. What reads it (a dump, an XML file) calls
 * the visitor; what writes it (XML, text, new metadata) is one.
 *
 *   beginPool (beginDef mapping* endDef)* (beginDevice (mapping | ref)* endDevice)* endPool
 *
 * Defs are mappings that several devices share; a ref stands for all mappings of a def.
 */

export interface PoolInfo {
  /** The snapshot clock. */
  readonly time: number;
  readonly transactionId: bigint;
  readonly needsCheck: boolean;
  readonly version: number;
  /** In sectors. */
  readonly dataBlockSize: number;
  readonly nrDataBlocks: number;
}

export interface DeviceInfo {
  readonly id: number;
  readonly mappedBlocks: number;
  readonly transactionId: bigint;
  readonly creationTime: number;
  readonly snapshottedTime: number;
}

export interface PoolVisitor {
  beginPool(pool: PoolInfo): void;
  endPool(): void;
  beginDef(name: string): void;
  endDef(): void;
  beginDevice(device: DeviceInfo): void;
  endDevice(): void;
  /** `length` virtual blocks from `begin` are mapped to the data blocks from `dataBegin`. */
  mapping(begin: number, dataBegin: number, length: number, time: number): void;
  ref(name: string): void;
}
