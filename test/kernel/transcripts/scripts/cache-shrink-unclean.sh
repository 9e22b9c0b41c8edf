# about caches
# Shrinking after an unclean shutdown (spec: cache, 20.30): every block may be dirty.
devices
create 128 2 metadata2 writeback smq $T0
x wr cache 0 10240 51
x fsync cache
# power cut
devices 8192 8192
differs "After a crash, the fast device does not shrink over mapped blocks" \
  dmsetup create cache --table "$(C 128 2 metadata2 writeback smq $T0)"
