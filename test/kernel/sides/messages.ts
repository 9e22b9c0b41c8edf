/**
 * `messages` on our side: one message after the other, until one is refused, past dmsetup, which
 * takes too long to start for each. Arguments: the state directory, and those of `messages`.
 */
import { Client } from '../../../src/cli/client.ts';
import { RequestError } from '../../../src/cli/failures.ts';

const [stateDir, pool = '', words = '', begin, end] = process.argv.slice(2);
const client = new Client(stateDir);
const path = `/v1/devices/${pool}/message`;
try {
  for (let i = Number(begin); i < Number(end); i++) {
    const message = [...words.split(' '), String(i)];
    await client.call('POST', path, {}, { sector: 0, message }).catch((error: unknown) => {
      if (error instanceof RequestError) console.log(`refused: ${i}`);
      throw error;
    });
  }
} catch (error) {
  if (!(error instanceof RequestError)) throw error;
}
