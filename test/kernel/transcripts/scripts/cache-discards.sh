# about caches
# Discards: what they make of blocks, and across restarts (spec: cache, 20.35, 36 and 38).
devices
x wr cdata 0 1024 238
x wr corig 0 8192 10
discarded() { copy && cache_dump $B >/dev/null && on_disk; }
create 128 2 metadata2 no_discard_passdown smq $T0
x wr cache 0 128 17
x trim cache 0 64
x trim cache 200 1800
x trim cache 4096 2048
x rd cache 0 8
x wr cache 4224 8 51
x figures
# The rest of the block: what the fast device held before, or zeroes.
differs "Discarded blocks show no old data" rd cache 4224 128
x rd corig 4224 128
x trim cache 0 128
x rd cache 0 128
x clean
x figure 14
x rd corig 0 8
x dmsetup remove cache
x on_disk
x mapped
# 36: kept by a clean shutdown
create 128 2 metadata2 no_discard_passdown smq $T0
x wr cache 1024 8 102
x figures
x dmsetup remove cache
# and forgotten after an unclean one
x poke 4 V 0
x seal
create 128 2 metadata2 no_discard_passdown smq $T0
x wr cache 5120 8 103
x figures
x dmsetup remove cache
x on_disk
