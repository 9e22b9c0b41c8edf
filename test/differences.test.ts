/**
 * docs/differences.md names for each difference the test that shows it; here is looked whether
 * those tests are there.
 */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { repoRoot } from './helpers/kernel.ts';

interface Named {
  /** Path in test/, without its ending. */
  readonly file: string;
  /** The scripts of kernel/transcripts, or test names. */
  readonly scripts: readonly string[];
  readonly tests: readonly string[];
}

/** The folder of the scripts that run on both sides. */
const TRANSCRIPTS = 'kernel/transcripts';

interface Difference {
  readonly heading: string;
  readonly named: readonly Named[];
}

/** Of `the script `a``, and of `the scripts `a` and `b``. */
function scriptsIn(text: string): string[] {
  const [, list = ''] = /the scripts? ((?:`[^`]+`(?:, | and )?)+)/.exec(text) ?? [];
  return [...list.matchAll(/`([^`]+)`/g)].map(([, name = '']) => name);
}

/** What a `*Test:*` paragraph names: `` `file`: a test; another; `file`, the script `name` ``. */
function parseNamed(paragraph: string): Named[] {
  const text = paragraph.replaceAll(/\s+/g, ' ').replaceAll(/ \([^)]*\)/g, '');
  const parts = text.split(/(?=`[a-z-]+\/[a-z/-]+`)/).slice(1);
  return parts.map((part) => {
    const [, file = '', rest = ''] = /^`([^`]+)`(.*)$/.exec(part) ?? [];
    const isList = rest.startsWith(': ');
    const names = rest.replace(/^: /, '').split('; ');
    return {
      file,
      scripts: scriptsIn(rest),
      tests: isList ? names.map((name) => name.replace(/[.;,]?\s*$/, '')).filter(Boolean) : [],
    };
  });
}

function differences(): Difference[] {
  const text = fs.readFileSync(path.join(repoRoot, 'docs', 'differences.md'), 'utf8');
  return text
    .split(/^### /m)
    .slice(1)
    .map((section) => {
      const heading = section.slice(0, section.indexOf('\n'));
      const paragraph = /^\*Test:\*([^]*?)(?=\n\n|\n\*|\n#|$(?![^]))/m.exec(section)?.[1] ?? '';
      return { heading, named: parseNamed(paragraph) };
    });
}

const escaped = (text: string): string => text.replaceAll(/[.*+?^${}()|[\]\\]/g, '\\$&');

/** The names of a file's tests, as patterns: what is filled in may be anything. */
function testNames(file: string): RegExp[] {
  const source = fs.readFileSync(path.join(repoRoot, 'test', `${file}.test.ts`), 'utf8');
  const found = source.matchAll(/\btest\(\s*(['"`])((?:\\.|(?!\1)[^\\])*)\1/g);
  return [...found].map(([, , name = '']) => {
    const plain = name.replaceAll(/\\(.)/g, '$1').split(/\$\{[^}]*\}/);
    return new RegExp(`^${plain.map((part) => escaped(part)).join('.*')}$`);
  });
}

for (const { heading, named } of differences()) {
  if (named.length === 0) continue;
  test(`the tests of the difference "${heading}" are there`, () => {
    for (const { file, scripts, tests } of named) {
      if (file === TRANSCRIPTS) {
        for (const name of scripts) {
          const script = path.join(repoRoot, 'test', TRANSCRIPTS, 'scripts', `${name}.sh`);
          assert.ok(fs.existsSync(script), `there is a script ${name}`);
        }
        continue;
      }
      const source = path.join(repoRoot, 'test', `${file}.test.ts`);
      assert.ok(fs.existsSync(source), `${file} is a test`);
      const names = testNames(file);
      for (const wanted of tests) {
        assert.ok(
          names.some((name) => name.test(wanted)),
          `${file} has the test "${wanted}"`,
        );
      }
    }
  });
}
