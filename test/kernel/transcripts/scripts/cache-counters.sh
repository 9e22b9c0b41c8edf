# about caches
# Counters, idle writeback and its threshold, tables that are changed (spec: cache, 20.11, 12, 43
# and 47). Blocks that are not written whole are two blocks apart, and touched once: so they are
# never promoted, whenever it is.
devices
create 128 1 writeback smq $T0
# 11
x rd cache 200000 8
x figures
x wr cache 25600 128 17
x figures
x wr cache 25600 128 18
x figures
x wr cache 38400 512 19
x figures
x rd cdata 0 640
x rd corig 25600 128
x wr cache 51208 256 20
x figures
x rd cdata 640 128
x rd corig 51200 384
x rd cache 25600 8
x wr cache 25608 8 21
x figures
x rd cdata 0 128
# 12: what limits writeback; an event when all is clean
x dmsetup info -c --noheadings -o events cache
x dmsetup message cache 0 migration_threshold 127
sleep 2.3
x figure 14
x dmsetup message cache 0 migration_threshold 128
x until_true dirty_is 0
x dmsetup info -c --noheadings -o events cache
x rd corig 25600 128
x rd corig 38400 512
x dmsetup message cache 0 migration_threshold 0
x wr cache 25600 128 22
x figure 14
x clean
x dmsetup info -c --noheadings -o events cache
x dmsetup status --noflush cache
x dmsetup remove cache
x on_disk
x mapped
# 43: the counters of the last suspend
create 128 1 writeback smq $T0
x figures
x rd cache 210000 8
x rd cache 220000 8
x figures
suspend
load 128 1 writeback smq $T0
resume
x figures
x rd cache 230000 8
x rd cache 240000 8
load 128 1 writeback smq $T0
resume
x figures
x dmsetup remove cache
create 128 1 writeback smq $T0
x figures
# 47: hits do not keep a cache busy, misses do
x wr cache 25600 128 17
x dmsetup message cache 0 migration_threshold 2048
busy() {
  for i in {1..40}; do
    "$@" >/dev/null
    sleep 0.02
    ! dirty_is 0 || { echo clean; return; }
  done
  until_true dirty_is 0 && echo clean
}
x busy rd cache 25600 8
x dmsetup message cache 0 migration_threshold 0
x wr cache 25600 8 18
x dmsetup message cache 0 migration_threshold 2048
x busy fsync cache
x rd corig 25600 128
