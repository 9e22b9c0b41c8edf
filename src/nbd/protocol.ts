/**
 * Numbers and layouts of the NBD protocol: the only list of them (spec: nbd, 2 to 5).
 * Everything on the wire is big-endian.
 */
import { be16, be32, be64, struct } from '../base/struct.ts';

// --- handshake

/** The greeting: two magics and the handshake flags. */
export const greeting = struct(18, {
  nbdMagicHigh: be32,
  nbdMagicLow: be32,
  optMagicHigh: be32,
  optMagicLow: be32,
  flags: be16,
});

/** "NBDMAGIC" and "IHAVEOPT" as halves of a 64-bit word. */
export const NBD_MAGIC = [0x4e42444d, 0x41474943] as const;
export const OPT_MAGIC = [0x49484156, 0x454f5054] as const;
export const OPT_REPLY_MAGIC = [0x0003e889, 0x045565a9] as const;

export const HandshakeFlag = { FIXED_NEWSTYLE: 1, NO_ZEROES: 2 } as const;

export const optionHeader = struct(16, {
  magicHigh: be32,
  magicLow: be32,
  option: be32,
  length: be32,
});
export const optionReplyHeader = struct(20, {
  magicHigh: be32,
  magicLow: be32,
  option: be32,
  type: be32,
  length: be32,
});

export const Option = {
  EXPORT_NAME: 1,
  ABORT: 2,
  LIST: 3,
  PEEK_EXPORT: 4,
  STARTTLS: 5,
  INFO: 6,
  GO: 7,
  STRUCTURED_REPLY: 8,
  LIST_META_CONTEXT: 9,
  SET_META_CONTEXT: 10,
  EXTENDED_HEADERS: 11,
} as const;

export const OptionReply = {
  ACK: 1,
  SERVER: 2,
  INFO: 3,
  META_CONTEXT: 4,
  ERR_UNSUP: 0x8000_0001,
  ERR_POLICY: 0x8000_0002,
  ERR_INVALID: 0x8000_0003,
  ERR_PLATFORM: 0x8000_0004,
  ERR_TLS_REQD: 0x8000_0005,
  ERR_UNKNOWN: 0x8000_0006,
  ERR_SHUTDOWN: 0x8000_0007,
  ERR_BLOCK_SIZE_REQD: 0x8000_0008,
  ERR_TOO_BIG: 0x8000_0009,
  ERR_EXT_HEADER_REQD: 0x8000_000a,
} as const;

export const Info = { EXPORT: 0, NAME: 1, DESCRIPTION: 2, BLOCK_SIZE: 3 } as const;

export const TransmissionFlag = {
  HAS_FLAGS: 1 << 0,
  READ_ONLY: 1 << 1,
  SEND_FLUSH: 1 << 2,
  SEND_FUA: 1 << 3,
  ROTATIONAL: 1 << 4,
  SEND_TRIM: 1 << 5,
  SEND_WRITE_ZEROES: 1 << 6,
  SEND_DF: 1 << 7,
  CAN_MULTI_CONN: 1 << 8,
  SEND_RESIZE: 1 << 9,
  SEND_CACHE: 1 << 10,
  SEND_FAST_ZERO: 1 << 11,
} as const;

/** Strings longer than this are refused. */
export const STRING_BYTES_MAX = 4096;

// --- transmission

export const request = struct(28, {
  magic: be32,
  flags: be16,
  type: be16,
  cookieHigh: be32,
  cookieLow: be32,
  offsetHigh: be32,
  offsetLow: be32,
  length: be32,
});
export const REQUEST_MAGIC = 0x25609513;

/** A request once extended headers have been agreed on: as above, but for the length. */
export const extendedRequest = struct(32, {
  magic: be32,
  flags: be16,
  type: be16,
  cookieHigh: be32,
  cookieLow: be32,
  offsetHigh: be32,
  offsetLow: be32,
  length: be64,
});
export const EXTENDED_REQUEST_MAGIC = 0x21e41c71;

export const Command = {
  READ: 0,
  WRITE: 1,
  DISC: 2,
  FLUSH: 3,
  TRIM: 4,
  CACHE: 5,
  WRITE_ZEROES: 6,
  BLOCK_STATUS: 7,
  RESIZE: 8,
} as const;

