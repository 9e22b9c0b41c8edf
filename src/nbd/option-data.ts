/**
 * The data of options, taken apart (spec: nbd, 3). Every length in it is the client's word, and
 * checked against what there is.
 */
import { STRING_BYTES_MAX } from './protocol.ts';

/** A string of the wire; null if it is too long, has a NUL or is not UTF-8. */
export function parseText(bytes: Buffer): string | null {
  if (bytes.length > STRING_BYTES_MAX || bytes.includes(0)) return null;
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    return null;
  }
}

/** Takes `length` bytes at `at`; null if they are not there. */
function slice(data: Buffer, at: number, length: number): Buffer | null {
  return length <= data.length - at ? data.subarray(at, at + length) : null;
}

/** A 32-bit length and a string of that length at `at`. */
function sizedText(data: Buffer, at: number): { text: string; end: number } | null {
  if (data.length - at < 4) return null;
  const bytes = slice(data, at + 4, data.readUInt32BE(at));
  const text = bytes === null ? null : parseText(bytes);
  return bytes === null || text === null ? null : { text, end: at + 4 + bytes.length };
}

/** The data of an INFO or GO option, taken apart. */
export interface InfoRequest {
  readonly name: string;
  readonly infos: readonly number[];
}

/** Takes the data of an INFO or GO option apart; null if its lengths do not add up. */
export function parseInfo(data: Buffer): InfoRequest | null {
  const name = sizedText(data, 0);
  if (name === null || data.length - name.end < 2) return null;
  const count = data.readUInt16BE(name.end);
  const list = slice(data, name.end + 2, count * 2);
  if (list === null || data.length !== name.end + 2 + count * 2) return null;
  const infos = Array.from({ length: count }, (_, i) => list.readUInt16BE(i * 2));
  return { name: name.text, infos };
}

/** The data of a LIST_META_CONTEXT or SET_META_CONTEXT option, taken apart. */
export interface ContextsRequest {
  readonly name: string;
  readonly queries: readonly string[];
}

/** Takes the data of a meta-context option apart; null if its lengths do not add up. */
export function parseContexts(data: Buffer): ContextsRequest | null {
  const name = sizedText(data, 0);
  if (name === null || data.length - name.end < 4) return null;
  const count = data.readUInt32BE(name.end);
  const queries: string[] = [];
  let at = name.end + 4;
  for (let i = 0; i < count; i++) {
    const query = sizedText(data, at);
    if (query === null) return null;
    queries.push(query.text);
    at = query.end;
  }
  return at === data.length ? { name: name.text, queries } : null;
}
