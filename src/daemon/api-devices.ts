/**
 * The part of the control API that makes, removes, renames and talks to devices.
 */
import type { FastifyInstance } from 'fastify';
import { DmError } from '../base/error.ts';
import { parseGeometry } from '../mapper/geometry.ts';
import type { MappedDevice, SuspendOptions } from '../mapper/mapped-device.ts';
import type { Registry } from '../mapper/registry.ts';
import { parseTable, splitArgs } from '../mapper/table-grammar.ts';
import { schemas as s } from './api-schemas.ts';
import { deviceInfo } from './device-info.ts';
import { keyOf, type KeyRequest, type Operations, type Progress } from './operations.ts';

interface CreateBody {
  name: string;
  uuid?: string;
  minor?: number;
  readAhead?: { sectors: number; minimum?: boolean };
  table?: string;
  readOnly?: boolean;
  cwd?: string;
}

interface RemoveQuery {
  force?: boolean;
  deferred?: boolean;
}

/** Registers the routes. */
export function registerDevices(app: FastifyInstance, operations: Operations): void {
  const { registry } = operations;
  app.post<{ Body: CreateBody }>('/v1/devices', { schema: s.create }, (request, reply) =>
    operations.run('create', async (progress) => {
      const device = await create(registry, request.body, progress);
      void reply.code(201);
      return deviceInfo(device);
    }),
  );
  app.delete<{ Querystring: RemoveQuery }>('/v1/devices', { schema: s.removeAll }, (request) =>
    operations.runUntilGone('remove', request, (signal) =>
      removeAll(registry, request.query, { signal }),
    ),
  );
  app.delete<KeyRequest & { Querystring: RemoveQuery }>(
    '/v1/devices/:key',
    { schema: s.remove },
    (request) =>
      operations.runUntilGone('remove', request, async (signal) => {
        const device = operations.device(request);
        const { force, deferred } = request.query;
        if (force === true) await registry.replaceByError(device, { signal });
        return { removed: await registry.remove(device, { deferred: deferred === true }) };
      }),
  );
  app.post<KeyRequest & { Body: { name?: string; uuid?: string } }>(
    '/v1/devices/:key/rename',
    { schema: s.rename },
    (request) =>
      operations.run('rename', () => {
        const { name, uuid } = request.body;
        const device = registry.getToRename(keyOf(request), name ?? uuid ?? '');
        if (uuid !== undefined) registry.setUuid(device, uuid);
        if (name !== undefined) registry.rename(device, name);
        return deviceInfo(device);
      }),
  );
  app.post<KeyRequest & { Body: { sector: number; message: string | string[] } }>(
    '/v1/devices/:key/message',
    { schema: s.message },
    (request) =>
      operations.run('message', async () => {
        const { sector, message } = request.body;
        const words = typeof message === 'string' ? splitArgs(message) : message;
        return { answer: await registry.message(operations.device(request), sector, words) };
      }),
  );
  app.post<KeyRequest & { Body: { geometry: string } }>(
    '/v1/devices/:key/geometry',
    { schema: s.geometry },
    (request, reply) =>
      operations.run('setgeometry', async () => {
        const device = operations.device(request);
        device.geometry = parseGeometry(request.body.geometry, registry.log);
        await reply.code(204).send();
      }),
  );
  app.get<KeyRequest & { Querystring: { event?: number } }>(
    '/v1/devices/:key/wait',
    { schema: s.wait },
    (request) =>
      operations.runUntilGone('waitevent', request, async (signal) => {
        const device = operations.device(request);
        await device.events.waitWhile(request.query.event ?? 0, signal);
        return deviceInfo(device);
      }),
  );
}

/** As `dmsetup create`: create, load and resume; what fails undoes what was done. */
async function create(
  registry: Registry,
  body: CreateBody,
  progress: Progress,
): Promise<MappedDevice> {
  const lines = body.table === undefined ? [] : parseTable(body.table);
  const device = registry.create(body.name, body.uuid, body.minor);
  device.readAhead = body.readAhead ?? null;
  if (lines.length === 0) return device;
  progress.number = device.number;
  try {
    progress.op = 'reload';
    await registry.load(device, lines, body);
    progress.op = 'resume';
    delete progress.number;
    await registry.resume(device);
  } catch (error) {
    await registry.remove(device);
    throw error;
  }
  return device;
}

/** Removes what is not in use; with `force`, what is left is turned into errors and tried again. */
async function removeAll(
  registry: Registry,
  query: RemoveQuery,
  options: SuspendOptions,
): Promise<{ kept: number }> {
  await removeAllUnused(registry);
  if (query.force === true) {
    for (const device of registry.devices) await registry.replaceByError(device, options);
    await removeAllUnused(registry);
  }
  const kept = registry.devices;
  if (query.deferred === true) for (const device of kept) device.deferredRemove = true;
  return { kept: kept.length };
}

/** Round after round, until nothing more goes. */
async function removeAllUnused(registry: Registry): Promise<void> {
  for (let removed = true; removed;) {
    removed = false;
    for (const device of registry.devices) {
      removed = (await removeUnused(registry, device)) || removed;
    }
  }
}

async function removeUnused(registry: Registry, device: MappedDevice): Promise<boolean> {
  if (device.isRemoved || device.openCount > 0) return false;
  try {
    return await registry.remove(device);
  } catch (error) {
    // Opened, or removed, since we looked.
    if (error instanceof DmError && ['EBUSY', 'ENXIO'].includes(error.errno)) return false;
    throw error;
  }
}
