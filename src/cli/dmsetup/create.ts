/**
 * `create`: one device, or several from a concise text (spec: dm-core, 2 and 7).
 */
import fs from 'node:fs';
import type { DeviceInfo } from '../../daemon/api-types.ts';
import { RequestError } from '../failures.ts';
import { ConciseError, parseConcise, type ConciseDevice } from '../../daemon/concise.ts';
import { fail } from '../output.ts';
import { MAPPED_MAJOR, type Context } from './context.ts';
import { newName, verbose } from './helpers.ts';
import { addNode } from './nodes.ts';
import { atoi, packedNumber } from './numbers.ts';
import { asKernelText, readTable, tableFailure, workingDir } from './table-text.ts';

/** A device to be made. */
interface Wanted {
  readonly name: string;
  readonly uuid: string;
  /** Negative: any. */
  readonly major: number;
  readonly minor: number;
  readonly readOnly: boolean;
  readonly table: string | undefined;
}

/** `create`. */
export async function create(context: Context, args: readonly string[]): Promise<void> {
  const { options } = context;
  if (options.has('concise')) {
    await createConcise(context, args);
    return;
  }
  const [name, file] = args;
  if (name === undefined) fail('Please provide a name for the new device.');
  const stored = newName(context, name);
  const uuid = context.mangling.stored(options.get('uuid') ?? '', 'uuid');
  const notable = options.has('notable');
  const { text, source } = notable ? { text: undefined, source: '' } : readTable(context, file);
  const readOnly = options.has('readonly');
  const wanted = { ...context.numbers, name: stored, uuid, readOnly, table: text };
  await createOne(context, wanted, source);
}

/** `create --concise`: the devices in order, up to the first failure. */
async function createConcise(context: Context, args: readonly string[]): Promise<void> {
  if (args.length > 1) fail('dmsetup create --concise takes at most one argument');
  for (const device of conciseDevices(args[0] ?? fs.readFileSync(0, 'utf8'))) {
    const name = newName(context, device.name);
    const uuid = context.mangling.stored(device.uuid, 'uuid');
    const minor = device.minor === '' ? -1 : atoi(device.minor);
    const table = asKernelText(device.table);
    await createOne(context, { ...device, name, uuid, major: MAPPED_MAJOR, minor, table }, '');
  }
}

/** As parseConcise; a mistake ends the command with dmsetup's lines. */
function* conciseDevices(text: string): Iterable<ConciseDevice> {
  try {
    yield* parseConcise(text);
  } catch (error) {
    if (!(error instanceof ConciseError)) throw error;
    fail(error.message);
  }
}

async function createOne(context: Context, wanted: Wanted, source: string): Promise<void> {
  const { name, uuid, major, minor, readOnly, table } = wanted;
  const readAhead = readAheadOf(context.options.get('readahead'));
  try {
    const info = await context.request<DeviceInfo>(
      'POST',
      '/v1/devices',
      {},
      {
        name,
        uuid,
        ...(minor >= 0 && { minor: packedNumber(major, minor).minor }),
        ...(table !== undefined && { table }),
        ...(readAhead !== undefined && { readAhead }),
        readOnly,
        cwd: workingDir(),
      },
    );
    await addNode(context, info);
    await verbose(context, info);
  } catch (error) {
    // Only the creation itself is reported with the uuid.
    const isLater = error instanceof RequestError && error.error.op !== 'create';
    const number = isLater || minor < 0 ? '' : `${major}:${minor}`;
    const shown = { name, uuid: isLater ? '' : uuid, number };
    throw tableFailure(context, error, { path: '', query: {}, shown }, source);
  }
}

/** What --readahead asks for: `N`, `+N` (at least), `none`, or `auto`. */
function readAheadOf(text: string | undefined): { sectors: number; minimum: boolean } | undefined {
  if (text === undefined || text === 'auto') return undefined;
  const sectors = atoi(text);
  return sectors < 0 ? undefined : { sectors, minimum: text.startsWith('+') };
}
