# disks: 4M 256M
# 16.26: metadata devices of a few blocks.
m() { dmsetup create m --table "0 $(($1 * 8)) linear $A 0"; }
fresh() { dmsetup remove_all; dd if=/dev/zero of=$A bs=4k count=32 conv=notrunc,fsync 2>/dev/null; }
P="0 2048 thin-pool /dev/mapper/m $B 128 0"
Q="0 524288 thin-pool /dev/mapper/m $B 128 0"
for n in 1 2 3 4 5 6 7 8 9 10 11 12; do
  x m $n
  x dmsetup create p --table "$P"
  x dmsetup status
  fresh
done
x dmsetup create m --table "0 7 linear $A 0"
x dmsetup create p --table "$P"
fresh
x m 32
x dmsetup create p --table "$Q"
x dmsetup status
differs 'A message fails if its commit fails' messages p create_thin 0 100
x dmsetup status
x dmsetup load p --table "$Q"
x dmsetup resume p
x dmsetup status
x dmsetup load m --table "0 2048 linear $A 0"
x dmsetup resume m
x dmsetup suspend p
x dmsetup resume p
x dmsetup status
x dmsetup remove_all
x thin_check $A
x thin_check --clear-needs-check-flag $A
x m 256
x dmsetup create p --table "$Q"
x dmsetup status
x dmsetup message p 0 create_thin 50
x dmsetup remove_all
x thin_check $A
