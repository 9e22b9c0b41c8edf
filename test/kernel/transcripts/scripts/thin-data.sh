# disks: 4M 256M
# What is read and written through thin devices: zeroing, sharing, discards, I/O across blocks.
dd if=/dev/zero bs=1M count=4 2>/dev/null | tr '\0' '\252' |
  dd of=$B bs=1M conv=notrunc,fsync iflag=fullblock 2>/dev/null
st() { dmsetup status; }
x dmsetup create p --table "0 524288 thin-pool $A $B 128 0"
x dmsetup message p 0 create_thin 0
x dmsetup create t0 --table "0 65536 thin /dev/mapper/p 0"
# 16.12
x rd t0 0 128
x wr t0 8 8 17
x rd t0 0 128
x wr t0 640 128 34
x rd t0 640 128
x st
x dmsetup suspend t0
x dmsetup message p 0 create_snap 1 0
x dmsetup resume t0
x dmsetup create s1 --table "0 65536 thin /dev/mapper/p 1"
x wr t0 0 8 51
x rd t0 0 128
x rd s1 0 128
x st
x wr t0 640 128 68
x rd t0 640 128
x rd s1 640 128
x st
x wr s1 24 8 85
x st
x wr s1 32 8 85
x st
x rd s1 0 128
# 16.14
x dmsetup message p 0 create_snap 2 1
x wr s1 1152 128 102
x st
x trim t0 0 128
x st
x trim t0 0 65536
x st
x trim s1 0 65536
x st
x dmsetup remove s1
x dmsetup message p 0 delete 1
x dmsetup message p 0 delete 2
x dmsetup remove t0
x dmsetup message p 0 delete 0
x st
x dmsetup message p 0 create_thin 0
x dmsetup create t0 --table "0 65536 thin /dev/mapper/p 0"
# 16.12: the next block to be allocated
x wr t0 0 128 1
x rd p 768 128
# 16.13
x trim t0 8 120
x st
x trim t0 0 128
x st
x rd t0 0 128
for i in 0 1 2 3 4 5; do wr t0 $((i * 128)) 128 17; done
x trim t0 64 320
x st
x rd t0 0 768
# 16.45
x dmsetup message p 0 create_thin 45
x dmsetup create t --table "0 65536 thin /dev/mapper/p 45"
x wr t 120 16 119
x dmsetup status t
x wr t 256 256 120
x dmsetup status t
x rd t 0 640
x rd p 0 1024
x dmsetup remove_all
x thin_check $A
x thin_dump $A
# 16.16
x dmsetup create p --table "0 524288 thin-pool $A $B 128 0 1 ignore_discard"
x dmsetup status p
x dmsetup create t0 --table "0 65536 thin /dev/mapper/p 0"
x trim t0 0 65536
x st
x dmsetup remove_all
x dmsetup create p --table "0 524288 thin-pool $A $B 128 0 3 error_if_no_space skip_block_zeroing no_discard_passdown"
x dmsetup status p
x dmsetup table p
x dmsetup create t0 --table "0 65536 thin /dev/mapper/p 0"
x wr t0 1280 8 7
x rd t0 1280 128
x dmsetup remove_all
