# disks: 4M 64M
# What is there after the power was cut, and metadata that is not written without need.
# 16.28: what was flushed, or written with FUA, is there
x dmsetup create p --table "0 131072 thin-pool $A $B 128 0"
x dmsetup message p 0 create_thin 0
x dmsetup create t --table "0 65536 thin /dev/mapper/p 0"
x wr t 0 128 17 fua
x wr t 256 8 18
x fsync t
x dmsetup message p 0 create_snap 1 0
# power cut
x thin_check $A
x thin_dump $A
x dmsetup create p --table "0 131072 thin-pool $A $B 128 0"
x dmsetup create t --table "0 65536 thin /dev/mapper/p 0"
x dmsetup status
x rd t 0 512
# 16.29: what was written is committed within a second, also while nobody does anything
x wr t 512 128 19
sleep 2.5
# power cut
x thin_check $A
x thin_dump $A
# 16.31: a pool that is used without any change leaves its metadata alone
sum() { dd if=$A bs=1M iflag=direct 2>/dev/null | md5sum; }
up() {
  dmsetup create p --table "0 131072 thin-pool $A $B 128 0" &&
    dmsetup create t --table "0 65536 thin /dev/mapper/p 0"
}
before=$(sum)
unchanged() { if [[ $(sum) = "$before" ]]; then echo unchanged; else echo changed; fi; }
x up
x dmsetup status
x rd t 0 1024
x wr t 512 8 20 fua
x wr t 512 128 21
x fsync t
x dmsetup suspend p
x dmsetup resume p
x unchanged
x dmsetup remove t
x dmsetup remove p
x unchanged
x up
x trim t 512 128
x dmsetup remove_all
x unchanged
x thin_check $A
