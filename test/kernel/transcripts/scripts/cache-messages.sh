# about caches
# Messages of a cache, and the policies' keys (spec: cache, 20.20).
devices
create 128 2 metadata2 writeback smq $T0
m() { x dmsetup message cache "$@"; }
m 0 migration_threshold 4096
x st
m 0 MIGRATION_THRESHOLD 0
m 5 migration_threshold 8
x st
m 0 migration_threshold abc
m 0 migration_threshold
m 0 migration_threshold 1 2
m 0 migration_threshold -1
m 0 foo
m 0 foo 1
m 0 sequential_threshold 1
m 262144 migration_threshold 8
m 0 invalidate_cblocks 1
m 0 invalidate_cblocks
m 0 "migration_threshold 12"
suspend
m 0 migration_threshold 9
x st
resume
x st
reload 128 2 metadata2 writeback mq 0
m 0 sequential_threshold 10
m 0 Random_Threshold 10
m 0 write_promote_adjustment x
m 0 write_promote_adjustment
m 0 nosuch 1
x st
reload 128 2 metadata2 writeback cleaner 0
m 0 sequential_threshold 10
m 0 migration_threshold 77
x st
x dmsetup remove cache
x on_disk
