# disks: 4M 64M
# What happens when the data device is full: events, waiting, the timeout, and the ways out.
P="thin-pool $A /dev/mapper/d 128"
T="0 65536 thin /dev/mapper/p"
st() { dmsetup status; dmsetup info -c --noheadings -o name,events p; }
clear() { dmsetup remove_all; dd if=/dev/zero of=$A bs=4k count=1 conv=notrunc,fsync 2>/dev/null; }
# 16.21
x dmsetup create d --table "0 2048 linear $B 0"
x dmsetup create p --table "0 2048 $P 4"
x dmsetup message p 0 create_thin 0
x dmsetup create t --table "$T 0"
x wr t 0 1536 1
x st
x logs 'low water mark' wr t 1536 128 1
x st
x wr t 1664 384 14
x st
x logs 'out-of-data-space (queue IO)' bg w wr t 2048 8 9
x wr t 0 8 8
x rd t 0 128
x rd t 2048 128
x blocks w
x st
# The same table again: the mode stays, the timer runs anew.
no_space_timeout 2
x dmsetup suspend --noflush p
x dmsetup resume p
x logs 'out-of-data-space (error IO)' ended w
x st
x wr t 2048 8 9
x logs 'write mode' trim t 0 128
x st
x wr t 2048 8 9
x wr t 2176 8 9
x st
x dmsetup suspend p
x dmsetup resume p
x st
x bg w wr t 2176 8 9
x logs 'out-of-data-space (error IO)' ended w
# 16.22: nothing to be had from a larger disk without a larger table
x dmsetup load p --table "0 2048 $P 4"
x dmsetup resume p
x st
no_space_timeout 60
x logs 'out-of-data-space (queue IO)' bg w wr t 2176 8 9
x dmsetup load d --table "0 4096 linear $B 0"
x dmsetup resume d
x dmsetup suspend --noflush p
x dmsetup resume p
x blocks w
x st
x dmsetup load p --table "0 4096 $P 4"
x dmsetup suspend --noflush p
x dmsetup resume p
x ended w
x st
x rd t 2176 128
# A suspend with flush waits for what waits; one without hands it back.
x wr t 2304 1920 19
x st
x dmsetup message p 0 create_thin 1
no_space_timeout 4
x logs 'out-of-data-space (queue IO)' bg w wr t 6400 8 9
x bg s dmsetup suspend t
x blocks s
x logs 'out-of-data-space (error IO)' ended w
x ended s
x dmsetup resume t
no_space_timeout 60
x dmsetup load p --table "0 6144 $P 0"
x dmsetup load d --table "0 6144 linear $B 0"
x dmsetup resume d
x dmsetup suspend --noflush p
x dmsetup resume p
x wr t 4352 2048 35
x logs 'out-of-data-space (queue IO)' bg w wr t 6400 8 9
x blocks w
x dmsetup suspend --noflush t
x dmsetup info -c t
x dmsetup resume t
x blocks w
x dmsetup message p 0 delete 1
# Back to writing by deleting.
x dmsetup message p 0 create_snap 2 0
x dmsetup message p 0 delete 2
x blocks w
x logs 'write mode' trim t 128 128
x ended w
x st
clear
# 16.23
x dmsetup create d --table "0 4096 linear $B 0"
x dmsetup create p --table "0 4096 $P 0 1 error_if_no_space"
x dmsetup message p 0 create_thin 0
x dmsetup create t --table "$T 0"
x wr t 0 4096 1
x st
x logs 'switching pool' wr t 4096 8 1
x st
x wr t 4096 8 1
x wr t 0 8 1 fua
x fsync t
x dmsetup message p 0 create_thin 1
x dmsetup message p 0 create_snap 2 0
x wr t 0 8 1
x dmsetup message p 0 delete 2
x dmsetup remove t
x dmsetup message p 0 delete 0
x st
x dmsetup create t --table "$T 1"
x wr t 0 4224 1
x st
# Reloads choose anew, and take the pool back to writing.
x dmsetup load p --table "0 4096 $P 0"
x dmsetup resume p
x st
x logs 'switching pool' bg w wr t 8192 8 1
x dmsetup load p --table "0 4096 $P 0 1 error_if_no_space"
x dmsetup suspend --noflush p
x logs 'error IO' dmsetup resume p
x ended w
x st
# For ever: only as long as nobody asks for an error.
no_space_timeout 0
x dmsetup load p --table "0 4096 $P 0"
x dmsetup resume p
x logs 'switching pool' bg w wr t 8192 8 1
x blocks w
x dmsetup load p --table "0 4096 $P 0 1 read_only"
x dmsetup suspend --noflush p
x dmsetup resume p
x ended w
x st
x dmsetup remove_all
x thin_check $A
