# disks: loop:64M loop:64M
# The flakey target (spec: dm-core, 9.4).
F() { echo "0 8192 flakey $A 0 $*"; }
try() { x dmsetup load f --table "$(F "$@")"; }
x dmsetup create f --notable
x dmsetup load f --table "0 8192 flakey"
x dmsetup load f --table "0 8192 flakey $A 0 1"
x dmsetup load f --table "0 8192 flakey $A x 1 1"
x dmsetup load f --table "0 8192 flakey /dev/nosuch 0 1 1"
x dmsetup load f --table "0 8192 flakey $A 200000 1 1"
try x 1
try 1 x
try -1 1
try 0 0
try 1 1 x
try 1 1 1
try 1 1 2 drop_writes
try 1 1 7 drop_writes a b c d e f
try 1 1 1 nosuch
try 1 1 2 drop_writes drop_writes
try 1 1 2 error_writes error_writes
try 1 1 2 drop_writes error_writes
try 1 1 2 error_writes drop_writes
try 1 1 1 corrupt_bio_byte
try 1 1 5 corrupt_bio_byte 0 r 1 0
try 1 1 5 corrupt_bio_byte x r 1 0
try 1 1 5 corrupt_bio_byte 1 x 1 0
try 1 1 5 corrupt_bio_byte 1 r 256 0
try 1 1 5 corrupt_bio_byte 1 r 1 x
try 1 1 3 corrupt_bio_byte 1 r
try 1 1 6 drop_writes corrupt_bio_byte 1 w 1 0
try 1 1 6 error_writes corrupt_bio_byte 1 W 1 0
try 1 1 6 corrupt_bio_byte 1 w 1 0 drop_writes
x dmsetup table --inactive f
# What is accepted, and how it is shown.
for words in "1 0" "0 1" "5 2" "5 2 0" "1 1 1 drop_writes" "1 1 1 Error_Writes" \
  "1 1 5 corrupt_bio_byte 32 R 1 0" "1 1 6 corrupt_bio_byte 32 r 1 32 drop_writes" \
  "1 1 5 corrupt_bio_byte 224 w 0 32"; do
  try $words
  x dmsetup resume f
  x dmsetup table f
  x dmsetup status f
done
x dmsetup message f 0 mark
reload() {
  x dmsetup suspend f
  try "$@"
  x dmsetup resume f
}
# Up for ever, then down for ever in every way.
reload 1000 0
x wr f 0 16 17
x rd f 0 16
x fsync f
x trim f 0 8
reload 0 1000
x wr f 0 16 18
x rd f 0 16
x fsync f
reload 0 1000 1 drop_writes
x wr f 0 16 19
x wr f 0 16 19 fua
x rd f 0 16
x fsync f
reload 0 1000 1 error_writes
x wr f 0 16 20
x wr f 0 16 20 fua
x rd f 0 16
x fsync f
reload 0 1000 5 corrupt_bio_byte 513 r 33 0
x wr f 0 16 21
differs "Flakey corrupts reads" rd f 0 16
x rd f 0 1
x fsync f
reload 0 1000 5 corrupt_bio_byte 1025 w 34 0
x wr f 0 16 22
x wr f 16 2 22
x rd f 0 18
reload 0 1000 6 drop_writes corrupt_bio_byte 1 r 35 0
x wr f 0 16 23
differs "Flakey corrupts reads" rd f 0 8
# Only writes with FUA: bit 17.
reload 0 1000 5 corrupt_bio_byte 1 w 36 131072
x wr f 0 16 24
x rd f 0 16
x wr f 0 16 24 fua
x rd f 0 16
# In the middle of a device, of which another part is on another disk.
x dmsetup suspend f
x dmsetup load f --table "0 64 linear $B 0
64 64 flakey $A 1024 0 1000 5 corrupt_bio_byte 1 w 37 0"
x dmsetup resume f
x dmsetup table f
x wr f 0 128 25
x rd f 0 128
x dmsetup remove f
