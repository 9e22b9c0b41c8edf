/**
 * Pool messages (spec: thin, 4). Answers to pool_message in drivers/md/dm-thin.c.
 *
 * A message is followed by a commit, and fails if that fails: the kernel ignores the commit's
 * result, so that a message can report success for what was rolled back (see docs/differences.md).
 */
import { DmError } from '../../base/error.ts';
import { errnoName } from '../../base/errno.ts';
import { parseDecimal, parseU64, U64_MAX } from '../../base/numbers.ts';
import { DEVICE_ID_MAX } from '../metadata/device-details.ts';
import { MetadataOperationError } from '../../persistent-data/operation-error.ts';
import type { Pool } from './pool.ts';

interface Message {
  /** Words including the message itself. */
  readonly nrWords: number;
  /** Checks the words and changes the metadata, within one turn unless it commits first. */
  readonly run: (pool: Pool, args: readonly string[]) => void | Promise<void>;
}

const messages = new Map<string, Message>([
  ['create_thin', { nrWords: 2, run: createThin }],
  ['create_snap', { nrWords: 3, run: createSnap }],
  ['delete', { nrWords: 2, run: deleteThin }],
  ['set_transaction_id', { nrWords: 3, run: setTransactionId }],
  ['reserve_metadata_snap', { nrWords: 1, run: reserveMetadataSnap }],
  ['release_metadata_snap', { nrWords: 1, run: releaseMetadataSnap }],
]);

/** Runs a message and commits; resolves to '' (pools give no answers). Rejects with DmError. */
export async function handleMessage(pool: Pool, args: readonly string[]): Promise<string> {
  if (pool.isReadOnly) throw unserviceable(pool);
  const [word = ''] = args;
  const message = messages.get(word.toLowerCase());
  if (message === undefined) {
    const text = `Unrecognised thin pool target message received: ${word}`;
    pool.logPlain('warn', text);
    throw new DmError('EINVAL', text);
  }
  while (pool.metadata.isCommitting) await pool.metadataIdle();
  if (pool.isReadOnly) throw unserviceable(pool);
  checkWords(pool, args, message.nrWords);
  try {
    await message.run(pool, args);
  } catch (error) {
    if (error instanceof MetadataOperationError) pool.operationFailed(error);
    throw error;
  }
  const status = await pool.commit();
  if (status !== 0) {
    const name = errnoName(status);
    throw new DmError(name, `${word}: the commit failed and the change is rolled back`);
  }
  return '';
}

function checkWords(pool: Pool, args: readonly string[], wanted: number): void {
  if (args.length === wanted) return;
  const text = `Message received with ${args.length} arguments instead of ${wanted}.`;
  pool.logPlain('warn', text);
  throw new DmError('EINVAL', text);
}

function deviceId(pool: Pool, word: string): number {
  const id = parseU64(word);
  if (id !== undefined && id <= DEVICE_ID_MAX) return id;
  const text = `Message received with invalid device id: ${word}`;
  pool.logPlain('warn', text);
  throw new DmError('EINVAL', text);
}

/** Runs a change; its failure gets one more line in the log, as in the kernel. */
function complaining(pool: Pool, complaint: string, change: () => void): void {
  try {
    change();
  } catch (error) {
    if (error instanceof DmError) pool.logPlain('warn', complaint);
    throw error;
  }
}

function createThin(pool: Pool, [, word = '']: readonly string[]): void {
  const id = deviceId(pool, word);
  const complaint = `Creation of new thinly-provisioned device with id ${word} failed.`;
  complaining(pool, complaint, () => pool.metadata.createThin(id));
}

function createSnap(pool: Pool, [, word = '', originWord = '']: readonly string[]): void {
  const id = deviceId(pool, word);
  const origin = deviceId(pool, originWord);
  const complaint = `Creation of new snapshot ${word} of device ${originWord} failed.`;
  complaining(pool, complaint, () => pool.metadata.createSnap(id, origin));
}

function deleteThin(pool: Pool, [, word = '']: readonly string[]): void {
  const id = deviceId(pool, word);
  const complaint = `Deletion of thin device ${word} failed.`;
  complaining(pool, complaint, () => pool.metadata.deleteDevice(id));
}

function setTransactionId(pool: Pool, [, oldWord = '', newWord = '']: readonly string[]): void {
  const current = parseDecimal(oldWord, U64_MAX);
  const next = parseDecimal(newWord, U64_MAX);
  const refuse = (text: string): DmError => {
    pool.logPlain('warn', `set_transaction_id message: ${text}`);
    return new DmError('EINVAL', text);
  };
  if (current === undefined) throw refuse(`Unrecognised id ${oldWord}.`);
  if (next === undefined) throw refuse(`Unrecognised new id ${newWord}.`);
  const complaint = `Failed to change transaction id from ${oldWord} to ${newWord}.`;
  complaining(pool, complaint, () => pool.metadata.setTransactionId(current, next));
}

/** The copy must be of a superblock that is durable, so this commits first. */
async function reserveMetadataSnap(pool: Pool): Promise<void> {
  if (pool.metadata.heldRoot === 0) {
    const status = await pool.commit();
    if (status !== 0) throw new DmError(errnoName(status), 'the commit before the snapshot failed');
    while (pool.metadata.isCommitting) await pool.metadataIdle();
    if (pool.isReadOnly) throw unserviceable(pool);
  }
  const complaint = 'reserve_metadata_snap message failed.';
  complaining(pool, complaint, () => pool.metadata.reserveMetadataSnap());
}

function releaseMetadataSnap(pool: Pool): void {
  const complaint = 'release_metadata_snap message failed.';
  complaining(pool, complaint, () => pool.metadata.releaseMetadataSnap());
}

/** What a message gets in the modes that serve none. */
function unserviceable(pool: Pool): DmError {
  pool.log('error', 'unable to service pool target messages in READ_ONLY or FAIL mode');
  return new DmError('EOPNOTSUPP', 'the pool is in READ_ONLY or FAIL mode');
}
