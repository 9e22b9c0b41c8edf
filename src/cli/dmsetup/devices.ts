/**
 * dmsetup's commands that make, remove, rename and talk to devices (spec: dm-core, 7).
 */
import type { DeviceInfo } from '../../daemon/api-types.ts';
import { RequestError } from '../client.ts';
import { CommandFailed, complain, print } from '../output.ts';
import type { Context, Target } from './context.ts';
import {
  checkName,
  eachTarget,
  fail,
  oneTarget,
  readTable,
  tableFailure,
  verbose,
} from './helpers.ts';

/** `remove --retry`: so many tries, so far apart. */
const RETRIES = 25;
const RETRY_MS = 200;

/** `create`. */
export async function create(context: Context, args: readonly string[]): Promise<void> {
  const { options } = context;
  const [name, file] = args;
  if (name === undefined) fail('Please provide a name for the new device.');
  checkName(name);
  const notable = options.has('notable');
  const { text, source } = notable ? { text: undefined, source: '' } : readTable(context, file);
  const uuid = options.get('uuid') ?? '';
  const minor = options.get('minor');
  const readAhead = options.get('readahead');
  const device: Target = { path: '', query: {}, shown: { name, uuid, number: '' } };
  try {
    const info = await context.client.call<DeviceInfo>(
      'POST',
      '/v1/devices',
      {},
      {
        name,
        uuid,
        ...(minor !== undefined && { minor: Number(minor) }),
        ...(text !== undefined && { table: text }),
        ...(readAhead !== undefined && { readAheadSectors: readAheadOf(readAhead) }),
        readOnly: options.has('readonly'),
        cwd: process.cwd(),
      },
    );
    verbose(context, info);
  } catch (error) {
    // Only the creation itself is reported with the uuid.
    const failed = error instanceof RequestError && error.error.op !== 'create';
    const shown = { name, uuid: failed ? '' : uuid, number: '' };
    throw tableFailure(context, error, { ...device, shown }, source);
  }
}

function readAheadOf(text: string): number {
  const sectors = Number(text.replace(/^\+/, ''));
  return Number.isInteger(sectors) && sectors >= 0 ? sectors : 0;
}

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
    await context.client.call('GET', device.path, device.query);
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
  const { kept } = await context.client.call<{ kept: number }>('DELETE', '/v1/devices', query);
  if (force && kept > 0) fail(`Unable to remove ${kept} device(s).`);
}

/** `rename`. */
export async function rename(context: Context, args: readonly string[]): Promise<void> {
  const words = context.namedByOption ? args : args.slice(1);
  const [wanted] = words;
  if (wanted === undefined) fail('No device specified.');
  if (wanted === '') fail('Non empty new name is required.');
  const setUuid = context.options.has('setuuid');
  if (!setUuid) checkName(wanted);
  const [device] = await oneTarget(context, args, 'No device specified.');
  await context.call(device, 'POST', '/rename', {}, setUuid ? { uuid: wanted } : { name: wanted });
}

/** `message`. */
export async function message(context: Context, args: readonly string[]): Promise<void> {
  const [device, rest] = await oneTarget(context, args, 'No device specified.');
  const [sectorText = '', ...words] = rest;
  if (!/^[0-9]+$/.test(sectorText)) fail('Invalid sector.');
  if (words.length === 0) complain('No message supplied.');
  const body = { sector: Number(sectorText), message: words.join(' ').split(/\s+/) };
  const { answer } = await context.call<{ answer: string }>(device, 'POST', '/message', {}, body);
  if (answer !== '') print(answer);
}

/** `wait`. */
export async function wait(context: Context, args: readonly string[]): Promise<void> {
  const [device, [eventText]] = await oneTarget(context, args, 'No device specified.');
  const event = Number.parseInt(eventText ?? '0', 10);
  const query = { event: Number.isNaN(event) ? 0 : event };
  verbose(context, await context.call<DeviceInfo>(device, 'GET', '/wait', query));
}
