# The words of scripts about caches, on both sides.
#   devices               cmeta (4 MiB), cdata (64 MiB) and corig (128 MiB) on the first disk
#   C WORDS...            prints the table of a cache on them, from the block size on; its length is
#                         $length if that is set. $T0 switches writeback in idle time off.
#   st                    its status; `figures` only: resident, rh rm wh wm dem pro, dirty
#   clean                 waits until nothing is dirty: everything may be written back
#   fresh                 unformats the metadata device
#   on_disk               what the superblock says; `mapped` what cache_check and cache_dump say,
#                         without hints; `hints` those, as numbers
#   poke OFFSET FORMAT VALUE, seal   changes the superblock, and its checksum
M=/dev/mapper/cmeta F=/dev/mapper/cdata O=/dev/mapper/corig
T0='2 migration_threshold 0'
from='' to=''
WRITE_MAX=524288
there eval 'from=iflag=direct to=oflag=direct'
devices() {
  x dmsetup create cmeta --table "0 ${1-8192} linear $A 0"
  x dmsetup create cdata --table "0 ${2-131072} linear $A 8192"
  x dmsetup create corig --table "0 262144 linear $A 262144"
}
C() { echo "0 ${length-262144} cache $M $F $O $*"; }
create() { x dmsetup create cache --table "$(C "$@")"; }
load() { x dmsetup load cache --table "$(C "$@")"; }
suspend() { x dmsetup suspend cache; }
resume() { x dmsetup resume cache; }
reload() { suspend; load "$@"; resume; }
# cdata gets another size.
resize() {
  x dmsetup suspend cdata
  x dmsetup load cdata --table "0 $1 linear $A 8192"
  x dmsetup resume cdata
}
st() { dmsetup status cache; }
figures() { dmsetup status --noflush cache | cut -d' ' -f7-14; }
figure() { dmsetup status --noflush cache | cut -d' ' -f$1; }
dirty_is() { [[ $(figure 14) = "$1" ]]; }
clean() {
  dmsetup message cache 0 migration_threshold 1000000 && until_true dirty_is 0 &&
    dmsetup message cache 0 migration_threshold ${1-0}
}
fresh() { dd if=/dev/zero of=$A bs=4k count=1 conv=notrunc $to status=none; }
superblock() { dd if=$A bs=4k count=1 $from status=none; }
on_disk() {
  superblock | perl -e '
    local $/; $_ = <STDIN>;
    my ($flags, $version, $policy, $hint) = unpack "x4 V x32 V a16 V";
    my ($hints, $discards, $bs, $nr, $data, $meta, $blocks) = unpack "x200 Q4 V3";
    my @hits = unpack "x256 V4"; my @policy = unpack "x272 V3";
    $policy =~ s/\0.*//s;
    print "flags $flags version $version policy \"$policy\" ", join(".", @policy), " hint $hint\n";
    print "blocks $blocks of $data, hints ", $hints ? "yes" : "no", ", discards $nr of $bs\n";
    print "hits @hits, metadata block size $meta, dirty bits ", unpack("x284 Q") ? "yes" : "no", "\n"'
}
# O_DIRECT, which the tools use, wants a disk.
copy() { dd if=$A of=$B bs=64k count=64 conv=notrunc $from $to status=none; }
mapped() { copy && cache_check $B && cache_dump $B | grep -v '<.*hint'; }
hints() {
  copy && cache_dump $B | sed -n 's/.*<hint.* data="\(.*\)".*/\1/p' |
    while read -r h; do echo $h | base64 -d | od -An -tu4; done | tr -s ' \n' ' '
}
poke() {
  superblock >$W/sb
  perl -e '
    my ($file, $offset, $format, $value) = @ARGV;
    open my $f, "+<", $file or die; local $/; $_ = <$f>;
    my $bytes = pack $format, $value;
    substr $_, $offset, length $bytes, $bytes;
    seek $f, 0, 0; print $f $_' $W/sb "$@"
  dd if=$W/sb of=$A bs=4k count=1 conv=notrunc $to status=none
}
seal() {
  superblock >$W/sb.sealed
  poke 0 V $(perl -e '
    local $/; $_ = <STDIN>; my $crc = 0xffffffff;
    for my $byte (unpack "C*", substr $_, 4) {
      $crc ^= $byte;
      $crc = $crc & 1 ? ($crc >> 1) ^ 0x82f63b78 : $crc >> 1 for 1 .. 8;
    }
    print $crc ^ 9031977' <$W/sb.sealed)
}
