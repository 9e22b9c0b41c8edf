/**
 * dmsetup's commands: parse, call, print (spec: dm-core, 7). The table at the end says how many
 * arguments each takes.
 */
import fs from 'node:fs';
import { spawnSync } from 'node:child_process';
import type { DeviceInfo, DeviceLines, TargetVersion } from '../../daemon/api-types.ts';
import { DRIVER_VERSION, LIBRARY_VERSION } from '../../daemon/version.ts';
import { RequestError } from '../client.ts';
import { CommandFailed, complain, print, printJson } from '../output.ts';
import type { Context, Target } from './context.ts';
import { printInfo } from './info.ts';
import { printReport } from './report.ts';
import { printTree } from './tree.ts';
import { usage } from './usage.ts';

export interface Command {
  readonly min: number;
  /** Infinity: any number. */
  readonly max: number;
  run(context: Context, args: readonly string[]): void | Promise<void>;
}

const NAME_BYTES_MAX = 127;
/** `remove --retry`: so many tries, so far apart. */
const RETRIES = 25;
const RETRY_MS = 200;

// --- helpers

function fail(text: string): never {
  complain(text);
  throw new CommandFailed();
}

/** The devices that a command names, by arguments or by option; fails if there is none. */
async function eachTarget(
  context: Context,
  names: readonly string[],
  act: (device: Target) => Promise<void>,
): Promise<void> {
  if (context.namedByOption) {
    await act(context.targetByOption());
    return;
  }
  if (names.length === 0) fail('No device specified.');
  for (const name of names) await act(await context.targetByName(name));
}

/** One device and the arguments that are left. */
async function oneTarget(
  context: Context,
  args: readonly string[],
  complaint: string,
): Promise<[Target, readonly string[]]> {
  if (context.namedByOption) return [context.targetByOption(), args];
  const [name, ...rest] = args;
  if (name === undefined) fail(complaint);
  return [await context.targetByName(name), rest];
}

function checkName(name: string): void {
  if (name.includes('/')) fail(`Name "${name}" invalid. It contains "/".`);
  if (Buffer.byteLength(name) > NAME_BYTES_MAX) fail(`Name "${name}" too long.`);
}

/** Table text from --table, a file or standard input; and what dmsetup calls its source. */
function readTable(context: Context, file: string | undefined): { text: string; source: string } {
  const given = context.options.get('table');
  if (given !== undefined) return { text: given, source: '' };
  if (file === undefined) return { text: fs.readFileSync(0, 'utf8'), source: 'on stdin' };
  try {
    return { text: fs.readFileSync(file, 'utf8'), source: file };
  } catch {
    return fail(`Couldn't open '${file}' for reading.`);
  }
}

/** Reports a failed create or load; a table that cannot be split has a text of its own. */
function tableFailure(context: Context, error: unknown, device: Target, source: string): unknown {
  if (!(error instanceof RequestError)) return error;
  if (error.error.errno !== 'FORMAT') return context.failed(error.error, device);
  complain(`Invalid format on line ${error.error.line} of table ${source}.`);
  return new CommandFailed();
}

function verbose(context: Context, info: DeviceInfo): void {
  if (context.options.has('verbose')) printInfo(info);
}

function allDevices(context: Context): Promise<DeviceInfo[]> {
  return context.client.call<DeviceInfo[]>('GET', '/v1/devices');
}

function noDevices(context: Context, devices: readonly unknown[]): boolean {
  if (devices.length > 0 || context.options.has('json')) return false;
  print('No devices found');
  return true;
}

// --- devices

