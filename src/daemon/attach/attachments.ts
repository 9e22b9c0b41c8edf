/**
 * Attachments: the mapped devices that have a real block device, from `devmapper attach` until
 * `devmapper detach`, the removal of the device, or the end of the daemon.
 *
 * One device is attached once; attaching it again gives the same path.
 * What a crash leaves: see the ways. The next daemon of the state directory clears it away.
 */
import fs from 'node:fs';
import path from 'node:path';
import { DmError } from '../../base/error.ts';
import { errnoOf } from '../../base/errno.ts';
import type { MappedDevice } from '../../mapper/mapped-device.ts';
import type { DaemonLog } from '../daemon-log.ts';
import { nbdWay } from './nbd.ts';
import { clearAway, mountFile, nbdfuseWay, type FuseFile } from './nbdfuse.ts';
import type { Link, Way, WayName } from './way.ts';

/** In the order in which they are tried. */
const ways: readonly Way[] = [nbdWay, nbdfuseWay];

/** What `attach` answers. */
export interface Attachment {
  readonly path: string;
  readonly via: WayName;
}

export interface AttachOptions {
  readonly via?: WayName | undefined;
  /** A symbolic link to the block device, such as /dev/mapper/NAME; goes with it. */
  readonly node?: string | undefined;
}

/** A device as a file, by `devmapper mount`. */
interface Mounted {
  readonly device: MappedDevice;
  readonly file: FuseFile;
  /** There was nothing at its path before. */
  readonly isOurs: boolean;
}

interface Attached extends Attachment {
  readonly link: Link;
  node: string | null;
}

export interface AttachmentsOptions {
  /** A directory of its own. */
  readonly dir: string;
  readonly nbdSocket: string;
  readonly log: DaemonLog;
  uriOf(name: string): string;
}

export class Attachments {
  readonly #options: AttachmentsOptions;
  readonly #attached = new Map<MappedDevice, Attached>();
  /** By path. */
  readonly #mounted = new Map<string, Mounted>();
  /** One change at a time: programs that look for a free device must not find the same one. */
  #last: Promise<unknown> = Promise.resolve();

  constructor(options: AttachmentsOptions) {
    this.#options = options;
  }

  /** Takes away what an earlier daemon left when it was killed. */
  async begin(): Promise<void> {
    const { dir } = this.#options;
    if (!fs.existsSync(dir)) return;
    for (const name of fs.readdirSync(dir)) await clearAway(path.join(dir, name));
  }

  /** The attachment of a device, if it has one. */
  of(device: MappedDevice): Attachment | null {
    const found = this.#attached.get(device);
    return found === undefined ? null : { path: found.path, via: found.via };
  }

