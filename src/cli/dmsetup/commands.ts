/**
 * dmsetup's commands by name, with the number of arguments that each takes (spec: dm-core, 7).
 */
import { complain } from '../output.ts';
import type { Context } from './context.ts';
import { create, message, remove, removeAll, rename, wait } from './devices.ts';
import { deps, info, ls, printVersion, targets, targetVersion } from './listings.ts';
import { changeState, clear, load, showLines } from './tables.ts';
import { usage } from './usage.ts';

export interface Command {
  readonly min: number;
  /** Infinity: any number. */
  readonly max: number;
  run(context: Context, args: readonly string[]): void | Promise<void>;
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
