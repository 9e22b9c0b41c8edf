/**
 * The part of the control API that loads and drops tables, suspends and resumes.
 */
import type { FastifyInstance } from 'fastify';
import { parseTable } from '../mapper/table-grammar.ts';
import { schemas as s } from './api-schemas.ts';
import { deviceInfo } from './device-info.ts';
import type { KeyRequest, Operations } from './operations.ts';

interface TableBody {
  table?: string;
  readOnly?: boolean;
  cwd?: string;
}

/** Registers the routes. */
export function registerTables(app: FastifyInstance, operations: Operations): void {
  const { registry } = operations;
  app.put<KeyRequest & { Body: TableBody }>(
    '/v1/devices/:key/table',
    { schema: s.load },
    (request) =>
      operations.run('reload', async () => {
        const { table = '', ...options } = request.body;
        const lines = parseTable(table);
        const device = operations.device(request);
        await registry.load(device, lines, options);
        return deviceInfo(device);
      }),
  );
  app.delete<KeyRequest>('/v1/devices/:key/table', { schema: s.clear }, (request) =>
    operations.run('clear', async () => {
      const device = operations.device(request);
      await registry.clear(device);
      return deviceInfo(device);
    }),
  );
  for (const op of ['suspend', 'resume'] as const) {
    app.post<KeyRequest & { Body: { noflush?: boolean } | undefined }>(
      `/v1/devices/:key/${op}`,
      { schema: s[op] },
      (request) =>
        operations.runUntilGone(op, request, async (signal) => {
          const device = operations.device(request);
          await registry[op](device, { noflush: request.body?.noflush === true, signal });
          return deviceInfo(device);
        }),
    );
  }
}
