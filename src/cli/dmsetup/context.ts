/**
 * What every dmsetup command is given: the client, the options, and the ways to name a device and
 * to report a failure.
 */
import fs from 'node:fs';
import path from 'node:path';
import type { ApiError, DeviceInfo } from '../../daemon/api-types.ts';
import type { Client, Method, Query } from '../client.ts';
import { RequestError } from '../failures.ts';
import { CommandFailed, complain, fail } from '../output.ts';
import { Mangling, manglingModes, type ManglingMode } from './mangling.ts';
import { atoi, packedNumber } from './numbers.ts';
import type { Options } from './options.ts';

/** Bytes of a name and of a uuid. */
export const NAME_BYTES_MAX = 127;
export const UUID_BYTES_MAX = 128;
/** The major number of mapped devices. */
export const MAPPED_MAJOR = 254;

/** A device as the user named it. */
export interface Target {
  /** The device's resource under /v1/devices. */
  readonly path: string;
  readonly query: Query;
  /** How dmsetup shows it in a failure. */
  readonly shown: { readonly name: string; readonly uuid: string; readonly number: string };
}

export class Context {
  readonly options: Options;
  readonly mangling: Mangling;
  /** Lines from the kernel's log, printed after everything else. */
  readonly reasons: string[] = [];

  #client: Client | null = null;

  constructor(options: Options) {
    this.options = options;
    this.mangling = new Mangling(manglingMode(options));
  }

  /** Sends a request to the daemon, which is started if none runs. Rejects with a RequestError. */
  async request<T>(method: Method, path: string, query: Query = {}, body?: object): Promise<T> {
    if (this.#client === null) {
      const { Client: Connected } = await import('../client.ts');
      this.#client = new Connected(this.options.get('state-dir'));
    }
    return this.#client.call<T>(method, path, query, body);
  }

  /** Whether the device is named by -u or by -j and -m, not by an argument. */
  get namedByOption(): boolean {
    return this.options.has('uuid') || this.options.has('minor');
  }

  /** The device that -u or -j and -m name. */
  targetByOption(): Target {
    const given = this.options.get('uuid');
    if (given !== undefined) {
      const uuid = this.mangling.stored(given, 'uuid');
      return target('uuid', uuid, { uuid });
    }
    const { major, minor } = this.numbers;
    const shown = `${major}:${minor < 0 ? '' : minor}`;
    const packed = packedNumber(major, minor);
    const number = `${packed.major}:${packed.minor}`;
    return target('number', number, { number: major > 0 ? shown : '' });
  }

  /** What -j and -m say; -1 where they are not given. Fails for a minor without a major. */
  get numbers(): { major: number; minor: number } {
    const major = atoi(this.options.get('major') ?? '-1');
    const minor = atoi(this.options.get('minor') ?? '-1');
    if (minor >= 0 && major <= 0) {
      const complaint = 'Missing major number for persistent device.';
      fail(complaint, "Couldn't create ioctl argument.");
    }
    return { major, minor };
  }

  /** The device that an argument names: a name or a path. Fails for what is neither. */
  async targetByName(given: string): Promise<Target> {
    if (given.includes('/')) return this.#targetByPath(given);
    if (Buffer.byteLength(given) > NAME_BYTES_MAX) fail(`Name "${given}" too long.`);
    const name = this.mangling.stored(given, 'name');
    return target('name', name, { name });
  }

  /** There are no nodes, so paths under /dev/mapper are those of the devices with a table. */
  async #targetByPath(given: string): Promise<Target> {
    const absolute = path.resolve(given);
    const minor = /^\/dev\/dm-([0-9]+)$/.exec(absolute)?.[1];
    const name = /^\/dev\/mapper\/(.+)$/.exec(absolute)?.[1];
    const base = given.slice(given.lastIndexOf('/') + 1);
    if (minor === undefined && name === undefined) {
      const exists = absolute === '/dev/mapper' || fs.existsSync(given);
      if (exists && base === '') return target('name', '', {});
      return fail(`Device ${exists ? base : given} not found`);
    }
    const found =
      minor === undefined
        ? target('name', name ?? '', {})
        : target('number', `${MAPPED_MAJOR}:${minor}`, {});
    try {
      const info = await this.request<DeviceInfo>('GET', found.path, found.query);
      if (info.hadTable && base !== '') return target('name', info.name, { name: info.name });
    } catch (error) {
      if (!(error instanceof RequestError)) throw error;
    }
    return fail(`Device ${given} not found`);
  }

  /** Calls the API on a device; a failure is reported as dmsetup reports a failed ioctl. */
  async call<T>(
    device: Target,
    method: Method,
    resource: string,
    query: Query = {},
    body?: object,
  ): Promise<T> {
    const path = `${device.path}${resource}`;
    try {
      return await this.request<T>(method, path, { ...device.query, ...query }, body);
    } catch (error) {
      throw error instanceof RequestError ? this.failed(error.error, device) : error;
    }
  }

  /** As `call`, for the commands that say only that there is no such device. */
  async callOrMissing<T>(device: Target, resource: string, query: Query = {}): Promise<T> {
    try {
      const path = `${device.path}${resource}`;
      return await this.request<T>('GET', path, { ...device.query, ...query });
    } catch (error) {
      if (!(error instanceof RequestError)) throw error;
      if (error.error.errno !== 'ENXIO') throw this.failed(error.error, device);
      return fail('Device does not exist.');
    }
  }

  /** Prints what dmsetup prints for a failed ioctl; the kernel's reasons are kept for the end. */
  failed(error: ApiError, device: Target): CommandFailed {
    this.reasons.push(...error.log);
    const own = error.reason ?? (error.log.length === 0 && isSpecific(error) ? error.message : '');
    if (own !== '') this.reasons.push(`devmapper: ${own}`);
    const { name, uuid, number } = device.shown;
    const shown = error.number ?? number;
    const where = shown === '' ? '' : `(${shown})`;
    complain(`device-mapper: ${error.op} ioctl on ${name} ${uuid}${where} failed: ${error.text}`);
    return new CommandFailed();
  }
}

/** Whether the message says more than the errno's text and the name do. */
function isSpecific(error: ApiError): boolean {
  return !['ENXIO', 'EBUSY'].includes(error.errno);
}

/** --manglename, else $DM_DEFAULT_NAME_MANGLING_MODE, else auto. */
function manglingMode(options: Options): ManglingMode {
  const wanted = options.get('manglename') ?? process.env['DM_DEFAULT_NAME_MANGLING_MODE'];
  return manglingModes.find((mode) => mode === wanted) ?? 'auto';
}

function target(
  by: 'name' | 'uuid' | 'number',
  key: string,
  shown: { name?: string; uuid?: string; number?: string },
): Target {
  return {
    path: `/v1/devices/${encodeURIComponent(key)}`,
    query: by === 'name' ? {} : { by },
    shown: { name: '', uuid: '', number: '', ...shown },
  };
}
