/**
 * The program: chooses a command by the name it was called under, or by its first argument.
 * Commands are loaded when they are wanted, so that each pays for itself only.
 */
import path from 'node:path';
import { complain, print } from './output.ts';
import type { Tool } from './tools/tool.ts';

const HELP = `Usage: devmapper COMMAND [options] [arguments]

The device mapper in user space: thin pools, volumes and snapshots on files and block devices,
served over NBD.

Devices, in dmsetup's words and with its options:
  create remove remove_all rename          make and remove devices
  load reload clear suspend resume         change their tables
  message wait status table info ls deps   use and look at them
  targets target-version version mknodes   and wipe_table splitname mangle setgeometry udevflags
  udevcookies udevcreatecookie             udevreleasecookie udevcomplete udevcomplete_all
  (--json on ls, info, status, table, deps and targets)

Block devices and files:
  attach NAME      give a device a real block device    detach NAME    take it away
  mount NAME FILE  make a file of a device, without root    unmount FILE
  attachments      list them

The daemon, which keeps the devices (it is started when one is needed):
  daemon       run it in the foreground
  stop         shut it down cleanly
  uri NAME     the NBD URI of a device
  parameter    what the kernel's modules have as parameters, such as no_space_timeout

Metadata:
  thin_check   check the metadata of a thin pool
  thin_dump    write it as XML

Logs of log-writes devices:
  replay-log   replay a log, as a whole or up to some entry; list and search it

  dmsetup ...  behave exactly as dmsetup does; so does a link named dmsetup
  links DIR    make links named dmsetup, thin_check, ... in DIR
  help, --help and --version

Every command takes --state-dir DIR. 'devmapper COMMAND --help' tells more.
`;

type Runner = (argv: readonly string[]) => Promise<number>;

/** Commands that are known by names of their own: a link of that name is that command. */
const LINKED = ['dmsetup', 'thin_check', 'thin_dump', 'replay-log'] as const;

/** Commands that are not dmsetup's. */
const runners: Record<string, () => Promise<Runner>> = {
  daemon: async () => (await import('./daemon-command.ts')).daemonCommand,
  stop: async () => (await import('./daemon-command.ts')).stopCommand,
  uri: async () => (await import('./daemon-command.ts')).uriCommand,
  attach: async () => (await import('./attach-command.ts')).attachCommand,
  detach: async () => (await import('./attach-command.ts')).detachCommand,
  mount: async () => (await import('./attach-command.ts')).mountCommand,
  unmount: async () => (await import('./attach-command.ts')).unmountCommand,
  attachments: async () => (await import('./attach-command.ts')).attachmentsCommand,
  links: async () => (await import('./links-command.ts')).linksCommand(LINKED),
  parameter: async () => (await import('./parameter-command.ts')).parameterCommand,
  dmsetup: async () => {
    const { dmsetup } = await import('./dmsetup/dmsetup.ts');
    return (argv) => dmsetup('dmsetup', argv);
  },
  thin_check: () => toolRunner(async () => (await import('./tools/thin-check.ts')).thinCheck),
  thin_dump: () => toolRunner(async () => (await import('./tools/thin-dump.ts')).thinDump),
  'replay-log': () => toolRunner(async () => (await import('./tools/replay-log.ts')).replayLogTool),
};

async function toolRunner(load: () => Promise<Tool>): Promise<Runner> {
  const [{ runTool }, tool] = await Promise.all([import('./tools/tool.ts'), load()]);
  return (argv) => runTool(tool, argv);
}

/** Runs the program with process.argv; resolves to the exit code. */
export async function main(argv: readonly string[]): Promise<number> {
  const called = path.basename(argv[1] ?? '').replace(/\.js$/, '');
  const [first, ...rest] = argv.slice(2);
  const named = Object.hasOwn(runners, called) ? runners[called] : undefined;
  if (named !== undefined) return (await named())(argv.slice(2));
  if (first === undefined) {
    process.stderr.write(HELP);
    return 1;
  }
  if (first === 'help' || first === '--help' || first === '-h') {
    const [command] = rest;
    if (command !== undefined && !command.startsWith('-')) {
      return main([...argv.slice(0, 2), command, '--help']);
    }
    process.stdout.write(HELP);
    return 0;
  }
  if (first === '--version' || first === '-V') {
    const { packageVersion } = await import('../daemon/version.ts');
    print(`devmapper ${packageVersion()}`);
    return 0;
  }
  const own = Object.hasOwn(runners, first) ? runners[first] : undefined;
  if (own !== undefined) return (await own())(rest);
  const { dmsetup } = await import('./dmsetup/dmsetup.ts');
  return dmsetup('devmapper', argv.slice(2), HELP);
}

/** As `main`, ending the process; a bug is reported with its stack. */
export async function runMain(): Promise<void> {
  process.stdout.on('error', () => process.exit(1)); // The reader has gone.
  try {
    process.exitCode = await main(process.argv);
  } catch (error) {
    complain(error instanceof Error ? (error.stack ?? error.message) : String(error));
    process.exitCode = 70;
  }
}
