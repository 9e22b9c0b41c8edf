/**
 * dmsetup's commands by name, with the number of arguments that each takes (spec: dm-core, 7). A
 * command's code is loaded when it is wanted: a script may call one a thousand times.
 */
import type { Context } from './context.ts';

type Run = (context: Context, args: readonly string[]) => void | Promise<void>;

export interface Command {
  readonly min: number;
  /** Infinity: any number. */
  readonly max: number;
  /** Wants the argument for the name, also where an option names the device. */
  readonly alwaysNamed?: boolean;
  load(): Promise<Run>;
}

const any = Infinity;

const load = async (): Promise<Run> => (await import('./load.ts')).load;
const changeState = (op: 'suspend' | 'resume') => async (): Promise<Run> => {
  const tables = await import('./tables.ts');
  return (context, args) => tables.changeState(context, args, op);
};
const showLines = (resource: 'status' | 'table') => async (): Promise<Run> => {
  const tables = await import('./tables.ts');
  return (context, args) => tables.showLines(context, args, resource);
};

/** Commands by name, with the least and the most arguments. */
export const commands: ReadonlyMap<string, Command> = new Map<string, Command>([
  ['help', { min: 0, max: 0, load: async () => (await import('./usage.ts')).help }],
  [
    'create',
    { min: 0, max: 2, alwaysNamed: true, load: async () => (await import('./create.ts')).create },
  ],
  ['remove', { min: 0, max: any, load: async () => (await import('./devices.ts')).remove }],
  ['remove_all', { min: 0, max: 0, load: async () => (await import('./devices.ts')).removeAll }],
  ['suspend', { min: 0, max: any, load: changeState('suspend') }],
  ['resume', { min: 0, max: any, load: changeState('resume') }],
  ['load', { min: 0, max: 2, load }],
  ['reload', { min: 0, max: 2, load }],
  ['clear', { min: 0, max: any, load: async () => (await import('./tables.ts')).clear }],
  ['rename', { min: 1, max: 2, load: async () => (await import('./devices.ts')).rename }],
  ['message', { min: 2, max: any, load: async () => (await import('./devices.ts')).message }],
  ['ls', { min: 0, max: 0, load: async () => (await import('./ls.ts')).ls }],
  ['info', { min: 0, max: any, load: async () => (await import('./info.ts')).info }],
  ['deps', { min: 0, max: any, load: async () => (await import('./deps.ts')).deps }],
  ['status', { min: 0, max: any, load: showLines('status') }],
  ['table', { min: 0, max: any, load: showLines('table') }],
  ['wait', { min: 0, max: 2, load: async () => (await import('./devices.ts')).wait }],
  ['mknodes', { min: 0, max: any, load: async () => (await import('./devices.ts')).mknodes }],
  ['wipe_table', { min: 0, max: any, load: async () => (await import('./tables.ts')).wipeTable }],
  [
    'setgeometry',
    {
      min: 5,
      max: 5,
      alwaysNamed: true,
      load: async () => (await import('./devices.ts')).setGeometry,
    },
  ],
  ['splitname', { min: 1, max: 2, load: async () => (await import('./names.ts')).splitname }],
  ['mangle', { min: 0, max: any, load: async () => (await import('./names.ts')).mangle }],
  [
    'udevcreatecookie',
    { min: 0, max: 0, load: async () => (await import('./udev.ts')).createCookie },
  ],
  [
    'udevreleasecookie',
    { min: 0, max: 1, load: async () => (await import('./udev.ts')).releaseCookie },
  ],
  ['udevflags', { min: 1, max: 1, load: async () => (await import('./udev.ts')).flags }],
  ['udevcomplete', { min: 1, max: 1, load: async () => (await import('./udev.ts')).complete }],
  [
    'udevcomplete_all',
    { min: 0, max: 1, load: async () => (await import('./udev.ts')).completeAll },
  ],
  ['udevcookies', { min: 0, max: 0, load: async () => (await import('./udev.ts')).cookies }],
  ['targets', { min: 0, max: 0, load: async () => (await import('./versions.ts')).targets }],
  [
    'target-version',
    { min: 1, max: any, load: async () => (await import('./versions.ts')).targetVersion },
  ],
  ['version', { min: 0, max: 0, load: async () => (await import('./versions.ts')).printVersion }],
]);
