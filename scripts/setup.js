/**
 * Sets a clone up: installs what the lock file says and builds, each only if it is not done yet.
 * `npm start`, `npm test`, `npm run demo` and `npm run bench` begin with it; `npm run build` is it.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const at = (...parts) => path.join(root, ...parts);

const NODE_WANTED = [20, 19];

function checkNode() {
  const [major, minor] = process.versions.node.split('.').map(Number);
  const [wantedMajor, wantedMinor] = NODE_WANTED;
  if (major > wantedMajor || (major === wantedMajor && minor >= wantedMinor)) return;
  console.error(`devmapper wants Node ${NODE_WANTED.join('.')} or newer, found ${process.version}`);
  process.exit(1);
}

function mtime(file) {
  return fs.existsSync(file) ? fs.statSync(file).mtimeMs : 0;
}

function run(what, command, args) {
  const { status, error } = spawnSync(command, args, { cwd: root, stdio: ['ignore', 2, 2] });
  if (status === 0) return;
  console.error(`${what} failed${error ? `: ${error.message}` : ''}`);
  process.exit(status ?? 1);
}

function installModules() {
  if (mtime(at('node_modules', '.package-lock.json')) >= mtime(at('package-lock.json'))) return;
  console.error('Installing what package-lock.json says …');
  run('npm ci', 'npm', ['ci', '--no-audit', '--no-fund', '--loglevel=error']);
}

/** The newest change among the sources. */
function newestSource() {
  const files = ['tsconfig.json', 'package-lock.json'];
  for (const dir of ['src', 'test', 'bench']) {
    for (const entry of fs.readdirSync(at(dir), { recursive: true })) {
      if (entry.endsWith('.ts')) files.push(path.join(dir, entry));
    }
  }
  return Math.max(...files.map((file) => mtime(at(file))));
}

/** Compiled tests whose source is gone would still run. */
function removeStale() {
  if (!fs.existsSync(at('dist'))) return;
  for (const entry of fs.readdirSync(at('dist'), { recursive: true })) {
    if (!entry.endsWith('.js')) continue;
    if (fs.existsSync(at(entry.replace(/\.js$/, '.ts')))) continue;
    fs.rmSync(at('dist', entry));
  }
}

function build() {
  const stamp = at('dist', '.built');
  if (mtime(stamp) >= newestSource()) return;
  console.error('Building …');
  removeStale();
  run('The build', process.execPath, [at('node_modules', 'typescript', 'bin', 'tsc')]);
  fs.writeFileSync(stamp, '');
}

/** Brings the clone up to date. Ends the process if that fails. */
export function setUp() {
  checkNode();
  installModules();
  build();
}

/** Whether a program is on the PATH, or where Debian puts system programs. */
export function hasProgram(name) {
  const dirs = [...(process.env.PATH ?? '').split(':'), '/usr/sbin', '/sbin'];
  return dirs.some((dir) => dir !== '' && fs.existsSync(path.join(dir, name)));
}

/** The output of a program, or null if it failed. */
export function outputOf(command, args) {
  try {
    return execFileSync(command, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
  } catch {
    return null;
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) setUp();
