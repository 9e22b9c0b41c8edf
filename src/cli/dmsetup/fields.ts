/**
 * The fields of `info -c`: names, headings, widths, values (spec: dm-core, 7.2), and the list of
 * them that dmsetup prints for `-o help` and after a mistake.
 *
 * Does not: have dmsetup's fields of I/O statistics, which are not kept here.
 */
import type { DeviceInfo } from '../../daemon/api-types.ts';
import { CommandFailed, complain, HelpShown } from '../output.ts';
import type { Mangling } from './mangling.ts';

export type Cell = string | number;

/** One row: a device, all devices that may refer to it, and whether -S selects it. */
export interface Row {
  readonly device: DeviceInfo;
  readonly all: readonly DeviceInfo[];
  readonly mangling: Mangling;
  readonly isSelected: boolean;
}

export interface Field {
  readonly name: string;
  readonly heading: string;
  /** The smallest width of its column. */
  readonly width: number;
  readonly kind: 'number' | 'string';
  readonly help: string;
  value(row: Row): Cell;
}

interface Section {
  readonly title: string;
  /** What stands for the whole section in -o, and the fields that it stands for. */
  readonly group: string | null;
  readonly members?: readonly string[];
  readonly fields: readonly Field[];
}

type FieldRow = readonly [
  name: string,
  heading: string,
  width: number,
  help: string,
  value: (device: DeviceInfo, row: Row) => Cell,
];

function fields(kind: Field['kind'], rows: readonly FieldRow[]): Field[] {
  return rows.map(([name, heading, width, help, value]) => ({
    name,
    heading,
    width,
    kind,
    help,
    value: (row) => value(row.device, row),
  }));
}

const devno = (d: { major: number; minor: number }): string => `${d.major}:${d.minor}`;
const byNumber = (a: { minor: number }, b: { minor: number }): number => a.minor - b.minor;

function usersOf(device: DeviceInfo, { all }: Row): DeviceInfo[] {
  return all.filter(({ deps }) => deps.some((dep) => devno(dep) === devno(device))).sort(byNumber);
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
  const parts = [''];
  for (const [text] of name.matchAll(/--|[^]/g)) {
    if (text === '-') parts.push('');
    else parts[parts.length - 1] += text === '--' ? '-' : text;
  }
  return [parts[0] ?? '', parts[1] ?? '', parts[2] ?? ''];
}

function subsystem(d: DeviceInfo): string {
  const dash = d.uuid.indexOf('-');
  return dash < 0 ? '' : d.uuid.slice(0, dash);
}

const lvmPart = (d: DeviceInfo, index: 0 | 1 | 2): string =>
  subsystem(d) === 'LVM' ? splitLvmName(d.name)[index] : '';

const shownName = ({ device, mangling }: Row): string => mangling.shown(device.name, 'name');
const shownUuid = ({ device, mangling }: Row): string => mangling.shown(device.uuid, 'uuid');
const mangledUuid = 'Mangled unique (optional) identifier for mapped device.';
const unmangledUuid = 'Unmangled unique (optional) identifier for mapped device.';
const statHelp = '(L)ive, (I)nactive, (s)uspended, (r)ead-only, read-(w)rite.';

