# about caches
# Tables of caches: refused ones, odd ones that are not, and what status and table say (spec: cache,
# 20).
devices
# 2: fresh metadata, both formats. It stays as it was formatted until the first commit.
create 128 1 writeback smq 0
x on_disk
x st
x on_disk
x dmsetup remove cache
x mapped
x fresh
create 128 2 metadata2 writeback smq $T0
x st
x dmsetup table cache
x dmsetup deps cache
x dmsetup info cache
x dmsetup status --target cache cache
x mapped
x dmsetup remove cache
differs "The cache target is version 2.4.0" eval 'dmsetup targets | grep cache'
# 6: refused. Each is tried on a device without a table, as that costs least.
x dmsetup create cache --notable
refused() { x dmsetup load cache --table "$1"; }
L="0 262144 cache"
refused "$L"
refused "$L $M"
refused "$L $M $F"
refused "$L $M $F $O"
for args in "" "128" "128 0" "128 x writeback smq 0" "128 4 writeback metadata2 no_discard_passdown writeback smq 0" \
  "128 0 smq" "128 0 smq 1025" "128 0 smq 5 migration_threshold 1" "128 1" "128 2 writeback" "128 0 smq -1"; do
  refused "$L $M $F $O $args"
done
refused "$L /dev/nosuch $F $O 128 0 smq 0"
refused "$L $M /dev/nosuch $O 128 0 smq 0"
refused "$L $M $F /dev/nosuch 128 0 smq 0"
for bs in 0 32 63 65 96 2097216 4194304 abc 128x 0x80 -128 262144 18446744073709551616; do
  refused "$L $M $F $O $bs 0 smq 0"
done
for args in "2 writeback writethrough smq 0" "2 writeback writeback smq 0" "1 bogus smq 0" \
  "3 writeback smq 0" "0 nosuchpolicy 0" "0 SMQ 0" "0 smq 1 foo" "0 smq 2 foo 1" \
  "0 smq 2 migration_threshold x" "0 smq 2 migration_threshold -1" \
  "0 smq 2 migration_threshold 18446744073709551616" "0 smq 2 sequential_threshold 5" \
  "0 cleaner 2 foo 1" "0 mq 2 sequential_threshold x"; do
  refused "$L $M $F $O 128 $args"
done
refused "0 262272 cache $M $F $O 128 0 smq 0"
refused "0 262144 cache $M $F $O 128 0 smq 0
262144 8 zero"
x dmsetup remove cache
# 6: accepted
taken() {
  create "$@" && { x st; x dmsetup table cache; x dmsetup remove cache; }
}
taken 128 1 WriteBack smq 0
taken 128 3 METADATA2 writethrough no_discard_passdown smq 0
taken 128 2 metadata2 metadata2 smq 0
taken 128 0 smq 2 MIGRATION_threshold +5
taken 128 0 smq 2 migration_threshold 18446744073709551615
taken 128 0 smq 0 extra args here
taken 128 0 default 0
taken 128 0 mq 4 sequential_threshold 5 random_threshold 9
taken 128 0 cleaner $T0
taken +128 0 smq 0
taken 192 0 smq 4 migration_threshold 100 migration_threshold 300
x fresh
taken 192 0 smq 4 migration_threshold 100 migration_threshold 300
# 45: read-only; another cache on the same metadata
x dmsetup create -r cache --table "$(C 192 0 smq 0)"
x wr cache 0 8 17
x rd cache 0 8
x dmsetup info cache
differs "Two caches on one metadata device are refused" \
  dmsetup create other --table "$(C 192 0 smq 0)"
