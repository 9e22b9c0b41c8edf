# disks: 4M 256M 17G 4M
# Tables of pools and thin devices: what is refused, in which words, and what is taken as what.
fresh() { dd if=/dev/zero of=$1 bs=4k count=1 conv=notrunc,fsync 2>/dev/null; }
try() { x dmsetup create p --table "$1" && { x dmsetup table p; x dmsetup remove p; }; }
P="0 524288 thin-pool $A $B"
# 16.1
x dmsetup create p --table "$P 128 0"
x dmsetup status p
x dmsetup table p
x dmsetup message p 0 create_thin 0
x dmsetup status p
x dmsetup create t0 --table "0 262144 thin /dev/mapper/p 0"
x dmsetup status t0
x dmsetup table t0
for i in 0 1 2 3 4 5 6 7 8 9; do wr t0 $((i * 128)) 128 17; done
x dmsetup status t0
x dmsetup status p
x dmsetup info -c
x dmsetup remove t0
x dmsetup remove p
x thin_check $A
x thin_dump $A
# 16.2
for words in "$A $B 128" "$A $A 128 0" "$A $B 64 0" "$A $B 0 0" "$A $B 129 0" "$A $B 192 0" \
  "$A $B 2097280 0" "$A $B abc 0" "$A $B 128 xyz" "$A $B 128 -1" "$A $B 128 0 foo" "$A $B 128 0 1" \
  "$A $B 128 0 2 skip_block_zeroing" "$A $B 128 0 1 wibble" "/dev/nosuch $B 128 0" \
  "$A /dev/nosuch 128 0" \
  "$A $B 128 0 5 skip_block_zeroing ignore_discard no_discard_passdown read_only error_if_no_space"; do
  try "0 524288 thin-pool $words"
done
try "0 1048576 thin-pool $A $B 128 0"
try "128 524160 thin-pool $A $B 128 0"
try "0 262144 thin-pool $A $B 128 0
262144 8 zero"
x dmsetup create -r p --table "$P 128 0"
try "$P 128 0 1 skip_block_zeroing extra junk"
try "$P 128 0 4 ERROR_if_no_space no_discard_passdown ignore_discard Skip_Block_Zeroing"
# 16.3
fresh $A
differs 'Devices are compared by identity' \
  dmsetup create p --table "0 524288 thin-pool $A ${A%/*}/./${A##*/} 128 0"
# 16.4
fresh $A
try "$P 128 0 1 read_only"
# 16.5: formatted by a load, never resumed
x dmsetup create p --notable
x dmsetup load p --table "$P 128 0"
x dmsetup clear p
x dmsetup load p --table "$P 128 0 1 read_only"
x dmsetup resume p
x dmsetup status p
x dmsetup remove p
# 16.6
x dmsetup create p --table "$P 128 0"
x dmsetup create q --table "$P 128 0"
x dmsetup create q --table "0 524288 thin-pool $D $B 128 0"
x dmsetup table
x dmsetup remove q
# 16.7
x dmsetup load p --table "0 8192 thin-pool $A $D 128 0"
x dmsetup load p --table "0 524288 thin-pool $D $B 128 0"
x dmsetup load p --table "$P 128 0 1 ignore_discard"
x dmsetup load p --table "$P 256 0"
x dmsetup table --inactive p
x dmsetup load p --table "0 8192 linear $B 0"
x dmsetup load p --table "0 262144 thin-pool $A $B 128 0"
x dmsetup resume p
x dmsetup info -c p
x dmsetup table p
x dmsetup load p --table "$P 128 0"
x dmsetup resume p
x dmsetup status p
x dmsetup load p --table "$P 128 0 1 SKIP_BLOCK_ZEROING"
x dmsetup resume p
x dmsetup table p
x dmsetup remove p
x dmsetup create p --table "$P 256 0"
fresh $A
x dmsetup create p --table "$P 128 0 1 ignore_discard"
x dmsetup load p --table "$P 128 0"
x dmsetup status p
x dmsetup remove p
# 16.8
fresh $A
x dmsetup create p --table "0 2100 thin-pool $A $B 128 0"
x dmsetup status p
x dmsetup remove p
fresh $A
x dmsetup create p --table "0 2048 thin-pool $A $B 2097152 0"
x dmsetup status p
x dmsetup remove p
fresh $A
x dmsetup create p --table "0 38400 thin-pool $A $B 384 0"
x dmsetup message p 0 create_thin 0
x dmsetup create t0 --table "0 3840 thin /dev/mapper/p 0"
x wr t0 800 8 17
x dmsetup status
x dmsetup remove t0
x dmsetup remove p
x thin_dump $A
x dmsetup create p --table "0 524288 thin-pool $C $B 128 0"
x dmsetup status p
x dmsetup remove p
# 16.10
fresh $A
x dmsetup create p --table "$P 128 0"
x dmsetup message p 0 create_thin 0
x dmsetup create l --table "0 8192 linear $D 0"
thin() { x dmsetup create t --table "0 262144 thin $1" && { x dmsetup table t; x dmsetup remove t; }; }
for words in /dev/mapper/p "/dev/mapper/p 0 $D x" "/dev/mapper/p abc" "/dev/mapper/p 16777216" \
  "/dev/mapper/p 7" "$D 0" "/dev/mapper/l 0" "/dev/mapper/nosuch 0" \
  "/dev/mapper/p 0 /dev/mapper/p" "/dev/mapper/p 0 /dev/nosuch" "/dev/mapper/p 0 /dev/mapper/l"; do
  thin "$words"
done
# (An origin that is the pool under another name crashes the kernel at the resume.)
x dmsetup suspend p
thin "/dev/mapper/p 0"
x dmsetup resume p
# 16.11
x dmsetup create t0 --table "0 65536 thin /dev/mapper/p 0"
x dmsetup create t1 --table "0 65536 thin /dev/mapper/p 0"
x dmsetup message p 0 delete 0
x dmsetup remove p
x dmsetup message p 0 create_snap 40 0
x wr t0 128 8 17
x rd t1 128 16
x dmsetup remove t0
x dmsetup remove t1
x dmsetup message p 0 delete 0
x dmsetup message p 0 create_thin 50
x dmsetup message p 0 create_thin 1
x dmsetup create t --table "0 65536 thin /dev/mapper/p 50
65536 65536 thin /dev/mapper/p 1"
x wr t 65528 16 34
x dmsetup status t
x dmsetup create h --table "0 1073741824 thin /dev/mapper/p 50"
x dmsetup status h
# 16.20
x dmsetup message p 0 create_thin 20
x dmsetup create v --table "0 65536 thin /dev/mapper/p 20"
for i in 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do wr v $((i * 128)) 8 $((i + 1)); done
x dmsetup load v --table "0 1024 thin /dev/mapper/p 20"
x dmsetup resume v
x dmsetup status v
x dmsetup info -c v
x dmsetup load v --table "0 4096 thin /dev/mapper/p 20"
x dmsetup resume v
x rd v 1024 16
x dmsetup load v --table "0 1024 thin /dev/mapper/p 7"
x dmsetup load v --table "0 4096 thin /dev/mapper/p 50"
x dmsetup resume v
x rd v 4088 8
x rd v 0 8
x dmsetup table v
x dmsetup remove v
x dmsetup create -r v --table "0 1024 thin /dev/mapper/p 20"
x rd v 0 16
x wr v 0 8 99
x dmsetup remove_all
x thin_check $A
