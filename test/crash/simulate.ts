/**
 * `npm run simulate`: replays a run of lives and power cuts, or tries seed after seed until it is
 * stopped (`--soak`). A run is a function of its seed, number of steps and features.
 */
import { parseArgs } from 'node:util';
import type { BlockDevice } from '../../src/block/device.ts';
import { assertClean } from '../helpers/check.ts';
import { skipWithout } from '../helpers/programs.ts';
import { run } from './run.ts';

const USAGE = `Usage: npm run simulate -- [OPTIONS]

Runs a thin pool on simulated disks, cuts the power at every event, and checks what is left.

  --seed N      the seed; the first one of a soak (default 1)
  --steps M     operations in all (default 400)
  --features F  feature arguments of the pool's table (default "0")
  --cuts K      cuts tried at each event (default 1)
  --check-every C  also run Debian's thin_check on every C-th image (default 0: never)
  --soak        go on with the next seed until stopped, or until --total cuts
  --total T     cuts after which a soak ends (default: none)
  --quiet       do not show what was done
  --help        show this
`;

const number = { type: 'string' } as const;
const flag = { type: 'boolean', default: false } as const;

function parse() {
  return parseArgs({
    options: {
      seed: { ...number, default: '1' },
      steps: { ...number, default: '400' },
      features: { ...number, default: '0' },
      cuts: { ...number, default: '1' },
      'check-every': { ...number, default: '0' },
      total: number,
      soak: flag,
      quiet: flag,
      help: flag,
    },
  }).values;
}

type Options = ReturnType<typeof parse>;

class Simulation {
  readonly #options: Options;
  readonly #sample: BlockDevice[] = [];
  #nrImages = 0;
  nrChecked = 0;

  constructor(options: Options) {
    this.#options = options;
  }

  async run(seed: number): Promise<number> {
    const { steps, features, cuts, quiet, soak } = this.#options;
    const nrCuts = await run({
      seed,
      nrSteps: Number(steps),
      cutsPerEvent: Number(cuts),
      features,
      onLife: (life, nrCuts) => {
        if (quiet || soak) return;
        console.log(life.diary.join('\n'));
        console.log(`power cut; ${life.storage.nrEvents} events, ${nrCuts} cuts tried\n`);
      },
      onImage: (metadata) => this.#check(metadata),
    });
    await this.#checkSample();
    return nrCuts;
  }

  /** The opinion of others. */
  #check(metadata: BlockDevice): void {
    const every = Number(this.#options['check-every']);
    if (every !== 0 && this.#nrImages++ % every === 0) this.#sample.push(metadata);
  }

  async #checkSample(): Promise<void> {
    for (const metadata of this.#sample.splice(0)) {
      await assertClean(metadata);
      this.nrChecked++;
    }
  }
}

async function soak(simulation: Simulation, options: Options): Promise<void> {
  const begin = performance.now();
  const total = options.total === undefined ? Infinity : Number(options.total);
  let isStopped = false;
  process.once('SIGINT', () => (isStopped = true));
  process.once('SIGTERM', () => (isStopped = true));
  let seed = Number(options.seed);
  let nrCuts = 0;
  let lastShown = begin;
  const summary = (): string => {
    const seconds = (performance.now() - begin) / 1000;
    const rate = Math.round(nrCuts / seconds);
    return (
      `seeds ${options.seed} to ${seed - 1}: ${nrCuts} cuts in ${seconds.toFixed(0)} s ` +
      `(${rate}/s), ${simulation.nrChecked} images checked by Debian's thin_check, nothing found`
    );
  };
  while (!isStopped && nrCuts < total) {
    nrCuts += await simulation.run(seed++);
    if (performance.now() - lastShown < 10_000) continue;
    lastShown = performance.now();
    console.error(summary());
  }
  console.log(summary());
}

async function main(): Promise<void> {
  const options = parse();
  if (options.help) {
    process.stdout.write(USAGE);
    return;
  }
  if (options['check-every'] !== '0' && skipWithout('thin_check') !== false) {
    throw new Error('--check-every needs thin_check (Debian: thin-provisioning-tools)');
  }
  const simulation = new Simulation(options);
  if (options.soak) await soak(simulation, options);
  else console.log(`${await simulation.run(Number(options.seed))} cuts, nothing found`);
}

try {
  await main();
} catch (error) {
  console.error((error as Error).message);
  process.exitCode = 1;
}
