/**
 * The commands' side of the control API: one request at a time over the daemon's unix socket, and a
 * daemon started where none runs. Kept light: a script may call a command a thousand times.
 */
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import http from 'node:http';
import { fileURLToPath } from 'node:url';
import type { ApiError } from '../daemon/api-types.ts';
import { findStateDir, makeStateDir, type StateDir } from '../daemon/state-dir.ts';

/** How long a daemon may take to start. */
const START_TIMEOUT_MS = 20_000;
const START_POLL_MS = 15;

/** The daemon refused a request. */
export class RequestError extends Error {
  readonly error: ApiError;
  constructor(error: ApiError) {
    super(error.message);
    this.error = error;
  }
}

/** No daemon could be reached or started. */
export class DaemonError extends Error {}

export type Method = 'GET' | 'POST' | 'PUT' | 'DELETE';
export type Query = Readonly<Record<string, string | number | boolean | undefined>>;

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
    try {
      return await this.#request<T>(method, path, query, body);
    } catch (error) {
      if (!isNotRunning(error)) throw error;
      await this.#start();
      return this.#request<T>(method, path, query, body);
    }
  }

  /** As `call`, but undefined if no daemon runs. */
  async callIfRunning<T>(method: Method, path: string): Promise<T | undefined> {
    try {
      return await this.#request<T>(method, path, {}, undefined);
    } catch (error) {
      if (isNotRunning(error)) return undefined;
      throw error;
    }
  }

  #request<T>(method: Method, path: string, query: Query, body?: object): Promise<T> {
    const search = new URLSearchParams();
    for (const [name, value] of Object.entries(query)) {
      if (value !== undefined) search.set(name, String(value));
    }
    const payload = body === undefined ? undefined : JSON.stringify(body);
    return new Promise<T>((resolve, reject) => {
      const request = http.request(
        {
          socketPath: this.state.controlSocket,
          method,
          path: search.size > 0 ? `${path}?${search.toString()}` : path,
          agent: false,
          headers: payload === undefined ? {} : { 'content-type': 'application/json' },
        },
        (response) => {
          let text = '';
          response.setEncoding('utf8');
          response.on('data', (part: string) => (text += part));
          response.on('error', reject);
          response.on('end', () => {
            const { statusCode = 500 } = response;
            try {
              const answer: unknown = text === '' ? undefined : JSON.parse(text);
              if (statusCode < 400) resolve(answer as T);
              else reject(new RequestError(answer as ApiError));
            } catch (cause) {
              reject(new DaemonError(`unreadable answer from the daemon: ${text}`, { cause }));
            }
          });
        },
      );
      request.on('error', reject);
      request.end(payload);
    });
  }

  /** Starts a daemon in the background and waits until it answers. */
  async #start(): Promise<void> {
    makeStateDir(this.state);
    const program = fileURLToPath(new URL('../../../bin/devmapper.js', import.meta.url));
    const log = fs.openSync(this.state.logFile, 'a', 0o600);
    const args = [program, 'daemon', '--state-dir', this.state.dir];
    const child = spawn(process.execPath, args, {
      detached: true,
      cwd: '/',
      stdio: ['ignore', log, log],
    });
    fs.closeSync(log);
    child.unref();
    let failure: string | null = null;
    child.once('exit', (code) => (failure = `it ended with exit code ${code}`));
    child.once('error', (error) => (failure = error.message));
    const deadline = Date.now() + START_TIMEOUT_MS;
    while (Date.now() < deadline) {
      await new Promise((resolve) => setTimeout(resolve, START_POLL_MS));
      // Another command may have started one at the same time: then ours ends, and that one
      // answers.
      if (await this.#answers()) return;
      if (failure !== null && !(await this.#answersSoon())) break;
    }
    const why = failure ?? 'it did not answer in time';
    throw new DaemonError(`cannot start a daemon: ${why}; see ${this.state.logFile}`);
  }

  async #answers(): Promise<boolean> {
    try {
      return (await this.callIfRunning('GET', '/v1/version')) !== undefined;
    } catch {
      return false;
    }
  }

  async #answersSoon(): Promise<boolean> {
    for (let i = 0; i < 100; i++) {
      if (await this.#answers()) return true;
      await new Promise((resolve) => setTimeout(resolve, START_POLL_MS));
    }
    return false;
  }
}

function isNotRunning(error: unknown): boolean {
  const { code } = error as { code?: string };
  return code === 'ENOENT' || code === 'ECONNREFUSED';
}
