# Tables of thin-pool and thin that are refused, and odd ones that are not: the kernel's reason, and
# everything as it was (spec: thin, 2 and 3; dm-core, 2).
all() { dmsetup status; dmsetup table; dmsetup info -c; }
# A table that is refused, or is printed and removed again.
try() { x dmsetup create t --table "$1" && { x dmsetup table t; dmsetup remove t; }; }
x dmsetup create m --table "0 8192 linear $A 0"
x dmsetup create d --table "0 65536 linear $A 8192"
x dmsetup create m2 --table "0 8192 linear $A 73728"
x dmsetup create d2 --table "0 65536 linear $A 81920"
M=/dev/mapper/m D=/dev/mapper/d M2=/dev/mapper/m2 D2=/dev/mapper/d2
x dmsetup create pool --table "0 65536 thin-pool $M $D 128 0"
x dmsetup message pool 0 create_thin 0
x dmsetup create v --table "0 65536 thin /dev/mapper/pool 0"
x all
# thin-pool: words, devices, block sizes.
for p in "" "$M2 $D2" "$M2 $D2 128" "/dev/mapper/nosuch $D2 128 0" "$M2 /dev/nosuch 128 0" \
  "254:77 $D2 128 0" "$M2 $M2 128 0" "$M $D 128 0" "$M $D2 128 0" "/dev $D2 128 0" \
  "$M2/ $D2 128 0" "/dev/mapper/v /dev/mapper/v 128 0"; do
  try "0 65536 thin-pool $p"
done
for n in -128 0 127 192 0x80 128x 1e3 128.0 2097280 4294967424 18446744073709551744 \
  99999999999999999999999; do
  try "0 65536 thin-pool $M2 $D2 $n 0"
done
x all
for n in +128 0128; do try "0 65536 thin-pool $M2 $D2 $n 0"; done
# Low water marks, feature counts and features.
for n in -1 +5 0x10 x 1x 18446744073709551615 18446744073709551616 9007199254740993; do
  try "0 65536 thin-pool $M2 $D2 128 $n"
done
S=skip_block_zeroing
for f in -1 x +1 0x1 1 99999999999 "5 $S $S $S $S $S" "2 $S" "1 foo" '1 \skip_block_zeroing' \
  "4294967297 $S" "01 SKIP_BLOCK_ZEROING" "0 $S" "1 $S extra" "2 $S $S" "1 error_if_no_space # no"; do
  try "0 65536 thin-pool $M2 $D2 128 0 $f"
done
x all
# thin: words, pools, ids, origins, lengths.
for t in "" /dev/mapper/pool "/dev/mapper/pool 0 $D2 extra" "/dev/mapper/nosuch 0" "254:77 0" \
  "77:77 0" "$D 0" "$D2 0" "/dev/mapper/v 0" "pool 0" "/dev/null 0" "/dev/mapper/pool/ 0" \
  "254:4: 0" "254:-4 0" ":4 0" "+254:4 0" "254:4x 0" "/dev/mapper/pool 0 /dev/mapper/nosuch" \
  "/dev/mapper/pool 0 /dev/mapper/pool"; do
  try "0 65536 thin $t"
done
for i in -1 0x0 x 0x 1 16777215 16777216 4294967296 18446744073709551616; do
  try "0 65536 thin /dev/mapper/pool $i"
done
for l in 0 -1 18014398509481984; do try "0 $l thin /dev/mapper/pool 0"; done
x all
for t in "254:04 0" "/dev/mapper//pool +0" "/dev/mapper/../mapper/pool 00"; do
  try "0 1 thin $t"
done
try "0 100 thin /dev/mapper/pool 0
100 100 thin /dev/mapper/pool 0"
# The same over what there is: a refused load leaves both tables.
x dmsetup load pool --table "0 65536 thin-pool $M $D 256 0"
x dmsetup load pool --table "0 65536 thin-pool $M $D 128 0 1 ignore_discard"
x dmsetup load pool --table "0 65536 thin-pool $M $D2 128 0"
x dmsetup load pool --table "0 100 zero"
x dmsetup load v --table "0 131072 thin /dev/mapper/pool 0"
x dmsetup load v --table "0 100 thin /dev/mapper/pool 7"
x dmsetup table --inactive v
x dmsetup clear v
x all
# Comments, backslashes and blanks in a table.
x dmsetup create 'e\x20e' --table "0 10 zero # none"
try '0 10 linear /dev/mapper/e\x20e 0 # why'
try '0 10 linear /dev/mapper/e\\x20e 0'
try '0 10 linear /dev/mapper/e e 0'
try '0 10 linear /dev/mapper/m \0'
try "0 10 zero#"
try '0 10 z\e'
try "0 10 é"
try "0 #10 zero"
x dmsetup create --concise 't,,,,0 10 linear /dev/mapper/e\\x20e 0 # x,10 10 zero'
x dmsetup table t
x dmsetup remove_all
x all
