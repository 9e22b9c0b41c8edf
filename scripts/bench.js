/**
 * `npm run bench`: sets up, sees to the peers, runs the benchmarks.
 */
import { ensurePrograms } from './programs.js';
import { setUp } from './setup.js';

setUp();
const missing = ensurePrograms(['fio', 'nbdkit', 'qemu-nbd', 'qemu-img']);
if (missing.length > 0) {
  console.error(`The benchmarks need ${missing.join(', ')}.`);
  process.exit(1);
}
await import('../dist/bench/main.js');
