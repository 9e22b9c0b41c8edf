/**
 * The control API: HTTP and JSON over a unix socket, one resource a mapped device. Its OpenAPI
 * document, made from the schemas here, is served at /openapi.json.
 *
 * A device is addressed by name in the path, or with `?by=uuid` or `?by=number` by these. What
 * fails answers with an ApiError. Paths in tables are relative to the `cwd` that a request gives.
 */
import fastifySwagger from '@fastify/swagger';
import fastify, { type FastifyInstance, type FastifyRequest } from 'fastify';
import { DmError } from '../base/error.ts';
import { strerror, type ErrnoName } from '../base/errno.ts';
import type { MappedDevice } from '../mapper/mapped-device.ts';
import type { DeviceKey, Registry } from '../mapper/registry.ts';
import { parseTable, TABLE_TEXT_MAX, TableFormatError } from '../mapper/table-grammar.ts';
import type { ApiError, DeviceLines, Operation, TargetVersion, VersionInfo } from './api-types.ts';
import { deviceInfo } from './device-info.ts';
import type { DaemonLog } from './daemon-log.ts';
import { schemas as s } from './api-schemas.ts';
import { packageVersion } from './version.ts';

/** What the API needs of the daemon. */
export interface ApiContext {
  readonly registry: Registry;
  readonly log: DaemonLog;
  version(): VersionInfo;
  uriOf(name: string): string;
  /** Ends the daemon after the answer has gone out. */
  stopSoon(): void;
}

/** An operation that failed, on its way to the error handler. */
class OperationError extends Error {
  readonly body: ApiError;
  constructor(body: ApiError) {
    super(body.message);
    this.body = body;
  }
}

interface KeyRequest {
  Params: { key: string };
  Querystring: { by?: 'name' | 'uuid' | 'number' };
}

interface TableBody {
  table?: string;
  readOnly?: boolean;
  cwd?: string;
}

interface LinesQuery {
  by?: 'name' | 'uuid' | 'number';
  noflush?: boolean;
  inactive?: boolean;
  target?: string;
}

/** Makes the API server; the caller listens with it. */
export async function makeApi(context: ApiContext): Promise<FastifyInstance> {
  const app = fastify({
    bodyLimit: 2 * TABLE_TEXT_MAX,
    // The unix socket is the daemon's own; a `wait` may last for ever.
    requestTimeout: 0,
    connectionTimeout: 0,
    forceCloseConnections: true,
    routerOptions: { maxParamLength: 1024 },
  });
  await app.register(fastifySwagger, {
    openapi: {
      info: {
        title: 'devmapper',
        version: packageVersion(),
        description: 'Control API of the device mapper in user space',
      },
    },
  });
  app.setErrorHandler((error, _request, reply) => {
    if (error instanceof OperationError) return reply.code(statusOf(error.body)).send(error.body);
    const { statusCode = 500, message } = error as { statusCode?: number; message: string };
    if (statusCode >= 500) context.log.pino.error(error);
    const errno = statusCode >= 500 ? 'EIO' : 'EINVAL';
    const body: ApiError = { op: '', errno, text: strerror(errno), message, log: [] };
    return reply.code(statusCode).send(body);
  });
  await app.register((routes, _options, done) => {
    new Routes(context).register(routes);
    done();
  });
  return app;
}

function statusOf(error: ApiError): number {
  if (error.errno === 'ENXIO') return 404;
  if (error.errno === 'EBUSY' || error.errno === 'EEXIST') return 409;
  return error.errno === 'EIO' ? 500 : 400;
}

class Routes {
  readonly #context: ApiContext;
  readonly #registry: Registry;

  constructor(context: ApiContext) {
    this.#context = context;
    this.#registry = context.registry;
  }

  register(app: FastifyInstance): void {
    app.get('/openapi.json', { schema: { hide: true } }, () => app.swagger());
    app.get('/v1/version', { schema: s.version }, () => this.#context.version());
    app.get('/v1/targets', { schema: s.targets }, () => this.#targets());
    app.post('/v1/stop', { schema: s.stop }, (_request, reply) => {
      this.#context.stopSoon();
      return reply.code(204).send();
    });
    this.#registerListings(app);
    this.#registerDevices(app);
    this.#registerTables(app);
  }

  // --- helpers

  /** Runs one operation; a failure becomes an ApiError with the log lines it caused. */
  async #run<T>(
    op: Operation,
    work: (progress: { op: Operation; number?: string }) => T | Promise<T>,
  ): Promise<T> {
    const lines: string[] = [];
    const progress: { op: Operation; number?: string } = { op };
    try {
      return await this.#context.log.capture(lines, async () => work(progress));
    } catch (error) {
      throw new OperationError(describeFailure(error, progress, lines));
    }
  }

  #key(request: FastifyRequest<KeyRequest>): DeviceKey {
    const { key } = request.params;
    switch (request.query.by) {
      case 'uuid':
        return { uuid: key };
      case 'number': {
        const [major = NaN, minor = NaN] = key.split(':').map(Number);
        return { major, minor };
      }
      default:
        return { name: key };
    }
  }

