/**
 * What `devmapper COMMAND --help` prints of each of dmsetup's commands.
 *
 * Does not: speak for the link named dmsetup, which knows dmsetup's usage text only; see usage.ts.
 */

interface CommandHelp {
  /** What follows the command's name, in one or more ways. */
  readonly synopses: readonly string[];
  readonly text: string;
  /** Options of this command, with what they do. */
  readonly options?: Readonly<Record<string, string>>;
}

const DEVICE = '<device>';
const NAMING = `<device> is a name, /dev/mapper/NAME, /dev/dm-MINOR, or one of these options:
  -u, --uuid UUID
  -j, --major MAJOR -m, --minor MINOR`;

const json = { '--json': 'the same as JSON' };
const inactive = { '--inactive': 'of the inactive table' };
const target = { '--target TYPE': 'only lines of this target type' };
const verbose = { '-v, --verbose': 'print the device afterwards, as `info` does' };
const noflush = { '--noflush': 'what targets have queued goes on after the resume' };

const readOnly = { '-r, --readonly': 'make the table read-only' };
const tableText = `A table is text, one target a line: <start> <length> <type> <parameters>, in sectors of 512 bytes.
It comes from --table, a file, or standard input. Devices in it are paths of files or block devices,
/dev/mapper/NAME, or MAJOR:MINOR as \`table\` prints them.`;

const NO_UDEV = 'Does as where there is no udev.';

const load: CommandHelp = {
  synopses: [`${DEVICE} [--table <table> | <table_file>]`],
  text: `Loads a table beside the one in use; \`resume\` puts it in use.\n\n${tableText}`,
  options: { ...readOnly, ...verbose },
};

