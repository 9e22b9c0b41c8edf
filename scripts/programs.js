/**
 * Programs that tests, demo and benchmarks run beside us, and the Debian packages that have them.
 * As root on Debian, what is missing is installed; otherwise this says which command installs it.
 */
import { spawnSync } from 'node:child_process';
import { hasProgram } from './setup.js';

/** Package by program. */
const packages = {
  thin_check: 'thin-provisioning-tools',
  nbdinfo: 'libnbd-bin',
  nbdcopy: 'libnbd-bin',
  nbdfuse: 'libnbd-bin',
  fusermount3: 'fuse3',
  losetup: 'mount',
  'qemu-img': 'qemu-utils',
  'qemu-io': 'qemu-utils',
  'qemu-nbd': 'qemu-utils',
  nbdkit: 'nbdkit',
  fio: 'fio',
  'linux.uml': 'user-mode-linux',
  modprobe: 'kmod',
  dmsetup: 'dmsetup',
  perl: 'perl-base',
  mke2fs: 'e2fsprogs',
  e2fsck: 'e2fsprogs',
  debugfs: 'e2fsprogs',
  gcc: 'gcc',
  'nbd-client': 'nbd-client',
  'qemu-system-x86_64': 'qemu-system-x86',
  busybox: 'busybox-static',
  cpio: 'cpio',
  flock: 'util-linux',
};

function isRootOnDebian() {
  return process.getuid?.() === 0 && hasProgram('apt-get');
}

function apt(args) {
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
  return spawnSync('apt-get', args, { env, stdio: ['ignore', 2, 2] }).status === 0;
}

/** Installs the packages of missing `programs` if it can; returns those that are still missing. */
export function ensurePrograms(programs = Object.keys(packages)) {
  const missing = () => programs.filter((name) => !hasProgram(name));
  const wanted = [...new Set(missing().map((name) => packages[name]))];
  if (wanted.includes('gcc')) wanted.push('libc6-dev');
  if (wanted.length === 0) return [];
  const install = ['install', '-y', '--no-install-recommends', ...wanted];
  if (isRootOnDebian()) {
    console.error(`Installing ${wanted.join(' ')} …`);
    apt(['update', '-q']);
    apt([...install, '-q']);
  } else {
    console.error(`Missing ${missing().join(', ')}. On Debian, this installs them:`);
    console.error(`  apt-get update && apt-get ${install.join(' ')}`);
  }
  return missing();
}
