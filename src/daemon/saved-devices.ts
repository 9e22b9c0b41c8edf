/**
 * SavedDevices: the mapped devices with their live tables, kept in a file of the state directory in
 * dmsetup's concise form, so that `devmapper daemon --restore` can bring them back.
 *
 *   change ─► written beside the file ─► synced ─► renamed over it ─► answered
 *
 * What a crash leaves: the file as of the last change that was answered, or of one after it; never
 * a part of one. A clean stop leaves it as it is.
 * Tables name devices as they can be found again: by path, and by name under /dev/mapper.
 * What cannot be brought back stays in the file until a device of its name is made. A daemon that
 * is not told to restore keeps the file of the one before as `tables.previous`.
 * Does not: keep inactive tables, devices without a table, or whether one was suspended.
 */
import fs from 'node:fs';
import path from 'node:path';
import { DmError } from '../base/error.ts';
import { MAPPED_MAJOR } from '../block/open-devices.ts';
import type { MappedDevice } from '../mapper/mapped-device.ts';
import type { Registry } from '../mapper/registry.ts';
import type { Table } from '../mapper/table.ts';
import { parseTable, splitArgs, TableFormatError } from '../mapper/table-grammar.ts';
import { ConciseError, escapeConcise, parseConcise, type ConciseDevice } from './concise.ts';
import type { DaemonLog } from './daemon-log.ts';

export class SavedDevices {
  readonly #registry: Registry;
  readonly #file: string;
  readonly #log: DaemonLog;
  /** Entries that could not be brought back, by name. */
  readonly #missing = new Map<string, string>();
  /** By live table, which does not change while it lives: its text, and the names in it. */
  readonly #tables = new WeakMap<Table, { readonly names: string; readonly text: string }>();
  #isChanged = false;
  #isEnded = true;
  #written = '';
  #saving: Promise<void> = Promise.resolve();

  constructor(registry: Registry, file: string, log: DaemonLog) {
    this.#registry = registry;
    this.#file = file;
    this.#log = log;
  }

  /** Begins to keep the devices, after bringing back what the file has, if `restore`. */
  async begin(restore: boolean): Promise<void> {
    const text = this.#read();
    if (restore) await this.#restore(text);
    else if (text !== '') fs.renameSync(this.#file, `${this.#file}.previous`);
    this.#written = restore ? text : '';
    this.#isEnded = false;
    this.#registry.onChange = () => (this.#isChanged = true);
    this.#isChanged = restore;
    await this.settled();
  }

  /** Keeps the devices of now, and lets go of the file. */
  async end(): Promise<void> {
    await this.settled();
    this.#isEnded = true;
    this.#registry.onChange = () => undefined;
  }

  /** Resolves when all changes so far are in the file, or could not be written, which is logged. */
  async settled(): Promise<void> {
    if (this.#isChanged && !this.#isEnded) {
      this.#isChanged = false;
      this.#saving = this.#saving.then(() => this.#save());
    }
    await this.#saving;
  }

  // --- writing

  async #save(): Promise<void> {
    try {
      // What changes from here on is written by the next save.
      const text = await this.#text();
      if (text === this.#written) return;
      await replaceFile(this.#file, text);
      this.#written = text;
    } catch (error) {
      this.#isChanged = true;
      const reason = (error as Error).message;
      this.#log.pino.error(`the devices cannot be kept in ${this.#file}: ${reason}`);
    }
  }

  async #text(): Promise<string> {
    const entries: string[] = [];
    for (const device of this.#registry.devices) {
      this.#missing.delete(device.dmName);
      const entry = await this.#entry(device);
      if (entry !== null) entries.push(entry);
    }
    const all = [...entries, ...this.#missing.values()];
    return all.length === 0 ? '' : `${all.join(';')}\n`;
  }

  async #entry(device: MappedDevice): Promise<string | null> {
    const { live, dmName, uuid, minor } = device;
    if (live === null) return null;
    const names = this.#namesIn(live);
    let kept = this.#tables.get(live);
    if (kept?.names !== names.toString()) {
      const lines = await this.#registry.lines(device, 'TABLE');
      const text = lines.map((line) => escapeConcise(withNames(line, names))).join(',');
      kept = { names: names.toString(), text };
      this.#tables.set(live, kept);
    }
    const flags = live.readOnly ? 'ro' : 'rw';
    return [escapeConcise(dmName), escapeConcise(uuid), minor, flags, kept.text].join(',');
  }

  /** The devices that a table uses: number and name, in turns. */
  #namesIn(table: Table): string[] {
    return table.devices.flatMap(({ number }) => {
      const [major = NaN, minor = NaN] = number.split(':').map(Number);
      return [number, this.#registry.lookup.lastingName(major, minor) ?? number];
    });
  }

  // --- restoring

  #read(): string {
    try {
      return fs.readFileSync(this.#file, 'utf8');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return '';
      throw error;
    }
  }

  async #restore(text: string): Promise<void> {
    let devices: ConciseDevice[];
    try {
      devices = [...parseConcise(text)];
    } catch (error) {
      if (!(error instanceof ConciseError)) throw error;
      throw new DmError('EINVAL', `${this.#file}: ${error.message.split('\n')[0]}`);
    }
    let nr = 0;
    for (const device of inOrder(devices)) {
      if (await this.#bringBack(device)) nr++;
    }
    this.#log.pino.info(`restored ${nr} of ${devices.length} devices`);
  }

  async #bringBack(saved: ConciseDevice): Promise<boolean> {
    const registry = this.#registry;
    try {
      const lines = parseTable(saved.table);
      const device = registry.create(saved.name, saved.uuid, freeMinor(registry, saved));
      try {
        await registry.load(device, lines, { readOnly: saved.readOnly });
        await registry.resume(device);
      } catch (error) {
        await registry.remove(device);
        throw error;
      }
      return true;
    } catch (error) {
      if (!(error instanceof DmError || error instanceof TableFormatError)) throw error;
      this.#log.pino.error(`${saved.name} cannot be restored: ${error.message}`);
      this.#missing.set(saved.name, entryOf(saved));
      return false;
    }
  }
}

