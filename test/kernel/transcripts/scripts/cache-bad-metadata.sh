# about caches
# Metadata that cannot be opened, needs_check, policies and formats (spec: cache, 20.7 to 20.10).
devices
keep() { dd if=$A of=$W/clean bs=64k count=64 $from status=none; }
take() { dd if=$B of=$A bs=64k count=64 conv=notrunc $from $to status=none; }
back() { dd if=$W/clean of=$A bs=64k conv=notrunc $to status=none; }
create 128 1 writeback smq $T0
x wr cache 0 128 17
x dmsetup remove cache
x keep
field() {
  back
  poke "$@"
  seal
}
try() {
  create 128 1 writeback smq $T0 || return 0
  x dmsetup remove cache
  x on_disk
}
# 7
create 256 1 writeback smq $T0
x on_disk
for f in "32 V 6142003" "40 V 3" "40 V 0" "8 V 5" "244 V 1" "248 V 2" "252 V 4" "236 V 16"; do
  x field $f
  try
done
# 7: trees that cannot be read, found by the resume. Block 1 is no node of a tree.
for at in 192 200 208; do
  x field $at V 1
  x dmsetup create cache --notable
  load 128 1 writeback smq $T0
  resume
  x st
  x dmsetup remove cache
  differs "Loading a cache table does not make the cache unclean" on_disk
done
# 8: needs_check
for flags in 3 2; do
  x field 4 V $flags
  create 128 1 writeback smq $T0
  [[ $flags = 2 ]] || differs "Loading a cache table does not make the cache unclean" on_disk
done
x on_disk
x copy
x cache_check $B
x cache_check --clear-needs-check-flag $B
x take
x on_disk
create 128 1 writeback smq $T0
x figures
x dmsetup remove cache
# 9: whose hints these are
for f in "44 a16 mq" "272 V 1" "276 V 9"; do
  x field $f
  x hints
  create 128 1 writeback smq $T0
  x dmsetup remove cache
  # Not its levels: they depend on whether the first tick falls into the jiffy of the load.
  x on_disk
done
# 10: the format on disk wins
x back
create 128 2 metadata2 writeback smq $T0
x st
x dmsetup remove cache
x on_disk
