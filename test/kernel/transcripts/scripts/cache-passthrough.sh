# about caches
# Writethrough over clean and dirty blocks, then passthrough (spec: cache, 20.14 to 20.16).
devices
# 14
create 128 1 writethrough smq $T0
x wr cache 0 128 17
x figures
x rd cdata 0 128
x rd corig 0 128
promoted() { wr cache 0 128 18 >/dev/null; [[ $(figure 13) = 1 ]]; }
x until_true promoted
x rd cdata 0 128
x wr cache 0 128 19
x wr cache 8 8 20 fua
x rd cdata 0 128
x rd corig 0 128
x rd cache 0 128
x figure 12-
x dmsetup remove cache
x mapped
# 15: dirty blocks of another mode
x fresh
create 128 2 metadata2 writeback smq $T0
for i in 0 1 2 3; do x wr cache $((i * 128)) 128 17; done
x fsync cache
x figures
reload 128 2 metadata2 writethrough smq $T0
x st
x wr cache 0 8 34
x figures
x rd corig 0 128
x rd cdata 0 128
x clean
x rd corig 0 512
x wr cache 0 8 35
x figures
x rd corig 0 128
x rd cdata 0 128
# 16: passthrough, now that all is clean
suspend
load 128 2 metadata2 passthrough smq 0
resume
x st
x wr corig 128 128 119
x rd cache 128 128
x figures
x wr cache 128000 8 51
x wr cache 160000 128 51
x figures
x wr cache 256 8 51
x figures
x mapped
x rd corig 256 128
x rd cdata 256 128
x wr cache 264 8 52
x figures
x wr cache 384 8 53 fua
x fsync cache
x figures
reload 128 2 metadata2 writethrough smq $T0
x rd cache 128 128
x figures
x dmsetup remove cache
x on_disk
x mapped
