# disks: 64M 128M
# Lives of pools, as three sessions at a kernel's prompt went: full, read-only, failed, grown.
zeroes() { dd if=/dev/zero of=$1 bs=512 count=$2 seek=${3-0} conv=notrunc,fsync 2>/dev/null; }
x dmsetup create m --table "0 8192 linear $B 0"
x dmsetup create d --table "0 65536 linear $B 8192"
x dmsetup create pool --table "0 65536 thin-pool $B $B 128 0 1 read_only"
x dmsetup create pool --table "0 65536 thin-pool /dev/mapper/m /dev/mapper/d 128 0"
x dmsetup message pool 0 create_thin 0
# Full.
no_space_timeout 1
x dmsetup create t --table "0 131072 thin /dev/mapper/pool 0"
x wr t 0 65536 1
x wr t 65536 2048 1
x dmsetup status pool
x dmsetup status t
x dmsetup message pool 0 create_snap 1 0
x dmsetup remove t
x dmsetup message pool 0 delete 0
x dmsetup message pool 0 delete 1
x dmsetup status pool
# Read-only.
x dmsetup message pool 0 create_thin 4
x dmsetup remove pool
x dmsetup create pool --readonly --table "0 65536 thin-pool /dev/mapper/m /dev/mapper/d 128 0 1 read_only"
x dmsetup create pool --table "0 65536 thin-pool /dev/mapper/m /dev/mapper/d 128 0 1 read_only"
x dmsetup status pool
x dmsetup table pool
x dmsetup message pool 0 create_thin 5
x dmsetup message pool 0 delete 4
x dmsetup message pool 0 set_transaction_id 0 1
x dmsetup message pool 0 reserve_metadata_snap
x dmsetup create t4 --table "0 65536 thin /dev/mapper/pool 4"
x dmsetup status t4
x rd t4 0 256
x wr t4 0 128 0
x dmsetup status pool
x dmsetup remove t4
x dmsetup load pool --table "0 65536 thin-pool /dev/mapper/m /dev/mapper/d 128 0"
x dmsetup resume pool
x dmsetup status pool
# A thin while its pool is suspended; a snapshot of an origin in use.
x dmsetup create t4 --table "0 65536 thin /dev/mapper/pool 4"
x wr t4 0 1024 0
x dmsetup message pool 0 create_snap 5 4
x dmsetup status pool
x wr t4 0 8 0
x dmsetup status pool
x dmsetup suspend pool
x dmsetup create t5 --table "0 65536 thin /dev/mapper/pool 5"
x dmsetup ls
x dmsetup resume pool
x dmsetup create t5 --table "0 65536 thin /dev/mapper/pool 5"
x dmsetup status
x dmsetup info pool
x dmsetup deps
x dmsetup deps -o devname
x dmsetup ls --tree
# Too small.
x dmsetup load pool --table "0 32768 thin-pool /dev/mapper/m /dev/mapper/d 128 0"
x dmsetup resume pool
x dmsetup resume pool
x dmsetup status pool
x dmsetup remove t5
x dmsetup remove t4
x dmsetup remove pool
# Little metadata.
x dmsetup create tm --table "0 32 linear $B 110000"
x dmsetup create pool --table "0 65536 thin-pool /dev/mapper/tm /dev/mapper/d 128 0"
x dmsetup remove tm
zeroes $B 256 110000
x dmsetup create tm --table "0 256 linear $B 110000"
x dmsetup create pool --table "0 65536 thin-pool /dev/mapper/tm /dev/mapper/d 128 0"
x dmsetup status pool
differs 'A message fails if its commit fails' messages pool create_thin 0 3000
x dmsetup status pool
x dmsetup message pool 0 create_thin 4000
x dmsetup remove pool
x dmsetup create pool --table "0 65536 thin-pool /dev/mapper/tm /dev/mapper/d 128 0"
x dmsetup status pool
x dmsetup remove_all
# Waiting for space for ever; more of it; an external origin; a metadata snapshot.
no_space_timeout 0
zeroes $A 8
x dmsetup create m --table "0 8192 linear $A 0"
x dmsetup create o --table "0 65536 linear $A 8192"
x dmsetup create d --table "0 1024 linear $A 90000"
x dmsetup create pool --table "0 1024 thin-pool /dev/mapper/m /dev/mapper/d 128 2 1 skip_block_zeroing"
x dmsetup message pool 0 create_thin 0
x dmsetup create t --table "0 65536 thin /dev/mapper/pool 0"
x wr t 0 1024 1
x logs 'queue IO' bg w wr t 1024 512 2
x dmsetup status pool
x dmsetup status t
x dmsetup status --noflush pool
x dmsetup load d --table "0 2048 linear $A 90000"
x dmsetup resume d
x dmsetup load pool --table "0 2048 thin-pool /dev/mapper/m /dev/mapper/d 128 2 1 skip_block_zeroing"
x dmsetup resume pool
x ended w
x dmsetup status pool
x dmsetup status t
x dmsetup info -c -o name,events,open --noheadings
x wr o 0 512 3
x dmsetup message pool 0 create_thin 1
x dmsetup create ext --table "0 512 thin /dev/mapper/pool 1 /dev/mapper/o"
x dmsetup table ext
x dmsetup status ext
x rd ext 0 512
x dmsetup info -c -o name,open,readonly,tables_loaded --noheadings
x dmsetup message pool 0 reserve_metadata_snap
x dmsetup message pool 0 release_metadata_snap
x dmsetup status pool
x dmsetup remove ext
x dmsetup remove t
x dmsetup remove pool
x dmsetup remove_all
x thin_check $A
x thin_dump $A
