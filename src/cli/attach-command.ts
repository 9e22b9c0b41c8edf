/**
 * `devmapper attach`, `detach`, `mount`, `unmount` and `attachments`: block devices and files that
 * lead to mapped devices.
 */
import path from 'node:path';
import type { AttachmentInfo } from '../daemon/api-types.ts';
import { Client } from './client.ts';
import { deviceNames } from './device-names.ts';
import { RequestError } from './failures.ts';
import { getopt, OptionError, type ParsedOptions } from './getopt.ts';
import { CommandFailed, complain, explain, print, printJson } from './output.ts';

const ATTACH_HELP = `Usage: devmapper attach NAME [--via nbd|nbdfuse] [--json] [--state-dir DIR]
       devmapper detach NAME... [--state-dir DIR]

Gives a device a real block device and prints its path; detach takes it away again. Attaching what
is attached prints the path once more. All are taken away when the daemon ends. Needs root.

  --via nbd      by the kernel's NBD client (needs its module nbd, and nbd-client)
  --via nbdfuse  by nbdfuse and a loop device (needs libnbd-bin and fuse3)

Without --via the first of these that the machine has is used.
`;

const MOUNT_HELP = `Usage: devmapper mount NAME FILE [--json] [--state-dir DIR]
       devmapper unmount FILE [--state-dir DIR]

Makes FILE, which must be missing or empty, the content of a device; unmount takes it away again. By
nbdfuse (libnbd-bin and fuse3), without root.
`;

const ATTACHMENTS_HELP = `Usage: devmapper attachments [--json] [--state-dir DIR]

Lists the devices that have a block device or a file, and where it is.
`;

interface Call {
  readonly client: Client;
  readonly args: readonly string[];
  readonly json: boolean;
  readonly via: string | undefined;
}

/** A command with its help, its number of arguments, and what it does. */
function command(
  name: string,
  help: string,
  [min, max]: readonly [number, number],
  run: (call: Call) => Promise<void>,
): (argv: readonly string[]) => Promise<number> {
  return async (argv) => {
    let parsed: ParsedOptions;
    try {
      parsed = getopt(`devmapper ${name}`, OPTIONS, argv);
    } catch (error) {
      if (!(error instanceof OptionError)) throw error;
      complain(error.message);
      complain(`Try 'devmapper ${name} --help'.`);
      return 2;
    }
    const { args, values } = parsed;
    if (values.has('help')) {
      process.stdout.write(help);
      return 0;
    }
    if (args.length < min || args.length > max) {
      const wanted = min === max ? `${min}` : `at least ${min}`;
      complain(`devmapper ${name}: wanted ${wanted} arguments, found ${args.length}`);
      return 2;
    }
    const via = values.get('via')?.at(-1);
    if (via !== undefined && !['nbd', 'nbdfuse'].includes(via)) {
      complain(`devmapper ${name}: --via: wanted nbd or nbdfuse, found '${via}'`);
      return 2;
    }
    try {
      const client = new Client(values.get('state-dir')?.at(-1));
      await run({ client, args, json: values.has('json'), via });
      return 0;
    } catch (error) {
      if (!(error instanceof CommandFailed)) complain(explainFor(name, error));
      return 1;
    }
  };
}

const OPTIONS = [
  { long: 'state-dir', value: true },
  { long: 'via', value: true },
  { long: 'json' },
  { long: 'help', short: 'h' },
] as const;

function explainFor(name: string, error: unknown): string {
  if (!(error instanceof RequestError)) return explain(error);
  return `devmapper ${name}: ${error.error.message}`;
}

/** Calls `resource` of the device that is known as `name`. */
async function callDevice<T>(
  client: Client,
  name: string,
  method: 'POST' | 'DELETE',
  resource: string,
  body?: object,
): Promise<T> {
  for (const stored of deviceNames(name)) {
    try {
      const url = `/v1/devices/${encodeURIComponent(stored)}/${resource}`;
      return await client.call<T>(method, url, {}, body);
    } catch (error) {
      if (!(error instanceof RequestError) || error.error.message !== 'no such device') throw error;
    }
  }
  complain(`devmapper: there is no device '${name}'`);
  throw new CommandFailed('');
}

function show(info: AttachmentInfo, json: boolean): void {
  if (json) printJson(info);
  else print(info.path);
}

/** `devmapper attach`. */
export const attachCommand = command('attach', ATTACH_HELP, [1, 1], async (call) => {
  const { client, args, json, via } = call;
  const body = via === undefined ? {} : { via };
  show(await callDevice<AttachmentInfo>(client, args[0] as string, 'POST', 'attach', body), json);
});

/** `devmapper detach`. */
export const detachCommand = command('detach', ATTACH_HELP, [1, Infinity], async (call) => {
  for (const name of call.args) await callDevice(call.client, name, 'DELETE', 'attach');
});

/** `devmapper mount`. */
export const mountCommand = command('mount', MOUNT_HELP, [2, 2], async (call) => {
  const [name = '', file = ''] = call.args;
  const body = { path: path.resolve(file) };
  show(await callDevice<AttachmentInfo>(call.client, name, 'POST', 'mount', body), call.json);
});

/** `devmapper unmount`. */
export const unmountCommand = command('unmount', MOUNT_HELP, [1, 1], async (call) => {
  const body = { path: path.resolve(call.args[0] as string) };
  await call.client.call('POST', '/v1/unmount', {}, body);
});

/** `devmapper attachments`. */
export const attachmentsCommand = command('attachments', ATTACHMENTS_HELP, [0, 0], async (call) => {
  const list = await call.client.call<AttachmentInfo[]>('GET', '/v1/attachments');
  if (call.json) printJson(list);
  else for (const { name, path: where, via } of list) print(`${name}\t${where}\t(${via})`);
});
