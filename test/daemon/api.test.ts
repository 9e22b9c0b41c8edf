/**
 * The control API against its own OpenAPI document, and against clients that mean harm: every
 * answer is what the document says, every request is answered, nothing happens that was not asked
 * for.
 */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import fs from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import { after, before, test } from 'node:test';
import { Validator } from '@seriousme/openapi-schema-validator';
import { Ajv2020 } from 'ajv/dist/2020.js';
import fc from 'fast-check';
import { DaemonProcess } from '../helpers/daemon.ts';
import { skipWithout } from '../helpers/programs.ts';
import { seedOf } from '../helpers/random.ts';

const MIB = 1024 * 1024;

type SpecData = Exclude<Parameters<Validator['validate']>[0], string>;

interface Operation {
  readonly summary?: string;
  readonly requestBody?: unknown;
  readonly responses: Record<string, { content?: Record<string, { schema: object }> }>;
}

interface OpenApi {
  readonly openapi: string;
  readonly paths: Record<string, Record<string, Operation>>;
}

interface Answer {
  readonly status: number;
  readonly text: string;
}

let daemon: DaemonProcess;
let document: OpenApi;
const ajv = new Ajv2020({ allowUnionTypes: true, strict: false });
/** The operations, with the classes of their answers, that requests of this file have seen. */
const seen = new Set<string>();

before(async () => {
  daemon = await DaemonProcess.start();
  document = JSON.parse((await send('GET', '/openapi.json')).text) as OpenApi;
});

after(async () => {
  await daemon.close();
});

/** Sends a request as it is; rejects if the daemon does not answer. */
async function send(
  method: string,
  resource: string,
  body?: string | Buffer,
  headers: Record<string, string> = { 'content-type': 'application/json' },
): Promise<Answer> {
  const socketPath = daemon.file('control.sock');
  const request = http.request({ socketPath, method, path: resource, agent: false });
  if (body !== undefined) {
    for (const name in headers) request.setHeader(name, headers[name] ?? '');
    request.setHeader('content-length', Buffer.byteLength(body));
  }
  // Whoever answers before it has read everything may close the connection, too.
  request.on('error', () => undefined);
  request.end(body);
  const [response] = (await once(request, 'response')) as [http.IncomingMessage];
  let text = '';
  for await (const chunk of response.setEncoding('utf8')) text += chunk as string;
  return { status: response.statusCode ?? 0, text };
}

/** The document's path that `resource` is one of, and its operation. */
function operationFor(method: string, resource: string): [path: string, Operation] | undefined {
  const [given = ''] = resource.split('?');
  for (const [template, operations] of Object.entries(document.paths)) {
    const pattern = new RegExp(`^${template.replaceAll(/\{\w+\}/g, '[^/]*')}$`);
    const operation = operations[method.toLowerCase()];
    if (pattern.test(given) && operation !== undefined) return [template, operation];
  }
  return undefined;
}

/** The value of an answer, which must be what the document says. */
function checked(method: string, resource: string, { status, text }: Answer): unknown {
  const what = `${method} ${resource}: ${status} ${text}`;
  const [template, operation] = operationFor(method, resource) ?? assert.fail(`${what}: unknown`);
  const kind = `${Math.floor(status / 100)}XX`;
  const response = operation.responses[status] ?? operation.responses[kind];
  assert.ok(response !== undefined, `${what}: the document has no such answer`);
  seen.add(`${method} ${template} ${kind}`);
  const schema = response.content?.['application/json']?.schema;
  if (schema === undefined) {
    assert.equal(text, '', what);
    return undefined;
  }
  const value: unknown = JSON.parse(text);
  assert.ok(ajv.validate(schema, value), `${what}: ${ajv.errorsText()}`);
  return value;
}

/** Sends JSON; the answer must be a success, or a failure if `kind` is 4. Resolves to its value. */
async function call<T = unknown>(
  method: string,
  resource: string,
  body?: unknown,
  kind = 2,
): Promise<T> {
  const json = body === undefined ? undefined : JSON.stringify(body);
  const answer = await send(method, resource, json);
  const what = `${method} ${resource} ${json ?? ''}: ${answer.status} ${answer.text}`;
  assert.equal(Math.floor(answer.status / 100), kind, what);
  return checked(method, resource, answer) as T;
}

interface Failure {
  readonly op: string;
  readonly errno: string;
  readonly text: string;
  readonly message: string;
  readonly log: string[];
}

const refused = (method: string, resource: string, body?: unknown): Promise<Failure> =>
  call<Failure>(method, resource, body, 4);

async function nothingHasHappened(): Promise<void> {
  assert.deepEqual(await call('GET', '/v1/devices'), []);
}

