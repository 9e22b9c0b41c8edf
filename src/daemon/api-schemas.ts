/**
 * JSON schemas of the control API: they check requests and make the OpenAPI document.
 */

const string = { type: 'string' } as const;
const boolean = { type: 'boolean' } as const;
const integer = { type: 'integer' } as const;

const by = {
  type: 'string',
  enum: ['name', 'uuid', 'number'],
  description: 'What `key` is: a name (the default), a uuid, or major:minor',
} as const;

const params = {
  type: 'object',
  properties: { key: { ...string, description: 'The device; see `by`' } },
  required: ['key'],
} as const;

function object(properties: Record<string, unknown>, required: string[] = []): object {
  return { type: 'object', additionalProperties: false, properties, required };
}

function query(properties: Record<string, unknown> = {}): object {
  return object({ by, ...properties });
}

/** Of an answer: every property is there unless it is said to be optional. */
function record(properties: Record<string, unknown>, optional: string[] = []): object {
  const required = Object.keys(properties).filter((name) => !optional.includes(name));
  return object(properties, required);
}

const dependency = record({
  major: integer,
  minor: integer,
  name: { type: ['string', 'null'] },
  blkdevname: string,
});

const device = record({
  name: string,
  uuid: string,
  major: integer,
  minor: integer,
  suspended: boolean,
  readOnly: boolean,
  deferredRemove: boolean,
  liveTable: boolean,
  inactiveTable: boolean,
  hadTable: boolean,
  openCount: integer,
  eventNr: integer,
  targetCount: integer,
  readAheadSectors: integer,
  sizeSectors: integer,
  targetTypes: { type: 'array', items: string },
  deps: { type: 'array', items: dependency },
});

const lines = record({ device, lines: { type: 'array', items: string } });

const failure = record(
  {
    op: string,
    errno: { ...string, description: 'Errno name, or FORMAT' },
    text: string,
    message: string,
    reason: string,
    number: string,
    line: integer,
    log: { type: 'array', items: string, description: "The kernel's lines about it" },
  },
  ['reason', 'number', 'line'],
);

const attachment = record({
  name: string,
  path: string,
  via: { type: 'string', enum: ['nbd', 'nbdfuse', 'file'] },
});

function answer(body: object | null, code = 200): object {
  const good = body ?? { type: 'null', description: 'No content' };
  return { [code]: good, '4xx': failure, '5xx': failure };
}

const table = {
  table: { ...string, description: 'Table text, one target a line' },
  readOnly: boolean,
  cwd: { ...string, description: 'What relative device paths start from' },
};

const lineQuery = {
  noflush: { ...boolean, description: 'Do not commit metadata first' },
  inactive: { ...boolean, description: 'Show the inactive table' },
  target: { ...string, description: 'Only lines of this target type' },
};

const message = {
  anyOf: [string, { type: 'array', items: string }],
  description: 'Words, or a text that is split as table parameters are',
};

const parameters = {
  no_space_timeout: {
    type: 'integer',
    minimum: 0,
    maximum: 0xffff_ffff,
    description: 'Seconds that writes wait for data space before they fail; 0: for ever',
  },
};

const noflush = {
  type: ['object', 'null'],
  additionalProperties: false,
  properties: { noflush: boolean },
};

