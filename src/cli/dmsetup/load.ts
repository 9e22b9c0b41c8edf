/**
 * `load`: a table for a device that there is (spec: dm-core, 3 and 7).
 */
import type { DeviceInfo } from '../../daemon/api-types.ts';
import { fail } from '../output.ts';
import type { Context } from './context.ts';
import { oneTarget, verbose } from './helpers.ts';
import { readTable, tableFailure, workingDir } from './table-text.ts';

/** `load` and `reload`. */
export async function load(context: Context, args: readonly string[]): Promise<void> {
  if (context.options.has('notable')) fail('--notable only available when creating new device.');
  const [device, [file]] = await oneTarget(context, args, 'Please specify device.');
  const { text, source } = readTable(context, file);
  const body = { table: text, readOnly: context.options.has('readonly'), cwd: workingDir() };
  try {
    const info = await context.request<DeviceInfo>(
      'PUT',
      `${device.path}/table`,
      device.query,
      body,
    );
    await verbose(context, info);
  } catch (error) {
    throw tableFailure(context, error, device, source);
  }
}
