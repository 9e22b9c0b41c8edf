/**
 * The two exceptions of this code base: DmError, an error with an errno name that a user will see,
 * and AssertionError, a bug of ours.
 *
 * Damage found by tools is a value, not an exception; a bio ends with a number, not an exception.
 */
import { errno, type ErrnoName } from './errno.ts';

/**
 * A failure that reaches a user: `errno` is what dmsetup or an NBD client sees, the message says
 * why.
 */
export class DmError extends Error {
  readonly errno: ErrnoName;

  constructor(name: ErrnoName, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = 'DmError';
    this.errno = name;
  }

  /** The positive Linux number of `errno`. */
  get code(): number {
    return errno[this.errno];
  }
}

/** Our bug: an invariant that the code relies on does not hold. Never swallowed. */
export class AssertionError extends Error {
  constructor(fact: string) {
    super(`assertion failed: ${fact}`);
    this.name = 'AssertionError';
  }
}

/** States a fact that must hold at this point; throws AssertionError otherwise. */
export function assert(condition: boolean, fact: string): asserts condition {
  if (!condition) throw new AssertionError(fact);
}

/** The value, which cannot be absent here: states the fact that says why. */
export function present<T>(value: T | null | undefined, fact: string): T {
  if (value === null || value === undefined) throw new AssertionError(fact);
  return value;
}

/** The errno number of an exception: a DmError's own; anything else is passed on, being a bug. */
export function codeOf(error: unknown): number {
  if (error instanceof DmError) return error.code;
  throw error;
}

/** Marks a place that the types say cannot be reached. */
export function unreachable(value: never): never {
  throw new AssertionError(`unreachable value ${String(value)}`);
}
