/**
 * Why a command could not do what was asked: the daemon refused, or there is none.
 */
import type { ApiError } from '../daemon/api-types.ts';

/** The daemon refused a request. */
export class RequestError extends Error {
  readonly error: ApiError;
  constructor(error: ApiError) {
    super(error.message);
    this.error = error;
  }
}

/** No daemon could be reached or started. */
export class DaemonError extends Error {}
