/**
 * `devmapper parameter`: what the kernel has in /sys/module/NAME/parameters.
 */
import { parseU32 } from '../base/numbers.ts';
import type { Parameters } from '../daemon/api-types.ts';
import { Client } from './client.ts';
import { RequestError } from './failures.ts';
import { getopt, OptionError, type ParsedOptions } from './getopt.ts';
import { complain, explain, print } from './output.ts';

const HELP = `Usage: devmapper parameter [NAME [VALUE]] [--state-dir DIR]

Prints the daemon's parameters, or one, or sets one until the daemon ends.

  no_space_timeout   seconds that writes wait for space in a full pool before they fail; 0: for ever
                     (in the kernel: /sys/module/dm_thin_pool/parameters/no_space_timeout)
`;

const PATH = '/v1/parameters';

/** `devmapper parameter`; resolves to the exit code. */
export async function parameterCommand(argv: readonly string[]): Promise<number> {
  let parsed: ParsedOptions;
  try {
    const specs = [
      { long: 'state-dir', value: true },
      { long: 'help', short: 'h' },
    ];
    parsed = getopt('devmapper parameter', specs, argv);
  } catch (error) {
    if (!(error instanceof OptionError)) throw error;
    complain(error.message);
    complain("Try 'devmapper parameter --help'.");
    return 2;
  }
  if (parsed.values.has('help')) {
    process.stdout.write(HELP);
    return 0;
  }
  const [name, value, ...more] = parsed.args;
  if (more.length > 0) {
    complain('devmapper parameter: wanted a name and a value at most');
    return 2;
  }
  try {
    return await run(new Client(parsed.values.get('state-dir')?.at(-1)), name, value);
  } catch (error) {
    complain(error instanceof RequestError ? `devmapper: ${error.error.message}` : explain(error));
    return 1;
  }
}

async function run(client: Client, name?: string, value?: string): Promise<number> {
  const known = await client.call<Parameters>('GET', PATH);
  if (name === undefined) {
    for (const [each, current] of Object.entries(known)) print(`${each} ${current}`);
    return 0;
  }
  const current: number | undefined = Object.entries<number>({ ...known }).find(
    ([each]) => each === name,
  )?.[1];
  if (current === undefined) {
    complain(`devmapper parameter: there is no parameter '${name}'`);
    return 1;
  }
  if (value === undefined) {
    print(String(current));
    return 0;
  }
  const number = parseU32(value);
  if (number === undefined) {
    complain(`devmapper parameter: wanted a number below 2^32, found '${value}'`);
    return 1;
  }
  await client.call('PUT', PATH, {}, { [name]: number });
  return 0;
}
