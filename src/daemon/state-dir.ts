/**
 * The state directory: where a daemon's sockets, process id, log and lock are, and how it is found.
 *
 *   control.sock   HTTP/JSON control API        nbd.sock     NBD exports
 *   daemon.pid     process id                   daemon.log   log of a daemon in the background
 *   daemon.lock    locked while a daemon lives  tables       the devices, for 'daemon --restore'
 *   attached/      what attached devices need
 *
 * Does not: make anything. Every command needs the paths, few need more.
 */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';

export interface StateDir {
  readonly dir: string;
  readonly controlSocket: string;
  readonly nbdSocket: string;
  readonly pidFile: string;
  readonly logFile: string;
  readonly lockFile: string;
  readonly tablesFile: string;
  readonly attachedDir: string;
}

/** A state directory that cannot be one. */
export class StateDirError extends Error {}

/** Unix socket paths have room for 107 bytes. */
const SOCKET_PATH_MAX = 107;

/** The paths in `dir`; throws if sockets there would have paths that are too long. */
export function stateDirAt(dir: string): StateDir {
  const at = (name: string): string => path.join(path.resolve(dir), name);
  const state = {
    dir: path.resolve(dir),
    controlSocket: at('control.sock'),
    nbdSocket: at('nbd.sock'),
    pidFile: at('daemon.pid'),
    logFile: at('daemon.log'),
    lockFile: at('daemon.lock'),
    tablesFile: at('tables'),
    attachedDir: at('attached'),
  };
  if (Buffer.byteLength(state.controlSocket) > SOCKET_PATH_MAX) {
    const wanted = `wanted a path of at most ${SOCKET_PATH_MAX} bytes for a socket`;
    throw new StateDirError(
      `${wanted}, found ${state.controlSocket}; choose a shorter state directory`,
    );
  }
  return state;
}

/**
 * `--state-dir`, else $DEVMAPPER_DIR, else $XDG_RUNTIME_DIR/devmapper, else /run/devmapper for
 * root, and for others a directory in the system's temporary one.
 */
export function findStateDir(option: string | undefined): StateDir {
  const { DEVMAPPER_DIR, XDG_RUNTIME_DIR } = process.env;
  const chosen = option ?? DEVMAPPER_DIR;
  if (chosen !== undefined && chosen !== '') return stateDirAt(chosen);
  if (XDG_RUNTIME_DIR !== undefined && XDG_RUNTIME_DIR !== '') {
    return stateDirAt(path.join(XDG_RUNTIME_DIR, 'devmapper'));
  }
  const uid = process.getuid?.() ?? 0;
  return stateDirAt(uid === 0 ? '/run/devmapper' : ownTemporaryDir(uid));
}

/** A directory that anybody could have made: throws if someone else has. */
function ownTemporaryDir(uid: number): string {
  const dir = path.join(os.tmpdir(), `devmapper-${uid}`);
  const stat = fs.lstatSync(dir, { throwIfNoEntry: false });
  if (stat !== undefined && (stat.uid !== uid || !stat.isDirectory())) {
    throw new StateDirError(`${dir} is not a directory of yours; set DEVMAPPER_DIR`);
  }
  return dir;
}
