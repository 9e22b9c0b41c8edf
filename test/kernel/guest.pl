#!/usr/bin/perl
# Runs a plan inside the kernel that kernel-run boots, in one process, because starting programs is what
# takes time there. Lines of the plan (file given as argument):
#   sh COMMAND                          a shell command; the guest stops if it fails
#   write DEV OFFSET LENGTH BYTE [sync] fill a range; with sync, fsync after it
#   sync DEV                            fsync
#   discard DEV OFFSET LENGTH           BLKDISCARD
#   read DEV OFFSET LENGTH              prints: read DEV OFFSET BYTE, or the word mixed
#   direct DEV OFFSET LENGTH BYTE [dsync]  as write, past the page cache, each one request; dsync: O_DSYNC
#   punch DEV OFFSET LENGTH             as discard, without an fsync before it
#   pause SECONDS
#   close DEV                           close the device, which has been kept open since its first use
use strict;
use warnings;
use Fcntl qw(O_DIRECT O_RDWR SEEK_SET);
use IO::Handle;

use constant { BLKDISCARD => 0x1277, SYS_pwritev2 => 328, RWF_DSYNC => 2, PAGE => 4096 };

my (%open, %direct);

sub handle {
    my ($name) = @_;
    return $open{$name} if $open{$name};
    sysopen(my $fh, "/dev/mapper/$name", O_RDWR) or die "open $name: $!\n";
    return $open{$name} = $fh;
}

sub at {
    my ($name, $offset) = @_;
    my $fh = handle($name);
    defined sysseek($fh, $offset, SEEK_SET) or die "seek $name: $!\n";
    return $fh;
}

# A write from memory that is aligned as O_DIRECT wants it, which no Perl string is by itself.
sub write_direct {
    my ($name, $offset, $length, $byte, $flags) = @_;
    if (!$direct{$name}) {
        sysopen($direct{$name}, "/dev/mapper/$name", O_RDWR | O_DIRECT) or die "open $name: $!\n";
    }
    my $buffer = chr($byte) x ($length + PAGE);
    my $address = unpack('J', pack('P', $buffer));
    my $iov = pack('JJ', $address + (-$address % PAGE), $length);
    my $n = syscall(SYS_pwritev2, fileno($direct{$name}), $iov, 1, $offset + 0, 0, $flags);
    $n == $length or die "direct $name $offset: $!\n";
}

$| = 1;
open(my $plan, '<', $ARGV[0]) or die "$ARGV[0]: $!\n";
while (my $line = <$plan>) {
    chomp $line;
    my ($op, @args) = split / /, $line;
    if ($op eq 'sh') {
        my $command = join ' ', @args;
        system('/bin/sh', '-c', $command) == 0 or die "failed: $command\n";
    } elsif ($op eq 'write') {
        my ($name, $offset, $length, $byte, $sync) = @args;
        my $fh = at($name, $offset);
        my $bytes = chr($byte) x $length;
        (syswrite($fh, $bytes) // -1) == $length or die "write $name $offset: $!\n";
        if ($sync) { $fh->sync or die "fsync $name: $!\n"; }
    } elsif ($op eq 'sync') {
        handle($args[0])->sync or die "fsync $args[0]: $!\n";
    } elsif ($op eq 'discard') {
        my ($name, $offset, $length) = @args;
        my $fh = handle($name);
        $fh->sync or die "fsync $name: $!\n";
        ioctl($fh, BLKDISCARD, pack('QQ', $offset, $length)) or die "discard $name $offset: $!\n";
    } elsif ($op eq 'read') {
        my ($name, $offset, $length) = @args;
        my $fh = at($name, $offset);
        my $got = sysread($fh, my $bytes, $length) // -1;
        $got == $length or die "read $name $offset: $!\n";
        my $first = substr($bytes, 0, 1);
        my $same = $bytes eq $first x $length;
        print "read $name $offset ", $same ? ord($first) : 'mixed', "\n";
    } elsif ($op eq 'direct') {
        my ($name, $offset, $length, $byte, $dsync) = @args;
        write_direct($name, $offset, $length, $byte, $dsync ? RWF_DSYNC : 0);
    } elsif ($op eq 'punch') {
        my ($name, $offset, $length) = @args;
        ioctl(handle($name), BLKDISCARD, pack('QQ', $offset, $length)) or die "punch $name: $!\n";
    } elsif ($op eq 'pause') {
        select(undef, undef, undef, $args[0]);
    } elsif ($op eq 'close') {
        for my $handles (\%open, \%direct) {
            close(delete $handles->{$args[0]}) if $handles->{$args[0]};
        }
    } else {
        die "unknown line: $line\n";
    }
}
print "finished\n";
