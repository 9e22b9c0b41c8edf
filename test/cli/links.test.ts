/**
 * `devmapper links DIR`.
 */
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { devmapper } from '../helpers/daemon.ts';
import { run, scratchDir } from '../helpers/programs.ts';

test('each link is the program of its name', async () => {
  const { dir, remove } = scratchDir();
  try {
    const links = path.join(dir, 'new', 'bin');
    const { code, stdout } = await devmapper(['links', links]);
    assert.equal(code, 0);
    const names = stdout.trim().split('\n');
    assert.deepEqual(
      names.map((name) => path.basename(name)),
      ['dmsetup', 'thin_check', 'thin_dump', 'replay-log'],
    );
    for (const name of names.slice(1)) {
      const help = await run(name, ['--help']);
      assert.match(help.stdout, new RegExp(`^Usage: ${path.basename(name)} `, 'm'));
    }
    assert.match((await run(names[0] as string, ['help'])).stderr, /^Usage:\n\ndmsetup\n/);
    // Again: they are there.
    assert.equal((await devmapper(['links', links])).code, 0);
  } finally {
    remove();
  }
});

test('what is not ours is not replaced unless asked for, and then nothing is made', async () => {
  const { dir, remove } = scratchDir();
  try {
    fs.writeFileSync(path.join(dir, 'thin_dump'), 'mine');
    const refused = await devmapper(['links', dir]);
    assert.equal(refused.code, 1);
    assert.match(refused.stderr, /thin_dump: there already \(--force replaces\)/);
    assert.deepEqual(fs.readdirSync(dir), ['thin_dump']);
    assert.equal((await devmapper(['links', '--force', '--json', dir])).code, 0);
    assert.ok(fs.lstatSync(path.join(dir, 'thin_dump')).isSymbolicLink());
    assert.equal((await devmapper(['links'])).code, 2);
  } finally {
    remove();
  }
});
