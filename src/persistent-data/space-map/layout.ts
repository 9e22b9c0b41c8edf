/**
 * On-disk layout of space maps: root record, bitmap blocks, index entries, index block
 * (spec: persistent-data, 6.1 to 6.4 and 7.2).
 * Answers to struct disk_sm_root, disk_bitmap_header, disk_index_entry, disk_metadata_index.
 */
import { bytes, le32, le64, struct } from '../../base/struct.ts';
import type { ReadView, WriteView } from '../../base/struct.ts';
import { makeValidator, SALT } from '../validator.ts';

/**
 * 32 bytes in the owner's superblock, which reserves ROOT_AREA_BYTES; the rest is zero when we
 * write.
 */
export const smRoot = struct(32, {
  nrBlocks: le64,
  nrAllocated: le64,
  /** Metadata map: the index block. Disk map: root of the bitmap tree. */
  bitmapRoot: le64,
  /** Root of the overflow tree. */
  refCountRoot: le64,
});

export const ROOT_AREA_BYTES = 128;

export const bitmapHeader = struct(16, {
  csum: le32,
  notUsed: le32,
  blocknr: le64,
});

/** Counts in one bitmap block: two bits each after the header. */
export const ENTRIES_PER_BITMAP = 16320;

export const indexEntry = struct(16, {
  /** The bitmap block. */
  blocknr: le64,
  /** Free entries among all 16320, also where the device ends inside the bitmap. */
  nrFree: le32,
  /** No entry below this one is free. A hint. */
  noneFreeBefore: le32,
});

export const INDEX_ENTRIES_MAX = 255;

export const indexHeader = struct(16, {
  csum: le32,
  padding: le32,
  blocknr: le64,
});

/** The index block of a metadata map: a header and 255 entries, exactly one block. */
export const metadataIndex = struct(4096, {
  header: bytes(indexHeader.size),
  entries: bytes(INDEX_ENTRIES_MAX * indexEntry.size),
});

/** Blocks that a metadata map can manage; a larger metadata device is not used beyond. */
export const METADATA_BLOCKS_MAX = INDEX_ENTRIES_MAX * ENTRIES_PER_BITMAP;

export const bitmapValidator = makeValidator({
  name: 'sm_bitmap',
  salt: SALT.BITMAP,
  blocknr: bitmapHeader.blocknr,
  complaint: 'space map common: bitmap check failed: ',
});

export const indexValidator = makeValidator({
  name: 'index',
  salt: SALT.INDEX,
  blocknr: indexHeader.blocknr,
  complaint: 'space map common: index_check failed: ',
});

/** An index entry in memory. */
export interface IndexEntry {
  blocknr: number;
  nrFree: number;
  noneFreeBefore: number;
}

/** Reads an index entry into `out`. */
export function readIndexEntry(view: ReadView, offset: number, out: IndexEntry): void {
  out.blocknr = indexEntry.blocknr.get(view, offset);
  out.nrFree = indexEntry.nrFree.get(view, offset);
  out.noneFreeBefore = indexEntry.noneFreeBefore.get(view, offset);
}

/** Writes an index entry. */
export function writeIndexEntry(view: WriteView, offset: number, entry: IndexEntry): void {
  indexEntry.blocknr.set(view, offset, entry.blocknr);
  indexEntry.nrFree.set(view, offset, entry.nrFree);
  indexEntry.noneFreeBefore.set(view, offset, entry.noneFreeBefore);
}

// Counts in a bitmap. Entry e is two bits at 2*(e mod 4) of byte e div 4 after the header. The
// order of the two bits is reversed: the lower-numbered bit is the high-order bit of the value.
//   count  0    1    2    3 or more (then the overflow tree has it)
//   raw    0    2    1    3

/** Raw field <-> count: exchanging the two bits does both ways. */
function swapBits(raw: number): number {
  return ((raw & 1) << 1) | (raw >> 1);
}

/** The count of entry `index`, 3 standing for 3 or more. */
export function bitmapGet(view: ReadView, index: number): number {
  const byte = view.getUint8(bitmapHeader.size + (index >>> 2));
  return swapBits((byte >> ((index & 3) * 2)) & 3);
}

/** Sets the count of entry `index`, 0 to 3. */
export function bitmapSet(view: WriteView, index: number, count: number): void {
  const at = bitmapHeader.size + (index >>> 2);
  const shift = (index & 3) * 2;
  const byte = view.getUint8(at) & ~(3 << shift);
  view.setUint8(at, byte | (swapBits(count) << shift));
}

/** The first entry with count 0 in `[begin, end)`, or -1. */
export function bitmapFindFree(view: ReadView, begin: number, end: number): number {
  let index = begin;
  while (index < end) {
    if ((index & 15) === 0) {
      // Sixteen entries a word: one is free iff some pair of bits is 00.
      const word = view.getUint32(bitmapHeader.size + (index >>> 2), true);
      if (((word | (word >>> 1)) & 0x5555_5555) === 0x5555_5555) {
        index += 16;
        continue;
      }
    }
    if (bitmapGet(view, index) === 0) return index;
    index++;
  }
  return -1;
}
