/**
 * Nodes: the block devices under /dev/mapper that dmsetup keeps, for who wants them here, too, by
 * --mknodes or DEVMAPPER_NODES=1. A node is a symbolic link to an attached device; the daemon makes
 * both, and takes both away when it ends.
 *
 * $DM_DEV_DIR stands for /dev, as for dmsetup.
 */
import path from 'node:path';
import type { AttachmentInfo, DeviceInfo } from '../../daemon/api-types.ts';
import { RequestError } from '../failures.ts';
import { complain, CommandFailed } from '../output.ts';
import type { Context, Target } from './context.ts';

/** Whether the command line, or the environment, asks for nodes. */
export function wantsNodes(context: Context): boolean {
  const { DEVMAPPER_NODES = '' } = process.env;
  return context.options.has('mknodes') || !['', '0'].includes(DEVMAPPER_NODES);
}

function nodePath(name: string): string {
  const { DM_DEV_DIR = '' } = process.env;
  return path.join(DM_DEV_DIR === '' ? '/dev' : DM_DEV_DIR, 'mapper', name);
}

const resource = (name: string): string => `/v1/devices/${encodeURIComponent(name)}/attach`;

/** Gives a device its node, if it has a table and nodes are wanted. */
export async function addNode(context: Context, { name, liveTable }: DeviceInfo): Promise<void> {
  if (!liveTable || !wantsNodes(context)) return;
  try {
    await context.request('POST', resource(name), {}, { node: nodePath(name) });
  } catch (error) {
    if (!(error instanceof RequestError)) throw error;
    complain(`${nodePath(name)}: ${error.error.message}`);
    throw new CommandFailed();
  }
}

/**
 * Runs `remove` without the node. Where the node is in use, the removal finds the device in use;
 * where the removal fails, the node comes back.
 */
export async function withoutNode(
  context: Context,
  device: Target,
  remove: () => Promise<void>,
): Promise<void> {
  if (!wantsNodes(context)) {
    await remove();
    return;
  }
  const attached = await detach(context, device);
  try {
    await remove();
  } catch (error) {
    if (attached !== null) await addNode(context, attached);
    throw error;
  }
}

/** The device, if it had a node and has none any more. */
async function detach(context: Context, device: Target): Promise<DeviceInfo | null> {
  try {
    const info = await context.request<DeviceInfo>('GET', device.path, device.query);
    const list = await context.request<AttachmentInfo[]>('GET', '/v1/attachments');
    if (!list.some(({ name, via }) => name === info.name && via !== 'file')) return null;
    await context.request('DELETE', resource(info.name));
    return info;
  } catch (error) {
    // In use, or no such device: the removal says so.
    if (error instanceof RequestError) return null;
    throw error;
  }
}

/** As `withoutNode`, for all devices: those that stay get theirs back. */
export async function withoutNodes(
  context: Context,
  removeAll: () => Promise<void>,
): Promise<void> {
  if (!wantsNodes(context)) {
    await removeAll();
    return;
  }
  for (const { name, via } of await context.request<AttachmentInfo[]>('GET', '/v1/attachments')) {
    if (via === 'file') continue;
    try {
      await context.request('DELETE', resource(name));
    } catch (error) {
      if (!(error instanceof RequestError)) throw error; // In use: it stays.
    }
  }
  try {
    await removeAll();
  } finally {
    for (const device of await context.request<DeviceInfo[]>('GET', '/v1/devices')) {
      await addNode(context, device);
    }
  }
}
