#!/usr/bin/perl
# Makes a cache inside the kernel that kernel-run boots, sends it requests past the page cache, one at a
# time, and prints when each began and ended, and what the cache's status was. Arguments: name of the cache,
# its table line, the file with the requests:
#   r OFFSET LENGTH     read (bytes)
#   w OFFSET LENGTH     write
#   q                   wait until the machine is quiet
#   p SECONDS           pause
#   s                   print the status, without a commit
#   m WORDS             message
# Lines printed, times in milliseconds of the monotonic clock:
#   made LOADED RESUMED            when the table was loaded and resumed
#   r BEGIN END, w BEGIN END       a request
#   s TIME PARAMETERS              the status
use strict;
use warnings;
use Fcntl qw(O_DIRECT O_RDWR);
use POSIX qw(fmod);
use Time::HiRes qw(clock_gettime sleep CLOCK_MONOTONIC);

use constant {
    MS_PER_JIFFY => 10, SETTLE_TRIES => 20, SYS_preadv2 => 327, SYS_pwritev2 => 328, PAGE => 4096,
    HEADER => 312, BUFFER => 4096, DM_NOFLUSH => 1 << 11,
    DM_DEV_CREATE => 3, DM_DEV_SUSPEND => 6, DM_TABLE_LOAD => 9, DM_TABLE_STATUS => 12,
    DM_TARGET_MSG => 14,
};

my ($name, $table, $plan) = @ARGV;
open(my $control, '+<', '/dev/mapper/control') or die "control: $!\n";

# The ioctls are called directly, because starting dmsetup takes several jiffies.
sub dm_ioctl {
    my ($command, $flags, $nr_targets, $payload) = @_;
    my $header = pack('L3 L l L l L L L Q a128 a129 x7',
        4, 0, 0, BUFFER, HEADER, $nr_targets, 0, $flags, 0, 0, 0, $name, '');
    my $buffer = pack('a' . BUFFER, $header . $payload);
    ioctl($control, (3 << 30) | (HEADER << 16) | (0xfd << 8) | $command, $buffer)
        or die "ioctl $command: $!\n";
    return $buffer;
}

sub now { return 1000 * clock_gettime(CLOCK_MONOTONIC) }

sub status {
    my $answer = dm_ioctl(DM_TABLE_STATUS, DM_NOFLUSH, 0, '');
    my $start = unpack('L', substr($answer, 16, 4));
    return unpack('Z*', substr($answer, $start + 40));
}

# Waits until what the last request has set off is done, so that the next one does not race with it: a short
# sleep that took no longer than it should says that nothing kept the processor busy. Then for a time well within
# a jiffy, so that there is no doubt which one it is; jiffies begin at whole multiples of 10 ms. A machine that is
# never quiet is not waited for.
sub settle {
    for (1 .. SETTLE_TRIES) {
        my $begin = now();
        sleep(0.003);
        my $end = now();
        my $phase = fmod($end, MS_PER_JIFFY);
        return if $end - $begin < 5 && $phase > 1 && $phase < 8;
    }
}

my ($begin, $length, $type, $words) = split / /, $table, 4;
dm_ioctl(DM_DEV_CREATE, 0, 0, '');
my $loaded = now();
dm_ioctl(DM_TABLE_LOAD, 0, 1, pack('Q Q l L a16 Z*', $begin, $length, 0, 0, $type, $words));
sleep(0.03);
settle();
dm_ioctl(DM_DEV_SUSPEND, 0, 0, '');
my $resumed = now();
print "made $loaded $resumed\n";
system('dmsetup', 'mknodes', $name) == 0 or die "mknodes\n";
sysopen(my $device, "/dev/mapper/$name", O_RDWR | O_DIRECT) or die "open: $!\n";

my $memory = "\0" x (2 ** 20 + PAGE);
my $address = unpack('J', pack('P', $memory));
$address += -$address % PAGE;
my @said;
open(my $requests, '<', $plan) or die "$plan: $!\n";
while (my $line = <$requests>) {
    chomp $line;
    my ($op, @args) = split / /, $line;
    if ($op eq 'r' || $op eq 'w') {
        my ($offset, $bytes) = @args;
        my $iov = pack('JJ', $address, $bytes);
        my $call = $op eq 'r' ? SYS_preadv2 : SYS_pwritev2;
        my $from = now();
        my $n = syscall($call, fileno($device), $iov, 1, $offset + 0, 0, 0);
        push @said, "$op $from " . now();
        $n == $bytes or die "$line: $!\n";
    } elsif ($op eq 'q') {
        settle();
    } elsif ($op eq 'p') {
        sleep($args[0]);
    } elsif ($op eq 's') {
        push @said, 's ' . now() . ' ' . status();
    } elsif ($op eq 'm') {
        dm_ioctl(DM_TARGET_MSG, 0, 0, pack('Q Z*', 0, "@args"));
    } else {
        die "unknown line: $line\n";
    }
}
print map { "$_\n" } @said;
print "finished\n";
