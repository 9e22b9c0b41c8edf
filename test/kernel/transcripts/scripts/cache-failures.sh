# about caches
# A metadata device that is gone (spec: cache, 20.31 and 20.32). A table that is loaded after that is
# refused: here it was once taken, and its resume brought the metadata back to life over what had been
# lost.
devices
create 128 2 metadata2 writeback smq $T0
for i in 0 1 2 3; do x wr cache $((i * 128)) 128 17; done
x fsync cache
x dmsetup info -c --noheadings -o events cache
x dmsetup suspend cmeta
x dmsetup load cmeta --table "0 8192 error"
x dmsetup resume cmeta
x wr cache 1280 128 18
x st
x st
x dmsetup table cache
x rd cache 0 8
x wr cache 0 8 19
x rd cache 0 8
x rd cache 200000 8
x wr cache 2560 128 20
x wr cache 0 8 21 fua
x fsync cache
x dmsetup message cache 0 migration_threshold 9
suspend
x st
resume
x st
load 128 2 metadata2 writeback smq $T0
x dmsetup suspend cmeta
x dmsetup load cmeta --table "0 8192 linear $A 0"
x dmsetup resume cmeta
suspend
resume
x st
x dmsetup remove cache
x on_disk
x mapped
create 128 2 metadata2 writeback smq $T0
x figures
x rd cache 0 8
# The other devices: a fast device that fails, and an origin.
x dmsetup suspend cdata
x dmsetup load cdata --table "0 131072 error"
x dmsetup resume cdata
x rd cache 0 8
x wr cache 0 8 22
x wr cache 12800 128 23
x figures
x dmsetup suspend cdata
x dmsetup load cdata --table "0 131072 linear $A 8192"
x dmsetup resume cdata
x dmsetup suspend corig
x dmsetup load corig --table "0 262144 error"
x dmsetup resume corig
x rd cache 0 8
x rd cache 210000 8
x wr cache 220000 8 24
x figures