async function create(context: Context, args: readonly string[]): Promise<void> {
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
    const info = await context.client.call<DeviceInfo>('POST', '/v1/devices', {}, {
      name,
      uuid,
      ...(minor !== undefined && { minor: Number(minor) }),
      ...(text !== undefined && { table: text }),
      ...(readAhead !== undefined && { readAheadSectors: readAheadOf(readAhead) }),
      readOnly: options.has('readonly'),
      cwd: process.cwd(),
    });
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

async function remove(context: Context, args: readonly string[]): Promise<void> {
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

async function removeAll(context: Context): Promise<void> {
  const force = context.options.has('force');
  const query = { force, deferred: context.options.has('deferred') };
  const { kept } = await context.client.call<{ kept: number }>('DELETE', '/v1/devices', query);
  if (force && kept > 0) fail(`Unable to remove ${kept} device(s).`);
}

async function rename(context: Context, args: readonly string[]): Promise<void> {
  const words = context.namedByOption ? args : args.slice(1);
  const [wanted] = words;
  if (wanted === undefined) fail('No device specified.');
  if (wanted === '') fail('Non empty new name is required.');
  const setUuid = context.options.has('setuuid');
  if (!setUuid) checkName(wanted);
  const [device] = await oneTarget(context, args, 'No device specified.');
  await context.call(device, 'POST', '/rename', {}, setUuid ? { uuid: wanted } : { name: wanted });
}

async function message(context: Context, args: readonly string[]): Promise<void> {
  const [device, rest] = await oneTarget(context, args, 'No device specified.');
  const [sectorText = '', ...words] = rest;
  if (!/^[0-9]+$/.test(sectorText)) fail('Invalid sector.');
  if (words.length === 0) complain('No message supplied.');
  const body = { sector: Number(sectorText), message: words.join(' ').split(/\s+/) };
  const { answer } = await context.call<{ answer: string }>(device, 'POST', '/message', {}, body);
  if (answer !== '') print(answer);
}

async function wait(context: Context, args: readonly string[]): Promise<void> {
  const [device, [eventText]] = await oneTarget(context, args, 'No device specified.');
  const event = Number.parseInt(eventText ?? '0', 10);
  const query = { event: Number.isNaN(event) ? 0 : event };
  verbose(context, await context.call<DeviceInfo>(device, 'GET', '/wait', query));
}

// --- tables and states

async function load(context: Context, args: readonly string[]): Promise<void> {
  if (context.options.has('notable')) fail('--notable only available when creating new device.');
  const [device, [file]] = await oneTarget(context, args, 'Please specify device.');
  const { text, source } = readTable(context, file);
  const body = { table: text, readOnly: context.options.has('readonly'), cwd: process.cwd() };
  try {
    const info = await context.client.call<DeviceInfo>(
      'PUT',
      `${device.path}/table`,
      device.query,
      body,
    );
    verbose(context, info);
  } catch (error) {
    throw tableFailure(context, error, device, source);
  }
}

async function clear(context: Context, args: readonly string[]): Promise<void> {
  await eachTarget(context, args, async (device) => {
    verbose(context, await context.call<DeviceInfo>(device, 'DELETE', '/table'));
  });
}

async function changeState(
  context: Context,
  args: readonly string[],
  op: 'suspend' | 'resume',
): Promise<void> {
  const body = { noflush: context.options.has('noflush') };
  await eachTarget(context, args, async (device) => {
    verbose(context, await context.call<DeviceInfo>(device, 'POST', `/${op}`, {}, body));
  });
}

async function showLines(
  context: Context,
  args: readonly string[],
  resource: 'status' | 'table',
): Promise<void> {
  const { options } = context;
  const query = {
    noflush: options.has('noflush') ? true : undefined,
    inactive: options.has('inactive') ? true : undefined,
    target: options.get('target'),
  };
  const single = context.namedByOption || args.length === 1;
  if (!single && args.length === 0) {
    const all = await context.client.call<DeviceLines[]>('GET', `/v1/${resource}`, query);
    if (noDevices(context, all)) return;
    if (options.has('json')) printJson(all);
    else for (const found of all) printLines(context, found, true);
    return;
  }
  await eachTarget(context, args, async (device) => {
    const found =
      resource === 'status'
        ? await context.callOrMissing<DeviceLines>(device, '/status', query)
        : await context.call<DeviceLines>(device, 'GET', '/table', query);
    if (options.has('json')) printJson(found);
    else printLines(context, found, !single);
  });
}

function printLines(context: Context, { device, lines }: DeviceLines, many: boolean): void {
  const { options } = context;
  const filtered = options.has('target');
  if (filtered && lines.length === 0) return;
  const isVerbose = options.has('verbose');
  if (isVerbose) printInfo(device);
  const prefix = many && !isVerbose ? `${device.name}: ` : '';
  if (lines.length === 0) print(prefix);
  for (const line of lines) print(`${prefix}${line}`);
  if (isVerbose && many) print('');
}

// --- listings

async function info(context: Context, args: readonly string[]): Promise<void> {
  const { options } = context;
  const devices: DeviceInfo[] = [];
  const showBlocks = !options.columns && !options.has('json');
  if (!context.namedByOption && args.length === 0) {
    devices.push(...(await allDevices(context)));
    if (noDevices(context, devices)) return;
    if (showBlocks) devices.forEach(printInfo);
  } else {
    await eachTarget(context, args, async (device) => {
      const found = await context.callOrMissing<DeviceInfo>(device, '');
      devices.push(found);
      if (showBlocks) printInfo(found);
    });
  }
  if (options.has('json')) printJson(devices);
  else if (options.columns) printReport(options, devices, await allDevices(context));
}

async function ls(context: Context): Promise<void> {
  const { options } = context;
  const all = await allDevices(context);
  const type = options.get('target');
  const devices = all.filter(({ targetTypes }) => type === undefined || targetTypes.includes(type));
  if (options.has('json')) {
    printJson(devices);
    return;
  }
  const form = options.get('options');
  if (options.has('tree')) {
    if (!noDevices(context, all)) printTree(all, form);
    return;
  }
  if (form !== undefined && !['devno', 'devname', 'blkdevname'].includes(form)) {
    complain(`Option not recognised: ${form}.`);
    throw new CommandFailed('command line');
  }
  const command = options.get('exec');
  if (type === undefined && noDevices(context, all)) return;
  for (const device of devices) {
    if (command === undefined) print(`${device.name}\t(${listed(device, form, type)})`);
    else spawnSync(`${command} /dev/mapper/${device.name}`, { shell: true, stdio: 'inherit' });
  }
}

function listed(device: DeviceInfo, form: string | undefined, type: string | undefined): string {
  if (form === 'devname') return device.name;
  if (form === 'blkdevname') return `dm-${device.minor}`;
  return `${device.major}${type === undefined ? ':' : ', '}${device.minor}`;
}

async function deps(context: Context, args: readonly string[]): Promise<void> {
  const form = context.options.get('options');
  if (form !== undefined && !['devno', 'devname', 'blkdevname'].includes(form)) {
    complain(`Option not recognised: ${form}.`);
    throw new CommandFailed('command line');
  }
  const single = context.namedByOption || args.length === 1;
  const show = (device: DeviceInfo): void => {
    const used = context.options.has('inactive') ? [] : device.deps;
    const words = used.map((dep) => {
      if (form === 'devname') return `(${dep.name ?? dep.blkdevname})`;
      if (form === 'blkdevname') return `(${dep.blkdevname})`;
      return `(${dep.major}, ${dep.minor})`;
    });
    const line = [`${used.length} dependencies\t:`, ...words].join(' ');
    print(single ? line : `${device.name}: ${line}`);
  };
  if (!context.namedByOption && args.length === 0) {
    const all = await allDevices(context);
    if (noDevices(context, all)) return;
    if (context.options.has('json')) printJson(all.map(({ name, deps: d }) => ({ name, deps: d })));
    else all.forEach(show);
    return;
  }
  await eachTarget(context, args, async (device) => {
    try {
      show(await context.client.call<DeviceInfo>('GET', device.path, device.query));
    } catch (error) {
      if (!(error instanceof RequestError)) throw error;
      throw context.failed({ ...error.error, op: 'deps' }, device);
    }
  });
}

function showVersion({ name, version }: TargetVersion): string {
  return `${name.padEnd(16)} v${version.join('.')}`;
}

async function targets(context: Context): Promise<void> {
  const types = await context.client.call<TargetVersion[]>('GET', '/v1/targets');
  if (context.options.has('json')) printJson(types);
  else for (const type of types) print(showVersion(type));
}

async function targetVersion(context: Context, args: readonly string[]): Promise<void> {
  const types = await context.client.call<TargetVersion[]>('GET', '/v1/targets');
  for (const name of args) {
    const type = types.find((candidate) => candidate.name === name);
    if (type !== undefined) print(showVersion(type));
    else fail(`device-mapper: target-version ioctl on ${name}  failed: Invalid argument`);
  }
}

export function printVersion(): void {
  print(`Library version:   ${LIBRARY_VERSION}`);
  print(`Driver version:    ${DRIVER_VERSION}`);
}

const any = Infinity;

/** Commands by name, with the least and the most arguments. */
export const commands: ReadonlyMap<string, Command> = new Map<string, Command>([
  ['help', { min: 0, max: 0, run: () => complain(`${usage.trimEnd()}\n`) }],
  ['create', { min: 0, max: 2, run: create }],
  ['remove', { min: 0, max: any, run: remove }],
  ['remove_all', { min: 0, max: 0, run: removeAll }],
  ['suspend', { min: 0, max: any, run: (c, args) => changeState(c, args, 'suspend') }],
  ['resume', { min: 0, max: any, run: (c, args) => changeState(c, args, 'resume') }],
  ['load', { min: 0, max: 2, run: load }],
  ['reload', { min: 0, max: 2, run: load }],
  ['clear', { min: 0, max: any, run: clear }],
  ['rename', { min: 1, max: 2, run: rename }],
  ['message', { min: 2, max: any, run: message }],
  ['ls', { min: 0, max: 0, run: ls }],
  ['info', { min: 0, max: any, run: info }],
  ['deps', { min: 0, max: any, run: deps }],
  ['status', { min: 0, max: any, run: (c, args) => showLines(c, args, 'status') }],
  ['table', { min: 0, max: any, run: (c, args) => showLines(c, args, 'table') }],
  ['wait', { min: 0, max: 2, run: wait }],
  // There are no device nodes to make: devices are served over NBD.
  ['mknodes', { min: 0, max: any, run: () => undefined }],
  ['targets', { min: 0, max: 0, run: targets }],
  ['target-version', { min: 1, max: any, run: targetVersion }],
  ['version', { min: 0, max: 0, run: printVersion }],
]);
