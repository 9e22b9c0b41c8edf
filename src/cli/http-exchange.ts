/**
 * One HTTP exchange with the daemon, on a connection of its own: HTTP/1.0, so that the answer ends
 * where the connection does. Node's own client would cost a command as much again as all the rest.
 *
 * Does not: speak to any other server. The daemon's answers are JSON with a content length.
 */
import net from 'node:net';
import { DaemonError } from './failures.ts';

/** An answer, its body as text. */
export interface Answer {
  readonly statusCode: number;
  readonly body: string;
}

/** The longest answer that is read: a listing of some hundred thousand devices. */
const ANSWER_BYTES_MAX = 256 * 1024 * 1024;

/**
 * Sends a request over the unix socket. Rejects with the system's error if nobody listens there,
 * with a DaemonError if what comes back is no whole answer.
 */
export function exchange(
  socketPath: string,
  method: string,
  resource: string,
  json: string | undefined,
): Promise<Answer> {
  const socket = net.connect(socketPath);
  return new Promise((resolve, reject) => {
    const parts: Buffer[] = [];
    let length = 0;
    socket.on('error', reject);
    socket.on('data', (part) => {
      parts.push(part);
      length += part.length;
      if (length > ANSWER_BYTES_MAX) socket.destroy(new DaemonError('the answer is too long'));
    });
    socket.on('end', () => {
      socket.destroy();
      const answer = parse(Buffer.concat(parts));
      if (answer === null) reject(new DaemonError('the daemon ended without an answer'));
      else resolve(answer);
    });
    socket.write(requestText(method, resource, json));
  });
}

function requestText(method: string, resource: string, json: string | undefined): string {
  const head = `${method} ${resource} HTTP/1.0\r\nHost: localhost\r\n`;
  if (json === undefined) return `${head}\r\n`;
  const length = Buffer.byteLength(json);
  return `${head}Content-Type: application/json\r\nContent-Length: ${length}\r\n\r\n${json}`;
}

/** The answer in `bytes`, or null if that is not a whole one. */
function parse(bytes: Buffer): Answer | null {
  const headEnd = bytes.indexOf('\r\n\r\n');
  if (headEnd < 0) return null;
  const head = bytes.toString('latin1', 0, headEnd);
  const statusCode = Number(/^HTTP\/1\.[01] ([0-9]{3})/.exec(head)?.[1] ?? NaN);
  const body = bytes.subarray(headEnd + 4);
  const length = Number(/^content-length: *([0-9]+)$/im.exec(head)?.[1] ?? 0);
  if (Number.isNaN(statusCode) || body.length !== length) return null;
  return { statusCode, body: body.toString() };
}
