# disks: 4M 64M 8M
# 16.17 to 16.19: devices that are read where a thin device has nothing of its own.
fill() { dd if=/dev/zero bs=1M count=$2 2>/dev/null | tr '\0' "$3" |
  dd of=$1 bs=1M conv=notrunc,fsync iflag=fullblock 2>/dev/null; }
fill $B 64 '\252'
fill $C 8 '\042'
P=/dev/mapper/p O=/dev/mapper/o
x dmsetup create p --table "0 131072 thin-pool $A $B 128 0"
x dmsetup create o --table "0 300 linear $C 0"
x dmsetup message p 0 create_thin 0
x dmsetup create t --table "0 1024 thin $P 0 $O"
# 16.17: the origin ends in the middle of a block
x rd t 0 512
x rd t 299 1
x rd t 300 1
x rd t 296 8
x dmsetup status t
x dmsetup table t
x dmsetup deps t
# 16.18
x wr t 0 1 17
x rd t 0 128
x wr t 290 1 17
x rd t 256 128
x wr t 400 1 17
x rd t 384 128
x dmsetup status t
x wr t 896 128 19
x rd t 768 256
# Without zeroing, the rest of a block is what the disk had.
x dmsetup load p --table "0 131072 thin-pool $A $B 128 0 1 skip_block_zeroing"
x dmsetup resume p
x dmsetup message p 0 create_thin 1
x dmsetup create u --table "0 1024 thin $P 1 $O"
x wr u 257 1 51
x rd u 256 128
x wr u 385 1 51
x rd u 384 128
x rd u 896 128
x dmsetup status u
x dmsetup remove u
x dmsetup load p --table "0 131072 thin-pool $A $B 128 0"
x dmsetup resume p
# 16.19: snapshots with and without it
x dmsetup message p 0 create_snap 2 0
x dmsetup create s --table "0 1024 thin $P 2 $O"
x dmsetup create n --table "0 1024 thin $P 2"
x rd s 128 128
x rd n 128 128
x wr s 128 1 51
x rd s 128 128
x rd n 128 128
x rd t 128 128
x trim t 0 128
x rd t 0 128
x dmsetup load o --table "0 2048 linear $C 0"
x dmsetup resume o
x rd t 512 128
x dmsetup suspend t
x dmsetup resume t
x rd t 512 128
# Longer than the thin device, and reloads that change it.
x dmsetup message p 0 create_thin 3
x dmsetup create v --table "0 200 thin $P 3 $O"
x rd v 0 200
x wr v 192 8 7
x rd v 128 72
x dmsetup status v
x dmsetup load v --table "0 400 thin $P 3"
x dmsetup resume v
x rd v 0 400
x dmsetup load v --table "0 400 thin $P 3 $C"
x dmsetup resume v
x rd v 200 200
x dmsetup table v
x dmsetup remove o
# In modes without space, and over an origin that fails.
x dmsetup load p --table "0 131072 thin-pool $A $B 128 0 1 read_only"
x dmsetup resume p
x rd t 256 128
x rd t 384 256
x wr t 640 8 1
x dmsetup load p --table "0 131072 thin-pool $A $B 128 0"
x dmsetup resume p
x dmsetup load o --table "0 2048 error"
x dmsetup resume o
x rd t 128 128
x rd t 0 300
x wr t 256 8 9
x wr t 640 8 9
x dmsetup status t
x dmsetup remove_all
x thin_check $A
