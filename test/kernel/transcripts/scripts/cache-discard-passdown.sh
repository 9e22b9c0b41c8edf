# about caches
# disks: 8M loop:64M loop:128M
# Discards that are passed down to the origin, or not (spec: cache, 20.37).
M=$A F=$B O=$C
x dmsetup create origin --table "0 262144 linear $O 0"
x wr origin 0 1024 10
create 128 1 metadata2 smq $T0
x st
x wr cache 128 128 17
x trim cache 64 336
x rd origin 0 1024
x rd cache 128 128
x figures
x dmsetup remove cache
x on_disk
create 128 2 metadata2 no_discard_passdown smq $T0
x st
x trim cache 512 256
x rd origin 512 256
x dmsetup remove cache
x on_disk
