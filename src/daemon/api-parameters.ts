/**
 * The part of the control API that answers to the parameters of kernel modules, by their names
 * there. They hold for the daemon's life and are read when they are needed.
 */
import type { FastifyInstance } from 'fastify';
import type { PoolTable } from '../thin/target/pool-table.ts';
import { schemas as s } from './api-schemas.ts';
import type { Parameters } from './api-types.ts';

/** Registers the routes. */
export function registerParameters(app: FastifyInstance, pools: PoolTable): void {
  const current = (): Parameters => ({ no_space_timeout: pools.noSpaceTimeoutSeconds });
  app.get('/v1/parameters', { schema: s.parameters }, current);
  app.put<{ Body: Partial<Parameters> }>(
    '/v1/parameters',
    { schema: s.setParameters },
    ({ body }) => {
      pools.noSpaceTimeoutSeconds = body.no_space_timeout ?? pools.noSpaceTimeoutSeconds;
      return current();
    },
  );
}
