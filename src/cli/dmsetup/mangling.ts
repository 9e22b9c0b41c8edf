/**
 * Name mangling: names and uuids are stored with `\xNN` for characters that a file name or a line
 * of output had better not have, and shown decoded (spec: dm-core, 8). Answers to libdevmapper's
 * mangling modes.
 */
import { fail } from '../output.ts';

/** What is stored as it is. */
const PLAIN = /^[A-Za-z0-9#+\-.:=@_]$/;
const MANGLED = /^\\x[0-9a-fA-F]{2}/;

export const manglingModes = ['none', 'hex', 'auto'] as const;
export type ManglingMode = (typeof manglingModes)[number];

/** What is mangled, with dmsetup's words for it. */
const kinds = {
  name: { title: 'name', refused: 'device name', stop: '.', bytesMax: 127 },
  uuid: { title: 'UUID', refused: 'device uuid', stop: '.', bytesMax: 128 },
  newName: { title: 'new name', refused: 'new device name', stop: '', bytesMax: 127 },
  newUuid: { title: 'new UUID', refused: 'new device UUID', stop: '', bytesMax: 128 },
} as const;
export type Mangled = keyof typeof kinds;

export class Mangling {
  readonly mode: ManglingMode;

  constructor(mode: ManglingMode) {
    this.mode = mode;
  }

  /** As `text` is stored. Fails with dmsetup's lines if it cannot be. */
  stored(text: string, kind: Mangled): string {
    if (this.mode === 'none') return text;
    const { title, stop, bytesMax } = kinds[kind];
    const refused = `Failed to mangle ${kinds[kind].refused} "${text}"${stop}`;
    const scanned = scan(text);
    if (this.mode === 'auto' && scanned.hasMangled) {
      if (!scanned.hasOther) return text;
      const what = 'contains mixed mangled and unmangled characters';
      fail(`The ${title} "${text}" ${what} or it's already mangled improperly.`, refused);
    }
    const bytes = [...Buffer.from(text)];
    const mangled = bytes.map((byte) => {
      const char = String.fromCharCode(byte);
      return PLAIN.test(char) ? char : `\\x${byte.toString(16).padStart(2, '0')}`;
    });
    const result = mangled.join('');
    if (Buffer.byteLength(result) > bytesMax) {
      fail(`Mangled form of the ${title} too long for "${text}".`, refused);
    }
    return result;
  }

  /** As what is stored is shown. Fails if the mode says that it should have been mangled. */
  shown(text: string, kind: Mangled): string {
    if (this.mode === 'none') return text;
    const { title } = kinds[kind];
    if (this.mode === 'auto' && scan(text).hasOther) {
      fail(`The ${title} "${text}" should be mangled but it contains blacklisted characters.`);
    }
    return decode(text);
  }
}

/** Whether `\xNN` sequences are in `text`, and whether characters are that ought to be such. */
function scan(text: string): { hasMangled: boolean; hasOther: boolean } {
  const found = { hasMangled: false, hasOther: false };
  for (let i = 0; i < text.length; i++) {
    if (MANGLED.test(text.slice(i))) {
      found.hasMangled = true;
      i += 3;
    } else if (!PLAIN.test(text.charAt(i))) {
      found.hasOther = true;
    }
  }
  return found;
}

/** `text` with its `\xNN` sequences replaced by what they stand for. */
export function decode(text: string): string {
  if (!text.includes('\\x')) return text;
  const bytes: number[] = [];
  for (let i = 0; i < text.length;) {
    if (MANGLED.test(text.slice(i))) {
      bytes.push(Number.parseInt(text.slice(i + 2, i + 4), 16));
      i += 4;
    } else {
      const char = String.fromCodePoint(text.codePointAt(i) as number);
      bytes.push(...Buffer.from(char));
      i += char.length;
    }
  }
  return Buffer.from(bytes).toString();
}
