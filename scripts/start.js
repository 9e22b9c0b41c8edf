/**
 * `npm start`: sets up, then runs the daemon in the foreground with a pool and a volume to try.
 */
import { setUp } from './setup.js';

setUp();
const { daemonCommand } = await import('../dist/src/cli/daemon-command.js');
const args = ['--with-default-pool', '--log-level', 'warn', ...process.argv.slice(2)];
process.exitCode = await daemonCommand(args);
