/**
 * What a service manager (systemd) is told: that the daemon is ready, or is about to stop.
 *
 * By its own program, since the message is a datagram to a unix socket, which Node cannot send.
 * Without $NOTIFY_SOCKET nobody listens, and nothing is done.
 */
import { spawn } from 'node:child_process';
import type { DaemonLog } from './daemon-log.ts';

/** Sends `state` (`--ready`, `--stopping`, …); resolves when it is sent, or could not be. */
export function tellServiceManager(state: string, log: DaemonLog): Promise<void> {
  if ((process.env['NOTIFY_SOCKET'] ?? '') === '') return Promise.resolve();
  return new Promise((resolve) => {
    const program = 'systemd-notify';
    const child = spawn(program, [`--pid=${process.pid}`, state], { stdio: 'ignore' });
    child.on('error', (error) => {
      log.pino.warn(`${program} cannot be run: ${error.message}`);
      resolve();
    });
    child.on('exit', (code) => {
      if (code !== 0) log.pino.warn(`${program} ${state} failed with exit code ${code}`);
      resolve();
    });
  });
}