export const schemas = {
  version: {
    summary: 'Versions, process id and NBD socket',
    response: answer(
      record({
        library: string,
        driver: string,
        devmapper: string,
        pid: integer,
        nbdSocket: string,
      }),
    ),
  },
  targets: {
    summary: 'Target types and their versions',
    response: answer({
      type: 'array',
      items: record({ name: string, version: { type: 'array', items: integer } }),
    }),
  },
  parameters: {
    summary: "What the kernel's modules have as parameters",
    response: answer(object(parameters)),
  },
  setParameters: {
    summary: 'Set parameters, until the daemon ends',
    body: object(parameters, []),
    response: answer(object(parameters)),
  },
  stop: { summary: 'Shut the daemon down cleanly', response: answer(null, 204) },
  list: { summary: 'All devices', response: answer({ type: 'array', items: device }) },
  allStatus: {
    summary: 'Status lines of all devices',
    querystring: object(lineQuery),
    response: answer({ type: 'array', items: lines }),
  },
  allTables: {
    summary: 'Table lines of all devices',
    querystring: object(lineQuery),
    response: answer({ type: 'array', items: lines }),
  },
  info: { summary: 'One device', params, querystring: query(), response: answer(device) },
  status: {
    summary: 'Status lines of a device',
    params,
    querystring: query(lineQuery),
    response: answer(lines),
  },
  table: {
    summary: 'Table lines of a device',
    params,
    querystring: query(lineQuery),
    response: answer(lines),
  },
  uri: {
    summary: 'The NBD URI of a device',
    params,
    querystring: query(),
    response: answer(record({ uri: string })),
  },
  create: {
    summary: 'Make a device; with a table, load and resume it',
    body: object(
      {
        name: string,
        uuid: string,
        minor: { type: 'integer', minimum: 0 },
        readAhead: object({ sectors: { type: 'integer', minimum: 0 }, minimum: boolean }, [
          'sectors',
        ]),
        ...table,
      },
      ['name'],
    ),
    response: answer(device, 201),
  },
  removeAll: {
    summary: 'Remove all devices that are not in use',
    querystring: object({ force: boolean, deferred: boolean }),
    response: answer(record({ kept: integer })),
  },
  remove: {
    summary: 'Remove a device',
    params,
    querystring: query({ force: boolean, deferred: boolean }),
    response: answer(record({ removed: boolean })),
  },
  rename: {
    summary: 'Change the name, or give a uuid',
    params,
    querystring: query(),
    body: object({ name: string, uuid: string }),
    response: answer(device),
  },
  message: {
    summary: 'Send a message to a target',
    params,
    querystring: query(),
    body: object({ sector: { type: 'integer', minimum: 0 }, message }, ['sector', 'message']),
    response: answer(record({ answer: string })),
  },
  geometry: {
    summary: 'Set the geometry that a BIOS would see',
    params,
    querystring: query(),
    body: object({ geometry: { ...string, description: 'cylinders, heads, sectors and start' } }, [
      'geometry',
    ]),
    response: answer(null, 204),
  },
  wait: {
    summary: 'Answer when the event number differs from `event`',
    params,
    querystring: query({ event: { type: 'integer', minimum: 0 } }),
    response: answer(device),
  },
  attachments: {
    summary: 'List the devices that have a block device or a file',
    response: answer({ type: 'array', items: attachment }),
  },
  attach: {
    summary: 'Give the device a block device; if it has one, answer which',
    params,
    querystring: query(),
    body: object({
      via: { type: 'string', enum: ['nbd', 'nbdfuse'] },
      node: { ...string, pattern: '^/', description: 'A symbolic link to make to it' },
    }),
    response: answer(attachment),
  },
  detach: {
    summary: 'Take its block device away, if it has one',
    params,
    querystring: query(),
    response: answer(null, 204),
  },
  mount: {
    summary: 'Make the device a file',
    params,
    querystring: query(),
    body: object({ path: { ...string, description: 'Absolute; missing, or empty' } }, ['path']),
    response: answer(attachment),
  },
  unmount: {
    summary: 'Take such a file away, if it is there',
    body: object({ path: string }, ['path']),
    response: answer(null, 204),
  },
  load: {
    summary: 'Load the inactive table',
    params,
    querystring: query(),
    body: object(table),
    response: answer(device),
  },
  clear: {
    summary: 'Drop the inactive table',
    params,
    querystring: query(),
    response: answer(device),
  },
  suspend: {
    summary: 'Suspend',
    params,
    querystring: query(),
    body: noflush,
    response: answer(device),
  },
  resume: {
    summary: 'Make the inactive table live, if any, and let I/O go on',
    params,
    querystring: query(),
    body: noflush,
    response: answer(device),
  },
} as const;
