# disks: 64M
# Messages about I/O statistics, and the geometry (spec: dm-core, 7 and 7.4).
x dmsetup create a --table "0 8192 linear $A 0"
m() { x dmsetup message a 0 "$@"; }
m @stats_list
m @stats_create - /2
m @stats_list
for words in "0+100" "0+0 10" "x 10" "- 0" "- /0" "- x" "- /x" "+5 1" "5+ 1" "5 1" ""; do
  m @stats_create $words
done
m @stats_create 10+20 /7 prog aux
m @stats_create - 4096 1 precise_timestamps
m @stats_create - 4096 2 precise_timestamps histogram:10,20 p
m @stats_create - 4096 1 histogram:20,10
m @stats_create - 4096 1 histogram:
m @stats_create - 4096 1 histogram:0,5
m @stats_create - 4096 1 nosuch
m @stats_create - 4096 3 precise_timestamps
m @stats_create - 4096 0 p a more
m @stats_create 100000+50 20
m @stats_list
m @stats_list prog
m @stats_list nosuch
m @stats_list a b
m @stats_print 0
m @stats_print 3 0 1
m @stats_print 3 1 5
m @stats_print 3 9 1
m @stats_print 9
m @stats_print
m @stats_print 0 1
m @stats_print x
m @stats_print 0 x 1
m @stats_clear 0
m @stats_clear 9
m @stats_clear
m @stats_set_aux 0 new
m @stats_set_aux 0
m @stats_set_aux 9 new
m @STATS_LIST
m @stats_nosuch
m @stats_delete 4
m @stats_delete 4
m @stats_delete
m @stats_create - /3
# What is counted: I/O and its sectors, by area. Times are another matter; so is what the kernel
# calls merged: by a slip, a request to sector 0 or 1 now and then.
counted() { dmsetup message a 0 @stats_print $1 | cut -d' ' -f1,2,4,6,8,10; }
bins() { dmsetup message a 0 @stats_print $1 | sed 's/.* //'; }
x wr a 4092 8 17
x wr a 4092 16 17
x rd a 0 64
x rd a 12 4
x rd a 8184 8
for i in 0 1 2 3 4; do x counted $i; done
x bins 3
m @stats_clear 0
x counted 0
x counted 1
clears() { dmsetup message a 0 @stats_print_clear $1 >$W/before && counted $1; }
x clears 1
# A table may change under them; a device of another size.
x dmsetup suspend a
x dmsetup load a --table "0 100 zero"
x dmsetup resume a
x rd a 0 8
x counted 0
x dmsetup remove a
x dmsetup create a --table "0 100 zero"
m @stats_list
# Geometry
x dmsetup create n --notable
g() { x dmsetup setgeometry "$@"; }
g a 10 10 10 0
g a 10 10 10 1000
g a 10 10 10 1001
g a 0 0 0 0
g a x 10 10 0
g a 65535 255 255 0
g a 65536 10 10 0
g a 10 256 10 0
g a 10 10 256 0
g a 10 10 10 "1 2"
g a "" 10 10 0
g n 10 10 10 0
g nosuch 10 10 10 0
g a 1 2 3
g a 1 2 3 4 5
x dmsetup suspend a
g a 1 2 3 0
x dmsetup setgeometry -v a 1 2 3 0
x dmsetup -u U setgeometry 1 2 3 0
x dmsetup -u U setgeometry a 1 2 3 0
