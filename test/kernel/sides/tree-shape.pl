#!/usr/bin/perl
# Prints the shapes of the trees in a thin pool's metadata: how many entries each leaf has, from left
# to right, and the counts in the first bitmaps that are above zero. Argument: the metadata device.
use strict;
use warnings;

open(my $device, '<:raw', $ARGV[0]) or die "$ARGV[0]: $!\n";

sub block {
    my ($number) = @_;
    seek($device, $number * 4096, 0) or die "seek: $!\n";
    read($device, my $bytes, 4096) == 4096 or die "read: $!\n";
    return $bytes;
}

sub u64 { return unpack('Q<', substr($_[0], $_[1], 8)); }

sub u32 { return unpack('L<', substr($_[0], $_[1], 4)); }

# Visits each leaf: its number of entries, and a list of [key, value].
sub leaves {
    my ($root, $visit) = @_;
    my $node = block($root);
    my ($flags, $nr, $max, $size) = map { u32($node, $_) } (4, 16, 20, 24);
    my @entries = map { [u64($node, 32 + 8 * $_), substr($node, 32 + 8 * $max + $size * $_, $size)] } 0 .. $nr - 1;
    return $visit->(@entries) if $flags == 2;
    leaves(u64($_->[1], 0), $visit) for @entries;
}

sub shape {
    my ($root) = @_;
    my @shape;
    leaves($root, sub { push @shape, scalar @_ });
    return "@shape";
}

my $superblock = block(0);
printf "time %d\n", u32($superblock, 44);
my %roots;
leaves(u64($superblock, 320), sub { $roots{$_->[0]} = u64($_->[1], 0) for @_ });
printf "devices: %s; details: %s\n", shape(u64($superblock, 320)), shape(u64($superblock, 328));
if (keys %roots <= 10) {
    printf "device %d: %s\n", $_, shape($roots{$_}) for sort { $a <=> $b } keys %roots;
}
leaves(u64($superblock, 328), sub {
    printf "device %d: %d mapped, created %d, snapshotted %d\n", $_->[0], u64($_->[1], 0),
        u32($_->[1], 16), u32($_->[1], 20) for grep { $_->[0] < 10 } @_;
});
leaves(u64($superblock, 64 + 16), sub {
    for (@_) {
        my ($index, $entry) = @$_;
        printf "bitmap %d: %d free, none before %d\n", $index, u32($entry, 8), u32($entry, 12);
    }
});
printf "overflow: data %s, metadata %s\n", shape(u64($superblock, 64 + 24)), shape(u64($superblock, 192 + 24));
