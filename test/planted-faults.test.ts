/**
 * The tests can fail: each fault that scripts/planted-faults.js plants in a copy of the code is
 * noticed by the tests that should notice it, and a copy without a fault is not.
 */
import assert from 'node:assert/strict';
import path from 'node:path';
import { test } from 'node:test';
import { repoRoot } from './helpers/kernel.ts';
import { run } from './helpers/programs.ts';

test('every planted fault is noticed', { timeout: 15 * 60_000 }, async () => {
  const script = path.join(repoRoot, 'scripts', 'plant-faults.js');
  const { code, stdout, stderr } = await run(process.execPath, [script]);
  assert.equal(code, 0, stdout + stderr);
  assert.match(stdout, /^no fault: all pass$/m);
  assert.ok([...stdout.matchAll(/: noticed by /g)].length >= 10, stdout);
});
