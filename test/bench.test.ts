/**
 * The benchmarks, small: so that they cannot rot. What they measure here means nothing.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatCache, runCache, smokeCache } from '../bench/cache.bench.ts';
import { formatStart, runStart, smokeStart } from '../bench/cli-start.bench.ts';
import { format, run, smoke } from '../bench/nbd.bench.ts';
import { servers } from '../bench/servers.ts';
import { formatPolicy, measurePolicy } from '../bench/policy.bench.ts';
import { measureWorker } from '../bench/worker.bench.ts';
import { skipWithout } from './helpers/programs.ts';

const skip = skipWithout('fio', 'nbdkit', 'qemu-nbd', 'qemu-img');

test('the benchmark over NBD measures every server in every row', { skip }, async () => {
  const lines: string[] = [];
  const rows = await run(smoke, (row) => lines.push(format(row)));
  assert.equal(rows.length, smoke.states.length * smoke.patterns.length);
  assert.equal(lines.length, rows.length);
  for (const { iops } of rows) {
    assert.equal(iops.size, servers.length);
    for (const [name, rate] of iops) assert.ok(rate > 0, `${name}: ${rate}`);
  }
});

test('the benchmark of caches measures every row', { skip }, async () => {
  const lines: string[] = [];
  const rows = await runCache(smokeCache, (row) => lines.push(formatCache(row)));
  assert.equal(rows.length, 4);
  assert.equal(lines.length, 4);
  for (const { iops } of rows) {
    assert.ok(iops.size >= 3);
    for (const [name, rate] of iops) assert.ok(rate > 0, `${name}: ${rate}`);
  }
});

test('the benchmark of commands measures each of them beside a bare Node', () => {
  const rows = runStart(smokeStart);
  assert.ok(rows.length > 3);
  for (const row of rows) {
    assert.ok(row.ms > 0 && row.ratio > 0, formatStart(row));
    assert.match(formatStart(row), /^\| devmapper \S.* \| \d+ \| \d+\.\d\d \|$/);
  }
});

test('the benchmark of the worker measures all three states', async () => {
  const { idle, busy, needlesslyWoken } = await measureWorker(5000);
  for (const rate of [idle, busy, needlesslyWoken]) assert.ok(rate > 0);
});

test('the benchmark of the policy measures hits, misses and the index', () => {
  const figures = measurePolicy(1000, 1);
  const { hits, firstHits, misses, indexFinds, mapFinds } = figures;
  for (const rate of [hits, firstHits, misses, indexFinds, mapFinds]) assert.ok(rate > 0);
  assert.match(formatPolicy([figures]), /^\| 1000 \|/m);
});
