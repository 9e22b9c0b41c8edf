# about caches
# Levels: random ones without hints, one redistribution, hits (spec: cache, 20.41 and 20.42). Each
# resume waits for a clock tick, so that its redistribution happens.
devices
opened() {
  x dmsetup create cache --notable
  load "$@"
  sleep 0.05
  resume
}
opened 128 1 writeback smq $T0
for i in {0..39}; do wr cache $((i * 128)) 128 17 >/dev/null; done
x figures
x dmsetup remove cache
x poke 272 V 9
x seal
opened 128 1 writeback smq $T0
x dmsetup remove cache
x hints
opened 128 1 writeback smq $T0
for i in 5 18 36 39 0 7 2 35 34 3 20 38 1 19 37 8 26 5 18; do rd cache $((i * 128)) 8 >/dev/null; done
x figures
x dmsetup remove cache
x hints
# 46: metadata that tools made
cat >$W/xml <<XML
<superblock uuid="" block_size="128" nr_cache_blocks="1024" policy="smq" hint_width="4">
<mappings>
<mapping cache_block="0" origin_block="5" dirty="true"/>
<mapping cache_block="1" origin_block="6" dirty="false"/>
<mapping cache_block="1000" origin_block="7" dirty="true"/>
</mappings>
<hints>
<hint cache_block="0" data="CQAAAA=="/>
<hint cache_block="1" data="CgAAAA=="/>
<hint cache_block="1000" data="CwAAAA=="/>
</hints>
</superblock>
XML
restored() {
  dd if=/dev/zero of=$B bs=64k count=64 conv=notrunc $to status=none
  cache_restore -q -i $W/xml -o $B --metadata-version $1
  dd if=$B of=$A bs=64k count=64 conv=notrunc $from $to status=none
}
for format in 1 2; do
  x restored $format
  opened 128 1 writeback smq $T0
  x figures
  x dmsetup remove cache
  x on_disk
  x mapped
  x hints
done
