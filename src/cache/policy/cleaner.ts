/**
 * CleanerPolicy: writes everything dirty back and moves nothing in or out: for a cache that is to
 * be taken away. Answers to the policy type cleaner in drivers/md/dm-cache-policy-smq.c (spec:
 * cache, 15.10).
 */
import type { PolicyOptions } from './policy.ts';
import { SmqPolicy } from './smq.ts';

export class CleanerPolicy extends SmqPolicy {
  constructor(options: PolicyOptions) {
    super(options, { name: 'cleaner', isCleaner: true });
  }
}
