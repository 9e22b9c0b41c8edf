# Messages of a pool and its thins, refused tables, and the life of both.
x dmsetup create tmeta --table "0 8192 linear $A 0"
x dmsetup create tdata --table "0 65536 linear $A 8192"
x dmsetup create pool --table "0 65536 thin-pool /dev/mapper/tmeta /dev/mapper/tdata 128 100 5 skip_block_zeroing ignore_discard no_discard_passdown error_if_no_space read_only"
x dmsetup create pool --table "0 65536 thin-pool /dev/mapper/tmeta /dev/mapper/tdata 128 100 3 skip_block_zeroing no_discard_passdown error_if_no_space"
x dmsetup status pool
x dmsetup table pool
for m in "create_thin 0" "create_thin 16777215" "create_thin 16777216" "create_thin -1" "create_thin x" "create_snap 1 0" "create_snap 2 99" "delete 1" "delete 1" "set_transaction_id 0 5" "set_transaction_id 0 6" "trim 0 5" "set_mode 1" "release_metadata_snap" "reserve_metadata_snap" "reserve_metadata_snap" "release_metadata_snap" "bogus" "create_thin"; do
  x dmsetup message pool 0 $m
done
x dmsetup create t0 --table "0 65536 thin /dev/mapper/pool 0"
x dmsetup create tbad --table "0 65536 thin /dev/mapper/pool 7"
x dmsetup message pool 0 delete 0
x dmsetup message t0 0 hello
x dmsetup suspend pool
x dmsetup info pool
x dmsetup status pool
x dmsetup resume pool
x dmsetup load pool --table "0 65536 linear $A 0"
x dmsetup load pool --table "0 131072 thin-pool /dev/mapper/tmeta /dev/mapper/tdata 128 100"
x dmsetup resume pool
x dmsetup info pool
x dmsetup table --inactive pool
x dmsetup clear pool
x dmsetup create p2 --table "0 65536 thin-pool /dev/mapper/tmeta /dev/mapper/tdata 128 0"
x dmsetup create p3 --table "0 65536 thin-pool /dev/mapper/tmeta /dev/mapper/tdata 100 0"
x dmsetup create p4 --table "0 65536 thin-pool /dev/mapper/tmeta /dev/mapper/tdata 4194304 0"
x dmsetup create p5 --table "0 65536 thin-pool $B $B 128 0"
x dmsetup create p6 --readonly --table "0 65536 thin-pool /dev/mapper/tmeta /dev/mapper/tdata 128 0"
differs "thin-pool must be alone: nothing is formatted before that is seen" \
  dmsetup create p7 --table "0 65536 thin-pool /dev/mapper/tmeta /dev/mapper/tdata 128 0
65536 100 zero"
x dmsetup create p8 --table "0 100 zero
100 65536 thin-pool /dev/mapper/tmeta /dev/mapper/tdata 128 0"
x dmsetup create p9 --table "0 1048576 thin-pool $A $B 128 0"
x dmsetup create s --table "0 20480 thin /dev/mapper/pool 0 /dev/mapper/pool"
x dmsetup remove pool
x dmsetup remove t0
x dmsetup rename pool pool9
x dmsetup status --noflush pool9
x dmsetup ls --target thin-pool
x dmsetup info -c
x dmsetup info -c -o name,uuid,open,segments,events --noheadings
x dmsetup create nothing --notable
x dmsetup info nothing
x dmsetup remove nothing
x dmsetup status nope
x dmsetup table --concise
x dmsetup remove_all
x dmsetup ls
# A table that replaces a pool's, its settings, a snapshot of a thin in use, the external origin.
x dmsetup create m --table "0 8192 linear $B 0"
x dmsetup create d --table "0 65536 linear $B 8192"
x dmsetup create d2 --table "0 65536 linear $B 73728"
x dmsetup create pool --table "0 65536 thin-pool /dev/mapper/m /dev/mapper/d 128 0"
x dmsetup message pool 0 create_thin 0
x dmsetup load pool --table "0 65536 thin-pool /dev/mapper/m /dev/mapper/d2 128 0"
x dmsetup resume pool
x dmsetup load pool --table "0 65536 thin-pool /dev/mapper/m /dev/mapper/d 128 0 1 error_if_no_space"
x dmsetup status pool
x dmsetup table --inactive pool
x dmsetup resume pool
x dmsetup status pool
x dmsetup create t4 --table "0 65536 thin /dev/mapper/pool 0"
x wr t4 0 1024 17
x dmsetup message pool 0 create_snap 5 0
x dmsetup status pool
x wr t4 0 8 34
x dmsetup status pool
x dmsetup status t4
x dmsetup suspend pool
x dmsetup create t5 --table "0 65536 thin /dev/mapper/pool 5"
x dmsetup resume pool
x dmsetup create t5 --table "0 65536 thin /dev/mapper/pool 5"
x rd t5 0 16
x rd t4 0 16
x dmsetup create ext --table "0 512 thin /dev/mapper/pool 0 /dev/mapper/d2"
x dmsetup message pool 0 create_thin 6
x dmsetup create ext --table "0 512 thin /dev/mapper/pool 6 /dev/mapper/d2"
x dmsetup table ext
x dmsetup status ext
x dmsetup info -c -o name,open,readonly,tables_loaded --noheadings
x dmsetup status
x dmsetup info pool
x dmsetup deps
x dmsetup deps -o devname
x dmsetup ls --tree
x dmsetup remove ext
x dmsetup remove t5
x dmsetup remove t4
# A pool whose metadata fails.
x dmsetup load m --table "0 8192 error"
x dmsetup suspend --noflush m
x dmsetup resume m
differs 'A message fails if its commit fails' dmsetup message pool 0 create_thin 7
x dmsetup status pool
x dmsetup message pool 0 create_thin 8
x dmsetup table pool
x dmsetup create t6 --table "0 131072 thin /dev/mapper/pool 0"
x dmsetup remove_all
