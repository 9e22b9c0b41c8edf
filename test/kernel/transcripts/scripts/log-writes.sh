# disks: 64M 64M
# The log-writes target (spec: dm-core, 9.6).
x dmsetup create l --notable
x dmsetup load l --table "0 8192 log-writes"
x dmsetup load l --table "0 8192 log-writes $A"
x dmsetup load l --table "0 8192 log-writes /dev/nosuch $B"
x dmsetup load l --table "0 8192 log-writes $A /dev/nosuch"
x dmsetup load l --table "0 800000 log-writes $A $B"
x dmsetup load l --table "0 8192 log-writes $A $B x"
x dmsetup table --inactive l
x dmsetup load l --table "0 8192 log-writes $A $B"
x dmsetup resume l
x dmsetup table l
x dmsetup status l
entries() {
  until_true log_has $1
  dmsetup status l
}
log_has() { [[ $(dmsetup status l | cut -d' ' -f4) = $1 ]]; }
x wr l 0 16 17
x dmsetup status l
x fsync l
x entries 2
x dmsetup message l 0 mark one
x entries 3
x wr l 16 8 18
x fsync l
x entries 5
x rd l 0 24
x dmsetup message l 0 MARK two
x entries 6
x dmsetup message l 0 mark
x dmsetup message l 0 mark a b
x dmsetup message l 0 nosuch a
x dmsetup message l 0 mark ""
x dmsetup suspend l
x dmsetup resume l
x dmsetup status l
x wr l 24 8 19
x dmsetup remove l
# The log as it is left: what each entry is.
look() {
  dd if=$B of=$W/log bs=64k count=4 status=none
  perl -e '
    local $/; $_ = <STDIN>;
    my ($magic, $version, $nr, $size) = unpack "H16 Q Q V";
    print "$magic $version $nr $size\n";
    for (my ($i, $at) = (0, 1); $i < $nr; $i++) {
      my ($sector, $n, $flags, $length) = unpack "Q4", substr $_, $at * $size;
      my $text = $flags & 8 ? substr $_, $at * $size + 32, $length : "";
      print "$sector $n $flags $text\n";
      $at += 1 + ($flags & 12 ? 0 : $n);
    }' <$W/log
}
x look
# Not at the begin of its device; a log that is too small.
x dmsetup create l --table "0 64 zero
64 64 log-writes $A $B"
entries() {
  until_true log_has $1
  dmsetup status l
}
log_has() { [[ $(dmsetup status l | tail -n 1 | cut -d' ' -f4) = $1 ]]; }
x wr l 64 8 20
x fsync l
x rd l 64 8
x rd l 0 8
x entries 2
x dmsetup remove l
x look
x dmsetup create small --table "0 40 linear $B 0"
x dmsetup create l --table "0 8192 log-writes $A /dev/mapper/small"
x wr l 0 8 21
x fsync l
x entries 2
x wr l 8 128 22
x logs 'Ran out of space' fsync l
x dmsetup status l
x wr l 16 8 23
x rd l 0 24
x dmsetup remove l
