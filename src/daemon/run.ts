/**
 * Running a daemon as a process: start, default pool, signals, wait, exit code.
 */
import { DmError } from '../base/error.ts';
import { Daemon, type DaemonOptions } from './daemon.ts';
import { makeDefaultPool } from './default-pool.ts';
import { tellServiceManager } from './service-manager.ts';
import { findStateDir, StateDirError } from './state-dir.ts';

export interface RunOptions {
  readonly stateDir: string | undefined;
  readonly logLevel: string | undefined;
  readonly tcp: { host: string; port: number } | undefined;
  readonly withDefaultPool: boolean;
  readonly kernelQuirks: boolean;
  readonly restore: boolean;
}

/** $DM_VERIFY is `all`, or nothing. */
function wantsVerify(): boolean {
  const { DM_VERIFY = '' } = process.env;
  if (!['', 'all'].includes(DM_VERIFY)) {
    throw new DmError('EINVAL', `DM_VERIFY: wanted 'all' or nothing, found '${DM_VERIFY}'`);
  }
  return DM_VERIFY === 'all';
}

/** Runs a daemon until it is stopped; resolves to the exit code. */
export async function runDaemon(options: RunOptions): Promise<number> {
  let daemon: Daemon | null = null;
  // Whoever reads what it says may go; the devices stay.
  for (const stream of [process.stdout, process.stderr]) {
    stream.removeAllListeners('error').on('error', () => undefined);
  }
  try {
    const daemonOptions: DaemonOptions = {
      state: findStateDir(options.stateDir),
      ...(options.logLevel !== undefined && { logLevel: options.logLevel }),
      ...(options.tcp !== undefined && { tcp: options.tcp }),
      verify: wantsVerify(),
      kernelQuirks: options.kernelQuirks,
      restore: options.restore,
    };
    daemon = new Daemon(daemonOptions);
    await daemon.start();
    daemon.stopOnSignals();
    if (options.withDefaultPool) await makeDefaultPool(daemon, daemonOptions.state);
    await tellServiceManager('--ready', daemon.log);
  } catch (error) {
    if (daemon?.isStopping === true) {
      // Told to while it made the default pool, whose next step then failed.
      await daemon.stop();
      return 0;
    }
    const isTheirs = error instanceof DmError || error instanceof StateDirError;
    const text = isTheirs ? error.message : ((error as Error).stack ?? '');
    process.stderr.write(`devmapper daemon: ${text}\n`);
    await daemon?.stop();
    return 1;
  }
  await daemon.stopped;
  return 0;
}
