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

const startRows = runStart(realStart);
const startTable = [startHeading, ...startRows.map(formatStart)].join('\n');
say(`What a command costs beside a bare Node\n\n${startTable}\n`);
const worker = await measureWorker(1_000_000);
const rates = [worker.idle, worker.busy, worker.needlesslyWoken];
const workerRows = ['idle', 'busy provisioning another volume', 'woken for every read'].map(
  (name, i) => {
    const rate = rates[i] ?? NaN;
    return `| ${name} | ${Math.round(rate)} | ${(rate / worker.idle).toFixed(2)} |`;
  },
);
const workerTable = ['| worker | reads/s | ÷ idle |', '|---|---:|---:|', ...workerRows].join('\n');
say(`4 KiB random reads of mapped blocks, targets alone\n\n${workerTable}\n`);
const policyTable = formatPolicy([10_000, 100_000, 1_000_000].map((nr) => measurePolicy(nr, 5)));
say(`A cache policy\n\n${policyTable}\n\n${heading}`);
const rows: Row[] = await run(real, (row) => say(format(row)));
say(`\n${cacheHeading}`);
const cacheRows = await runCache(realCache, (row) => say(formatCache(row)));

const text = `# Results

Each figure is the median of ${real.rounds} alternating runs of ${real.seconds} s in one go,
on one machine: ${machine()}.
Ratios above 1 mean that we are faster. Compare ratios, never figures from different machines.

## Thin volumes over NBD

fio's nbd engine, one connection over a unix socket, files on tmpfs, volumes of ${real.mib} MiB,
64 KiB blocks, zeroing on. nbdkit's file plugin and qemu-nbd on a raw file map nothing and have no
snapshots: beside a snapshotted volume they show their plain speed.

${heading}
${rows.map(format).join('\n')}

## Caches over NBD

4 KiB random reads over ${realCache.mib} MiB, everything in the cache or nothing, the origin being
a file on tmpfs like the cache; and a mix over a slow origin, after ${realCache.warmUpSeconds} s of
it.

${cacheHeading}
${cacheRows.map(formatCache).join('\n')}

## Commands

The median of ${realStart.rounds} runs of each, alternating with runs of an empty script; the daemon
runs already. Here a ratio of 1 is the best there can be.

${startTable}

## The worker

4 KiB random reads of mapped blocks in one process, on a device that does nothing.

${workerTable}

## The cache policy

smq alone: look-ups in random order, each with its tick, by size of the cache; a redistribution of
all blocks; and the index of blocks beside a Map.

${policyTable}
`;
fs.writeFileSync(results, text);
say(`\nWritten to bench/RESULTS.md`);