/** A table line with names in the place of numbers; `names` has them in turns. */
function withNames(line: string, names: readonly string[]): string {
  return line.replaceAll(/(?<=\s)\d+:\d+(?=\s|$)/g, (word) => {
    const at = names.indexOf(word);
    return at < 0 ? word : (names[at + 1] as string).replaceAll(/[\s\\]/g, '\\$&');
  });
}

function entryOf({ name, uuid, minor, readOnly, table }: ConciseDevice): string {
  const lines = table.split('\n').map(escapeConcise);
  const flags = readOnly ? 'ro' : 'rw';
  return [escapeConcise(name), escapeConcise(uuid), minor, flags, ...lines].join(',');
}

function freeMinor(registry: Registry, { minor }: ConciseDevice): number | undefined {
  if (minor === '') return undefined;
  const key = { major: MAPPED_MAJOR, minor: Number(minor) };
  return registry.find(key) === undefined ? key.minor : undefined;
}

/** What a device is made of comes before it. */
function inOrder(devices: readonly ConciseDevice[]): ConciseDevice[] {
  const byWord = new Map<string, ConciseDevice>();
  for (const device of devices) {
    byWord.set(`/dev/mapper/${device.name}`, device);
    if (device.minor === '') continue;
    byWord.set(`/dev/dm-${device.minor}`, device);
    byWord.set(`${MAPPED_MAJOR}:${device.minor}`, device);
  }
  const ordered = new Set<ConciseDevice>();
  const visit = (device: ConciseDevice, path: readonly ConciseDevice[]): void => {
    if (ordered.has(device) || path.includes(device)) return;
    for (const word of splitArgs(device.table)) {
      const below = byWord.get(word);
      if (below !== undefined) visit(below, [...path, device]);
    }
    ordered.add(device);
  };
  for (const device of devices) visit(device, []);
  return [...ordered];
}

/** Puts `text` in the place of a file: whoever reads it finds the old text or the new one. */
async function replaceFile(file: string, text: string): Promise<void> {
  const fresh = `${file}.new`;
  const handle = await fs.promises.open(fresh, 'w', 0o600);
  try {
    await handle.writeFile(text);
    await handle.sync();
  } finally {
    await handle.close();
  }
  await fs.promises.rename(fresh, file);
  const dir = await fs.promises.open(path.dirname(file), 'r');
  try {
    await dir.sync();
  } finally {
    await dir.close();
  }
}
