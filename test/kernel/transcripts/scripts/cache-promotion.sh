# about caches
# When blocks that are read are promoted, and what a passthrough cache leaves that is cut off (spec:
# cache, 20.13 and 20.19).
devices
x wr corig 12800 128 10
create 128 2 metadata2 writeback smq $T0
promoted() { rd cache 12800 8 >/dev/null; [[ $(figure 13) = 1 ]]; }
x until_true promoted
x rd cdata 0 128
x rd cache 12800 128
x figure 12-14
x fsync cache
x mapped
reload 128 2 metadata2 passthrough smq 0
x figure 7
# This commits, which takes the mark of a clean shutdown off.
st >/dev/null
# power cut
devices
differs "The cache target is version 2.4.0" \
  dmsetup create cache --table "$(C 128 2 metadata2 passthrough smq 0)"
