# disks: 4M 64M
# Pools that are read-only because their table says so, and back; flushes outside the write mode.
P="thin-pool $A $B 128"
T="0 8192 thin /dev/mapper/p"
st() { dmsetup status; dmsetup info -c --noheadings -o name,events p; }
reload() { dmsetup load p --table "$1" && dmsetup resume p; }
m() { x dmsetup message p 0 "$@"; }
x dmsetup create p --table "0 131072 $P 0"
m create_thin 0
x dmsetup create t --table "$T 0"
x wr t 0 256 17
x st
# 16.40
x reload "0 131072 $P 0 1 read_only"
x st
x dmsetup table p
for words in "create_thin 5" "create_snap 5 0" "delete 0" "set_transaction_id 0 1" \
  reserve_metadata_snap release_metadata_snap wibble create_thin; do
  m "$words"
done
x wr t 0 8 18
x wr t 0 128 19 fua
x wr t 1024 8 20
x rd t 0 256
x rd t 1024 128
x trim t 0 128
x fsync t
x st
x dmsetup create u --table "$T 0"
x dmsetup create v --table "$T 9"
x rd u 128 128
x dmsetup remove u
x dmsetup suspend p
x dmsetup resume p
x st
x reload "0 131072 $P 0"
x st
m create_thin 5
x trim t 128 128
x wr t 1024 8 20
x st
# Blocks that are shared, in a pool that is read-only.
m create_snap 6 0
x reload "0 131072 $P 0 2 read_only skip_block_zeroing"
x wr t 0 8 21
x wr t 0 128 21
x rd t 0 128
x fsync t
x trim t 0 128
x st
x dmsetup remove_all
x thin_check $A
# Brought up read-only, with metadata that is formatted and with a size that it has not.
x dmsetup create p --table "0 131072 $P 0 1 read_only"
x st
x dmsetup create t --table "$T 0"
x rd t 0 128
x wr t 512 8 1
x reload "0 65536 $P 0 1 read_only"
x reload "0 131072 $P 0 1 read_only"
x st
x dmsetup remove_all
# 16.46
dd if=/dev/zero of=$A bs=4k count=1 conv=notrunc,fsync 2>/dev/null
x dmsetup create p --table "0 1024 $P 0 1 skip_block_zeroing"
m create_thin 0
m create_thin 1
x dmsetup create t --table "$T 0"
x dmsetup create u --table "$T 1"
x wr t 384 256 17 fua
x wr u 0 128 18 fua
x fsync t
x fsync u
x reload "0 1024 $P 0 2 skip_block_zeroing read_only"
differs 'An empty flush does not look at block 0' fsync t
x fsync u
x reload "0 1024 $P 0 2 skip_block_zeroing error_if_no_space"
x wr u 128 640 19
x logs 'switching pool' wr u 1024 8 19
x st
differs 'An empty flush does not look at block 0' fsync t
x fsync u
no_space_timeout 2
x reload "0 1024 $P 0 1 skip_block_zeroing"
x bg w wr t 1024 8 1
x logs 'error IO' ended w
x st
x reload "0 1024 $P 0 1 skip_block_zeroing"
x fsync t
x logs 'queue IO' bg w wr t 1024 8 1
x bg f fsync t
x logs 'error IO' ended w
differs 'An empty flush does not look at block 0' ended f
x dmsetup remove_all
x thin_check $A
