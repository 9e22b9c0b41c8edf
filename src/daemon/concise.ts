/**
 * The concise form of devices and their tables (spec: dm-core, 2):
 *
 *   name,uuid,minor,flags,table line[,table line…][;name,…]
 *
 * A backslash makes the next character literal. `dmsetup create --concise` reads it and `dmsetup
 * table --concise` prints it; the daemon keeps its devices in it (saved-devices.ts).
 */

/** One device as the concise text describes it. */
export interface ConciseDevice {
  readonly name: string;
  readonly uuid: string;
  readonly minor: string;
  readonly readOnly: boolean;
  /** Table text, one target a line. */
  readonly table: string;
}

/** A text that is not in the concise form; the message has dmsetup's lines. */
export class ConciseError extends Error {}

const FIELDS_MIN = 5;
const FIELDS_TEXT = 'ive comma-separated fields are required for each device';

/**
 * The devices of a concise text, each when it is asked for: those before a mistake are made.
 * Throws ConciseError at the mistake.
 */
export function* parseConcise(text: string): Iterable<ConciseDevice> {
  const entries = splitEscaped(text.replace(/\n$/, ''), ';');
  // A separator at the end starts no entry.
  if (entries.at(-1) === '') entries.pop();
  for (const entry of entries) yield parseEntry(entry);
}

function parseEntry(entry: string): ConciseDevice {
  const parts = splitEscaped(entry, ',');
  const [name = '', uuid = '', minor = '', flags = '', ...lines] = parts.map(unescape);
  const table = lines.join('\n');
  if (parts.length < FIELDS_MIN - 1) {
    throw new ConciseError(`F${FIELDS_TEXT}\n${parsedFields(parts)}`);
  }
  if (parts.length < FIELDS_MIN || table === '') {
    throw new ConciseError(`Incomplete entry: f${FIELDS_TEXT}\n${parsedFields(parts)}`);
  }
  if (!['', 'ro', 'rw'].includes(flags)) {
    const wanted = "must be 'ro' or 'rw' or empty.";
    throw new ConciseError(`Invalid flags parameter '${flags}' ${wanted}`);
  }
  return { name, uuid, minor, readOnly: flags === 'ro', table };
}

function parsedFields(parts: readonly string[]): string {
  const titles = ['name', 'uuid', 'minor', 'flags', 'table'];
  const shown = titles.map((title, i) => `${title}: ${parts[i] ?? '(null)'}`);
  return `Parsed ${Math.min(parts.length, FIELDS_MIN)} fields: ${shown.join(' ')}`;
}

/** Splits at `separator` where no backslash stands before it; the backslashes stay. */
function splitEscaped(text: string, separator: string): string[] {
  const parts = [''];
  for (let i = 0; i < text.length; i++) {
    const char = text.charAt(i);
    if (char === separator) {
      parts.push('');
      continue;
    }
    parts[parts.length - 1] += char;
    if (char === '\\' && i + 1 < text.length) parts[parts.length - 1] += text.charAt(++i);
  }
  return parts;
}

function unescape(text: string): string {
  return text.replace(/\\(.)/gs, '$1');
}

/** A field of the concise form. */
export function escapeConcise(text: string): string {
  return text.replace(/[\\,;]/g, '\\$&');
}
