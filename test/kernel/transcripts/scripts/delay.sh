# The delay target (spec: dm-core, 9.5): tables, status, and that everything comes through.
there modprobe -d $MODULES dm-delay
x dmsetup create d --table "0 1000 delay $A 0"
x dmsetup create d --table "0 1000 delay $A 0 10 $B 0"
x dmsetup create d --table "0 1000 delay $A 0 x"
x dmsetup create d --table "0 1000 delay $A y 10"
x dmsetup create d --table "0 1000 delay /dev/nosuch 0 10"
x dmsetup create d --table "0 1000 delay $A 0 10 $B 8 x"
x dmsetup create d --table "0 1000 delay $A 0 10 $B 8 20 $A 16 30 $A"
x dmsetup create d --table "0 1000 delay $A 8 10"
x dmsetup table d
x dmsetup status d
x dmsetup deps d
x wr d 0 8 17
x rd d 0 16
x dmsetup remove d
x dmsetup create d --table "0 1000 delay $A 8 10 $B 100 20"
x dmsetup table d
x dmsetup deps d
x wr d 8 8 34
x rd d 0 16
x dmsetup create b --table "0 1000 linear $B 100"
x rd b 0 24
x dmsetup remove b
x dmsetup remove d
x dmsetup create d --table "0 1000 delay $A 8 10 $B 100 20 $B 0 0"
x dmsetup table d
x dmsetup status d
x dmsetup suspend d
x dmsetup resume d
x dmsetup status d
x dmsetup remove d
