# about caches
# Other sizes of the fast device and of the origin (spec: cache, 20.26 to 20.29).
# 26
devices 8192 65536
create 128 1 writeback smq $T0
x wr cache 0 128 17
x figures
suspend
resize 131072
resume
x dmsetup info cache
load 128 1 writeback smq $T0
resume
x st
# 27, format 1
x wr cache 128 10240 18
x figures
suspend
resize 8192
resume
x dmsetup status --noflush cache
load 128 1 writeback smq $T0
resume
x st
x dmsetup remove cache
x on_disk
x mapped
# 27, format 2
x fresh
resize 131072
create 128 2 metadata2 writeback smq $T0
x wr cache 0 10240 18
suspend
resize 8192
load 128 2 metadata2 writeback smq $T0
resume
x st
x dmsetup remove cache
x on_disk
# 28
x fresh
resize 131072
create 128 2 metadata2 writeback smq $T0
x wr cache 0 10240 18
x clean
suspend
resize 8192
load 128 2 metadata2 writeback smq $T0
resume
x st
suspend
resize 131072
load 128 2 metadata2 writeback smq $T0
resume
x st
suspend
resize 4096
differs "A smaller fast device needs a reload" dmsetup resume cache
load 128 2 metadata2 writeback smq $T0
resume
x figures
x rd cache 5120 8
x dmsetup remove cache
# 29
x fresh
resize 131072
create 128 1 writeback smq $T0
x wr cache 0 128 17
x wr cache 204800 128 18
length=131072 reload 128 1 writeback smq $T0
resume
x dmsetup info cache
load 128 1 writeback smq $T0
resume
x figures
x clean
length=131072 reload 128 1 writeback smq $T0
x figures
reload 128 1 writeback smq $T0
x figures
x rd cache 204800 8
length=262044 reload 128 1 writeback smq $T0
x wr cache 262016 16 19
x rd corig 262016 28
x figures
x dmsetup remove cache
x mapped
# 48: a multiple of 509
x fresh
resize 38400
create 64 3 metadata2 writeback no_discard_passdown smq $T0
x st
suspend
resize 32576
load 64 3 metadata2 writeback no_discard_passdown smq $T0
resume
x figures
x dmsetup remove cache
x on_disk
differs "A shrunk array leaves no block behind" mapped
resize 38400
create 64 3 metadata2 writeback no_discard_passdown smq $T0
x figures
x dmsetup remove cache
x on_disk
x mapped
