/**
 * Fetches the newest thin-provisioning-tools as a judge for the tests, into the user's cache, once:
 * from crates with cargo, or else the package of a later Debian release from the mirror that this
 * machine uses. Without either the tests that compare with them are skipped.
 */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { hasProgram, outputOf } from './setup.js';

const cache = path.join(
  process.env.XDG_CACHE_HOME ?? path.join(os.homedir(), '.cache'),
  'devmapper-tests',
  'thin-provisioning-tools',
);

/** Debian releases that have the Rust tools and run on the libraries of the one before. */
const RELEASE = 'trixie';

function tools(dir) {
  return ['bin/pdata_tools', 'usr/sbin/pdata_tools']
    .map((file) => path.join(dir, file))
    .find((file) => fs.existsSync(file));
}

function withCargo() {
  if (!hasProgram('cargo')) return;
  const args = ['install', '--quiet', 'thin-provisioning-tools', '--root', cache];
  spawnSync('cargo', args, { stdio: 'ignore', timeout: 20 * 60_000 });
}

/** The base URL and keyring of the machine's own Debian mirror. */
function mirror() {
  const lists = ['/etc/apt/sources.list'];
  const dir = '/etc/apt/sources.list.d';
  if (fs.existsSync(dir)) lists.push(...fs.readdirSync(dir).map((name) => path.join(dir, name)));
  for (const file of lists.filter((name) => fs.existsSync(name))) {
    const text = fs.readFileSync(file, 'utf8');
    const url = /^(?:URIs:\s*|deb\s+(?:\[[^\]]*\]\s+)?)(\S+\/debian)\/?(?:\s|$)/m.exec(text)?.[1];
    if (url !== undefined) return url;
  }
  return null;
}

function withApt() {
  const url = hasProgram('apt-get') ? mirror() : null;
  if (url === null) return;
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'devmapper-apt-'));
  try {
    const state = path.join(dir, 'state');
    fs.mkdirSync(path.join(state, 'lists', 'partial'), { recursive: true });
    fs.mkdirSync(path.join(dir, 'cache', 'archives', 'partial'), { recursive: true });
    const signed = '[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]';
    fs.writeFileSync(path.join(dir, 'sources'), `deb ${signed} ${url} ${RELEASE} main\n`);
    fs.chmodSync(dir, 0o755);
    const options = [
      `Dir::Etc::sourcelist=${dir}/sources`,
      'Dir::Etc::sourceparts=-',
      `Dir::State=${state}`,
      `Dir::Cache=${dir}/cache`,
      'APT::Sandbox::User=root',
    ].flatMap((option) => ['-o', option]);
    const run = (...args) =>
      spawnSync('apt-get', [...options, ...args], { cwd: dir, stdio: 'ignore' }).status === 0;
    if (!run('update') || !run('download', 'thin-provisioning-tools')) return;
    const deb = fs.readdirSync(dir).find((name) => name.endsWith('.deb'));
    if (deb !== undefined) outputOf('dpkg', ['-x', path.join(dir, deb), cache]);
  } finally {
    fs.rmSync(dir, { recursive: true });
  }
}

/** The path of the newest pdata_tools, fetched if need be; null if it cannot be had. */
export function newestTools() {
  if (tools(cache) === undefined) withCargo();
  if (tools(cache) === undefined) withApt();
  return tools(cache) ?? null;
}