const sections: readonly Section[] = [
  {
    title: 'Mapped Device Name Fields',
    group: 'name_all',
    fields: [
      ...fields('string', [
        ['name', 'Name', 16, 'Name of mapped device.', (_d, row) => shownName(row)],
        ['mangled_name', 'MangledName', 16, 'Mangled name of mapped device.', (d) => d.name],
        [
          'unmangled_name',
          'UnmangledName',
          16,
          'Unmangled name of mapped device.',
          (_d, row) => shownName(row),
        ],
        [
          'uuid',
          'UUID',
          32,
          'Unique (optional) identifier for mapped device.',
          (_d, row) => shownUuid(row),
        ],
        ['mangled_uuid', 'MangledUUID', 32, mangledUuid, (d) => d.uuid],
        ['unmangled_uuid', 'UnmangledUUID', 32, unmangledUuid, (_d, row) => shownUuid(row)],
      ]),
      ...fields('number', [
        ['read_ahead', 'RAhead', 6, 'Read ahead value.', (d) => d.readAheadSectors],
      ]),
    ],
  },
  {
    title: 'Mapped Device Information Fields',
    group: 'info_all',
    fields: [
      ...fields('string', [
        ['blkdevname', 'BlkDevName', 16, 'Name of block device.', (d) => `dm-${d.minor}`],
        ['attr', 'Stat', 4, statHelp, attributes],
        [
          'tables_loaded',
          'Tables',
          6,
          'Which of the live and inactive table slots are filled.',
          tablesLoaded,
        ],
        [
          'suspended',
          'Suspended',
          9,
          'Whether the device is suspended.',
          (d) => (d.suspended ? 'Suspended' : 'Active'),
        ],
        [
          'readonly',
          'Read-only',
          9,
          'Whether the device is read-only or writeable.',
          (d) => (d.readOnly ? 'Read-only' : 'Writeable'),
        ],
        ['devno', 'DevNo', 5, 'Device major and minor numbers', devno],
      ]),
      ...fields('number', [
        ['major', 'Maj', 3, 'Block device major number.', (d) => d.major],
        ['minor', 'Min', 3, 'Block device minor number.', (d) => d.minor],
        [
          'open',
          'Open',
          4,
          'Number of references to open device, if requested.',
          (d) => d.openCount,
        ],
        [
          'segments',
          'Targ',
          4,
          'Number of segments in live table, if present.',
          (d) => d.targetCount,
        ],
        ['events', 'Event ', 6, 'Number of most recent event.', (d) => d.eventNr],
      ]),
    ],
  },
  {
    title: 'Mapped Device Relationship Information Fields',
    group: 'deps_all',
    members: ['device_count', 'devnos_used', 'blkdevs_used'],
    fields: [
      ...fields('number', [
        ['device_count', '#Devs', 5, 'Number of devices used by this one.', (d) => d.deps.length],
      ]),
      ...fields('string', [
        [
          'devs_used',
          'DevNamesUsed',
          16,
          'List of names of mapped devices used by this one.',
          (d, { mangling }) =>
            d.deps
              .flatMap(({ name }) => (name === null ? [] : mangling.shown(name, 'name')))
              .join(','),
        ],
        [
          'devnos_used',
          'DevNosUsed',
          16,
          'List of device numbers of devices used by this one.',
          (d) => d.deps.map(devno).join(','),
        ],
        [
          'blkdevs_used',
          'BlkDevNamesUsed',
          16,
          'List of names of block devices used by this one.',
          (d) => d.deps.map(({ blkdevname }) => blkdevname).join(','),
        ],
      ]),
      ...fields('number', [
        [
          'device_ref_count',
          '#Refs',
          5,
          'Number of mapped devices referencing this one.',
          (d, row) => usersOf(d, row).length,
        ],
      ]),
      ...fields('string', [
        [
          'names_using_dev',
          'RefNames',
          8,
          'List of names of mapped devices using this one.',
          (d, row) =>
            usersOf(d, row)
              .map(({ name }) => row.mangling.shown(name, 'name'))
              .join(','),
        ],
        [
          'devnos_using_dev',
          'RefDevNos',
          9,
          'List of device numbers of mapped devices using this one.',
          (d, row) => usersOf(d, row).map(devno).join(','),
        ],
      ]),
    ],
  },
  {
    title: 'Mapped Device Name Components Fields',
    group: 'splitname_all',
    fields: fields('string', [
      ['subsystem', 'Subsys', 6, 'Userspace subsystem responsible for this device.', subsystem],
      ['vg_name', 'VG', 4, 'LVM Volume Group name.', (d) => lvmPart(d, 0)],
      ['lv_name', 'LV', 4, 'LVM Logical Volume name.', (d) => lvmPart(d, 1)],
      ['lv_layer', 'LVLayer', 7, 'LVM device layer.', (d) => lvmPart(d, 2)],
    ]),
  },
  {
    title: 'Special Fields',
    group: null,
    fields: fields('number', [
      [
        'selected',
        'Selected',
        8,
        'Set if item passes selection criteria.',
        (_d, row) => (row.isSelected ? 1 : 0),
      ],
    ]),
  },
];

/** A field by its name, in any case. */
export function findField(name: string): Field | undefined {
  const wanted = name.toLowerCase();
  return sections.flatMap((section) => section.fields).find((field) => field.name === wanted);
}

/** The list of fields; for selections with their kinds and without the groups. */
export function complainFields(forSelection = false): void {
  for (const { title, group, fields: own } of sections) {
    const rows = own.map(({ name, help, kind }) => [name, help, kind] as const);
    const all = [
      ...(group === null || forSelection ? [] : [[group, 'All fields in this section.'] as const]),
      ...rows,
      ...(group === null
        ? [
            ['help', 'Show help.', 'unselectable number'] as const,
            ['?', 'Show help.', 'unselectable number'] as const,
          ]
        : []),
    ];
    complain(title);
    complain('-'.repeat(title.length));
    for (const [name, help, kind] of all) {
      const type = forSelection ? ` [${kind}]` : '';
      complain(`  ${name.padEnd(21)} - ${help}${type}`);
    }
    complain(' ');
  }
}

/**
 * The fields that a list of names and groups stands for. Ends with the list of fields for `help`,
 * and fails with it for an unknown name; `complaint` begins the line about that.
 */
export function chooseFields(text: string, complaint = 'Unrecognised field: '): Field[] {
  const chosen: Field[] = [];
  for (const name of text.split(',')) {
    const section = sections.find(({ group }) => group === name);
    const found = findField(name);
    if (section !== undefined) {
      const { members } = section;
      chosen.push(...section.fields.filter((f) => members?.includes(f.name) ?? true));
    } else if (found !== undefined) {
      chosen.push(found);
    } else {
      complainFields();
      if (name === 'help' || name === '?') throw new HelpShown();
      complain(`${complaint}${name}`);
      throw new CommandFailed('');
    }
  }
  return chosen;
}