// --- the document

test('the OpenAPI document is valid', async () => {
  const result = await new Validator().validate(structuredClone(document) as unknown as SpecData);
  assert.deepEqual(result.errors ?? [], []);
  assert.ok(result.valid);
  assert.equal(document.openapi, '3.1.0');
});

test('every operation says what it is for', () => {
  for (const [path, operations] of Object.entries(document.paths)) {
    for (const [method, { summary }] of Object.entries(operations)) {
      assert.match(summary ?? '', /^[A-Z].+[^.]$/, `${method} ${path}`);
    }
  }
});

/** Whether this machine and this user can attach devices by nbdfuse. */
const canAttach =
  process.getuid?.() === 0 &&
  ['/dev/fuse', '/dev/loop-control'].every((file) => fs.existsSync(file)) &&
  skipWithout('nbdfuse', 'fusermount3', 'losetup') === false;

async function tryAttachments(): Promise<void> {
  const at = (op: string): string => `/v1/devices/v/${op}`;
  const file = daemon.file('v.raw');
  assert.equal((await refused('POST', '/v1/devices/nosuch/attach', {})).errno, 'ENXIO');
  assert.equal((await refused('POST', at('attach'), { via: 'x' })).errno, 'EINVAL');
  await refused('DELETE', '/v1/devices/nosuch/attach');
  assert.equal((await refused('POST', at('mount'), { path: daemon.dir })).errno, 'EEXIST');
  await refused('POST', '/v1/unmount', {});
  assert.deepEqual(await call('GET', '/v1/attachments'), []);
  await call('DELETE', at('attach'));
  await call('POST', '/v1/unmount', { path: file });
  if (!canAttach) return;
  const attached = await call<{ path: string }>('POST', at('attach'), { via: 'nbdfuse' });
  await call('POST', at('mount'), { path: file });
  assert.deepEqual(await call('GET', '/v1/attachments'), [
    { name: 'v', path: attached.path, via: 'nbdfuse' },
    { name: 'v', path: file, via: 'file' },
  ]);
  await call('DELETE', at('attach'));
  await call('POST', '/v1/unmount', { path: file });
  assert.deepEqual(await call('GET', '/v1/attachments'), []);
}

