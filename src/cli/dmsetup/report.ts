/**
 * `info -c`: devices in columns (spec: dm-core, 7.2).
 */
import type { DeviceInfo } from '../../daemon/api-types.ts';
import { CommandFailed, complain, print } from '../output.ts';
import type { Options } from './options.ts';

type Cell = string | number;

interface Field {
  readonly name: string;
  readonly heading: string;
  readonly width: number;
  readonly help: string;
  readonly value: (device: DeviceInfo, all: readonly DeviceInfo[]) => Cell;
}

interface Section {
  readonly title: string;
  readonly group: string;
  readonly fields: readonly Field[];
}

function field(
  name: string,
  heading: string,
  width: number,
  help: string,
  value: Field['value'],
): Field {
  return { name, heading, width, help, value };
}

const devno = (d: { major: number; minor: number }): string => `${d.major}:${d.minor}`;

function usersOf(device: DeviceInfo, all: readonly DeviceInfo[]): DeviceInfo[] {
  return all.filter(({ deps }) => deps.some((dep) => devno(dep) === devno(device)));
}

function attributes(d: DeviceInfo): string {
  const live = d.liveTable ? 'L' : '-';
  const inactive = d.inactiveTable ? 'I' : '-';
  return `${live}${inactive}${d.suspended ? 's' : '-'}${d.readOnly ? 'r' : 'w'}`;
}

function tablesLoaded(d: DeviceInfo): string {
  if (d.liveTable) return d.inactiveTable ? 'Both' : 'Live';
  return d.inactiveTable ? 'Inactive' : 'None';
}

/** The parts of an LVM device name: VG-LV-layer, with `--` for a hyphen within a part. */
export function splitLvmName(name: string): [vg: string, lv: string, layer: string] {
  const parts = name.split(/(?<!-)-(?!-)/).map((part) => part.replaceAll('--', '-'));
  return [parts[0] ?? '', parts[1] ?? '', parts.slice(2).join('-')];
}

function subsystem(d: DeviceInfo): string {
  const dash = d.uuid.indexOf('-');
  return dash < 0 ? '' : d.uuid.slice(0, dash);
}

const lvmPart = (d: DeviceInfo, index: 0 | 1 | 2): string =>
  subsystem(d) === 'LVM' ? splitLvmName(d.name)[index] : '';

const sections: readonly Section[] = [
  {
    title: 'Mapped Device Name Fields',
    group: 'name_all',
    fields: [
      field('name', 'Name', 16, 'Name of mapped device.', (d) => d.name),
      field('mangled_name', 'MangledName', 16, 'Mangled name of mapped device.', (d) => d.name),
      field(
        'unmangled_name',
        'UnmangledName',
        16,
        'Unmangled name of mapped device.',
        (d) => d.name,
      ),
      field('uuid', 'UUID', 32, 'Unique (optional) identifier for mapped device.', (d) => d.uuid),
      field(
        'mangled_uuid',
        'MangledUUID',
        32,
        'Mangled unique (optional) identifier for mapped device.',
        (d) => d.uuid,
      ),
      field(
        'unmangled_uuid',
        'UnmangledUUID',
        32,
        'Unmangled unique (optional) identifier for mapped device.',
        (d) => d.uuid,
      ),
      field('read_ahead', 'RAhead', 6, 'Read ahead value.', (d) => d.readAheadSectors),
    ],
  },
  {
    title: 'Mapped Device Information Fields',
    group: 'info_all',
    fields: [
      field('blkdevname', 'BlkDevName', 16, 'Name of block device.', (d) => `dm-${d.minor}`),
      field(
        'attr',
        'Stat',
        4,
        '(L)ive, (I)nactive, (s)uspended, (r)ead-only, read-(w)rite.',
        attributes,
      ),
      field(
        'tables_loaded',
        'Tables',
        6,
        'Which of the live and inactive table slots are filled.',
        tablesLoaded,
      ),
      field('suspended', 'Suspended', 9, 'Whether the device is suspended.', (d) =>
        d.suspended ? 'Suspended' : 'Active',
      ),
      field('readonly', 'Read-only', 9, 'Whether the device is read-only or writeable.', (d) =>
        d.readOnly ? 'Read-only' : 'Writeable',
      ),
      field('devno', 'DevNo', 5, 'Device major and minor numbers', devno),
      field('major', 'Maj', 3, 'Block device major number.', (d) => d.major),
      field('minor', 'Min', 3, 'Block device minor number.', (d) => d.minor),
      field(
        'open',
        'Open',
        4,
        'Number of references to open device, if requested.',
        (d) => d.openCount,
      ),
      field(
        'segments',
        'Targ',
        4,
        'Number of segments in live table, if present.',
        (d) => d.targetCount,
      ),
      field('events', 'Event ', 6, 'Number of most recent event.', (d) => d.eventNr),
    ],
  },
  {
    title: 'Mapped Device Relationship Information Fields',
    group: 'deps_all',
    fields: [
      field(
        'device_count',
        '#Devs',
        5,
        'Number of devices used by this one.',
        (d) => d.deps.length,
      ),
      field(
        'devs_used',
        'DevNamesUsed',
        16,
        'List of names of mapped devices used by this one.',
        (d) => d.deps.flatMap(({ name }) => name ?? []).join(','),
      ),
      field(
        'devnos_used',
        'DevNosUsed',
        16,
        'List of device numbers of devices used by this one.',
        (d) => d.deps.map(devno).join(','),
      ),
      field(
        'blkdevs_used',
        'BlkDevNamesUsed',
        16,
        'List of names of block devices used by this one.',
        (d) => d.deps.map(({ blkdevname }) => blkdevname).join(','),
      ),
      field(
        'device_ref_count',
        '#Refs',
        5,
        'Number of mapped devices referencing this one.',
        (d, all) => usersOf(d, all).length,
      ),
      field(
        'names_using_dev',
        'RefNames',
        8,
        'List of names of mapped devices using this one.',
        (d, all) =>
          usersOf(d, all)
            .map(({ name }) => name)
            .join(','),
      ),
      field(
        'devnos_using_dev',
        'RefDevNos',
        9,
        'List of device numbers of mapped devices using this one.',
        (d, all) => usersOf(d, all).map(devno).join(','),
      ),
    ],
  },
  {
    title: 'Mapped Device Name Components Fields',
    group: 'splitname_all',
    fields: [
      field(
        'subsystem',
        'Subsys',
        6,
        'Userspace subsystem responsible for this device.',
        subsystem,
      ),
      field('vg_name', 'VG', 4, 'LVM Volume Group name.', (d) => lvmPart(d, 0)),
      field('lv_name', 'LV', 4, 'LVM Logical Volume name.', (d) => lvmPart(d, 1)),
      field('lv_layer', 'LVLayer', 7, 'LVM device layer.', (d) => lvmPart(d, 2)),
    ],
  },
];

