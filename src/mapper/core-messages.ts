/**
 * Messages to the core, not to a target: their first word begins with @ (spec: dm-core, 7 and 7.4).
 * Answers to message_for_md in drivers/md/dm-ioctl.c.
 */
import { DmError } from '../base/error.ts';
import type { Log } from '../base/log.ts';
import type { MappedDevice } from './mapped-device.ts';

/** Does what a message asks; returns the answer, '' for none. Throws DmError, after a log line. */
export function coreMessage(device: MappedDevice, args: readonly string[], log: Log): string {
  const [word = '', ...rest] = args;
  const refuse = (origin: string, text: string): DmError => {
    log.write('warn', `${origin}: ${text}`);
    return new DmError('EINVAL', text);
  };
  if (word.toLowerCase() === '@cancel_deferred_remove') {
    if (rest.length > 0) throw refuse('ioctl', `Invalid arguments for ${word}`);
    device.deferredRemove = false;
    return '';
  }
  const result = device.statistics.message(args, device.sizeSectors);
  if ('answer' in result) return result.answer;
  switch (result.failure) {
    case 'unknown message':
      throw refuse('ioctl', `Unsupported message sent to DM core: ${word}`);
    case 'no such region':
      throw new DmError('ENOENT', `there is no region ${rest[0]}`);
    case 'bad parameters':
      throw refuse('stats', `Invalid parameters for message ${word}`);
  }
}
