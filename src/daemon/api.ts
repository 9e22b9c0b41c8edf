/**
 * The control API: HTTP and JSON over a unix socket, one resource a mapped device. Its OpenAPI
 * document, made from the schemas here, is served at /openapi.json.
 *
 * A device is addressed by name in the path, or with `?by=uuid` or `?by=number` by these. What
 * fails answers with an ApiError. Paths in tables are relative to the `cwd` that a request gives.
 */
import fastifySwagger from '@fastify/swagger';
import { Ajv } from 'ajv';
import fastify, { type FastifyInstance } from 'fastify';
import { strerror } from '../base/errno.ts';
import type { Registry } from '../mapper/registry.ts';
import type { PoolTable } from '../thin/target/pool-table.ts';
import { registerAttachments } from './api-attachments.ts';
import { registerDevices } from './api-devices.ts';
import { registerListings } from './api-listings.ts';
import { schemas as s } from './api-schemas.ts';
import { registerParameters } from './api-parameters.ts';
import { registerTables } from './api-tables.ts';
import type { ApiError, VersionInfo } from './api-types.ts';
import type { Attachments } from './attach/attachments.ts';
import type { DaemonLog } from './daemon-log.ts';
import { OperationError, Operations } from './operations.ts';
import { packageVersion } from './version.ts';

/**
 * Larger requests end the connection. Well above what any operation takes, so that what is only too
 * large for one is told so.
 */
const BODY_BYTES_MAX = 16 * 1024 * 1024;

/** What the API needs of the daemon. */
export interface ApiContext {
  readonly registry: Registry;
  readonly pools: PoolTable;
  readonly log: DaemonLog;
  readonly attachments: Attachments;
  version(): VersionInfo;
  uriOf(name: string): string;
  /** Resolves when the devices of now are in the state directory. */
  settled(): Promise<void>;
  /** Ends the daemon after the answer has gone out. */
  stopSoon(): void;
}

/**
 * A property that we do not know is a mistake, not to be dropped in silence. A number in a path or
 * a query comes as text; in JSON, text where a number is wanted is a mistake, too.
 */
const jsonValidator = new Ajv({ allowUnionTypes: true });
const textValidator = new Ajv({ allowUnionTypes: true, coerceTypes: true });

/** Makes the API server; the caller listens with it. */
export async function makeApi(context: ApiContext): Promise<FastifyInstance> {
  const app = fastify({
    bodyLimit: BODY_BYTES_MAX,
    // The unix socket is the daemon's own; a `wait` may last for ever.
    requestTimeout: 0,
    connectionTimeout: 0,
    forceCloseConnections: true,
    routerOptions: { maxParamLength: 1024 },
  });
  app.removeContentTypeParser('text/plain');
  app.setValidatorCompiler(({ schema, httpPart }) => {
    return (httpPart === 'body' ? jsonValidator : textValidator).compile(schema);
  });
  await app.register(fastifySwagger, {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'devmapper',
        version: packageVersion(),
        description: 'Control API of the device mapper in user space',
      },
    },
  });
  app.setErrorHandler((error, _request, reply) => {
    if (error instanceof OperationError) return reply.code(error.statusCode).send(error.body);
    const { statusCode = 500, message } = error as { statusCode?: number; message: string };
    if (statusCode >= 500) context.log.pino.error(error);
    return reply.code(statusCode).send(failure(statusCode, message));
  });
  app.setNotFoundHandler((request, reply) => {
    const message = `no such resource: ${request.method} ${request.url}`;
    return reply.code(404).send(failure(404, message));
  });
  const operations = new Operations(context.registry, context.log, () => context.settled());
  await app.register((routes, _options, done) => {
    registerDaemon(routes, context);
    registerParameters(routes, context.pools);
    registerListings(routes, operations, (name) => context.uriOf(name));
    registerDevices(routes, operations);
    registerTables(routes, operations);
    registerAttachments(routes, operations, context.attachments);
    done();
  });
  return app;
}

/** A failure that is no operation's. */
function failure(statusCode: number, message: string): ApiError {
  const errno = statusCode >= 500 ? 'EIO' : 'EINVAL';
  return { op: '', errno, text: strerror(errno), message, log: [] };
}

function registerDaemon(app: FastifyInstance, context: ApiContext): void {
  app.get('/openapi.json', { schema: { hide: true } }, () => app.swagger());
  app.get('/v1/version', { schema: s.version }, () => context.version());
  app.post('/v1/stop', { schema: s.stop }, (_request, reply) => {
    context.stopSoon();
    return reply.code(204).send();
  });
}