test('every operation answers as the document says, whether it succeeds or fails', async () => {
  const meta = daemon.disk('meta', 4 * MIB);
  const data = daemon.disk('data', 16 * MIB);
  const pool = { name: 'pool', table: `0 32768 thin-pool ${meta} ${data} 128 0` };
  await call('GET', '/v1/version');
  assert.deepEqual(await call('GET', '/v1/parameters'), { no_space_timeout: 60 });
  await call('PUT', '/v1/parameters', { no_space_timeout: 30 });
  await refused('PUT', '/v1/parameters', { no_space_timeout: -1 });
  await call('GET', '/v1/targets');
  await call('POST', '/v1/devices', pool);
  assert.equal((await refused('POST', '/v1/devices', pool)).errno, 'EBUSY');
  await call('POST', '/v1/devices', { name: 'bare', uuid: 'U', minor: 9 });
  const bad = await refused('POST', '/v1/devices', { name: 'x', table: '0 8 nosuch' });
  assert.deepEqual(bad.log.slice(-1), ['device-mapper: ioctl: error adding target to table']);
  assert.equal((await refused('POST', '/v1/devices', { name: 'x', table: 'x' })).errno, 'FORMAT');
  await call('POST', '/v1/devices/pool/message', { sector: 0, message: 'create_thin 0' });
  await call('POST', '/v1/devices/pool/message', { sector: 0, message: ['create_thin', '1'] });
  await refused('POST', '/v1/devices/pool/message', { sector: 0, message: 'create_thin 1' });
  const thin = '0 2048 thin /dev/mapper/pool 0';
  await call('POST', '/v1/devices', { name: 'v', table: thin, readAhead: { sectors: 64 } });
  for (const resource of ['/v1/devices', '/v1/status', '/v1/table']) await call('GET', resource);
  for (const resource of ['/v1/status', '/v1/table']) await refused('GET', `${resource}?nosuch=1`);
  for (const rest of ['', '/status', '/table', '/uri', '/wait?event=1']) {
    await call('GET', `/v1/devices/v${rest}`);
    assert.equal((await refused('GET', `/v1/devices/nosuch${rest}`)).errno, 'ENXIO');
  }
  await call('GET', '/v1/devices/254:0?by=number');
  await call('GET', '/v1/devices/U?by=uuid');
  await refused('GET', '/v1/devices/v/status?by=nobody');
  await call('PUT', '/v1/devices/v/table', { table: '0 4096 thin /dev/mapper/pool 0' });
  await refused('PUT', '/v1/devices/v/table', { table: '0 4096 thin /dev/mapper/pool 7' });
  await call('GET', '/v1/devices/v/table?inactive=true&target=thin&noflush=true');
  await call('DELETE', '/v1/devices/v/table');
  await refused('DELETE', '/v1/devices/nosuch/table');
  for (const op of ['suspend', 'resume']) {
    await call('POST', `/v1/devices/v/${op}`);
    await call('POST', `/v1/devices/v/${op}`, { noflush: true });
    await refused('POST', `/v1/devices/nosuch/${op}`);
  }
  await tryAttachments();
  await call('POST', '/v1/devices/v/geometry', { geometry: '10 10 10 0' });
  await refused('POST', '/v1/devices/v/geometry', { geometry: '10 10 10 1001' });
  await call('POST', '/v1/devices/v/rename', { name: 'w' });
  await call('POST', '/v1/devices/w/rename', { uuid: 'W' });
  await refused('POST', '/v1/devices/w/rename', { name: 'pool' });
  await refused('DELETE', '/v1/devices/pool');
  await call('DELETE', '/v1/devices/bare?force=true');
  assert.deepEqual(await call('DELETE', '/v1/devices/pool?deferred=true'), { removed: false });
  await refused('DELETE', '/v1/devices?nosuch=1');
  await call('DELETE', '/v1/devices?force=true');
  await nothingHasHappened();
  // Stopping is tried last, in a test of its own; listings of everything cannot fail.
  const untried = Object.entries(document.paths).flatMap(([path, operations]) =>
    Object.keys(operations)
      .map((method) => `${method.toUpperCase()} ${path}`)
      .flatMap((operation) => [`${operation} 2XX`, `${operation} 4XX`])
      .filter((operation) => !seen.has(operation)),
  );
  assert.deepEqual(untried.sort(), [
    'GET /v1/attachments 4XX',
    'GET /v1/devices 4XX',
    'GET /v1/parameters 4XX',
    'GET /v1/targets 4XX',
    'GET /v1/version 4XX',
    ...(canAttach ? [] : ['POST /v1/devices/{key}/attach 2XX', 'POST /v1/devices/{key}/mount 2XX']),
    'POST /v1/stop 2XX',
    'POST /v1/stop 4XX',
  ]);
});

// --- clients that mean harm

test('bodies that are no JSON, or not what is asked for, are refused, and nothing happens', async () => {
  const deep = '['.repeat(100_000);
  const texts = [
    '',
    ' ',
    '{',
    '{"name":',
    'nonsense',
    '\0',
    '"x"',
    '5',
    'null',
    'true',
    '[]',
    deep,
  ];
  texts.push(`{"name":${deep}`, '{"name":"a"}{"name":"b"}', '{"name":"a","name":5}', '{}');
  texts.push('{"__proto__":{"name":"a"}}', '{"name":"a","constructor":{"prototype":{"x":1}}}');
  texts.push('{"name":"a","nosuch":1}', '{"name":NaN}', '{"name":"a","minor":1e999}');
  for (const text of texts) {
    const { status, text: answered } = await send('POST', '/v1/devices', text);
    assert.equal(status, 400, `${text.slice(0, 40)}: ${answered}`);
    const failure = JSON.parse(answered) as Failure;
    assert.deepEqual([failure.op, failure.errno, failure.log], ['', 'EINVAL', []]);
  }
  const good = Buffer.from('{"name":"a"}');
  for (const type of ['text/plain', 'application/xml', 'multipart/form-data', 'nonsense']) {
    const { status } = await send('POST', '/v1/devices', good, { 'content-type': type });
    assert.equal(status, 415, type);
  }
  const invalid = Buffer.concat([Buffer.from('{"name":"'), Buffer.from([0xff]), Buffer.from('"')]);
  assert.equal((await send('POST', '/v1/devices', invalid)).status, 400);
  await nothingHasHappened();
});

