/**
 * replay-log on the command line: puts what a log-writes target has recorded onto a device, as a
 * whole or up to some entry (spec: dm-core, 9.6).
 */
import { spawnSync } from 'node:child_process';
import { DmError } from '../../base/error.ts';
import { OpenDevices, type OpenDevice } from '../../block/open-devices.ts';
import { entriesIn, replayLog, type ReplayRange } from '../../block/replay-log.ts';
import { LogFlag } from '../../block/write-log-format.ts';
import { WriteLogReader, type WriteLogEntry } from '../../block/write-log-reader.ts';
import { OPTION_U64, type ToolArguments } from './options.ts';
import { ExitCode, type Tool, type ToolOutput } from './tool.ts';

const number = (long: string, value: string, help: string) =>
  ({ long, value, max: OPTION_U64, help }) as const;

export const replayLogTool: Tool = {
  usage: {
    program: 'replay-log',
    about: 'Replays the writes that a log-writes device has recorded.',
    options: [
      {
        long: 'check',
        value: 'WHEN',
        help: 'Run the check after every WHEN entries, each flush (flush), or each FUA write (fua)',
      },
      {
        long: 'end-mark',
        value: 'TEXT',
        help: 'Stop before this mark',
      },
      number('end-sector', 'SECTOR', 'Write only what lies before this sector'),
      {
        long: 'find',
        conflicts: ['replay', 'num-entries', 'fsck'],
        help: 'Replay nothing; print the number of the last entry that would be',
      },
      { long: 'fsck', value: 'COMMAND', help: 'The check: a shell command that must succeed' },
      number('limit', 'N', 'Replay at most N entries'),
      { long: 'list', conflicts: ['replay', 'find', 'num-entries', 'fsck'], help: 'List entries' },
      { long: 'json', help: 'Print what is listed as JSON' },
      { long: 'log', value: 'DEV', required: true, help: 'The log device' },
      { long: 'next-flush', conflicts: ['next-fua'], help: 'Stop behind the first flush' },
      { long: 'next-fua', help: 'Stop behind the first FUA write' },
      { long: 'no-discard', help: 'Leave discards out' },
      { long: 'num-entries', help: 'Print how many entries the log has' },
      { long: 'replay', value: 'DEV', help: 'The device to write to' },
      number('start-entry', 'N', 'Begin with entry N; the first is 0'),
      { long: 'start-mark', value: 'TEXT', help: 'Begin behind this mark' },
      number('start-sector', 'SECTOR', 'Write only what lies from this sector on'),
    ],
  },
  run,
};

async function run(args: ToolArguments, output: ToolOutput): Promise<number> {
  const devices = new OpenDevices();
  const log = devices.openPath(args.text('log') ?? '', true);
  try {
    const reader = WriteLogReader.open(log.device);
    if (args.has('num-entries')) output.result(`${reader.nrEntries}`);
    else if (args.has('list')) list(reader, args, output);
    else if (args.has('find')) find(reader, args, output);
    else await replay(reader, devices, args, output);
    return ExitCode.SUCCESS;
  } finally {
    await log.release();
  }
}

function rangeOf(args: ToolArguments): ReplayRange {
  const untilFlag = args.has('next-flush')
    ? LogFlag.FLUSH
    : args.has('next-fua')
      ? LogFlag.FUA
      : undefined;
  return {
    startEntry: args.number('start-entry'),
    startMark: args.text('start-mark'),
    endMark: args.text('end-mark'),
    limit: args.number('limit'),
    untilFlag,
  };
}

const FLAG_WORDS: readonly (readonly [flag: number, word: string])[] = [
  [LogFlag.FLUSH, 'FLUSH'],
  [LogFlag.FUA, 'FUA'],
  [LogFlag.DISCARD, 'DISCARD'],
  [LogFlag.MARK, 'MARK'],
  [LogFlag.METADATA, 'METADATA'],
];

function wordsOf(flags: number): string[] {
  return FLAG_WORDS.filter(([flag]) => (flags & flag) !== 0).map(([, word]) => word);
}

function describe({ index, sector, nrSectors, flags, text }: WriteLogEntry): string {
  const words = wordsOf(flags);
  const what = words.length === 0 ? 'WRITE' : words.join('|');
  const mark = text === '' ? '' : ` '${text}'`;
  return `entry ${index}: ${what}${mark}, sector ${sector}, ${nrSectors} sectors`;
}

function list(reader: WriteLogReader, args: ToolArguments, output: ToolOutput): void {
  const isJson = args.has('json');
  const all: object[] = [];
  for (const entry of entriesIn(reader, rangeOf(args))) {
    const { index, sector, nrSectors, flags, text } = entry;
    if (isJson) all.push({ index, flags: wordsOf(flags), sector, nrSectors, mark: text });
    else output.result(describe(entry));
  }
  if (isJson) output.result(JSON.stringify(all, null, 2));
}

/** As the kernel's program prints it: the entry, and its place in the log in bytes. */
function find(reader: WriteLogReader, args: ToolArguments, output: ToolOutput): void {
  let last: WriteLogEntry | null = null;
  for (const entry of entriesIn(reader, rangeOf(args))) last = entry;
  if (last === null) throw new DmError('ENOENT', 'wanted an entry to end with, found none');
  output.result(`${last.index}@${last.logSector}`);
}

async function replay(
  reader: WriteLogReader,
  devices: OpenDevices,
  args: ToolArguments,
  output: ToolOutput,
): Promise<void> {
  const target = args.text('replay');
  if (target === undefined) {
    throw new DmError('EINVAL', 'wanted one of --replay, --find, --list and --num-entries');
  }
  const check = checkOf(args);
  const device: OpenDevice = devices.openPath(target, false);
  try {
    const nr = await replayLog(reader, device.device, {
      ...rangeOf(args),
      startSector: args.number('start-sector'),
      endSector: args.number('end-sector'),
      skipDiscards: args.has('no-discard'),
      onEntry: (entry) => {
        if (args.has('verbose')) output.say(describe(entry));
        check?.(entry);
      },
    });
    output.say(`replayed ${nr} entries`);
  } finally {
    await device.release();
  }
}

/** What runs after each entry; null without --fsck. */
function checkOf(args: ToolArguments): ((entry: WriteLogEntry) => void) | null {
  const command = args.text('fsck');
  const when = args.text('check') ?? '1';
  const every = /^[1-9][0-9]*$/.test(when) ? Number(when) : null;
  const flag = when === 'flush' ? LogFlag.FLUSH : when === 'fua' ? LogFlag.FUA : null;
  if (every === null && flag === null) {
    throw new DmError('EINVAL', `wanted --check with a number, flush or fua, found '${when}'`);
  }
  if (command === undefined) {
    if (!args.has('check')) return null;
    throw new DmError('EINVAL', 'wanted --fsck with --check, found none');
  }
  let nr = 0;
  return (entry) => {
    nr++;
    const isTime = every !== null ? nr % every === 0 : (entry.flags & (flag ?? 0)) !== 0;
    if (!isTime) return;
    const { status } = spawnSync('sh', ['-c', command], { stdio: 'inherit' });
    if (status !== 0) {
      throw new DmError('EIO', `the check failed after ${describe(entry)}: exit code ${status}`);
    }
  };
}
