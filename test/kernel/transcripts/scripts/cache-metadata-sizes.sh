# about caches
# disks: 256M 18G
# Metadata devices that are too small, and one that is too large (spec: cache, 20.33 and 20.34).
devices
small() {
  x dmsetup suspend cmeta
  x dmsetup load cmeta --table "0 $1 linear $A 0"
  x dmsetup resume cmeta
  x fresh
}
for n in 1 7 8 16 24 32 48 56 104 112 128 256; do
  small $n
  create 128 2 metadata2 writeback smq $T0 || continue
  x st
  x wr cache 0 128 17
  x fsync cache
  x st
  x dmsetup remove cache
  x on_disk
done
# 34
x dmsetup suspend cmeta
x dmsetup load cmeta --table "0 35651584 linear $B 0"
x dmsetup resume cmeta
create 128 2 metadata2 writeback smq $T0
x st
