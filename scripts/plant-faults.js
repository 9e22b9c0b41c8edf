/**
 * `npm run plant-faults [-- PATTERN...]`: plants each fault of planted-faults.js in a copy and runs
 * the tests that should notice it. Fails if a test file does not fail; a copy without a fault must
 * pass. The clone itself is not touched.
 */
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import ts from 'typescript';
import { faults } from './planted-faults.js';
import { root, setUp } from './setup.js';

const TIMEOUT_MS = 10 * 60_000;
const AT_ONCE = Math.max(1, Math.min(4, os.cpus().length));

setUp();

/** A copy of what the tests need, with the compiled file of `fault` changed. */
function makeCopy(dir, fault) {
  fs.mkdirSync(dir);
  fs.symlinkSync(path.join(root, 'node_modules'), path.join(dir, 'node_modules'));
  for (const name of ['package.json', 'bin', 'docs']) {
    fs.cpSync(path.join(root, name), path.join(dir, name), { recursive: true });
  }
  fs.cpSync(path.join(root, 'dist'), path.join(dir, 'dist'), {
    recursive: true,
    filter: (file) => !/\.(map|d\.ts|tsbuildinfo)$/.test(file),
  });
  if (fault !== null) plant(dir, fault);
}

function plant(dir, { name, file, from, to }) {
  const source = fs.readFileSync(path.join(root, file), 'utf8');
  if (source.split(from).length !== 2) {
    throw new Error(`${name}: wanted one place in ${file}, found ${source.split(from).length - 1}`);
  }
  const { outputText } = ts.transpileModule(source.replace(from, to), {
    compilerOptions: {
      target: ts.ScriptTarget.ES2023,
      module: ts.ModuleKind.ESNext,
      rewriteRelativeImportExtensions: true,
      verbatimModuleSyntax: true,
    },
  });
  fs.writeFileSync(path.join(dir, 'dist', file.replace(/\.ts$/, '.js')), outputText);
}

function testFiles(patterns) {
  const all = fs.readdirSync(path.join(root, 'dist', 'test'), { recursive: true });
  const files = all.filter(
    (file) => file.endsWith('.test.js') && patterns.some((pattern) => file.startsWith(pattern)),
  );
  return files.map((file) => path.join('dist', 'test', file));
}

/** Whether the test file passes in the copy. */
function passes(dir, file) {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, ['--test', file], {
      cwd: dir,
      stdio: 'ignore',
      timeout: TIMEOUT_MS,
      // A runner of tests inside a test would report to that.
      env: { ...process.env, NODE_TEST_CONTEXT: undefined },
    });
    child.on('exit', (code) => resolve(code === 0));
  });
}

/** What is wrong with how the tests met `fault`: lines, none if they all noticed. */
async function tryFault(base, index, fault) {
  const dir = path.join(base, String(index));
  makeCopy(dir, fault);
  const wrong = [];
  for (const pattern of fault.tests) {
    const files = testFiles([pattern]);
    const results = await Promise.all(files.map((file) => passes(dir, file)));
    if (results.every((passed) => passed)) wrong.push(pattern);
  }
  fs.rmSync(dir, { recursive: true });
  const verdict = wrong.length === 0 ? 'noticed by' : 'NOT NOTICED by';
  console.log(`${fault.name}: ${verdict} ${(wrong.length === 0 ? fault.tests : wrong).join(', ')}`);
  return wrong;
}

async function control(base) {
  const dir = path.join(base, 'control');
  makeCopy(dir, null);
  const files = testFiles([...new Set(chosen.flatMap(({ tests }) => tests))]);
  const failed = [];
  for (const file of files) if (!(await passes(dir, file))) failed.push(file);
  console.log(failed.length === 0 ? 'no fault: all pass' : `no fault: ${failed.join(', ')} fail`);
  return failed;
}

const patterns = process.argv.slice(2);
const chosen = faults.filter(
  ({ name }) => patterns.length === 0 || patterns.some((pattern) => name.includes(pattern)),
);
const base = fs.mkdtempSync(path.join(os.tmpdir(), 'devmapper-faults-'));
let nrWrong = 0;
try {
  nrWrong += (await control(base)).length;
  const queue = [...chosen.entries()];
  const work = async () => {
    for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
      nrWrong += (await tryFault(base, ...next)).length;
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
} finally {
  fs.rmSync(base, { recursive: true, force: true });
}
process.exit(nrWrong === 0 ? 0 : 1);