export const CommandFlag = {
  FUA: 1 << 0,
  NO_HOLE: 1 << 1,
  DF: 1 << 2,
  REQ_ONE: 1 << 3,
  FAST_ZERO: 1 << 4,
  /** Extended requests only: `length` bytes of payload follow. */
  PAYLOAD_LEN: 1 << 5,
} as const;

export const simpleReply = struct(16, {
  magic: be32,
  error: be32,
  cookieHigh: be32,
  cookieLow: be32,
});
export const SIMPLE_REPLY_MAGIC = 0x67446698;

export const chunk = struct(20, {
  magic: be32,
  flags: be16,
  type: be16,
  cookieHigh: be32,
  cookieLow: be32,
  length: be32,
});
export const CHUNK_MAGIC = 0x668e33ef;
export const CHUNK_DONE = 1;

/** A chunk once extended headers have been agreed on; `offset` repeats the request's. */
export const extendedChunk = struct(32, {
  magic: be32,
  flags: be16,
  type: be16,
  cookieHigh: be32,
  cookieLow: be32,
  offsetHigh: be32,
  offsetLow: be32,
  length: be64,
});
export const EXTENDED_CHUNK_MAGIC = 0x6e8a278c;

export const Chunk = {
  NONE: 0,
  OFFSET_DATA: 1,
  OFFSET_HOLE: 2,
  BLOCK_STATUS: 5,
  BLOCK_STATUS_EXT: 6,
  ERROR: 0x8001,
  ERROR_OFFSET: 0x8002,
} as const;

/** Payloads of chunks: what precedes the data of OFFSET_DATA, and OFFSET_HOLE's and ERROR's. */
export const offsetData = struct(8, { offset: be64 });
export const offsetHole = struct(12, { offset: be64, length: be32 });
export const errorChunk = struct(6, { error: be32, messageLength: be16 });

/** How a session's replies look: agreed on during haggling. */
export const ReplyForm = { SIMPLE: 0, STRUCTURED: 1, EXTENDED: 2 } as const;
export type ReplyForm = (typeof ReplyForm)[keyof typeof ReplyForm];

/** Errors that may travel; everything else becomes EINVAL or EIO. */
export const WireError = {
  EPERM: 1,
  EIO: 5,
  ENOMEM: 12,
  EINVAL: 22,
  ENOSPC: 28,
  EOVERFLOW: 75,
  ENOTSUP: 95,
  ESHUTDOWN: 108,
} as const;

const wireErrors = new Set<number>(Object.values(WireError));

/**
 * The number that tells a client of `status`, an errno number of a bio. ENOTSUP is for commands
 * that asked for it by FAST_ZERO only.
 */
export function wireError(status: number, fastZero: boolean): number {
  if (status === 0) return 0;
  if (status === WireError.ENOTSUP && !fastZero) return WireError.EINVAL;
  return wireErrors.has(status) ? status : WireError.EIO;
}

// --- metadata contexts

export const BASE_ALLOCATION = 'base:allocation';
/** The id under which base:allocation is selected. */
export const BASE_ALLOCATION_ID = 1;

// --- limits

/** Largest payload of a read or write: what the Linux client sends without asking. */
export const PAYLOAD_BYTES_MAX = 32 * 1024 * 1024;
/** A larger write is read and refused up to here; beyond, the connection is dropped. */
export const PAYLOAD_BYTES_ABSURD = 256 * 1024 * 1024;
/** Data of one option; more is drained and refused, up to OPTION_BYTES_ABSURD. */
export const OPTION_BYTES_MAX = 65536;
export const OPTION_BYTES_ABSURD = 16 * 1024 * 1024;
/** Replies to options that a client leaves unread; beyond, its options are not read. */
export const OPTION_REPLY_BYTES_MAX = 1024 * 1024;
/** Requests and memory that one connection may have in use; beyond, its socket is not read. */
export const IN_FLIGHT_REQUESTS_MAX = 512;
export const IN_FLIGHT_BYTES_MAX = 64 * 1024 * 1024;
/** Pieces of replies that one connection has not taken: small ones cost more than their bytes. */
export const UNSENT_PIECES_MAX = 4096;
