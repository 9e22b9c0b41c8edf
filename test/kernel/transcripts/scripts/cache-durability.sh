# about caches
# What is on disk when: no periodic commit, flush and FUA, suspend and resume, status (spec: cache,
# 20.22 to 20.25).
devices
x wr corig 0 256 10
# 22
create 128 2 metadata2 writeback smq $T0
x wr cache 0 128 17
x dmsetup status --noflush cache
# Longer than a periodic commit would take.
sleep 1.3
# power cut
devices
x on_disk
create 128 2 metadata2 writeback smq $T0
x figures
x rd cache 0 8
# 23
x wr cache 0 128 17
x fsync cache
x wr cache 1280 128 18
# power cut
devices
x mapped
create 128 2 metadata2 writeback smq $T0
x figures
x rd cache 0 8
x clean
# 24
suspend
x on_disk
resume
differs "A resumed cache is not marked as shut down cleanly" on_disk
x wr cache 0 8 85
x fsync cache
x wr cache 8 8 86 fua
differs "A resumed cache is not marked as shut down cleanly" on_disk
# power cut
devices
create 128 2 metadata2 writeback smq $T0
differs "A resumed cache is not marked as shut down cleanly" figures
x rd cdata 0 128
x rd corig 0 128
# 25
x clean
suspend
x on_disk
resume
x dmsetup status --noflush cache
x st
x on_disk