  /**
   * Gives `device` a block device, by the way that is wanted or the first that this machine has. A
   * node takes the place of the one before. Rejects with DmError: ENXIO without a live table,
   * EOPNOTSUPP where no way is to be had, EEXIST where the node cannot be, …
   */
  attach(device: MappedDevice, options: AttachOptions = {}): Promise<Attachment> {
    const { via, node } = options;
    return this.#inTurn(async () => {
      const old = this.#attached.get(device);
      if (old !== undefined) {
        if (via !== undefined && via !== old.via) {
          const text = `${device.dmName} is attached by ${old.via}, as ${old.path}`;
          throw new DmError('EBUSY', text);
        }
        if (node !== undefined) moveNode(old, node);
        return { path: old.path, via: old.via };
      }
      if (node !== undefined) mustBeFree(node);
      if (device.live === null) throw new DmError('ENXIO', `${device.dmName} has no table`);
      const way = chooseWay(via);
      const link = await way.attach({
        exportName: device.dmName,
        uri: this.#options.uriOf(device.dmName),
        nbdSocket: this.#options.nbdSocket,
        readOnly: device.readOnly,
        limits: device.limits,
        dir: path.join(this.#options.dir, String(device.minor)),
      });
      const attached: Attached = { link, path: link.path, via: way.name, node: null };
      this.#attached.set(device, attached);
      if (node !== undefined) moveNode(attached, node);
      return { path: link.path, via: way.name };
    });
  }

  /** Takes the block device away, if there is one. Rejects with EBUSY while it is in use. */
  detach(device: MappedDevice): Promise<void> {
    return this.#inTurn(async () => {
      const attached = this.#attached.get(device);
      if (attached === undefined) return;
      await attached.link.undo();
      removeNode(attached);
      this.#attached.delete(device);
    });
  }

  // --- files

  /**
   * Makes the device a file at `filePath`, which is made, or is empty and covered. Rejects with
   * DmError: EEXIST if there is something, EBUSY if another device is there, …
   */
  mount(device: MappedDevice, filePath: string): Promise<void> {
    return this.#inTurn(async () => {
      const old = this.#mounted.get(filePath);
      if (old?.device === device) return;
      if (old !== undefined) {
        throw new DmError('EBUSY', `${filePath} is ${old.device.dmName} already`);
      }
      if (device.live === null) throw new DmError('ENXIO', `${device.dmName} has no table`);
      const isOurs = makeEmptyFile(filePath);
      try {
        const uri = this.#options.uriOf(device.dmName);
        const file = await mountFile(filePath, uri, device.readOnly);
        this.#mounted.set(filePath, { device, file, isOurs });
        // Unmounted by somebody else, it is gone as well.
        void file.ended.then(() => this.#mounted.delete(filePath));
      } catch (error) {
        if (isOurs) fs.rmSync(filePath, { force: true });
        throw error;
      }
    });
  }

  /** Takes the file away, if there is one. Rejects with EBUSY while it is open. */
  unmount(filePath: string): Promise<void> {
    return this.#inTurn(async () => {
      const mounted = this.#mounted.get(filePath);
      if (mounted === undefined) return;
      await mounted.file.unmount();
      this.#mounted.delete(filePath);
      if (mounted.isOurs) fs.rmSync(filePath, { force: true });
    });
  }

  /** Paths of the files that devices are mounted on, by device name. */
  get files(): { name: string; path: string }[] {
    return [...this.#mounted].map(([file, { device }]) => ({ name: device.dmName, path: file }));
  }

  // --- the end

  /** Takes all away; what is in use stays, and the log says so. */
  async end(): Promise<void> {
    for (const [device, { link }] of [...this.#attached].reverse()) {
      const isDone = await this.#tryTo(`detach ${device.dmName}`, () => this.detach(device));
      if (!isDone) link.leave();
    }
    for (const [filePath, { file }] of [...this.#mounted]) {
      const isDone = await this.#tryTo(`unmount ${filePath}`, () => this.unmount(filePath));
      if (!isDone) file.leave();
    }
  }

  async #tryTo(what: string, work: () => Promise<void>): Promise<boolean> {
    try {
      await work();
      return true;
    } catch (error) {
      if (!(error instanceof DmError)) throw error;
      const text = `cannot ${what}: ${error.message}`;
      this.#options.log.pino.error(`${text}; what its users have not written yet is lost`);
      return false;
    }
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#last.then(work);
    this.#last = result.catch(() => undefined);
    return result;
  }
}

// --- nodes

/** Throws EEXIST if something else than a node of ours is at `node`. */
function mustBeFree(node: string): void {
  const stat = fs.lstatSync(node, { throwIfNoEntry: false });
  if (stat === undefined) return;
  const isOurs = stat.isSymbolicLink() && NODE_TARGET.test(fs.readlinkSync(node));
  if (!isOurs) throw new DmError('EEXIST', `${node}: wanted nothing there, found another file`);
}

/** What a node leads to; one that a daemon has left when it was killed does so, too. */
const NODE_TARGET = /^\/dev\/(?:loop|nbd)[0-9]+$/;

function moveNode(attached: Attached, node: string): void {
  if (attached.node === node) return;
  mustBeFree(node);
  removeNode(attached);
  try {
    fs.mkdirSync(path.dirname(node), { recursive: true });
    fs.rmSync(node, { force: true });
    fs.symlinkSync(attached.path, node);
  } catch (cause) {
    throw new DmError(errnoOf(cause), (cause as Error).message, { cause });
  }
  attached.node = node;
}

/** Takes the node away, unless it is somebody else's by now. */
function removeNode(attached: Attached): void {
  const { node, path: target } = attached;
  attached.node = null;
  if (node === null || !fs.lstatSync(node, { throwIfNoEntry: false })?.isSymbolicLink()) return;
  if (fs.readlinkSync(node) === target) fs.rmSync(node, { force: true });
}

/** Returns whether the file had to be made. Throws EEXIST if it holds anything. */
function makeEmptyFile(filePath: string): boolean {
  const stat = fs.statSync(filePath, { throwIfNoEntry: false });
  if (stat === undefined) {
    try {
      fs.closeSync(fs.openSync(filePath, 'wx', 0o600));
    } catch (cause) {
      throw new DmError(errnoOf(cause), (cause as Error).message, { cause });
    }
    return true;
  }
  if (stat.isFile() && stat.size === 0) return false;
  throw new DmError('EEXIST', `${filePath}: wanted no file, or an empty one, found another`);
}

function chooseWay(via: WayName | undefined): Way {
  const reasons: string[] = [];
  for (const way of ways) {
    if (via !== undefined && way.name !== via) continue;
    const reason = way.whyNot();
    if (reason === null) return way;
    reasons.push(`by ${way.name}: ${reason}`);
  }
  throw new DmError('EOPNOTSUPP', `this machine cannot attach devices: ${reasons.join('; ')}`);
}
