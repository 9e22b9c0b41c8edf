#!/usr/bin/env node
// The program. In a clone it needs the build: npm run build.
import module from 'node:module';
import { existsSync } from 'node:fs';

const main = new URL('../dist/src/cli/main.js', import.meta.url);
if (!existsSync(main)) {
  process.stderr.write('devmapper is not built yet; run: npm run build\n');
  process.exit(70);
}
module.enableCompileCache?.();
const { runMain } = await import(main);
await runMain();
