/**
 * MetadataOperationError: an operation on metadata failed, perhaps half-way. Whoever asked for it
 * must abort the transaction; the kernel's name of the operation goes to its log.
 */
import { DmError } from '../base/error.ts';

export class MetadataOperationError extends DmError {
  readonly operation: string;

  constructor(operation: string, cause: DmError) {
    super(cause.errno, `metadata operation '${operation}' failed: ${cause.message}`, { cause });
    this.name = 'MetadataOperationError';
    this.operation = operation;
  }
}
