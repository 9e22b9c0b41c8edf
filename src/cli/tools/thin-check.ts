/**
 * thin_check on the command line (spec: tools, 2).
 */
import { checkReport, damageLine } from '../../thin/tools/check-report.ts';
import {
  freeMetadataBlocks,
  type CheckListener,
  type CheckOptions,
} from '../../thin/tools/check.ts';
import { checkFile } from '../../thin/tools/files.ts';
import { OPTION_U64, type ToolArguments } from './options.ts';
import { ExitCode, type Tool, type ToolOutput } from './tool.ts';

export const thinCheck: Tool = {
  usage: {
    program: 'thin_check',
    about: 'Checks the metadata of a thin pool, on a device or in a file.',
    positional: { name: 'INPUT', help: 'The metadata device or file' },
    options: [
      {
        long: 'auto-repair',
        conflicts: [
          'skip-mappings',
          'super-block-only',
          'metadata-snap',
          'ignore-non-fatal-errors',
          'override-mapping-root',
          'override-details-root',
        ],
        help: 'Repair what is harmless: space that is in use for nothing',
      },
      {
        long: 'clear-needs-check-flag',
        conflicts: ['metadata-snap', 'override-mapping-root', 'override-details-root'],
        help: "Clear the 'needs_check' flag if nothing is wrong (any more)",
      },
      {
        long: 'ignore-non-fatal-errors',
        help: 'Fail only for errors that could cost data',
      },
      { long: 'json', help: 'Print what was found as JSON' },
      {
        long: 'metadata-snap',
        short: 'm',
        help: 'Check the metadata snapshot of a pool in use',
      },
      {
        long: 'override-details-root',
        value: 'BLOCKNR',
        max: OPTION_U64,
        help: 'Take this block for the root of the details tree',
      },
      {
        long: 'override-mapping-root',
        value: 'BLOCKNR',
        max: OPTION_U64,
        help: 'Take this block for the root of the mapping tree',
      },
      { long: 'quiet', short: 'q', help: 'Print nothing, only exit with the result' },
      { long: 'skip-mappings', help: "Don't look at the mappings of devices" },
      { long: 'super-block-only', help: 'Check only the superblock' },
    ],
  },
  run: (args, output) => (args.has('json') ? runForPrograms(args, output) : run(args, output)),
};

function optionsOf(args: ToolArguments): CheckOptions {
  const overrideMappingRoot = args.number('override-mapping-root');
  const overrideDetailsRoot = args.number('override-details-root');
  return {
    superBlockOnly: args.has('super-block-only'),
    skipMappings: args.has('skip-mappings'),
    metadataSnap: args.has('metadata-snap'),
    ignoreNonFatalErrors: args.has('ignore-non-fatal-errors'),
    autoRepair: args.has('auto-repair'),
    clearNeedsCheck: args.has('clear-needs-check-flag'),
    ...(overrideMappingRoot !== undefined && { overrideMappingRoot }),
    ...(overrideDetailsRoot !== undefined && { overrideDetailsRoot }),
  };
}

async function run(args: ToolArguments, output: ToolOutput): Promise<number> {
  const options = optionsOf(args);
  const listener: CheckListener = {
    superblock: (sb) => {
      output.result(`TRANSACTION_ID=${sb.transactionId}`);
      output.result(`METADATA_FREE_BLOCKS=${freeMetadataBlocks(sb)}`);
      if (options.superBlockOnly !== true) output.phase('Checking thin metadata');
    },
    phase: (name) => output.phase(name),
    damage: (damage) => output.detail(damageLine(damage)),
    message: (text) => output.say(text),
  };
  const { ok } = await checkFile(args.positional, options, listener);
  output.endDetails();
  return ok ? ExitCode.SUCCESS : ExitCode.FAILURE;
}

async function runForPrograms(args: ToolArguments, output: ToolOutput): Promise<number> {
  const messages: string[] = [];
  const listener = { message: (text: string): unknown => messages.push(text) };
  const result = await checkFile(args.positional, optionsOf(args), listener);
  output.result(JSON.stringify(checkReport(result, messages), null, 2));
  return result.ok ? ExitCode.SUCCESS : ExitCode.FAILURE;
}