const helps: Readonly<Record<string, CommandHelp>> = {
  help: {
    synopses: ['[-c]'],
    text: "Prints dmsetup's usage; with -c the fields of `info -c`, too.",
  },
  create: {
    synopses: [
      '<dev_name> [--table <table> | <table_file> | --notable]',
      '--concise [<concise_device_spec_list>]',
    ],
    text: `Makes a device, loads its table and puts it in use.\n\n${tableText}`,
    options: {
      '-n, --notable': 'make it without a table',
      '-u, --uuid UUID': 'a second, lasting name',
      '-j, --major 254 -m, --minor MINOR': 'choose the number',
      ...readOnly,
      '--readahead N|+N|auto|none': 'sectors to read ahead, as `info` shows them',
      ...verbose,
    },
  },
  remove: {
    synopses: [`[-f] [--retry] [--deferred] ${DEVICE}...`],
    text: 'Removes devices that nobody uses.',
    options: {
      '-f, --force': 'first make all I/O on the device fail, what waits included',
      '--retry': 'try for five seconds while it is in use',
      '--deferred': 'if it is in use, remove it when its last user closes it',
    },
  },
  remove_all: {
    synopses: ['[-f] [--deferred]'],
    text: 'Removes all devices that nobody uses.',
    options: {
      '-f, --force': 'first make all I/O fail',
      '--deferred': 'those in use go when their last user closes them',
    },
  },
  suspend: {
    synopses: [`[--noflush] ${DEVICE}...`],
    text: 'Lets I/O in flight finish, commits, and makes new I/O wait for `resume`.',
    options: { ...noflush, ...verbose },
  },
  resume: {
    synopses: [`[--noflush] ${DEVICE}...`],
    text: 'Puts the loaded table in use, if there is one, and lets I/O go on.',
    options: { ...noflush, ...verbose },
  },
  load,
  reload: load,
  clear: {
    synopses: [`${DEVICE}...`],
    text: 'Drops the loaded table that is not in use.',
    options: verbose,
  },
  rename: {
    synopses: [`${DEVICE} <new_name>`, `${DEVICE} --setuuid <uuid>`],
    text: 'Changes the name, or gives a uuid to a device that has none.',
  },
  message: {
    synopses: [`${DEVICE} <sector> <message>`],
    text: `Sends a message to the target at a sector (0 for a pool), and prints its answer. Pools take:
  create_thin ID                      create_snap ID ORIGIN_ID      delete ID
  set_transaction_id OLD NEW          reserve_metadata_snap         release_metadata_snap`,
  },
  ls: {
    synopses: ['[--target <type>] [-o <options>] [--exec <command>]', '--tree [-o <options>]'],
    text: 'Lists devices and their numbers, or a tree of who uses whom.',
    options: {
      ...target,
      '-o, --options devno|devname|blkdevname': 'what to print of each',
      '--exec COMMAND': 'run it for each device, with its path',
      '--tree': '`help` lists what -o is then',
      ...json,
    },
  },
  info: {
    synopses: [`[${DEVICE}...]`, `-c [-o <fields>] [-O <fields>] [-S <selection>] [${DEVICE}...]`],
    text: 'Prints the state of devices: in blocks, or in columns.',
    options: {
      '-c, --columns': 'in columns',
      '-o, --options FIELDS': 'these columns; `-o help` lists them, `-o +FIELD` adds one',
      '-O, --sort FIELDS': 'sort by these; -FIELD: downwards',
      '-S, --select SELECTION': 'those that match, as in `-S "open>0 && name=~^vg"`',
      '--noheadings': 'values only, joined by --separator',
      '--separator TEXT': 'between columns',
      '--nameprefixes': 'as DM_NAME=..., for a shell',
      '--rows': 'a line for each field',
      '--count N': 'so often',
      '--interval SECONDS': 'so far apart',
      ...json,
    },
  },
  deps: {
    synopses: [`[-o devno|devname|blkdevname] [${DEVICE}...]`],
    text: 'Lists the devices that devices use.',
    options: { '-o, --options FORM': 'how to print them', ...json },
  },
  status: {
    synopses: [`[--target <type>] [--noflush] [${DEVICE}...]`],
    text: 'Prints the status of each target.',
    options: {
      ...target,
      ...inactive,
      '--noflush': 'do not commit metadata first',
      '-v, --verbose': 'with what `info` prints',
      ...json,
    },
  },
  table: {
    synopses: [`[--target <type>] [--concise] [${DEVICE}...]`],
    text: 'Prints tables, as `load` takes them.',
    options: {
      ...target,
      ...inactive,
      '--concise': 'in one line, as `create --concise` takes it',
      '-v, --verbose': 'with what `info` prints',
      ...json,
    },
  },
  wait: {
    synopses: [`${DEVICE} [<event_nr>]`],
    text: `Returns when the device's event number differs from <event_nr> (0), or when it is removed. Events
are changes of a pool's mode, space that runs low, renames; see \`info -c -o events\`.`,
    options: verbose,
  },
  wipe_table: {
    synopses: [`[--noflush] ${DEVICE}...`],
    text: 'Replaces tables by one of the same size on which all I/O fails.',
    options: noflush,
  },
  setgeometry: {
    synopses: ['<device> <cyl> <head> <sect> <start>'],
    text: 'Sets the geometry that a BIOS would see. Nothing here asks for it.',
  },
  splitname: {
    synopses: ['<name> [<subsystem>]'],
    text: 'Shows the parts of an LVM name: volume group, logical volume, layer.',
  },
  mangle: {
    synopses: ['[<device>...]'],
    text: 'Renames devices whose names should have been mangled.',
    options: { '--manglename none|hex|auto': 'how names are mangled' },
  },
  udevcreatecookie: { synopses: [''], text: NO_UDEV },
  udevreleasecookie: { synopses: ['[<cookie>]'], text: NO_UDEV },
  udevflags: { synopses: ['<cookie>'], text: 'Prints the flags in a cookie, for udev rules.' },
  udevcomplete: { synopses: ['<cookie>'], text: NO_UDEV },
  udevcomplete_all: { synopses: ['[-y] [<age_in_minutes>]'], text: NO_UDEV },
  udevcookies: { synopses: [''], text: NO_UDEV },
  mknodes: {
    synopses: [`[${DEVICE}...]`],
    text: `Attaches devices, all or those named, and makes /dev/mapper/NAME, where nodes are wanted (--mknodes,
or DEVMAPPER_NODES=1). Else it does nothing: devices are served over NBD.`,
  },
  targets: {
    synopses: [''],
    text: 'Lists the types of targets and their versions.',
    options: json,
  },
  'target-version': { synopses: ['<type>...'], text: 'Prints the versions of these types.' },
  version: {
    synopses: [''],
    text: 'Prints the versions of dmsetup and of the kernel that this behaves as.',
  },
};

const COLUMN = 39;

/** The ways to call a command, a line each. */
export function commandUsage(name: string): string {
  const { synopses } = helps[name] as CommandHelp;
  const lines = synopses.map((synopsis, i) => {
    return `${i === 0 ? 'Usage:' : '      '} devmapper ${name} ${synopsis}`.trimEnd();
  });
  return `${lines.join('\n')}\n`;
}

/** The help text of a command. */
export function commandHelp(name: string): string {
  const { synopses, text, options = {} } = helps[name] as CommandHelp;
  const all = { ...options, '--state-dir DIR': "the daemon's directory" };
  const lines = Object.entries(all).map(([option, does]) => {
    return `  ${option.padEnd(COLUMN)} ${does}`;
  });
  const parts = [commandUsage(name).trimEnd(), text, lines.join('\n')];
  if (synopses.some((synopsis) => synopsis.includes(DEVICE))) parts.push(NAMING);
  return `${parts.join('\n\n')}\n`;
}
