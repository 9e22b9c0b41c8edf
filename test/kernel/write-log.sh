# Runs in the kernel's guest: words for making write logs with the log-writes target. BYTES is a file
# of 64 KiB of each byte, from 0 on.
#   loops                    the two disks again, as /dev/loop0 and 1 with logical blocks of 4096 bytes
#   open DISK N LOGDISK AT M   makes l, over E, N sectors of DISK, logged to L, M sectors from AT
#   w BYTE SECTOR COUNT [,dsync]   a direct write of that byte; with dsync, FUA and then a flush
#   f | d SECTOR COUNT | m TEXT    flush, discard, mark
#   st TEXT                  waits for that status; prints the one that there is
#   swap E|L good|bad        from now on, writes to it succeed or fail
#   close                    removes all three
loops() {
  modprobe -d "$MODULES" loop
  losetup -b 4096 /dev/loop0 /dev/ubda
  losetup -b 4096 /dev/loop1 /dev/ubdb
}

open() {
  E="$2 linear $1 0" E_BAD="$2 flakey $1 0 0 10 1 error_writes"
  L="$5 linear $3 $4" L_BAD="$5 flakey $3 $4 0 10 1 error_writes"
  dmsetup create --concise "E,,,rw,0 $E;L,,,rw,0 $L;l,,,rw,0 $2 log-writes /dev/mapper/E /dev/mapper/L"
}
close() { dmsetup remove l E L; }

w() {
  dd if="$BYTES" of=/dev/mapper/l bs=$(($3 * 512)) count=1 iflag=skip_bytes skip=$(($1 * 65536)) \
    oflag=direct,seek_bytes$4 seek=$(($2 * 512)) conv=notrunc status=none || true
}
f() { sync /dev/mapper/l || true; }
d() { blkdiscard -f -o $(($1 * 512)) -l $(($2 * 512)) /dev/mapper/l || true; }
m() { dmsetup message l 0 mark "$1"; }

st() {
  local i status
  for ((i = 0; i < 50; i++)); do
    read -r _ _ _ status <<<"$(dmsetup status l)"
    [ "$status" = "$1" ] && break
    sleep 0.02
  done
  echo "status $status"
}

swap() {
  local table=$1
  [ $2 = bad ] && table=$1_BAD
  dmsetup suspend $1
  dmsetup load $1 --table "0 ${!table}"
  dmsetup resume $1
}

# Waits until that many bios are in flight on a device, given by its number.
inflight() {
  local i reads writes
  for ((i = 0; i < 200; i++)); do
    read -r reads writes <"/sys/dev/block/$1/inflight"
    [ $((reads + writes)) = $2 ] && return
    sleep 0.02
  done
  echo "never $2 bios in flight"
}
