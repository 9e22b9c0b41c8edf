/**
 * thin_dump on the command line (spec: tools, 3).
 */
import { DmError } from '../../base/error.ts';
import { dumpFile, dumpFormats, type DumpFileOptions } from '../../thin/tools/files.ts';
import { OPTION_U32, OPTION_U64, type ToolArguments } from './options.ts';
import { ExitCode, type Tool } from './tool.ts';

export const thinDump: Tool = {
  usage: {
    program: 'thin_dump',
    about: 'Writes the metadata of a thin pool as XML.',
    positional: { name: 'INPUT', help: 'The metadata device or file' },
    options: [
      {
        long: 'data-block-size',
        value: 'SECTORS',
        max: OPTION_U32,
        help: 'Data block size of the pool, where the superblock is lost',
      },
      {
        long: 'dev-id',
        value: 'THIN_ID',
        max: OPTION_U64,
        repeatable: true,
        help: 'Dump only this device; may be given several times',
      },
      {
        long: 'format',
        short: 'f',
        value: 'TYPE',
        choices: dumpFormats,
        help: 'Write as',
      },
      {
        long: 'metadata-snap',
        short: 'm',
        value: 'BLOCKNR',
        optionalValue: true,
        max: OPTION_U64,
        help: 'Dump the metadata snapshot of a pool in use',
      },
      {
        long: 'nr-data-blocks',
        value: 'NUM',
        max: OPTION_U64,
        help: 'Data blocks of the pool, if the metadata knows of fewer',
      },
      { long: 'output', short: 'o', value: 'FILE', help: 'Write to a file' },
      { long: 'quiet', short: 'q', help: 'Print no messages' },
      {
        long: 'repair',
        short: 'r',
        conflicts: ['metadata-snap'],
        help: 'Dump the newest state that can be found whole',
      },
      { long: 'skip-mappings', help: "Don't dump the mappings of devices" },
      {
        long: 'transaction-id',
        value: 'NUM',
        max: OPTION_U64,
        help: 'Transaction id of the pool, if the metadata has a lower one',
      },
    ],
  },
  run: async (args, output) => {
    const options = optionsOf(args);
    try {
      await dumpFile(args.positional, options, (text) => output.say(text));
    } catch (error) {
      if (!(error instanceof DmError) || options.repair === true || !isDamage(error)) throw error;
      output.say(error.message);
      output.say('metadata contains errors (run thin_check for details).');
      output.say('perhaps you wanted to run with --repair');
      return ExitCode.FAILURE;
    }
    return ExitCode.SUCCESS;
  },
};

function isDamage({ errno }: DmError): boolean {
  return errno === 'EILSEQ' || errno === 'EIO';
}

function optionsOf(args: ToolArguments): DumpFileOptions {
  const format = dumpFormats.find((name) => name === args.text('format'));
  return {
    ...(format !== undefined && { format }),
    metadataSnap: args.has('metadata-snap') ? (args.number('metadata-snap') ?? true) : undefined,
    devIds: args.has('dev-id') ? args.numbers('dev-id') : undefined,
    repair: args.has('repair'),
    skipMappings: args.has('skip-mappings'),
    output: args.text('output'),
    transactionId: args.big('transaction-id'),
    dataBlockSize: args.number('data-block-size'),
    nrDataBlocks: args.number('nr-data-blocks'),
  };
}
