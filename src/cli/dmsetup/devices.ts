/**
 * dmsetup's commands that remove, rename, talk to and wait for devices (spec: dm-core, 7).
 */
import type { DeviceInfo } from '../../daemon/api-types.ts';
import { RequestError } from '../failures.ts';
import { CommandFailed, complain, fail, print } from '../output.ts';
import type { Context, Target } from './context.ts';
import { eachTarget, newName, oneTarget, verbose } from './helpers.ts';

/** `remove --retry`: so many tries, so far apart. */
const RETRIES = 25;
const RETRY_MS = 200;

/** `remove`. */
export async function remove(context: Context, args: readonly string[]): Promise<void> {
  const { options } = context;
  await eachTarget(context, args, async (device) => {
    const query = { force: options.has('force'), deferred: options.has('deferred') };
    const tries = options.has('retry') ? RETRIES : 1;
    for (let left = tries; left > 0; left--) {
      try {
        await context.call(device, 'DELETE', '', query);
        return;
      } catch (error) {
        const again = left > 1 && error instanceof CommandFailed && (await exists(context, device));
        if (!again) throw error;
        await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
      }
    }
  });
}

async function exists(context: Context, device: Target): Promise<boolean> {
  try {
    await context.request('GET', device.path, device.query);
    return true;
  } catch (error) {
    if (error instanceof RequestError) return false;
    throw error;
  }
}

/** `remove_all`. */
export async function removeAll(context: Context): Promise<void> {
  const force = context.options.has('force');
  const query = { force, deferred: context.options.has('deferred') };
  const { kept } = await context.request<{ kept: number }>('DELETE', '/v1/devices', query);
  if (force && kept > 0) fail(`Unable to remove ${kept} device(s).`);
}

/** `rename`. */
export async function rename(context: Context, args: readonly string[]): Promise<void> {
  const words = context.namedByOption ? args : args.slice(1);
  const [wanted] = words;
  if (wanted === undefined) fail('No device specified.');
  if (wanted === '') fail('Non empty new name is required.');
  if (context.options.has('setuuid')) {
    const uuid = context.mangling.stored(wanted, 'uuid');
    await renameTo(context, args, { uuid });
  } else {
    await renameTo(context, args, { name: newName(context, wanted, '') });
  }
}

async function renameTo(context: Context, args: readonly string[], body: object): Promise<void> {
  const [device] = await oneTarget(context, args, 'No device specified.');
  await context.call(device, 'POST', '/rename', {}, body);
}

/** `message`. */
export async function message(context: Context, args: readonly string[]): Promise<void> {
  const [device, rest] = await oneTarget(context, args, 'No device specified.');
  const [sectorText = '', ...words] = rest;
  if (!/^[+-]?[0-9]+$/.test(sectorText)) fail('Invalid sector.');
  if (words.length === 0) complain('No message supplied.');
  // As an unsigned number, a negative one is beyond every device.
  const number = Math.min(Math.abs(Number(sectorText)), Number.MAX_SAFE_INTEGER);
  const sector = sectorText.startsWith('-') && number > 0 ? Number.MAX_SAFE_INTEGER : number;
  const body = { sector, message: words.join(' ').split(/\s+/) };
  const { answer } = await context.call<{ answer: string }>(device, 'POST', '/message', {}, body);
  if (answer !== '') print(answer);
}

/** `wait`. */
export async function wait(context: Context, args: readonly string[]): Promise<void> {
  const [device, [eventText]] = await oneTarget(context, args, 'No device specified.');
  const event = Number.parseInt(eventText ?? '0', 10);
  const query = { event: Number.isNaN(event) ? 0 : event };
  await verbose(context, await context.call<DeviceInfo>(device, 'GET', '/wait', query));
}
