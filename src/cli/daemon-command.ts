/**
 * `devmapper daemon`, `devmapper stop` and `devmapper uri`.
 */
import { Client } from './client.ts';
import { deviceNames } from './device-names.ts';
import { DaemonError, RequestError } from './failures.ts';
import { getopt, OptionError, type ParsedOptions } from './getopt.ts';
import { CommandFailed, complain, explain, print, printJson } from './output.ts';

const DAEMON_HELP = `Usage: devmapper daemon [options]

Runs the daemon in the foreground, until SIGINT, SIGTERM or 'devmapper stop'.

  --state-dir DIR      where its sockets, process id and log are
                       (else $DEVMAPPER_DIR, $XDG_RUNTIME_DIR/devmapper, or /run/devmapper for root)
  --tcp [HOST:]PORT    serve NBD over TCP, too (HOST is 127.0.0.1 unless given)
  --restore            bring back the devices that were there when the last daemon ended
  --with-default-pool  make or reopen a pool in the state directory, with a 10 GiB volume 'vol0'
  --kernel-quirks      do as the kernel does where it loses data (see docs/differences.md)
  --log-level LEVEL    fatal, error, warn, info (default), debug or trace
  -h, --help           show this

With $DM_VERIFY=all whole metadata is checked after every commit; a fault fails the pool.
`;

const URI_HELP = `Usage: devmapper uri NAME [--json] [--state-dir DIR]

Prints the NBD URI of a device, for qemu-img, nbdcopy, nbdinfo and others.
`;

const LOG_LEVELS = ['fatal', 'error', 'warn', 'info', 'debug', 'trace'];

const POLL_MS = 20;
/** Tries to reach a daemon that ends connections without an answer. */
const ENDING_TRIES = 50;

const stateDirOption = { long: 'state-dir', value: true } as const;

/** Parses our own commands' options; null if there is a mistake, which has been printed. */
function parse(
  command: string,
  argv: readonly string[],
  specs: Parameters<typeof getopt>[1],
): ParsedOptions | null {
  try {
    return getopt(`devmapper ${command}`, specs, argv);
  } catch (error) {
    if (!(error instanceof OptionError)) throw error;
    complain(error.message);
    complain(`Try 'devmapper ${command} --help'.`);
    return null;
  }
}

/** `devmapper daemon`; resolves to the exit code when the daemon has stopped. */
export async function daemonCommand(argv: readonly string[]): Promise<number> {
  const parsed = parse('daemon', argv, [
    stateDirOption,
    { long: 'tcp', value: true },
    { long: 'with-default-pool' },
    { long: 'kernel-quirks' },
    { long: 'restore' },
    { long: 'log-level', value: true },
    { long: 'help', short: 'h' },
  ]);
  if (parsed === null) return 2;
  const get = (name: string): string | undefined => parsed.values.get(name)?.at(-1);
  if (parsed.values.has('help')) {
    process.stdout.write(DAEMON_HELP);
    return 0;
  }
  if (parsed.args.length > 0) {
    complain(`devmapper daemon: wanted no arguments, found '${parsed.args.join(' ')}'`);
    return 2;
  }
  const tcp = get('tcp');
  const address = tcp === undefined ? undefined : parseAddress(tcp);
  if (address === null) {
    complain(`devmapper daemon: --tcp: wanted [HOST:]PORT, found '${tcp}'`);
    return 2;
  }
  const logLevel = get('log-level');
  if (logLevel !== undefined && !LOG_LEVELS.includes(logLevel)) {
    const wanted = 'fatal, error, warn, info, debug or trace';
    complain(`devmapper daemon: --log-level: wanted ${wanted}, found '${logLevel}'`);
    return 2;
  }
  const { runDaemon } = await import('../daemon/run.ts');
  return runDaemon({
    stateDir: get('state-dir'),
    logLevel,
    tcp: address,
    withDefaultPool: parsed.values.has('with-default-pool'),
    kernelQuirks: parsed.values.has('kernel-quirks'),
    restore: parsed.values.has('restore'),
  });
}

function parseAddress(text: string): { host: string; port: number } | null {
  const match = /^(?:\[?([^\]]*?)\]?:)?([0-9]+)$/.exec(text);
  const port = Number(match?.[2]);
  if (match === null || port > 65535) return null;
  return { host: match[1] ?? '127.0.0.1', port };
}

/** `devmapper stop`; resolves to the exit code when the daemon is gone. */
export async function stopCommand(argv: readonly string[]): Promise<number> {
  const parsed = parse('stop', argv, [stateDirOption, { long: 'help', short: 'h' }]);
  if (parsed === null) return 2;
  if (parsed.values.has('help')) {
    print('Usage: devmapper stop [--state-dir DIR]\n\nShuts the daemon down cleanly.');
    return 0;
  }
  try {
    const client = new Client(parsed.values.get('state-dir')?.at(-1));
    const version = await whileItEnds(() =>
      client.callIfRunning<{ pid: number }>('GET', '/v1/version'),
    );
    if (version === undefined) {
      complain('devmapper: no daemon is running');
      return 0;
    }
    await whileItEnds(() => client.callIfRunning('POST', '/v1/stop'));
    await waitForExit(version.pid);
    return 0;
  } catch (error) {
    complain(explain(error));
    return 1;
  }
}

/**
 * Calls until there is an answer, or nobody to answer: a daemon that someone else is stopping may
 * end a connection without one.
 */
async function whileItEnds<T>(call: () => Promise<T>): Promise<T> {
  for (let left = ENDING_TRIES; ; left--) {
    try {
      return await call();
    } catch (error) {
      if (!(error instanceof DaemonError) || left === 0) throw error;
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
  }
}

/** Resolves when the process is gone. */
async function waitForExit(pid: number): Promise<void> {
  for (;;) {
    try {
      process.kill(pid, 0);
    } catch {
      return;
    }
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}

/** `devmapper uri`; resolves to the exit code. */
export async function uriCommand(argv: readonly string[]): Promise<number> {
  const parsed = parse('uri', argv, [
    stateDirOption,
    { long: 'json' },
    { long: 'help', short: 'h' },
  ]);
  if (parsed === null) return 2;
  const [name, ...more] = parsed.args;
  if (parsed.values.has('help')) {
    process.stdout.write(URI_HELP);
    return 0;
  }
  if (name === undefined || more.length > 0) {
    complain('devmapper uri: wanted one device name');
    return 2;
  }
  try {
    const client = new Client(parsed.values.get('state-dir')?.at(-1));
    let uri: string | null = null;
    for (const stored of deviceNames(name)) uri ??= await uriOf(client, stored);
    if (uri === null) complain(`devmapper uri: there is no device '${name}'`);
    else if (parsed.values.has('json')) printJson({ name, uri });
    else print(uri);
    return uri === null ? 1 : 0;
  } catch (error) {
    // A failed command has said why.
    if (!(error instanceof CommandFailed)) complain(explain(error));
    return 1;
  }
}

/** The URI of the device that is stored under `name`; null if there is none. */
async function uriOf(client: Client, name: string): Promise<string | null> {
  try {
    const path = `/v1/devices/${encodeURIComponent(name)}/uri`;
    return (await client.call<{ uri: string }>('GET', path)).uri;
  } catch (error) {
    if (error instanceof RequestError && error.error.errno === 'ENXIO') return null;
    throw error;
  }
}
