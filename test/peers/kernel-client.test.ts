/**
 * The Linux kernel's NBD client, in a machine of its own: nbd-client, mkfs, mount, discards, fsck,
 * on a volume that is served over TCP; and what the pool and its snapshots have of it.
 */
import assert from 'node:assert/strict';
import { runInMachine, skipWithoutMachine } from '../helpers/kernel.ts';
import { must } from '../helpers/programs.ts';
import { MIB, servedTests } from '../helpers/served-pool.ts';

const served = servedTests(['nbdcopy', 'debugfs', 'e2fsck'], {
  args: ['--tcp', '0'],
  skip: skipWithoutMachine(),
});

const BYTES = 256 * MIB;

served.test(
  'ext4 on a volume by the kernel: written, deleted, discarded, and sound when seen from here',
  async (pool) => {
    const port = Number(/"port":([0-9]+),"msg":"NBD over TCP"/.exec(pool.daemon.log)?.[1]);
    await pool.volume('vm 1', 0, BYTES);
    const script = `
      set -e
      nbd-client 10.0.2.2 ${port} /dev/nbd0 -N 'vm 1' -C 4 >/dev/null 2>&1
      cd /sys/block/nbd0
      echo size $(cat size) $(cat queue/logical_block_size) $(cat queue/fua) $(cat ro)
      cd /
      /usr/sbin/mke2fs -q -t ext4 /dev/nbd0
      mount -t ext4 -o discard /dev/nbd0 /mnt
      mkdir /mnt/dir
      dd if=/dev/urandom of=/mnt/dir/kept bs=64k count=48 2>/dev/null
      dd if=/dev/zero of=/mnt/deleted bs=64k count=640 2>/dev/null
      sync
      rm /mnt/deleted
      sync
      md5sum /mnt/dir/kept
      umount /mnt
      /usr/sbin/e2fsck -fn /dev/nbd0 >/dev/null 2>&1
      # The last sector, which ext4 does not use.
      echo last | dd of=/dev/nbd0 bs=512 seek=$((${BYTES / 512} - 1)) conv=sync,fsync 2>/dev/null
      nbd-client -d /dev/nbd0 >/dev/null
      echo done
    `;
    const { code, stdout, stderr } = await runInMachine(script, { port, dir: pool.daemon.dir });
    assert.equal(code, 0, stdout + stderr);
    assert.match(stdout, new RegExp(`^size ${BYTES / 512} 512 1 0$`, 'm'));
    assert.match(stdout, /^done$/m);
    const sum = /^([0-9a-f]{32}) +\/mnt\/dir\/kept$/m.exec(stdout)?.[1];
    assert.ok(sum !== undefined, stdout);

    // 40 MiB were deleted: what is left is metadata, journal, and 3 MiB.
    const nrMapped = await pool.nrMapped('vm 1');
    assert.ok(nrMapped > 48 && nrMapped < 500, `${nrMapped} blocks are mapped`);
    const image = pool.daemon.file('image');
    await must('nbdcopy', [await pool.uri('vm 1'), image]);
    await must('e2fsck', ['-fn', image]);
    const kept = pool.daemon.file('kept');
    await must('debugfs', ['-R', `dump /dir/kept ${kept}`, image]);
    assert.equal((await must('md5sum', [kept])).slice(0, 32), sum);
  },
);
