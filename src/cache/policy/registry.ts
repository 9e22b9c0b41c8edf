/**
 * The policies by name. Answers to drivers/md/dm-cache-policy.c (spec: cache, 8, 15.10).
 */
import { CleanerPolicy } from './cleaner.ts';
import { MqPolicy } from './mq.ts';
import type { Policy, PolicyOptions } from './policy.ts';
import { SmqPolicy } from './smq.ts';

/** `default` shows itself as smq from then on. */
const policies: ReadonlyMap<string, (options: PolicyOptions) => Policy> = new Map([
  ['smq', (options) => new SmqPolicy(options)],
  ['mq', (options) => new MqPolicy(options)],
  ['cleaner', (options) => new CleanerPolicy(options)],
  ['default', (options) => new SmqPolicy(options)],
]);

/** Makes a policy; null, and a line in the log, for a name that is not known. Case matters. */
export function createPolicy(name: string, options: PolicyOptions): Policy | null {
  const make = policies.get(name);
  if (make !== undefined) return make(options);
  options.warn('cache-policy: unknown policy type');
  return null;
}