const DEFAULT_FIELDS = 'name,major,minor,attr,open,segments,events,uuid';

/** The fields that `-o help` and a mistake list. */
function printFieldHelp(): void {
  for (const { title, group, fields } of sections) {
    complain(title);
    complain('-'.repeat(title.length));
    const rows = [
      { name: group, help: 'All fields in this section.' },
      ...fields.map(({ name, help }) => ({ name, help })),
    ];
    for (const { name, help } of rows) complain(`  ${name.padEnd(21)} - ${help}`);
    complain(' ');
  }
}

function chooseFields(text: string): Field[] {
  const all = sections.flatMap(({ fields }) => fields);
  return text
    .split(',')
    .filter((name) => name !== '')
    .flatMap((name) => {
      const group = sections.find((section) => section.group === name);
      if (group !== undefined) return group.fields;
      const found = all.find((candidate) => candidate.name === name);
      if (found !== undefined) return [found];
      printFieldHelp();
      if (name !== 'help' && name !== '?') complain(`Unrecognised field: ${name}`);
      throw new CommandFailed('silent');
    });
}

/**
 * Prints `devices` in the columns that the options choose; `all` are those that may refer to them.
 */
export function printReport(
  options: Options,
  devices: readonly DeviceInfo[],
  all: readonly DeviceInfo[],
): void {
  const wanted = options.get('options') ?? DEFAULT_FIELDS;
  const fields = chooseFields(
    wanted.startsWith('+') ? `${DEFAULT_FIELDS},${wanted.slice(1)}` : wanted,
  );
  const sorted = sortDevices(devices, all, options.get('sort'));
  const rows = sorted.map((device) => fields.map(({ value }) => value(device, all)));
  const headings = fields.map(({ heading }) => heading);
  const noHeadings = options.has('noheadings');
  if (options.has('rows')) {
    fields.forEach((f, i) => {
      const heading = noHeadings ? [] : [f.heading.trim()];
      print(
        [...heading, ...rows.map((row) => String(row[i]))].join(options.get('separator') ?? ' '),
      );
    });
    return;
  }
  if (options.has('nameprefixes')) {
    printPrefixed(options, fields, rows);
    return;
  }
  if (noHeadings || options.has('separator')) {
    const separator = options.get('separator') ?? ':';
    if (!noHeadings) print(headings.map((heading) => heading.trim()).join(separator));
    for (const row of rows) print(row.join(separator));
    return;
  }
  printPadded(fields, rows);
}

function printPadded(fields: readonly Field[], rows: readonly Cell[][]): void {
  const widths = fields.map(({ width, heading }, i) =>
    Math.max(width, heading.length, ...rows.map((row) => String(row[i]).length)),
  );
  print(fields.map(({ heading }, i) => heading.padEnd(widths[i] ?? 0)).join(' '));
  for (const row of rows) {
    const cells = row.map((cell, i) => {
      const width = widths[i] ?? 0;
      return typeof cell === 'number' ? String(cell).padStart(width) : cell.padEnd(width);
    });
    print(cells.join(' '));
  }
}

function printPrefixed(options: Options, fields: readonly Field[], rows: readonly Cell[][]): void {
  const separator = options.get('separator') ?? (options.has('noheadings') ? ':' : ' ');
  if (!options.has('noheadings')) {
    print(fields.map(({ heading }) => heading.trim()).join(separator));
  }
  const quote = options.has('unquoted') ? '' : "'";
  for (const row of rows) {
    const cells = row.map((cell, i) => {
      const name = (fields[i]?.name ?? '').toUpperCase();
      return `DM_${name}=${quote}${cell}${quote}`;
    });
    print(cells.join(separator));
  }
}

function sortDevices(
  devices: readonly DeviceInfo[],
  all: readonly DeviceInfo[],
  keys: string | undefined,
): DeviceInfo[] {
  const chosen = (keys ?? 'name').split(',').map((key) => ({
    descending: key.startsWith('-'),
    field: chooseFields(key.replace(/^[+-]/, ''))[0],
  }));
  return [...devices].sort((a, b) => {
    for (const { descending, field: f } of chosen) {
      const [x, y] = [f?.value(a, all) ?? '', f?.value(b, all) ?? ''];
      if (x === y) continue;
      return x < y === descending ? 1 : -1;
    }
    return 0;
  });
}
