# disks: 4M 64M
# 16.39, and what may be done to suspended pools and volumes.
T="0 8192 thin /dev/mapper/p"
m() { x dmsetup message p 0 "$@"; }
x dmsetup create p --table "0 131072 thin-pool $A $B 128 0"
m create_thin 0
x dmsetup create t --table "$T 0"
x wr t 0 256 17
x dmsetup suspend p
x bg r rd t 0 8
x bg w wr t 1024 8 1
x blocks r
x blocks w
x dmsetup info -c
x dmsetup status
x dmsetup table
m create_snap 1 0
x dmsetup create u --table "$T 1"
x dmsetup suspend p
x dmsetup resume p
x ended r
x ended w
x dmsetup status
x dmsetup deps t
x dmsetup create u --table "$T 1"
x dmsetup info -c
# A volume that is suspended, in a pool that is suspended: each needs its own resume.
x dmsetup suspend t
x bg r rd t 0 8
x blocks r
x rd u 0 8
m create_snap 2 0
x dmsetup suspend p
x bg s dmsetup resume t
x blocks s
x dmsetup info -c t
x dmsetup resume p
x ended s
x ended r
x dmsetup suspend p
x bg s dmsetup suspend t
x blocks s
x dmsetup info -c t
x dmsetup resume p
x ended s
x bg r rd t 0 8
x blocks r
x dmsetup resume t
x ended r
# Reloads while suspended; a resume that fails.
x dmsetup suspend p
x dmsetup load p --table "0 65536 thin-pool $A $B 128 0"
x dmsetup resume p
x bg r rd u 0 8
x blocks r
x dmsetup info -c
x dmsetup resume p
x dmsetup load p --table "0 131072 thin-pool $A $B 128 0"
x dmsetup resume p
x ended r
x dmsetup status
# Removal.
x dmsetup remove p
x dmsetup suspend t
x dmsetup remove t
x dmsetup suspend p
x dmsetup remove u
x dmsetup remove p
x thin_check $A
x thin_dump $A
