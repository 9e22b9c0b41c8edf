/**
 * The part of the control API that only looks: devices, status and table lines, target types.
 */
import type { FastifyInstance } from 'fastify';
import type { MappedDevice } from '../mapper/mapped-device.ts';
import type { Registry } from '../mapper/registry.ts';
import type { StatusKind } from '../mapper/target.ts';
import { schemas as s } from './api-schemas.ts';
import type { DeviceLines, TargetVersion } from './api-types.ts';
import { deviceInfo } from './device-info.ts';
import type { KeyRequest, Operations } from './operations.ts';

interface LinesQuery {
  by?: 'name' | 'uuid' | 'number';
  noflush?: boolean;
  inactive?: boolean;
  target?: string;
}

/** Registers the routes. */
export function registerListings(
  app: FastifyInstance,
  operations: Operations,
  uriOf: (name: string) => string,
): void {
  const { registry } = operations;
  app.get('/v1/targets', { schema: s.targets }, () => targets(registry));
  app.get('/v1/devices', { schema: s.list }, () => registry.devices.map(deviceInfo));
  app.get<{ Querystring: LinesQuery }>('/v1/status', { schema: s.allStatus }, (request) =>
    operations.run('status', () => allLines(registry, 'INFO', request.query)),
  );
  app.get<{ Querystring: LinesQuery }>('/v1/table', { schema: s.allTables }, (request) =>
    operations.run('table', () => allLines(registry, 'TABLE', request.query)),
  );
  app.get<KeyRequest>('/v1/devices/:key', { schema: s.info }, (request) =>
    operations.run('info', () => deviceInfo(operations.device(request))),
  );
  app.get<KeyRequest & { Querystring: LinesQuery }>(
    '/v1/devices/:key/status',
    { schema: s.status },
    (request) =>
      operations.run('status', () =>
        lines(registry, operations.device(request), 'INFO', request.query),
      ),
  );
  app.get<KeyRequest & { Querystring: LinesQuery }>(
    '/v1/devices/:key/table',
    { schema: s.table },
    (request) =>
      operations.run('table', () =>
        lines(registry, operations.device(request), 'TABLE', request.query),
      ),
  );
  app.get<KeyRequest>('/v1/devices/:key/uri', { schema: s.uri }, (request) =>
    operations.run('info', () => ({ uri: uriOf(operations.device(request).dmName) })),
  );
}

function targets(registry: Registry): TargetVersion[] {
  return registry.targetTypes.map(({ name, version }) => ({
    name,
    version: [...version] as [number, number, number],
  }));
}

async function lines(
  registry: Registry,
  device: MappedDevice,
  kind: StatusKind,
  query: LinesQuery,
): Promise<DeviceLines> {
  const found = await registry.lines(device, kind, query);
  return { device: deviceInfo(device), lines: found };
}

async function allLines(
  registry: Registry,
  kind: StatusKind,
  query: LinesQuery,
): Promise<DeviceLines[]> {
  const all: DeviceLines[] = [];
  for (const device of registry.devices) all.push(await lines(registry, device, kind, query));
  return all;
}
