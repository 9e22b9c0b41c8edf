/**
 * The shape of the tree: who imports whom, how long lines and files are, what must not be left
 * behind.
 */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { repoRoot } from './helpers/kernel.ts';

/** Which rooms a room may import from, besides itself. An import only ever points down. */
const mayImport: Record<string, readonly string[]> = {
  base: [],
  block: ['base'],
  'persistent-data': ['base', 'block'],
  mapper: ['base', 'block'],
  'thin/metadata': ['base', 'block', 'persistent-data'],
  'thin/target': ['base', 'block', 'persistent-data', 'mapper', 'thin/metadata'],
  'thin/tools': ['base', 'block', 'persistent-data', 'thin/metadata'],
  'cache/metadata': ['base', 'block', 'persistent-data'],
  'cache/policy': ['base'],
  'cache/target': ['base', 'block', 'persistent-data', 'mapper', 'cache/metadata', 'cache/policy'],
  'cache/tools': ['base', 'block', 'persistent-data', 'cache/metadata'],
  nbd: ['base', 'block'],
  daemon: ['base', 'block', 'mapper', 'thin/target', 'thin/tools', 'cache/target', 'nbd'],
  // The commands speak to the daemon over its API; the tools they run themselves.
  cli: ['base', 'block', 'daemon', 'thin/tools'],
};

const COLUMNS_MAX = 100;
/** A file longer than this needs a reason; see `longFiles`. */
const FILE_LINES_MAX = 400;
/** Files that may be longer, and why. */
const longFiles: Record<string, string> = {
  'src/thin/metadata/pool-metadata.ts': 'every operation on one noun, the pool metadata',
};

function files(dir: string, ending: string): string[] {
  return fs
    .readdirSync(path.join(repoRoot, dir), { recursive: true })
    .map((file) => path.join(dir, String(file)))
    .filter((file) => file.endsWith(ending));
}

const sources = files('src', '.ts');
const all = [...sources, ...files('test', '.ts'), ...files('bench', '.ts')];
const text = (file: string): string => fs.readFileSync(path.join(repoRoot, file), 'utf8');

function roomOf(file: string): string {
  const parts = path.dirname(file).split(path.sep).slice(1);
  const [first = '', second] = parts;
  return (first === 'thin' || first === 'cache') && second !== undefined
    ? `${first}/${second}`
    : first;
}

test('imports only ever point down', () => {
  const wrong: string[] = [];
  for (const file of sources) {
    const room = roomOf(file);
    if (room === '') continue; // The package's door.
    const allowed = mayImport[room];
    assert.ok(allowed !== undefined, `${file} is in a room that ARCHITECTURE.md knows`);
    for (const [, target = ''] of text(file).matchAll(/(?:from|import\()\s*'(\.[^']+)'/g)) {
      const other = roomOf(path.join(path.dirname(file), target));
      if (other !== room && !allowed.includes(other)) wrong.push(`${file} imports ${target}`);
    }
  }
  assert.deepEqual(wrong, []);
});

test('every relative import names a .ts file', () => {
  const wrong = all.filter((file) => /from '\.[^']*(?<!\.ts)'/.test(text(file)));
  assert.deepEqual(wrong, []);
});

test(`no line is longer than ${COLUMNS_MAX} columns`, () => {
  const wrong: string[] = [];
  for (const file of all) {
    if (/(usage|command-help)\.ts$/.test(file)) continue; // dmsetup's own text.
    for (const [i, line] of text(file).split('\n').entries()) {
      // A test's name is a sentence, on one line; so is a long string.
      if (/^ *(test\(|(name: )?['`/].*['`/],?$)/.test(line)) continue;
      if ([...line].length > COLUMNS_MAX) wrong.push(`${file}:${i + 1}`);
    }
  }
  assert.deepEqual(wrong, []);
});

test('files stay short, or say why not', () => {
  const wrong = sources.filter(
    (file) => text(file).split('\n').length > FILE_LINES_MAX && !(file in longFiles),
  );
  assert.deepEqual(wrong, []);
});

test('every source file opens with what it is for', () => {
  assert.deepEqual(
    sources.filter((file) => !text(file).startsWith('/**')),
    [],
  );
});

test('nothing is left behind: .only, debugger, commented-out code, unnumbered TODOs', () => {
  const wrong = all.filter((file) => {
    if (file === path.join('test', 'tidy.test.ts')) return false; // It names what it looks for.
    const body = text(file);
    return (
      /\.only\(/.test(body) ||
      /^\s*debugger;/m.test(body) ||
      /^\s*\/\/ .*;$/m.test(body) ||
      /TODO(?!\(#\d+\))/.test(body)
    );
  });
  assert.deepEqual(wrong, []);
});

test('exported functions are documented', () => {
  const wrong: string[] = [];
  for (const file of sources) {
    const lines = text(file).split('\n');
    for (const [i, line] of lines.entries()) {
      if (!/^export (async )?function/.test(line)) continue;
      const before = lines[i - 1] ?? '';
      if (!/\*\/\s*$/.test(before)) wrong.push(`${file}:${i + 1}`);
    }
  }
  assert.deepEqual(wrong, []);
});
