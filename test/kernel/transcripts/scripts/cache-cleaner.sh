# about caches
# The cleaner, and demotion out of a small fast device (spec: cache, 20.39 and 20.40).
devices 8192 2048
create 128 2 metadata2 writeback smq $T0
for i in {0..15}; do wr cache $((i * 1280)) 128 17 >/dev/null; done
x figures
# Full of blocks that were just promoted: nothing is demoted.
x wr cache 100000 128 18
x figures
# 40
reload 128 2 metadata2 writeback cleaner $T0
x figure 14
x wr cache 0 128 19
x dmsetup message cache 0 foo 1
x clean
x st
x dmsetup remove cache
x on_disk
x mapped
x rd corig 0 8
x rd corig 19200 8
# 39: of clean blocks with other levels some go, and others come.
create 128 2 metadata2 writeback smq $T0
replaced() {
  for i in {0..3}; do wr cache $((100096 + i * 1280)) 128 20 >/dev/null; done
  [[ $(figure 12) -ge 1 && $(figure 13) -ge 1 ]]
}
x until_true replaced
x dmsetup remove cache
x cache_check $B
kept() { copy && cache_dump $B | grep -c 'cache_block="1[0-5]"'; }
x kept
x rd corig 0 8
