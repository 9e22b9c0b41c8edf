/**
 * `version`, `targets` and `target-version` (spec: dm-core, 7).
 */
import type { TargetVersion } from '../../daemon/api-types.ts';
import { DRIVER_VERSION, LIBRARY_VERSION } from '../../daemon/version.ts';
import { fail, print, printJson } from '../output.ts';
import type { Context } from './context.ts';

function showVersion({ name, version }: TargetVersion): string {
  return `${name.padEnd(16)} v${version.join('.')}`;
}

/** `targets`. */
export async function targets(context: Context): Promise<void> {
  const types = await context.request<TargetVersion[]>('GET', '/v1/targets');
  if (context.options.has('json')) printJson(types);
  else for (const type of types) print(showVersion(type));
}

/** `target-version`. */
export async function targetVersion(context: Context, args: readonly string[]): Promise<void> {
  const types = await context.request<TargetVersion[]>('GET', '/v1/targets');
  for (const name of args) {
    const type = types.find((candidate) => candidate.name === name);
    if (type !== undefined) print(showVersion(type));
    else fail(`device-mapper: target-version ioctl on ${name}  failed: Invalid argument`);
  }
}

/** `version`. */
export function printVersion(): void {
  print(`Library version:   ${LIBRARY_VERSION}`);
  print(`Driver version:    ${DRIVER_VERSION}`);
}
