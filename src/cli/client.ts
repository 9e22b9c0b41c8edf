/**
 * The commands' side of the control API: one request at a time over the daemon's unix socket. Kept
 * light: a script may call a command a thousand times.
 */
import type { ApiError } from '../daemon/api-types.ts';
import { findStateDir, type StateDir } from '../daemon/state-dir.ts';
import { DaemonError, RequestError } from './failures.ts';
import { exchange, type Answer } from './http-exchange.ts';

export type Method = 'GET' | 'POST' | 'PUT' | 'DELETE';
export type Query = Readonly<Record<string, string | number | boolean | undefined>>;

/** What connecting to the socket of no daemon fails with. */
const NOBODY = ['ENOENT', 'ENOTDIR', 'ECONNREFUSED'];

export class Client {
  readonly state: StateDir;

  constructor(stateDir: string | undefined) {
    try {
      this.state = findStateDir(stateDir);
    } catch (error) {
      throw new DaemonError((error as Error).message);
    }
  }

  /** Sends a request, starting a daemon if none runs; resolves to the answer's JSON. */
  async call<T>(method: Method, path: string, query: Query = {}, body?: object): Promise<T> {
    const answer = await this.#request(method, path, query, body);
    if (answer !== null) return read<T>(answer);
    const { startDaemon } = await import('./start-daemon.ts');
    await startDaemon(this.state, async () => (await this.#request('GET', '/v1/version')) !== null);
    const later = await this.#request(method, path, query, body);
    if (later === null) throw new DaemonError('the daemon has ended again');
    return read<T>(later);
  }

  /** As `call`, but undefined if no daemon runs. */
  async callIfRunning<T>(method: Method, path: string): Promise<T | undefined> {
    const answer = await this.#request(method, path);
    return answer === null ? undefined : read<T>(answer);
  }

  /** Null if no daemon runs. */
  async #request(
    method: Method,
    path: string,
    query: Query = {},
    body?: object,
  ): Promise<Answer | null> {
    const given = Object.entries(query).filter(([, value]) => value !== undefined);
    const search = given.map(([name, value]) => `${name}=${encodeURIComponent(String(value))}`);
    const resource = search.length > 0 ? `${path}?${search.join('&')}` : path;
    const json = body === undefined ? undefined : JSON.stringify(body);
    try {
      return await exchange(this.state.controlSocket, method, resource, json);
    } catch (error) {
      if (error instanceof DaemonError) throw error;
      const { code, message } = error as NodeJS.ErrnoException;
      if (code !== undefined && NOBODY.includes(code)) return null;
      throw new DaemonError(`cannot speak to the daemon: ${message}`, { cause: error });
    }
  }
}

function read<T>({ statusCode, body }: Answer): T {
  let value: unknown;
  try {
    value = body === '' ? undefined : JSON.parse(body);
  } catch (cause) {
    throw new DaemonError(`unreadable answer from the daemon: ${body}`, { cause });
  }
  if (statusCode >= 400) throw new RequestError(value as ApiError);
  return value as T;
}
