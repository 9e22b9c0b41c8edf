#!/usr/bin/env node
// The program. In a clone it needs the build: npm run build.
import module from 'node:module';

const main = new URL('../dist/src/cli/main.js', import.meta.url);
module.enableCompileCache?.();
try {
  const { runMain } = await import(main);
  await runMain();
} catch (error) {
  if (error.code !== 'ERR_MODULE_NOT_FOUND' || error.url !== main.href) throw error;
  process.stderr.write('devmapper is not built yet; run: npm run build\n');
  process.exitCode = 70;
}
