/**
 * `npm run lint`: types, lint rules, formatting.
 */
import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { root, setUp } from './setup.js';

setUp();
const bin = (name) => path.join(root, 'node_modules', '.bin', name);
const checks = [
  [bin('eslint'), ['.']],
  [bin('prettier'), ['--check', '--log-level', 'warn', '.']],
];
let failed = false;
for (const [command, args] of checks) {
  failed = spawnSync(command, args, { cwd: root, stdio: 'inherit' }).status !== 0 || failed;
}
process.exit(failed ? 1 : 0);