test('a value of another type than the document’s is a mistake, not converted', async () => {
  const values = [null, true, 0, 1.5, -1, 1e300, 'text', '1', [], ['x'], {}, { x: 1 }];
  const tryAll = async (
    method: string,
    resource: string,
    rest: object,
    property: string,
    isGood: (value: unknown) => boolean,
  ): Promise<void> => {
    for (const value of values) {
      if (isGood(value)) continue;
      const failure = await refused(method, resource, { ...rest, [property]: value });
      assert.match(failure.message, new RegExp(`^body/${property}`));
    }
  };
  const isString = (value: unknown): boolean => typeof value === 'string';
  const isFlag = (value: unknown): boolean => typeof value === 'boolean';
  const isCount = (value: unknown): boolean => Number.isInteger(value) && (value as number) >= 0;
  await tryAll('POST', '/v1/devices', {}, 'name', isString);
  for (const property of ['uuid', 'table', 'cwd']) {
    await tryAll('POST', '/v1/devices', { name: 'a' }, property, isString);
  }
  await tryAll('POST', '/v1/devices', { name: 'a' }, 'minor', isCount);
  await tryAll('POST', '/v1/devices', { name: 'a' }, 'readOnly', isFlag);
  await tryAll('POST', '/v1/devices', { name: 'a' }, 'readAhead', () => false);
  await call('POST', '/v1/devices', { name: 'a', table: '0 8 zero' });
  await tryAll('PUT', '/v1/devices/a/table', {}, 'table', isString);
  await tryAll('POST', '/v1/devices/a/message', { message: 'x' }, 'sector', isCount);
  const isMessage = (value: unknown): boolean =>
    isString(value) || (Array.isArray(value) && value.every(isString));
  await tryAll('POST', '/v1/devices/a/message', { sector: 0 }, 'message', isMessage);
  await tryAll('POST', '/v1/devices/a/suspend', {}, 'noflush', isFlag);
  for (const query of ['event=x', 'event=-1', 'event=1.5', 'event=', 'event=1&event=2', 'by=x']) {
    await refused('GET', `/v1/devices/a/wait?${query}`);
  }
  assert.deepEqual(await call('DELETE', '/v1/devices'), { kept: 0 });
});

test('names, uuids and numbers that no device can have are refused', async () => {
  const long = 'n'.repeat(128);
  for (const name of ['', '/', 'a/b', long, 'é'.repeat(64), 'a\0b', '\0']) {
    assert.equal((await refused('POST', '/v1/devices', { name })).errno, 'EINVAL', name);
  }
  for (const uuid of [`${long}n`, 'u\0']) {
    assert.equal((await refused('POST', '/v1/devices', { name: 'a', uuid })).errno, 'EINVAL');
  }
  for (const minor of [2 ** 20, 2 ** 31, 2 ** 32, Number.MAX_SAFE_INTEGER, 1e300]) {
    assert.equal((await refused('POST', '/v1/devices', { name: 'a', minor })).errno, 'ENXIO');
  }
  await nothingHasHappened();
  // The kernel takes any other byte.
  const odd = [' ', '.', '..', '%2F', '\n', '\x7f', '💾', '__proto__', 'constructor', '?x=1', '#'];
  for (const name of odd) {
    await call('POST', '/v1/devices', { name });
    const found = await call<{ name: string }>('GET', `/v1/devices/${encodeURIComponent(name)}`);
    assert.equal(found.name, name);
  }
  assert.deepEqual(await call('DELETE', '/v1/devices'), { kept: 0 });
});

test('routes and methods that there are not, and paths that are none, are answered', async () => {
  const routes = ['/', '/v1', '/v1/', '/v2/devices', '/v1/devices/a/b/c', '/v1/devices/a/nosuch'];
  routes.push(
    '/v1/devices/',
    '//',
    '/v1//devices',
    '/%00',
    '/%ZZ',
    '/v1/devices/%',
    '/v1/devices/%ff',
  );
  routes.push(`/v1/devices/${'x'.repeat(8000)}`, '/v1/devices/..%2f..%2fetc', '/../../etc/passwd');
  for (const route of routes) {
    for (const method of ['GET', 'PUT', 'PATCH', 'OPTIONS', 'HEAD', 'PROPFIND']) {
      const { status, text } = await send(method, route, method === 'PUT' ? '{}' : undefined);
      assert.ok(
        status === 400 || status === 404 || status === 414,
        `${method} ${route}: ${status}`,
      );
      if (method !== 'HEAD') assert.equal(typeof (JSON.parse(text) as Failure).message, 'string');
    }
  }
  await nothingHasHappened();
});

