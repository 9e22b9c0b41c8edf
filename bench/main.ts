/**
 * `npm run bench`: runs the benchmarks and writes bench/RESULTS.md.
 */
import fs from 'node:fs';
import os from 'node:os';
import { fileURLToPath } from 'node:url';
import { cacheHeading, formatCache, realCache, runCache } from './cache.bench.ts';
import { formatStart, realStart, runStart, startHeading } from './cli-start.bench.ts';
import { format, heading, real, run, type Row } from './nbd.bench.ts';
import { formatPolicy, measurePolicy } from './policy.bench.ts';
import { measureWorker } from './worker.bench.ts';

const results = fileURLToPath(new URL('../../bench/RESULTS.md', import.meta.url));

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}

function machine(): string {
  const [cpu] = os.cpus();
  const processor = `${os.cpus().length} × ${cpu?.model.trim()}`;
  return `${processor}, Linux ${os.release()}, Node ${process.version}`;
}

/** A part of the results: its heading, and what measures it and makes its text. */
interface Section {
  readonly word: string;
  readonly heading: string;
  measure(): Promise<string>;
}

const sections: readonly Section[] = [
  {
    word: 'nbd',
    heading: 'Thin volumes over NBD',
    measure: async () => {
      say(heading);
      const rows: Row[] = await run(real, (row) => say(format(row)));
      return `fio's nbd engine, one connection over a unix socket, files on tmpfs, volumes of
${real.mib} MiB, 64 KiB blocks, zeroing on. nbdkit's file plugin and qemu-nbd on a raw file map
nothing and have no snapshots: beside a snapshotted volume they show their plain speed.

${heading}
${rows.map(format).join('\n')}`;
    },
  },
  {
    word: 'cache',
    heading: 'Caches over NBD',
    measure: async () => {
      say(cacheHeading);
      const rows = await runCache(realCache, (row) => say(formatCache(row)));
      return `4 KiB random reads over ${realCache.mib} MiB, everything in the cache or nothing, the
origin being a file on tmpfs like the cache; and mixes over a slow origin, after
${realCache.warmUpSeconds} s of them. "All hits" is the same mix on a cache that held everything
from the beginning.

${cacheHeading}
${rows.map(formatCache).join('\n')}`;
    },
  },
  {
    word: 'start',
    heading: 'Commands',
    measure: async () => {
      const table = [startHeading, ...runStart(realStart).map(formatStart)].join('\n');
      say(table);
      return `The median of ${realStart.rounds} runs of each, alternating with runs of an empty
script; the daemon runs already. Here a ratio of 1 is the best there can be.

${table}`;
    },
  },
  {
    word: 'worker',
    heading: 'The worker',
    measure: async () => {
      const worker = await measureWorker(1_000_000);
      const rates = [worker.idle, worker.busy, worker.needlesslyWoken];
      const rows = ['idle', 'busy provisioning another volume', 'woken for every read'].map(
        (name, i) => {
          const rate = rates[i] ?? NaN;
          return `| ${name} | ${Math.round(rate)} | ${(rate / worker.idle).toFixed(2)} |`;
        },
      );
      const table = ['| worker | reads/s | ÷ idle |', '|---|---:|---:|', ...rows].join('\n');
      say(table);
      return `4 KiB random reads of mapped blocks in one process, on a device that does nothing.

${table}`;
    },
  },
  {
    word: 'policy',
    heading: 'The cache policy',
    measure: async () => {
      const table = formatPolicy([10_000, 100_000, 1_000_000].map((nr) => measurePolicy(nr, 5)));
      say(table);
      return `smq alone: look-ups in random order, each with its tick, by size of the cache; a
redistribution of all blocks; and the index of blocks beside a Map.

${table}`;
    },
  },
];

/** Texts of an earlier run, by heading: parts that are not measured now keep theirs. */
function earlier(): Map<string, string> {
  if (!fs.existsSync(results)) return new Map();
  const [, ...parts] = fs.readFileSync(results, 'utf8').split(/^## /m);
  return new Map(
    parts.map((part) => {
      const end = part.indexOf('\n');
      return [part.slice(0, end), part.slice(end).trim()];
    }),
  );
}

const wanted = process.argv.slice(2);
const unknown = wanted.filter((word) => !sections.some((section) => section.word === word));
if (unknown.length > 0) {
  const known = sections.map(({ word }) => word).join(', ');
  process.stderr.write(`bench: wanted ${known}, found ${unknown.join(', ')}\n`);
  process.exit(2);
}
const texts = earlier();
for (const section of sections) {
  if (wanted.length > 0 && !wanted.includes(section.word)) continue;
  say(`\n${section.heading}\n`);
  texts.set(section.heading, await section.measure());
}
const parts = sections.map(({ heading: title }) => `## ${title}\n\n${texts.get(title) ?? ''}\n`);
fs.writeFileSync(
  results,
  `# Results

Each figure is the median of ${real.rounds} alternating runs of ${real.seconds} s in one go,
on one machine: ${machine()}.
Ratios above 1 mean that we are faster. Compare ratios, never figures from different machines.

${parts.join('\n')}`,
);
say('\nWritten to bench/RESULTS.md');
