/**
 * Every script in kernel/transcripts/scripts prints here what it prints in the real kernel with the
 * real dmsetup: output, errors, exit codes and the kernel's log lines.
 */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { writeImages } from '../kernel/images.ts';
import { expected, runBoth, show, withoutOwnReasons } from './compare.ts';
import { repoRoot, skipWithoutKernel } from './kernel.ts';
import { scratchDir, skipWithout } from './programs.ts';

const scripts = path.join(repoRoot, 'test', 'kernel', 'transcripts', 'scripts');
const differences = path.join(repoRoot, 'docs', 'differences.md');

function headings(): string[] {
  const text = fs.readFileSync(differences, 'utf8');
  return [...text.matchAll(/^### (.*)$/gm)].map(([, heading = '']) => heading);
}

const skip = skipWithoutKernel() || skipWithout('thin_check', 'thin_dump');

/** What scripts are about: the first word of their names, or none of these. */
const ABOUT = ['cache', 'thin'] as const;

/** A test for each script about `subject`. */
export function testScripts(subject: (typeof ABOUT)[number] | 'core'): void {
  for (const file of fs.readdirSync(scripts).sort()) {
    const name = file.replace(/\.sh$/, '');
    const about = ABOUT.find((each) => name.startsWith(`${each}-`)) ?? 'core';
    if (about !== subject) continue;
    test(`the script ${name} prints what it prints in the kernel`, { skip }, () => compare(file));
  }
}

async function compare(file: string): Promise<void> {
  const script = fs.readFileSync(path.join(scripts, file), 'utf8');
  const { dir, remove } = scratchDir();
  try {
    const files = path.join(dir, 'images');
    if (script.includes('$I/')) {
      fs.mkdirSync(files);
      await writeImages(files);
    }
    const { kernel, here } = await runBoth(script, { dir, files });
    assert.ok(kernel.length > 0, 'the script has steps');
    assert.equal(here.length, kernel.length, 'both sides took the same steps');
    for (const [i, step] of kernel.entries()) {
      const wanted = show(expected(step));
      const found = show(withoutOwnReasons(here[i] ?? step));
      if (step.difference === null) {
        assert.deepEqual(found, wanted);
      } else {
        assert.ok(headings().includes(step.difference), `${step.difference} is documented`);
        assert.notDeepEqual(found, wanted, `${step.command} still differs`);
      }
    }
  } finally {
    remove();
  }
}
