/**
 * The words of a script that do I/O, on our side, over NBD: as in the kernel each is one request,
 * and nothing is flushed that was not asked for (qemu-io flushes before it ends).
 * Arguments: the NBD socket, then the word and its arguments.
 */
import { Cmd, Err, Flag, NbdClient } from '../../helpers/nbd-client.ts';

const SECTOR = 512;

const texts: Record<number, string> = {
  0: 'ok',
  [Err.EPERM]: 'Operation not permitted',
  [Err.EIO]: 'Input/output error',
  [Err.ENOSPC]: 'No space left on device',
  [Err.ENOTSUP]: 'Operation not supported',
};

const [socket = '', word = '', name = '', sector, count, byte, fua] = process.argv.slice(2);
const offset = Number(sector) * SECTOR;
const length = Number(count) * SECTOR;
const client = await NbdClient.connect(socket);
await client.greet();
await client.choose('structured');
await client.go(name);
switch (word) {
  case 'wr': {
    const data = Buffer.alloc(length, Number(byte));
    await told(Cmd.WRITE, { offset, data, flags: fua === undefined ? 0 : Flag.FUA });
    break;
  }
  case 'trim':
    if ((client.transmissionFlags & 0x20) === 0) console.log(texts[Err.ENOTSUP]);
    else await told(Cmd.TRIM, { offset, length });
    break;
  case 'fsync':
    await told(Cmd.FLUSH, {});
    break;
  case 'rd': {
    const { error, data } = await client.command(Cmd.READ, { offset, length });
    if (error === 0) printSectors(data);
    else console.log(texts[error] ?? `NBD error ${error}`);
    break;
  }
  case 'wrs': {
    const [step, nr] = [Number(count), Number(byte)];
    const data = Buffer.alloc(4096, 1);
    for (let i = 0; i < nr; i++) {
      await client.command(Cmd.WRITE, { offset: offset + i * step * SECTOR, data });
    }
    break;
  }
  default:
    throw new Error(`wanted wr, wrs, trim, fsync or rd, found ${word}`);
}
client.destroy();

async function told(...request: Parameters<typeof client.command>): Promise<void> {
  const { error } = await client.command(...request);
  console.log(texts[error] ?? `NBD error ${error}`);
}

/** The first bytes of sectors, equal neighbours counted, as od and uniq -c do it. */
function printSectors(data: Buffer): void {
  const first = (at: number): number => data[at] as number;
  for (let begin = 0; begin < data.length;) {
    let end = begin;
    while (end < data.length && first(end) === first(begin)) end += SECTOR;
    const number = String((end - begin) / SECTOR).padStart(7);
    console.log(`${number}  ${first(begin).toString(16).padStart(2, '0')}`);
    begin = end;
  }
}
