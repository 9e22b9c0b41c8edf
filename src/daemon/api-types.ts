/**
 * What travels over the control API: shared by the daemon, which makes it, and the commands, which
 * print it. The OpenAPI document at /openapi.json says the same to everyone else.
 */

/** The operations in whose name dmsetup reports failures. */
export type Operation =
  | 'create'
  | 'reload'
  | 'suspend'
  | 'resume'
  | 'remove'
  | 'rename'
  | 'message'
  | 'table'
  | 'status'
  | 'deps'
  | 'clear'
  | 'waitevent'
  | 'info'
  | 'setgeometry'
  | 'attach'
  | 'detach'
  | 'mount'
  | 'unmount'
  | 'target-version';

/** Why a request failed. */
export interface ApiError {
  readonly op: Operation | '';
  /** Errno name; FORMAT for table text that cannot be split. */
  readonly errno: string;
  /** glibc's text for it. */
  readonly text: string;
  /** What was wanted and what was found. */
  readonly message: string;
  /** What lies behind it, where that is known: why a device could not be opened. */
  readonly reason?: string;
  /** The device's number, if the failure came after it was made. */
  readonly number?: string;
  /** The line of the table text, for FORMAT. */
  readonly line?: number;
  /** The kernel's log lines that the request caused. */
  readonly log: readonly string[];
}

/** A mapped device with a block device, or a file, of its own. */
export interface AttachmentInfo {
  readonly name: string;
  /** The block device, or the file. */
  readonly path: string;
  readonly via: 'nbd' | 'nbdfuse' | 'file';
}

/** By the kernel's names. */
export interface Parameters {
  /** Seconds that writes wait for data space before they fail; 0: for ever. */
  readonly no_space_timeout: number;
}

export interface Dependency {
  readonly major: number;
  readonly minor: number;
  /** The mapped device's name, if it is one. */
  readonly name: string | null;
  /** The kernel's name: dm-0, loop0, or a file's base name. */
  readonly blkdevname: string;
}

export interface DeviceInfo {
  readonly name: string;
  readonly uuid: string;
  readonly major: number;
  readonly minor: number;
  readonly suspended: boolean;
  readonly readOnly: boolean;
  readonly deferredRemove: boolean;
  readonly liveTable: boolean;
  readonly inactiveTable: boolean;
  /** A table was loaded at some time, whether it is still there or not. */
  readonly hadTable: boolean;
  readonly openCount: number;
  readonly eventNr: number;
  readonly targetCount: number;
  readonly readAheadSectors: number;
  readonly sizeSectors: number;
  /** Types of the live table's targets, in order. */
  readonly targetTypes: readonly string[];
  /** Devices that the live table uses, the one opened last first. */
  readonly deps: readonly Dependency[];
}

/** Status or table lines of one device. */
export interface DeviceLines {
  readonly device: DeviceInfo;
  readonly lines: readonly string[];
}

export interface TargetVersion {
  readonly name: string;
  readonly version: readonly [number, number, number];
}

export interface VersionInfo {
  /** As dmsetup's library and the kernel's driver, whose behaviour this follows. */
  readonly library: string;
  readonly driver: string;
  readonly devmapper: string;
  readonly pid: number;
  readonly nbdSocket: string;
}
