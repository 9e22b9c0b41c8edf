/**
 * `npm run simulate -- --seed N --steps M`: sets up, and runs the power-cut simulation; see
 * test/crash/simulate.ts and `--help`.
 */
import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { root, setUp } from './setup.js';

setUp();
const program = path.join(root, 'dist', 'test', 'crash', 'simulate.js');
const { status } = spawnSync(process.execPath, [program, ...process.argv.slice(2)], {
  stdio: 'inherit',
});
process.exit(status ?? 1);
