/**
 * MqPolicy: smq under the name of the policy that it replaced. It takes that one's tunables, which
 * no longer do anything. Answers to the policy type mq in drivers/md/dm-cache-policy-smq.c (spec:
 * cache, 8, 15.10).
 */
import { parseU64 } from '../../base/numbers.ts';
import type { PolicyOptions } from './policy.ts';
import { SmqPolicy } from './smq.ts';

/** In the order of the status line. */
const TUNABLES = [
  'random_threshold',
  'sequential_threshold',
  'discard_promote_adjustment',
  'read_promote_adjustment',
  'write_promote_adjustment',
];

export class MqPolicy extends SmqPolicy {
  readonly #warn: (text: string) => void;

  constructor(options: PolicyOptions) {
    super(options, { name: 'mq', isCleaner: false });
    this.#warn = options.warn;
  }

  override setConfigValue(key: string, value: string): boolean {
    if (!TUNABLES.includes(key.toLowerCase())) return false;
    // The kernel reads numbers that end in a newline.
    if (parseU64(value.replace(/\n$/, '')) === undefined) return false;
    this.#warn(
      `cache-policy-smq: tunable '${key}' no longer has any effect, ` +
        'mq policy is now an alias for smq',
    );
    return true;
  }

  override emitConfigValues(): string {
    return [2 * TUNABLES.length, ...TUNABLES.map((name) => `${name} 0`)].join(' ');
  }
}
