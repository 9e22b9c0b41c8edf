# about caches
# Blocks of 4096 sectors need a larger threshold; 192 is no power of two (spec: cache, 20.12, 44).
devices
create 4096 2 metadata2 writeback smq 0
x st
# The kernel cannot write a block of this size at once; into a discarded one it need not.
x trim cache 8192 4096
x wr cache 8192 8 17
x figures
sleep 2.3
x figures
x dmsetup message cache 0 migration_threshold 4095
sleep 1.3
x figures
x dmsetup message cache 0 migration_threshold 4096
x until_true dirty_is 0
x st
x dmsetup remove cache
x on_disk
x mapped
# 44
x fresh
create 192 2 metadata2 writeback smq $T0
for i in 0 1 2; do x wr cache $((i * 192)) 192 $((i + 17)); done
x st
x rd cdata 0 576
x wr cache 262080 64 20
x figures
x rd corig 262080 64
x rd cache 262080 64
x wr cache 262000 144 21
x rd corig 261888 256
x figures
x dmsetup remove cache
x on_disk
x mapped
