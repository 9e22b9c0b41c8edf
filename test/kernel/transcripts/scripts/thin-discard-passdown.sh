# disks: 4M loop:64M loop:4M
# 16.15: what discards of thin devices do to a data device that can discard.
st() { dmsetup status; usage $B; }
x dmsetup create p --table "0 131072 thin-pool $A $B 128 0"
x dmsetup message p 0 create_thin 0
x dmsetup create t --table "0 65536 thin /dev/mapper/p 0"
x wr t 0 1024 17
x st
x trim t 0 256
x st
x dmsetup message p 0 create_snap 1 0
x dmsetup create s --table "0 65536 thin /dev/mapper/p 1"
x trim t 256 256
x st
x rd s 256 256
x trim s 256 256
x st
x dmsetup load p --table "0 131072 thin-pool $A $B 128 0 1 no_discard_passdown"
x dmsetup resume p
x dmsetup table p
x trim t 512 128
x trim s 512 128
x st
x dmsetup load p --table "0 131072 thin-pool $A $B 128 0"
x dmsetup resume p
# Sharing that was broken: the last user's discard reaches the disk.
x wr t 640 128 34
x st
x trim s 640 128
x st
x trim t 640 128
x st
x trim t 0 65536
x trim s 0 65536
x st
# Passdown is off where the disk cannot discard a block.
x dmsetup remove_all
x dmsetup create d --table "0 131072 linear $B 0"
x dmsetup create p --table "0 131072 thin-pool $A /dev/mapper/d 128 0"
x dmsetup status p
x dmsetup remove_all
x dmsetup create p --table "0 131072 thin-pool $A $B 128 0 1 ignore_discard"
x dmsetup status p
x trim p 0 128
x dmsetup create t --table "0 65536 thin /dev/mapper/p 0"
x trim t 0 128
x dmsetup remove_all
