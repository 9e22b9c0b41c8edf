/**
 * The part of the control API that gives devices block devices and files of their own.
 */
import type { FastifyInstance } from 'fastify';
import { schemas as s } from './api-schemas.ts';
import type { AttachmentInfo } from './api-types.ts';
import type { AttachOptions, Attachments } from './attach/attachments.ts';
import type { KeyRequest, Operations } from './operations.ts';

/** Registers the routes. */
export function registerAttachments(
  app: FastifyInstance,
  operations: Operations,
  attachments: Attachments,
): void {
  const { registry } = operations;
  app.get('/v1/attachments', { schema: s.attachments }, (): AttachmentInfo[] => [
    ...registry.devices.flatMap((device) => {
      const found = attachments.of(device);
      return found === null ? [] : [{ name: device.dmName, ...found }];
    }),
    ...attachments.files.map((file) => ({ ...file, via: 'file' as const })),
  ]);
  app.post<KeyRequest & { Body: AttachOptions }>(
    '/v1/devices/:key/attach',
    { schema: s.attach },
    (request): Promise<AttachmentInfo> =>
      operations.run('attach', async () => {
        const device = operations.device(request);
        const found = await attachments.attach(device, request.body);
        return { name: device.dmName, ...found };
      }),
  );
  app.delete<KeyRequest>('/v1/devices/:key/attach', { schema: s.detach }, (request, reply) =>
    operations.run('detach', async () => {
      await attachments.detach(operations.device(request));
      await reply.code(204).send();
    }),
  );
  app.post<KeyRequest & { Body: { path: string } }>(
    '/v1/devices/:key/mount',
    { schema: s.mount },
    (request): Promise<AttachmentInfo> =>
      operations.run('mount', async () => {
        const device = operations.device(request);
        const { path } = request.body;
        await attachments.mount(device, path);
        return { name: device.dmName, path, via: 'file' };
      }),
  );
  app.post<{ Body: { path: string } }>('/v1/unmount', { schema: s.unmount }, (request, reply) =>
    operations.run('unmount', async () => {
      await attachments.unmount(request.body.path);
      await reply.code(204).send();
    }),
  );
}
