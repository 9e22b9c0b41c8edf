/**
 * What every dmsetup command is given: the client, the options, and the ways to name a device and
 * to report a failure.
 */
import type { ApiError, DeviceInfo } from '../../daemon/api-types.ts';
import { RequestError, type Client, type Method, type Query } from '../client.ts';
import { CommandFailed, complain, ioctlFailure } from '../output.ts';
import type { Options } from './options.ts';

/** A device as the user named it. */
export interface Target {
  /** The device's resource under /v1/devices. */
  readonly path: string;
  readonly query: Query;
  /** How dmsetup shows it in a failure. */
  readonly shown: { readonly name: string; readonly uuid: string; readonly number: string };
}

export class Context {
  readonly client: Client;
  readonly options: Options;
  /** Lines from the kernel's log, printed after everything else. */
  readonly reasons: string[];

  constructor(client: Client, options: Options, reasons: string[]) {
    this.client = client;
    this.options = options;
    this.reasons = reasons;
  }

  /** Whether the device is named by -u or by -j and -m, not by an argument. */
  get namedByOption(): boolean {
    return this.options.has('uuid') || this.options.has('minor');
  }

  /** The device that -u or -j and -m name. */
  targetByOption(): Target {
    const uuid = this.options.get('uuid');
    if (uuid !== undefined) return target('uuid', uuid, { uuid });
    const number = `${this.options.get('major')}:${this.options.get('minor')}`;
    return target('number', number, { number });
  }

  /** The device that an argument names: a name, or a path under /dev. Fails if the path is none. */
  async targetByName(name: string): Promise<Target> {
    if (!name.startsWith('/dev/')) return target('name', name, { name });
    const minor = /^\/dev\/dm-([0-9]+)$/.exec(name)?.[1];
    const found =
      minor === undefined
        ? target('name', name.replace(/^\/dev\/mapper\//, ''), {})
        : target('number', `254:${minor}`, {});
    try {
      const info = await this.client.call<DeviceInfo>('GET', found.path, found.query);
      return target('name', info.name, { name: info.name });
    } catch (error) {
      if (!(error instanceof RequestError)) throw error;
      complain(`Device ${name} not found`);
      throw new CommandFailed();
    }
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
      return await this.client.call<T>(method, path, { ...device.query, ...query }, body);
    } catch (error) {
      throw error instanceof RequestError ? this.failed(error.error, device) : error;
    }
  }

  /** As `call`, for the commands that say only that there is no such device. */
  async callOrMissing<T>(device: Target, resource: string, query: Query = {}): Promise<T> {
    try {
      const path = `${device.path}${resource}`;
      return await this.client.call<T>('GET', path, { ...device.query, ...query });
    } catch (error) {
      if (!(error instanceof RequestError)) throw error;
      if (error.error.errno !== 'ENXIO') throw this.failed(error.error, device);
      complain('Device does not exist.');
      throw new CommandFailed();
    }
  }

  /** Prints what dmsetup prints for a failed ioctl; the kernel's reasons are kept for the end. */
  failed(error: ApiError, device: Target): CommandFailed {
    this.reasons.push(...error.log);
    if (error.log.length === 0 && isSpecific(error))
      this.reasons.push(`devmapper: ${error.message}`);
    const { name, uuid, number } = device.shown;
    const shown = error.number ?? (number === '' ? undefined : number);
    complain(ioctlFailure({ ...error, ...(shown !== undefined && { number: shown }) }, name, uuid));
    return new CommandFailed();
  }
}

/** Whether the message says more than the errno's text and the name do. */
function isSpecific(error: ApiError): boolean {
  return !['ENXIO', 'EBUSY'].includes(error.errno);
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
