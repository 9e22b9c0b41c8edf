# about caches
# invalidate_cblocks, in passthrough mode (spec: cache, 20.21).
devices
create 128 2 metadata2 writeback smq $T0
x wr cache 0 1280 17
x clean
reload 128 2 metadata2 passthrough smq 0
x figures
i() { x dmsetup message cache 0 "$@"; }
i invalidate_cblocks
i invalidate_cblocks 1
x figures
i invalidate_cblocks 1
i INVALIDATE_cblocks 3-5 7
x figures
i invalidate_cblocks 5-5
i invalidate_cblocks 6-5
i invalidate_cblocks 1024
i invalidate_cblocks 1023-1025
for words in abc 1x 0x3 1,2; do i invalidate_cblocks $words; done
# The part in quotes, and what a number may be, are those of version 2.4.0.
for words in 1- 1-2-3 +8 18446744073709551615 4294967296; do
  differs "The cache target is version 2.4.0" dmsetup message cache 0 invalidate_cblocks $words
done
i invalidate_cblocks 8 0
i invalidate_cblocks 9 abc
x figures
i invalidate_cblocks 5-6 2000
x figures
x dmsetup remove cache
x on_disk
x mapped
