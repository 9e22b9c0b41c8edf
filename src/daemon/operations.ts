/**
 * Operations: how a request of the control API becomes one of the registry's, and how its failure
 * becomes an ApiError with the log lines that it caused.
 */
import type { FastifyRequest } from 'fastify';
import { DmError } from '../base/error.ts';
import { strerror, type ErrnoName } from '../base/errno.ts';
import type { MappedDevice } from '../mapper/mapped-device.ts';
import type { DeviceKey, Registry } from '../mapper/registry.ts';
import { TableFormatError } from '../mapper/table-grammar.ts';
import type { ApiError, Operation } from './api-types.ts';
import type { DaemonLog } from './daemon-log.ts';

/** A request about one device. */
export interface KeyRequest {
  Params: { key: string };
  Querystring: { by?: 'name' | 'uuid' | 'number' };
}

/** How far an operation of several steps has come: what its failure is reported under. */
export interface Progress {
  op: Operation;
  number?: string;
}

/** An operation that failed, on its way to the error handler. */
export class OperationError extends Error {
  readonly body: ApiError;
  constructor(body: ApiError) {
    super(body.message);
    this.body = body;
  }

  /** The status code of the answer. */
  get statusCode(): number {
    switch (this.body.errno) {
      case 'ENXIO':
        return 404;
      case 'EBUSY':
      case 'EEXIST':
        return 409;
      case 'EIO':
        return 500;
      case 'ESHUTDOWN':
        return 503;
      default:
        return 400;
    }
  }
}

export class Operations {
  readonly registry: Registry;
  readonly #log: DaemonLog;
  readonly #settled: () => Promise<void>;

  /** `settled` resolves when what an operation has changed is safe. */
  constructor(registry: Registry, log: DaemonLog, settled: () => Promise<void>) {
    this.registry = registry;
    this.#log = log;
    this.#settled = settled;
  }

  /** Runs one operation; rejects with an OperationError if it fails. */
  async run<T>(op: Operation, work: (progress: Progress) => T | Promise<T>): Promise<T> {
    const lines: string[] = [];
    const progress: Progress = { op };
    try {
      return await this.#log.capture(lines, async () => work(progress));
    } catch (error) {
      throw new OperationError(describeFailure(error, progress, lines));
    } finally {
      await this.#settled();
    }
  }

  /**
   * As `run`, for an operation that may wait for I/O or for events: it ends when the client goes.
   */
  async runUntilGone<T>(
    op: Operation,
    request: FastifyRequest,
    work: (signal: AbortSignal) => T | Promise<T>,
  ): Promise<T> {
    const gone = new AbortController();
    const abort = (): void => gone.abort();
    const { socket } = request.raw;
    socket.once('close', abort);
    try {
      return await this.run(op, () => work(gone.signal));
    } finally {
      socket.off('close', abort);
    }
  }

  /** The device that a request names. Throws ENXIO if there is none. */
  device(request: FastifyRequest<KeyRequest>): MappedDevice {
    return this.registry.get(keyOf(request));
  }
}

/** How a request names its device. */
export function keyOf(request: FastifyRequest<KeyRequest>): DeviceKey {
  const { key } = request.params;
  switch (request.query.by) {
    case 'uuid':
      return { uuid: key };
    case 'number': {
      const [major = NaN, minor = NaN] = key.split(':').map(Number);
      return { major, minor };
    }
    default:
      return { name: key };
  }
}

function describeFailure(error: unknown, progress: Progress, log: string[]): ApiError {
  const { op, number } = progress;
  const common = { op, log, ...(number !== undefined && { number }) };
  if (error instanceof TableFormatError) {
    const { message, line } = error;
    const where = line === undefined ? {} : { line };
    return { ...common, errno: 'FORMAT', text: strerror('EINVAL'), message, ...where };
  }
  if (error instanceof DmError) {
    const errno: ErrnoName = error.errno;
    const reason = error.cause instanceof DmError ? { reason: error.cause.message } : {};
    return { ...common, errno, text: strerror(errno), message: error.message, ...reason };
  }
  throw error;
}
