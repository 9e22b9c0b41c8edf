# The kernel's side, in a guest of kernel-run. DISKS are the names of the disks.
W=/run LOG=/run/kmsg
n=0
for d in $DISKS; do
  letter=$(printf "\\x$(printf %x $((65 + n)))")
  if [[ $d = loop* ]]; then
    [[ -e /dev/loop0 ]] || modprobe -d $MODULES loop max_loop=8
    truncate -s $(blockdev --getsize64 /dev/ubd$(printf "\\x$(printf %x $((97 + n)))")) $W/$d
    losetup /dev/$d $W/$d
  fi
  declare $letter=/dev/$d
  n=$((n + 1))
done
echo on >/proc/sys/kernel/printk_devkmsg
mark() { echo "MARK $1" >/dev/kmsg; }
cat /dev/kmsg >$LOG & kmsg=$!
there() { "$@"; }
here() { :; }
# What a command that does I/O says: ok, or the last error in its output.
errors='Input/output error|No space left on device|Operation not (permitted|supported)|Invalid argument|Read-only.*'
told() { if [[ $1 = 0 ]]; then echo ok; else grep -oE "$errors" $2 | tail -n 1; fi; }

# The first bytes of a file's sectors, equal neighbours counted.
sectors() {
  local byte last= n=0
  od -An -v -tx1 -w512 $1 >$1.od
  while read -r byte _; do
    if [[ -n $last && $byte != "$last" ]]; then printf '%7d  %s\n' $n $last; n=0; fi
    last=$byte n=$((n + 1))
  done <$1.od
  printf '%7d  %s\n' $n $last
}

# Starting programs is what takes time in the guest: bytes to write are kept. A write that is larger
# than WRITE_MAX is made of several: from 1 MiB on, where the kernel cuts one depends on where in
# memory its pages happen to be.
WRITE_MAX=$((1 << 30))
declare -A kept
wr() {
  local bytes=$(($3 * 512)) flags=direct,seek_bytes io=$W/wr.$BASHPID n=1
  [[ ${5-} != fua ]] || flags+=,dsync
  if ((bytes > ${kept[$4]-0})); then
    head -c $bytes /dev/zero | tr '\0' "\\$(printf %o $4)" >$W/bytes.$4
    kept[$4]=$bytes
  fi
  if ((bytes > WRITE_MAX && bytes % WRITE_MAX == 0)); then n=$((bytes / WRITE_MAX)); fi
  dd if=$W/bytes.$4 of=/dev/mapper/$1 bs=$((bytes / n)) count=$n seek=$(($2 * 512)) \
    iflag=fullblock oflag=$flags conv=notrunc >$io 2>&1
  told $? $io
}
wrs() {
  local i plan=$W/plan.$BASHPID
  for ((i = 0; i < $4; i++)); do echo direct $1 $((($2 + i * $3) * 512)) 4096 1; done >$plan
  perl $SIDES/../guest.pl $plan >/dev/null
}
rd() {
  local f=$W/rd.$BASHPID
  dd if=/dev/mapper/$1 of=$f bs=$(($3 * 512)) count=1 skip=$(($2 * 512)) \
    iflag=direct,skip_bytes >$f.io 2>&1 || { told 1 $f.io; return; }
  sectors $f
}
trim() {
  local f=$W/trim.$BASHPID
  # Without -f it reads the device first.
  blkdiscard -f -o $(($2 * 512)) -l $(($3 * 512)) /dev/mapper/$1 >$f 2>&1
  told $? $f
}
fsync() {
  local f=$W/fsync.$BASHPID
  sync /dev/mapper/$1 >$f 2>&1
  told $? $f
}
usage() { echo $(($(stat -c %b $W/${1#/dev/}) / 2)) KiB; }
no_space_timeout() { echo $1 >/sys/module/dm_thin_pool/parameters/no_space_timeout; }
messages() {
  local pool=$1 words=$2 i
  for ((i = $3; i < $4; i++)); do
    dmsetup message $pool 0 $words $i 2>/dev/null || { echo "refused: $i"; return; }
  done
}
finish() {
  mark end
  until grep -q 'MARK end' $LOG; do sleep 0.05; done
  kill $kmsg
  while IFS= read -r l; do step L "$l"; done <$LOG
}
