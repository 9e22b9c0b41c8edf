# disks: 4M 64M 64M 4M
# Devices under a pool that fail: they are replaced by others while the pool is in use.
P="thin-pool /dev/mapper/m /dev/mapper/d 128 0"
POOL="0 16384 $P"
T="0 8192 thin /dev/mapper/p"
FAILS='A message fails if its commit fails'
BACK='An aborted transaction rolls everything back'
FLUSH='Later flushes of a device whose changes were lost fail'
LEAK='A block whose preparation fails, or is cut short, is not lost'
st() { dmsetup status p; dmsetup status --target thin; dmsetup info -c --noheadings -o name,events p; }
swap() { dmsetup load $1 --table "$2" && dmsetup suspend --noflush $1 && dmsetup resume $1; }
# Metadata of which only the first blocks can be written, and read.
cut_at() { swap m "0 $(($1 * 8)) linear $A 0
$(($1 * 8)) $((8192 - $1 * 8)) error"; }
good() { swap m "0 8192 linear $A 0"; }
fresh() {
  dmsetup remove_all
  dd if=/dev/zero of=$A bs=4k count=1 conv=notrunc,fsync 2>/dev/null
  dmsetup create m --table "0 8192 linear $A 0" && dmsetup create d --table "0 131072 linear $B 0" &&
    dmsetup create p --table "$POOL" && dmsetup message p 0 create_thin 0 &&
    dmsetup create t --table "$T 0"
}
m() { x dmsetup message p 0 "$@"; }
# 16.32: two blocks are committed, then metadata cannot be written. (Each in a commit of its own, so
# that both sides allocate the same metadata blocks.)
x fresh
x wr t 0 128 17 fua
x wr t 128 128 17 fua
x st
x cut_at 31
x logs 'read-only mode' wr t 1280 128 18
differs "$BACK" st
x wr t 2048 8 19
differs "$FLUSH" wr t 0 8 20 fua
differs "$FLUSH" fsync t
x wr t 0 8 20
x rd t 1280 128
m create_thin 5
x good
x dmsetup suspend p
x dmsetup resume p
differs "$BACK" st
x dmsetup load p --table "$POOL"
x dmsetup resume p
x dmsetup load p --table "0 131072 $P"
x dmsetup resume p
differs "$BACK" st
x dmsetup create u --table "$T 0"
x rd u 0 256
x dmsetup remove u
x dmsetup remove t
x dmsetup create t --table "$T 0"
x fsync t
differs "$BACK" st
x dmsetup remove t
x dmsetup remove p
x dmsetup remove m
x thin_check $A
x dmsetup create m --table "0 8192 linear $A 0"
x dmsetup create p --table "$POOL"
x dmsetup status p
x dmsetup remove p
x dmsetup remove m
x thin_check --clear-needs-check-flag $A
x dmsetup create m --table "0 8192 linear $A 0"
x dmsetup create p --table "$POOL"
x dmsetup create t --table "$T 0"
x st
# 16.33: a message whose commit fails
x fresh
x cut_at 17
differs "$FAILS" dmsetup message p 0 create_thin 9
x st
x good
x dmsetup create u --table "$T 9"
# 16.35: a FUA write that waits for a commit that fails
x fresh
x wr t 0 128 17 fua
x cut_at 24
x wr t 640 128 18 fua
differs "$BACK" st
x rd t 640 128
# The same with a FUA write that is part of a block.
x fresh
x cut_at 17
x wr t 640 8 18 fua
differs "$BACK" st
# A flush that waits for it.
x fresh
x cut_at 17
# In one step: the commit period must not end before it.
write_and_flush() { wr t 0 128 18; fsync t; }
x write_and_flush
differs "$BACK" st
# 16.47: the transaction id. Metadata can be read, not written: it is on a volume whose blocks are all
# shared, in a pool that is read-only.
x dmsetup remove_all
x dmsetup create m2 --table "0 8192 linear $D 0"
x dmsetup create p2 --table "0 16384 thin-pool /dev/mapper/m2 $C 128 0"
x dmsetup message p2 0 create_thin 0
x dmsetup create v --table "0 8192 thin /dev/mapper/p2 0"
x wr v 0 8192 0
x dmsetup create p --table "0 16384 thin-pool /dev/mapper/v $B 128 0"
x dmsetup message p2 0 create_snap 1 0
x dmsetup load p2 --table "0 16384 thin-pool /dev/mapper/m2 $C 128 0 1 read_only"
x dmsetup resume p2
differs "$FAILS" dmsetup message p 0 set_transaction_id 0 5
differs "$BACK" dmsetup status p
m set_transaction_id 5 6
x dmsetup load p2 --table "0 16384 thin-pool /dev/mapper/m2 $C 128 0"
x dmsetup resume p2
differs "$BACK" dmsetup status p
x dmsetup remove p
x dmsetup create p --table "0 16384 thin-pool /dev/mapper/v $B 128 0"
x dmsetup status p
x dmsetup remove_all
x thin_check $D
# 16.36: not even the superblock can be read
x fresh
x wr t 0 256 17
x fsync t
x swap m "0 8192 error"
differs "$FAILS" dmsetup message p 0 create_thin 4
x st
x dmsetup table
x dmsetup table t
x rd t 0 8
x wr t 0 8 1
x fsync t
x trim t 0 128
x dmsetup create u --table "$T 0"
x good
x dmsetup load p --table "$POOL"
x dmsetup suspend p
x dmsetup resume p
x st
m create_thin 4
x dmsetup suspend t
x dmsetup resume t
x dmsetup remove t
x dmsetup remove p
x dmsetup remove m
x thin_check $A
x dmsetup create m --table "0 8192 linear $A 0"
x dmsetup create p --table "$POOL"
x dmsetup status p
# 16.37: the data device fails
x fresh
x wr t 0 384 17
x fsync t
x swap d "0 131072 error"
x rd t 0 8
x wr t 0 8 1
x wr t 2560 8 1
differs "$LEAK" st
m create_snap 1 0
x wr t 128 8 1
differs "$LEAK" st
x swap d "0 131072 linear $B 0"
x wr t 128 8 1
differs "$LEAK" st
x rd t 128 128
x dmsetup remove t
m delete 1
m delete 0
differs "$LEAK" dmsetup status p
x dmsetup remove p
x dmsetup remove m
x thin_check $A
# 16.34: the data device can be written, but not flushed: part of it is a volume of a failed pool
x dmsetup remove_all
dd if=/dev/zero of=$A bs=4k count=1 conv=notrunc,fsync 2>/dev/null
dd if=/dev/zero of=$D bs=4k count=1 conv=notrunc,fsync 2>/dev/null
x dmsetup create m --table "0 8192 linear $A 0"
x dmsetup create m2 --table "0 8192 linear $D 0"
x dmsetup create p2 --table "0 16384 thin-pool /dev/mapper/m2 $C 128 0"
x dmsetup message p2 0 create_thin 0
x dmsetup create t2 --table "0 16384 thin /dev/mapper/p2 0"
x dmsetup create d --table "0 8192 linear $B 0
8192 8192 linear /dev/mapper/t2 0"
x dmsetup create p --table "$POOL"
m create_thin 0
x dmsetup create t --table "$T 0"
x wr t 0 128 17
x fsync t
x swap m2 "0 8192 error"
differs "$FAILS" dmsetup message p2 0 create_thin 1
sleep 1.2
x logs 'read-only mode' wr t 6528 128 18
differs "$BACK" st
x swap d "0 16384 linear $B 0"
x wr t 0 8 1
x wr t 0 8 1 fua
x fsync t
x rd t 6528 128
x rd t 0 128
x dmsetup remove_all
