/**
 * `npm test [-- PATTERN...]`: sets up, sees to the programs that tests run beside us, and runs the tests
 * whose path contains one of the patterns (all, without any).
 */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { newestTools } from './newest-tools.js';
import { ensurePrograms } from './programs.js';
import { root, setUp } from './setup.js';

/**
 * Tests that compare our timing with a kernel's: they run before all others and by themselves, so that
 * neither side waits for a processor.
 */
const ALONE = ['kernel/cache-policy.test.js'];
/** Longest time for one test file. */
const FILE_TIMEOUT_MS = 40 * 60_000;

setUp();
const missing = ensurePrograms();
if (missing.length > 0) console.error(`Tests that need ${missing.join(', ')} will be skipped.`);
const tools = newestTools();

const patterns = process.argv.slice(2);
const tests = fs
  .readdirSync(path.join(root, 'dist', 'test'), { recursive: true })
  .filter((file) => file.endsWith('.test.js'))
  .map((file) => path.join('dist', 'test', file))
  .filter((file) => patterns.length === 0 || patterns.some((pattern) => file.includes(pattern)))
  .sort();
if (tests.length === 0) {
  console.error(`No test file matches ${patterns.join(', ')}`);
  process.exit(1);
}
const isAlone = (file) => ALONE.some((each) => file.endsWith(path.normalize(each)));
const phases = [
  { files: tests.filter(isAlone), concurrency: 1 },
  { files: tests.filter((file) => !isAlone(file)), concurrency: 2 },
];
let failed = false;
for (const { files, concurrency } of phases) {
  if (files.length > 0 && run(files, concurrency) !== 0) failed = true;
}
process.exit(failed ? 1 : 0);

/** Runs test files; returns the exit code. */
function run(files, concurrency) {
  const { status } = spawnSync(
    process.execPath,
    [
      '--test',
      `--test-concurrency=${concurrency}`,
      `--test-timeout=${FILE_TIMEOUT_MS}`,
      '--test-reporter=spec',
      ...files,
    ],
    {
      cwd: root,
      stdio: 'inherit',
      env: { ...process.env, ...(tools !== null && { DM_NEWEST_TOOLS: tools }) },
    },
  );
  return status ?? 1;
}
