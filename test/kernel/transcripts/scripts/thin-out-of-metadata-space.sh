# disks: 4M 256M
# Metadata that runs full: events, the read-only mode, and the ways back.
P="0 524288 thin-pool /dev/mapper/m $B 128 0"
st() { dmsetup status; dmsetup info -c --noheadings -o name,events p; }
reload() { dmsetup load p --table "$1" && dmsetup resume p; }
grow() { dmsetup load m --table "0 $1 linear $A 0" && dmsetup resume m; }
# 16.24
x dmsetup create m --table "0 2048 linear $A 0"
x dmsetup create p --table "$P"
x dmsetup status p
x dmsetup message p 0 create_thin 1000
x dmsetup create t --table "0 65536 thin /dev/mapper/p 1000"
x wr t 0 256 17
x messages p create_thin 0 1000
x st
x dmsetup message p 0 create_thin 2000
x dmsetup message p 0 delete 3
x wr t 0 8 18
x wr t 0 128 19 fua
x wr t 512 8 20
x trim t 0 128
x rd t 0 128
x fsync t
x dmsetup suspend p
x dmsetup resume p
x st
x grow 8192
x st
x dmsetup suspend p
x dmsetup resume p
x st
x dmsetup message p 0 create_thin 2000
x wr t 512 8 20
x trim t 128 128
x st
x dmsetup remove_all
x thin_check $A
# 16.25
dd if=/dev/zero of=$A bs=4k count=1 conv=notrunc,fsync 2>/dev/null
x dmsetup create m --table "0 1024 linear $A 0"
x dmsetup create p --table "$P"
x messages p create_thin 0 1000
x st
x reload "$P"
x st
x reload "$P"
x dmsetup message p 0 delete 3
x st
x messages p create_thin 2000 3000
x st
# Smaller metadata is refused, and the pool stays suspended.
x dmsetup suspend p
x grow 512
x dmsetup resume p
x dmsetup info -c p
x grow 1024
x dmsetup resume p
x st
# Data that grows needs metadata, too.
x dmsetup remove_all
x thin_check $A
