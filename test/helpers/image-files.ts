/**
 * Sparse image files with known content, for programs that copy to and from volumes.
 */
import fs from 'node:fs';

/** A part of an image that has data: bytes `[begin, begin + length)`. */
export type Part = readonly [begin: number, length: number];

/** Bytes that are nowhere zero and differ from part to part and from place to place. */
function patterned([begin, length]: Part): Buffer {
  const data = Buffer.alloc(length);
  let state = (begin + 0x9e3779b9) >>> 0;
  for (let i = 0; i < length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    data[i] = 1 + ((state >>> 24) % 255);
  }
  return data;
}

/** Writes a file of `bytes` with data in `parts` and holes elsewhere; returns its content. */
export function writeImage(file: string, bytes: number, parts: readonly Part[]): Buffer {
  const content = Buffer.alloc(bytes);
  const fd = fs.openSync(file, 'w');
  fs.ftruncateSync(fd, bytes);
  for (const part of parts) {
    const data = patterned(part);
    data.copy(content, part[0]);
    fs.writeSync(fd, data, 0, data.length, part[0]);
  }
  fs.closeSync(fd);
  return content;
}

/** The blocks of `blockBytes` that `parts` touch, in order. */
export function blocksOf(parts: readonly Part[], blockBytes: number): number[] {
  const blocks = new Set<number>();
  for (const [begin, length] of parts) {
    for (let block = Math.floor(begin / blockBytes); block * blockBytes < begin + length; block++) {
      blocks.add(block);
    }
  }
  return [...blocks].sort((a, b) => a - b);
}
