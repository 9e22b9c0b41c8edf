/**
 * dmsetup's commands that remove, rename, talk to and wait for devices (spec: dm-core, 7).
 */
import type { DeviceInfo } from '../../daemon/api-types.ts';
import { RequestError } from '../failures.ts';
import { CommandFailed, complain, fail, print } from '../output.ts';
import { NAME_BYTES_MAX, UUID_BYTES_MAX, type Context, type Target } from './context.ts';
import { allDevices, eachTarget, namesNone, oneTarget, verbose } from './helpers.ts';
import { addNode, withoutNode, withoutNodes } from './nodes.ts';
import { strtou32, strtoull } from './numbers.ts';

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
        await withoutNode(context, device, () => context.call(device, 'DELETE', '', query));
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
  await withoutNodes(context, async () => {
    const { kept } = await context.request<{ kept: number }>('DELETE', '/v1/devices', query);
    if (force && kept > 0) fail(`Unable to remove ${kept} device(s).`);
  });
}

/** `rename`. */
export async function rename(context: Context, args: readonly string[]): Promise<void> {
  const words = context.namedByOption ? args : args.slice(1);
  const [wanted] = words;
  if (wanted === undefined) fail('No device specified.');
  if (context.options.has('setuuid')) {
    await renameTo(context, args, { uuid: newUuid(context, wanted) });
  } else {
    await renameTo(context, args, { name: changedName(context, wanted) });
  }
}

/** As `newName`, in the words that dmsetup has for a change of name. */
function changedName(context: Context, name: string): string {
  if (name === '') fail('Non empty new name is required.');
  if (name.includes('/')) fail(`Name "${name}" invalid. It contains "/".`);
  if (Buffer.byteLength(name) > NAME_BYTES_MAX) fail(`Name "${name}" too long`);
  return context.mangling.stored(name, 'newName');
}

function newUuid(context: Context, uuid: string): string {
  if (Buffer.byteLength(uuid) > UUID_BYTES_MAX) fail(`Uuid "${uuid}" too long`);
  return context.mangling.stored(uuid, 'newUuid');
}

async function renameTo(context: Context, args: readonly string[], body: object): Promise<void> {
  const [device] = await oneTarget(context, args, 'No device specified.');
  await addNode(context, await context.call<DeviceInfo>(device, 'POST', '/rename', {}, body));
}

/** `message`. */
export async function message(context: Context, args: readonly string[]): Promise<void> {
  const [device, rest] = await oneTarget(context, args, 'No device specified.');
  const [sectorText = '', ...words] = rest;
  const number = strtoull(sectorText);
  if (number === undefined) fail('Invalid sector.');
  if (words.length === 0) complain('No message supplied.');
  // What is larger is beyond every device just as well.
  const sector = Math.min(Number(number), Number.MAX_SAFE_INTEGER);
  const body = { sector, message: words.join(' ') };
  const { answer } = await context.call<{ answer: string }>(device, 'POST', '/message', {}, body);
  if (answer !== '') print(answer);
}

/** `setgeometry`. */
export async function setGeometry(context: Context, args: readonly string[]): Promise<void> {
  const [device, words] = await oneTarget(context, args, 'No device specified.');
  // Of five words the first is a name, also where an option names the device.
  const geometry = words.slice(-4).join(' ');
  await context.call(device, 'POST', '/geometry', {}, { geometry });
}

/** `wait`. */
export async function wait(context: Context, args: readonly string[]): Promise<void> {
  const [device, [eventText]] = await oneTarget(context, args, 'No device specified.');
  const query = { event: strtou32(eventText ?? '0') };
  await verbose(context, await context.call<DeviceInfo>(device, 'GET', '/wait', query));
}

/**
 * `mknodes`: where nodes are wanted (see nodes.ts), gives them to all devices, or to those named;
 * else it looks at the names only.
 */
export async function mknodes(context: Context, args: readonly string[]): Promise<void> {
  const all = namesNone(context, args) ? await allDevices(context) : [];
  for (const device of all) await addNode(context, device);
  if (context.namedByOption) return;
  for (const name of args) {
    const { path, query } = await context.targetByName(name);
    try {
      await addNode(context, await context.request<DeviceInfo>('GET', path, query));
    } catch (error) {
      // As for dmsetup, no such device is no failure.
      if (!(error instanceof RequestError)) throw error;
    }
  }
}
