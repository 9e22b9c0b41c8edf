/** The policies by name: mq, cleaner and default beside smq (spec: cache, 8 and 15.10). */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  makeLookupResult,
  WorkOp,
  type Policy,
  type PolicyOptions,
} from '../../../src/cache/policy/policy.ts';
import { createPolicy } from '../../../src/cache/policy/registry.ts';

let now = 0;
let warnings: string[] = [];

function make(name: string, options: Partial<PolicyOptions> = {}): Policy {
  now = 0;
  warnings = [];
  const policy = tryToMake(name, options);
  assert.ok(policy !== null);
  return policy;
}

function tryToMake(name: string, options: Partial<PolicyOptions> = {}): Policy | null {
  return createPolicy(name, {
    nrCacheBlocks: 64,
    blockSectors: 128,
    originSectors: 128 * 4096,
    jiffies: () => now,
    warn: (text) => warnings.push(text),
    ...options,
  });
}

test('a policy knows its name, version 2.0.0 and a hint of four bytes', () => {
  for (const name of ['smq', 'mq', 'cleaner']) {
    const policy = make(name);
    assert.equal(policy.name, name);
    assert.deepEqual(policy.version, [2, 0, 0]);
    assert.equal(policy.hintSize, 4);
  }
});

test('the default policy is smq, and says so', () => {
  assert.equal(make('default').name, 'smq');
});

test('names are case-sensitive; one that is not known is null and a line in the log', () => {
  for (const name of ['SMQ', 'Smq', 'nosuchpolicy', '', 'toString']) {
    warnings = [];
    assert.equal(tryToMake(name), null);
    assert.deepEqual(warnings, ['cache-policy: unknown policy type']);
  }
});

test('smq and cleaner have no tunables', () => {
  for (const name of ['smq', 'cleaner', 'default']) {
    const policy = make(name);
    assert.equal(policy.emitConfigValues(), '0');
    assert.equal(policy.setConfigValue('sequential_threshold', '5'), false);
    assert.equal(policy.setConfigValue('foo', '1'), false);
    assert.deepEqual(warnings, []);
  }
});

test('mq takes the old tunables, in any case, says that they do nothing, and shows them as 0', () => {
  const policy = make('mq');
  const tunables = [
    'sequential_threshold',
    'random_threshold',
    'Random_Threshold',
    'discard_promote_adjustment',
    'read_promote_adjustment',
    'write_promote_adjustment',
  ];
  for (const key of tunables) assert.ok(policy.setConfigValue(key, '10'));
  assert.deepEqual(
    warnings,
    tunables.map(
      (key) =>
        `cache-policy-smq: tunable '${key}' no longer has any effect, ` +
        'mq policy is now an alias for smq',
    ),
  );
  assert.equal(
    policy.emitConfigValues(),
    '10 random_threshold 0 sequential_threshold 0 discard_promote_adjustment 0 ' +
      'read_promote_adjustment 0 write_promote_adjustment 0',
  );
});

test('mq refuses other tunables, and what is no number, without a line in the log', () => {
  const policy = make('mq');
  for (const value of ['+5', '0', '18446744073709551615', '7\n']) {
    assert.ok(policy.setConfigValue('random_threshold', value), JSON.stringify(value));
  }
  warnings = [];
  for (const value of ['x', '', '-1', '0x10', '5 ', '18446744073709551616', '5\n\n']) {
    assert.equal(policy.setConfigValue('random_threshold', value), false, JSON.stringify(value));
  }
  assert.equal(policy.setConfigValue('migration_threshold', '5'), false);
  assert.deepEqual(warnings, []);
});

test('mq decides as smq does', () => {
  const [smq, mq] = [make('smq'), make('mq')];
  const [a, b] = [makeLookupResult(), makeLookupResult()];
  for (let i = 0; i < 500; i++) {
    now += 13;
    const oblock = (i * i) % 97;
    smq.lookupWithWork(oblock, i % 3 === 0, i % 2 === 0, a);
    mq.lookupWithWork(oblock, i % 3 === 0, i % 2 === 0, b);
    assert.deepEqual(b, a);
    if (a.work !== null) smq.completeBackgroundWork(a.work, true);
    if (b.work !== null) mq.completeBackgroundWork(b.work, true);
    smq.tick();
    mq.tick();
  }
  assert.ok(smq.residency > 10);
  for (let cblock = 0; cblock < 64; cblock++) {
    assert.equal(mq.getHint(cblock), smq.getHint(cblock));
  }
});

test('the cleaner promotes and demotes nothing, even if it were allowed to', () => {
  const policy = make('cleaner', { nrCacheBlocks: 8 });
  policy.allowMigrations(true);
  const out = makeLookupResult();
  policy.lookupWithWork(1, true, true, out);
  assert.equal(out.work, null);
  for (let cblock = 0; cblock < 8; cblock++) policy.loadMapping(cblock, cblock, false, 0);
  for (let i = 0; i < 300; i++) {
    now += 10;
    policy.lookup(100 + (i % 4), true, true, out);
    assert.equal(out.cblock, -1);
    assert.equal(policy.getBackgroundWork(true), null);
    policy.tick();
  }
});

test('the cleaner writes back while busy, but only what is ahead of the sentinels', () => {
  const policy = make('cleaner');
  for (let cblock = 0; cblock < 4; cblock++) policy.loadMapping(cblock, cblock, true, 7);
  policy.loadMapping(9, 9, false, 7);
  policy.setDirty(9); // To the tail: it was touched.
  const cleaned: number[] = [];
  for (;;) {
    const work = policy.getBackgroundWork(false);
    if (work === null) break;
    assert.equal(work.op, WorkOp.WRITEBACK);
    cleaned.push(work.cblock);
    policy.clearDirty(work.cblock);
    policy.completeBackgroundWork(work, true);
  }
  assert.deepEqual(cleaned, [3, 2, 1, 0]);
  assert.equal(policy.getBackgroundWork(true)?.cblock, 9, 'idle, everything');
});

test('the cleaner serves hits, and what they make dirty is written back again', () => {
  const policy = make('cleaner');
  policy.loadMapping(5, 0, false, null);
  const out = makeLookupResult();
  policy.lookup(5, true, false, out);
  assert.equal(out.cblock, 0);
  policy.setDirty(0);
  assert.equal(policy.getBackgroundWork(true)?.op, WorkOp.WRITEBACK);
});