test('huge bodies are refused, the largest text that is taken does not stop the daemon', async () => {
  const huge = send('POST', '/v1/devices', `{"name":"${'x'.repeat(17 * MIB)}"}`);
  const answered = await huge.catch((error: NodeJS.ErrnoException) => error.code);
  // Its connection is closed, which it may learn before it reads the answer.
  if (typeof answered === 'object') assert.equal(answered.status, 413);
  else assert.match(answered ?? '', /^(EPIPE|ECONNRESET)$/);
  const lines = (line: (i: number) => string, bytes: number): string => {
    let text = '';
    for (let i = 0; text.length < bytes; i++) text += line(i);
    return text;
  };
  const texts = [
    '#'.repeat(MIB - 100),
    ' '.repeat(MIB - 100),
    `${'9'.repeat(MIB - 200)} 8 zero`,
    `0 8 zero ${'x '.repeat(MIB / 2 - 100)}`,
    `0 8 linear ${'x'.repeat(MIB - 200)} 0`,
    '# more than is taken\\n'.repeat(MIB / 10),
    `0${' '.repeat(MIB / 2)}8${' '.repeat(MIB / 2 - 200)}`,
    lines((i) => `${i * 8} 8 error\\n`, MIB - 200),
  ];
  for (const text of texts) {
    const begin = performance.now();
    const { status, text: answered } = await send(
      'POST',
      '/v1/devices',
      `{"name":"big","table":"${text}"}`,
    );
    assert.ok([201, 400].includes(status), `${text.slice(0, 20)}: ${status} ${answered}`);
    assert.ok(performance.now() - begin < 10_000, `${text.slice(0, 20)} takes too long`);
    await call('DELETE', '/v1/devices');
  }
  await nothingHasHappened();
});

test('connections that send no request at all, or half of one, harm nobody', async () => {
  const texts = [
    'nonsense\r\n\r\n',
    'GET\r\n\r\n',
    'GET / HTTP/9.9\r\n\r\n',
    'GET /v1/version HTTP/1.1\r\n\r\n',
    `GET /${'x'.repeat(100_000)} HTTP/1.1\r\nHost: x\r\n\r\n`,
    `GET / HTTP/1.1\r\nHost: x\r\n${'X: y\r\n'.repeat(20_000)}\r\n`,
    'POST /v1/devices HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n',
    'POST /v1/devices HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n',
    'POST /v1/devices HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n',
    'POST /v1/devices HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{',
    'CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n',
    'GET /v1/version HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n',
    '\0'.repeat(100_000),
    '',
  ];
  for (const text of texts) {
    const socket = net.connect(daemon.file('control.sock'));
    socket.on('error', () => undefined);
    socket.resume();
    socket.end(text);
    await new Promise((resolve) => socket.once('close', resolve));
    await call('GET', '/v1/version');
  }
  const idle = Array.from({ length: 200 }, () => net.connect(daemon.file('control.sock')));
  await Promise.all(idle.map((socket) => once(socket, 'connect')));
  await nothingHasHappened();
  for (const socket of idle) socket.destroy();
});

test('random JSON to every operation is answered as the document says', async () => {
  const seed = seedOf(1);
  const operations = Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.keys(methods).map((method) => [method.toUpperCase(), path] as const),
  );
  const harmless = operations.filter(([, path]) => path !== '/v1/stop');
  const property = fc.asyncProperty(
    fc.constantFrom(...harmless),
    fc.oneof(fc.constantFrom('a', 'b', '254:0', ''), fc.string()),
    fc.option(
      fc.oneof(
        fc.jsonValue(),
        fc.record(
          {
            name: fc.oneof(fc.constantFrom('a', 'b'), fc.string(), fc.jsonValue()),
            uuid: fc.string(),
            table: fc.oneof(fc.constantFrom('0 8 zero', '0 8 error', ''), fc.string()),
            sector: fc.oneof(fc.nat(), fc.double()),
            message: fc.oneof(fc.string(), fc.array(fc.string())),
            minor: fc.oneof(fc.nat(3), fc.integer()),
            noflush: fc.boolean(),
          },
          { requiredKeys: [] },
        ),
      ),
      { nil: undefined },
    ),
    async ([method, path], key, body) => {
      // A wait for the events that there are would last.
      const query = path.endsWith('/wait') ? '?event=77' : '';
      const resource = path.replace('{key}', encodeURIComponent(key)) + query;
      const json = body === undefined ? undefined : JSON.stringify(body);
      const answer = await send(method, resource, json);
      const { status, text } = answer;
      assert.ok(status >= 200 && status < 500, `${status} ${text}`);
      if (operationFor(method, resource) !== undefined) checked(method, resource, answer);
    },
  );
  await fc.assert(property, { seed, numRuns: 400 });
  await call('DELETE', '/v1/devices?force=true');
  await nothingHasHappened();
  assert.doesNotMatch(daemon.log, /"stack"|AssertionError/);
});

test('a request to stop is answered before the daemon ends', async () => {
  const other = await DaemonProcess.start();
  const here = daemon;
  daemon = other;
  try {
    await call('POST', '/v1/stop');
  } finally {
    daemon = here;
    await other.close();
  }
  assert.match(other.log, /devmapper daemon stopped/);
});
