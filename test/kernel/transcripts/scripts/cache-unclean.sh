# about caches
# What an unclean shutdown means for the next activation, and for passthrough (spec: cache, 20.1,
# 4, 5 and 17 to 19).
devices
# 3 and 4: a table that is loaded and never resumed.
create 128 1 writeback smq $T0
x wr cache 0 128 17
x wr cache 1280 128 18
x dmsetup remove cache
x on_disk
x mapped
x dmsetup create cache --notable
load 128 1 writeback smq $T0
x dmsetup info cache
x st
x dmsetup status --inactive cache
x dmsetup remove cache
differs "Loading a cache table does not make the cache unclean" on_disk
# 5: everything is dirty, the hints are gone.
unclean() { poke 4 V 0 && seal; }
x unclean
create 128 1 writeback smq $T0
x st
x dmsetup remove cache
x on_disk
x mapped
# 17: refused for dirty blocks; a retry is refused; a reload helps.
x dmsetup create cache --notable
load 128 1 passthrough smq $T0
resume
x st
x dmsetup info cache
resume
load 128 1 passthrough smq $T0
resume
load 128 1 writeback smq $T0
resume
x figures
x clean
suspend
load 128 1 passthrough smq 0
resume
x st
x dmsetup remove cache
# 18: opened unclean once, unclean until it is closed.
x unclean
create 128 1 writeback smq $T0
x figures
x clean
reload 128 1 writeback smq $T0
x figures
x clean
suspend
load 128 1 passthrough smq 0
differs "The cache target is version 2.4.0" dmsetup resume cache
x dmsetup remove cache
create 128 1 passthrough smq 0
x figures
x dmsetup remove cache
# 19: the same with nothing cached
x fresh
create 128 2 metadata2 passthrough smq 0
x st
x dmsetup remove cache
create 128 2 metadata2 writeback smq $T0
x st
# power cut
devices
x on_disk
differs "The cache target is version 2.4.0" \
  dmsetup create cache --table "$(C 128 2 metadata2 passthrough smq 0)"
here dmsetup create cache --table "$(C 128 2 metadata2 writeback smq 0)"
# 1: the founding document's reproduction
x dmsetup remove cache
create 128 2 metadata2 writeback smq $T0
x wr cache 0 128 17
for i in 0 1 2 3; do x wr cache $((i * 8)) 8 $((i + 20)); done
x st
x mapped
# power cut
devices
x rd cdata 0 128
x rd corig 0 128
x mapped
differs "The cache target is version 2.4.0" \
  dmsetup create cache --table "$(C 128 2 metadata2 passthrough smq 0)"
x dmsetup info cache
create 128 2 metadata2 writeback smq $T0
x figures
x clean 2048
x dmsetup remove cache
x rd corig 0 128
create 128 2 metadata2 passthrough smq 0
x figures
x wr cache 0 8 51
x figures
x dmsetup remove cache
x rd corig 0 128
x mapped