  #device(request: FastifyRequest<KeyRequest>): MappedDevice {
    return this.#registry.get(this.#key(request));
  }

  #targets(): TargetVersion[] {
    return this.#registry.targetTypes.map(({ name, version }) => ({
      name,
      version: [...version] as [number, number, number],
    }));
  }

  // --- listings

  #registerListings(app: FastifyInstance): void {
    app.get('/v1/devices', { schema: s.list }, () => this.#registry.devices.map(deviceInfo));
    app.get<{ Querystring: LinesQuery }>('/v1/status', { schema: s.allStatus }, (request) =>
      this.#run('status', () => this.#allLines('INFO', request.query)),
    );
    app.get<{ Querystring: LinesQuery }>('/v1/table', { schema: s.allTables }, (request) =>
      this.#run('table', () => this.#allLines('TABLE', request.query)),
    );
    app.get<KeyRequest>('/v1/devices/:key', { schema: s.info }, (request) =>
      this.#run('info', () => deviceInfo(this.#device(request))),
    );
    app.get<KeyRequest & { Querystring: LinesQuery }>(
      '/v1/devices/:key/status',
      { schema: s.status },
      (request) =>
        this.#run('status', () => this.#lines(this.#device(request), 'INFO', request.query)),
    );
    app.get<KeyRequest & { Querystring: LinesQuery }>(
      '/v1/devices/:key/table',
      { schema: s.table },
      (request) =>
        this.#run('table', () => this.#lines(this.#device(request), 'TABLE', request.query)),
    );
    app.get<KeyRequest>('/v1/devices/:key/uri', { schema: s.uri }, (request) =>
      this.#run('info', () => ({ uri: this.#context.uriOf(this.#device(request).dmName) })),
    );
  }

  async #lines(
    device: MappedDevice,
    kind: 'INFO' | 'TABLE',
    query: LinesQuery,
  ): Promise<DeviceLines> {
    const lines = await this.#registry.lines(device, kind, query);
    return { device: deviceInfo(device), lines };
  }

  async #allLines(kind: 'INFO' | 'TABLE', query: LinesQuery): Promise<DeviceLines[]> {
    const all: DeviceLines[] = [];
    for (const device of this.#registry.devices) all.push(await this.#lines(device, kind, query));
    return all;
  }

  // --- devices

  #registerDevices(app: FastifyInstance): void {
    app.post<{ Body: CreateBody }>('/v1/devices', { schema: s.create }, (request, reply) =>
      this.#run('create', async (progress) => {
        const device = await this.#create(request.body, progress);
        void reply.code(201);
        return deviceInfo(device);
      }),
    );
    app.delete<{ Querystring: { force?: boolean; deferred?: boolean } }>(
      '/v1/devices',
      { schema: s.removeAll },
      (request) => this.#run('remove', () => this.#removeAll(request.query)),
    );
    app.delete<KeyRequest & { Querystring: { force?: boolean; deferred?: boolean } }>(
      '/v1/devices/:key',
      { schema: s.remove },
      (request) =>
        this.#run('remove', async () => {
          const device = this.#device(request);
          if (request.query.force === true) await this.#registry.replaceByError(device);
          const deferred = request.query.deferred === true;
          return { removed: await this.#registry.remove(device, { deferred }) };
        }),
    );
    app.post<KeyRequest & { Body: { name?: string; uuid?: string } }>(
      '/v1/devices/:key/rename',
      { schema: s.rename },
      (request) =>
        this.#run('rename', () => {
          const device = this.#device(request);
          const { name, uuid } = request.body;
          if (uuid !== undefined) this.#registry.setUuid(device, uuid);
          if (name !== undefined) this.#registry.rename(device, name);
          return deviceInfo(device);
        }),
    );
    app.post<KeyRequest & { Body: { sector: number; message: string[] } }>(
      '/v1/devices/:key/message',
      { schema: s.message },
      (request) =>
        this.#run('message', async () => {
          const { sector, message } = request.body;
          const answer = await this.#registry.message(this.#device(request), sector, message);
          return { answer };
        }),
    );
    app.get<KeyRequest & { Querystring: { event?: number } }>(
      '/v1/devices/:key/wait',
      { schema: s.wait },
      (request) => this.#wait(request),
    );
  }

  /** As `dmsetup create`: create, load and resume; what fails undoes what was done. */
  async #create(
    body: CreateBody,
    progress: { op: Operation; number?: string },
  ): Promise<MappedDevice> {
    const lines = body.table === undefined ? [] : parseTable(body.table);
    if (body.minor !== undefined) progress.number = `${body.major ?? 254}:${body.minor}`;
    const device = this.#registry.create(body.name, body.uuid, body.minor);
    device.readAheadSectors = body.readAheadSectors ?? null;
    if (lines.length === 0) return device;
    progress.number = device.number;
    try {
      progress.op = 'reload';
      await this.#registry.load(device, lines, body);
      progress.op = 'resume';
      delete progress.number;
      await this.#registry.resume(device);
    } catch (error) {
      await this.#registry.remove(device);
      throw error;
    }
    return device;
  }

  /** Removes what is not in use, round after round until nothing more goes. */
  async #removeAll(options: { force?: boolean; deferred?: boolean }): Promise<{ kept: number }> {
    if (options.force === true) {
      for (const device of this.#registry.devices) await this.#registry.replaceByError(device);
    }
    for (let removed = true; removed;) {
      removed = false;
      for (const device of this.#registry.devices) {
        if (device.isRemoved || device.openCount > 0) continue;
        await this.#registry.remove(device);
        removed = true;
      }
    }
    const kept = this.#registry.devices;
    if (options.deferred === true) for (const device of kept) device.deferredRemove = true;
    return { kept: kept.length };
  }

  async #wait(
    request: FastifyRequest<KeyRequest & { Querystring: { event?: number } }>,
  ): Promise<unknown> {
    // Not within #run: lines of other requests, while this one waits, are not its own.
    let device: MappedDevice;
    try {
      device = this.#device(request);
    } catch (error) {
      throw new OperationError(describeFailure(error, { op: 'waitevent' }, []));
    }
    const gone = new AbortController();
    request.raw.once('close', () => gone.abort());
    await device.events.waitWhile(request.query.event ?? 0, gone.signal);
    return deviceInfo(device);
  }

  // --- tables and states

  #registerTables(app: FastifyInstance): void {
    app.put<KeyRequest & { Body: TableBody }>(
      '/v1/devices/:key/table',
      { schema: s.load },
      (request) =>
        this.#run('reload', async () => {
          const { table = '', ...options } = request.body;
          const device = this.#device(request);
          await this.#registry.load(device, parseTable(table), options);
          return deviceInfo(device);
        }),
    );
    app.delete<KeyRequest>('/v1/devices/:key/table', { schema: s.clear }, (request) =>
      this.#run('clear', async () => {
        const device = this.#device(request);
        await this.#registry.clear(device);
        return deviceInfo(device);
      }),
    );
    for (const op of ['suspend', 'resume'] as const) {
      app.post<KeyRequest & { Body: { noflush?: boolean } | undefined }>(
        `/v1/devices/:key/${op}`,
        { schema: s[op] },
        (request) =>
          this.#run(op, async () => {
            const device = this.#device(request);
            const noflush = request.body?.noflush === true;
            await this.#registry[op](device, { noflush });
            return deviceInfo(device);
          }),
      );
    }
  }
}

interface CreateBody extends TableBody {
  name: string;
  uuid?: string;
  major?: number;
  minor?: number;
  readAheadSectors?: number;
}

function describeFailure(
  error: unknown,
  progress: { op: Operation; number?: string },
  log: string[],
): ApiError {
  const { op, number } = progress;
  const common = { op, log, ...(number !== undefined && { number }) };
  if (error instanceof TableFormatError) {
    const { message, line } = error;
    return { ...common, errno: 'FORMAT', text: strerror('EINVAL'), message, line };
  }
  if (error instanceof DmError) {
    const errno: ErrnoName = error.errno;
    return { ...common, errno, text: strerror(errno), message: error.message };
  }
  throw error;
}
