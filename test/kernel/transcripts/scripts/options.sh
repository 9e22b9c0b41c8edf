# The command line: mistakes, their texts and exit codes (spec: 7).
x dmsetup
x dmsetup help
x dmsetup --help
x dmsetup -h
x dmsetup version
x dmsetup --version
x dmsetup nosuch
x dmsetup --nosuchoption
x dmsetup -x
x dmsetup ls --no
x dmsetup ls --table
x dmsetup ls -o
x dmsetup ls --noheadings=3
x dmsetup info --noh
x dmsetup create
x dmsetup create a b c
x dmsetup create a/b --notable
x dmsetup create "" --notable
x dmsetup create a --notable --table "0 1 zero"
x dmsetup create a -m 3 --notable
x dmsetup create a -j 3 --notable
x dmsetup create a -M 9x --notable
x dmsetup create a --manglename foo --notable
x dmsetup suspend
x dmsetup resume
x dmsetup remove
x dmsetup clear
x dmsetup load
x dmsetup wait
x dmsetup wait a b c
x dmsetup rename
x dmsetup rename x
x dmsetup rename x y z
x dmsetup message
x dmsetup message x
x dmsetup ls x
x dmsetup targets x
x dmsetup version x
x dmsetup remove_all x
x dmsetup table x y -j 3
x dmsetup target-version
x dmsetup target-version linear nosuch zero
x dmsetup ls
x dmsetup ls --tree
x dmsetup ls --target zero
x dmsetup ls -o foo
x dmsetup ls --tree -o foo
x dmsetup deps
x dmsetup deps -o foo
x dmsetup info
x dmsetup info -c
x dmsetup status
x dmsetup status --target zero
x dmsetup table
x dmsetup remove_all
x dmsetup mknodes
# Unknown devices
for c in table deps remove suspend resume clear wait info status "info -c" mknodes; do
  x dmsetup $c nosuch
done
x dmsetup load nosuch --table "0 1 zero"
x dmsetup load nosuch --notable
x dmsetup message nosuch 0 foo
x dmsetup rename nosuch foo
x dmsetup info -u nosuch
x dmsetup table -u nosuch
x dmsetup suspend -u nosuch
x dmsetup load -u nosuch --table "0 1 zero"
x dmsetup remove -j 254 -m 77
x dmsetup table /dev/mapper/nosuch
x dmsetup table /dev/dm-9
x dmsetup remove /dev/mapper/nosuch
x dmsetup info /dev/nosuch
x dmsetup remove nosuch1 nosuch2
# Devices by other names
x dmsetup create a --table "0 8192 linear $A 0"
x dmsetup table /dev/mapper/a
x dmsetup table /dev/dm-0
x dmsetup info /dev/mapper/a
x dmsetup table dm-0
x dmsetup table 254:0
x dmsetup table -j 254 -m 0
x dmsetup suspend /dev/mapper/a
x dmsetup resume /dev/dm-0
x dmsetup message /dev/mapper/a 0 foo
# Verbose
x dmsetup create v -v --table "0 10 zero"
x dmsetup suspend -v v
x dmsetup load -v v --table "0 20 zero"
x dmsetup clear -v v
x dmsetup resume -v v
x dmsetup status -v
x dmsetup status -v v
x dmsetup table -v v a
x dmsetup ls -v
x dmsetup rename -v v w
x dmsetup remove -v w
# Several devices
x dmsetup create b --table "0 10 zero"
x dmsetup table a b
x dmsetup status a nosuch b
x dmsetup info b nosuch a
x dmsetup info -c b a
x dmsetup deps a b
x dmsetup suspend a b
x dmsetup resume nosuch a
x dmsetup resume b a
x dmsetup mknodes a
# Messages of the core
x dmsetup message b 0 hello
x dmsetup message b 10 hello
x dmsetup message b 9 hello
x dmsetup message b x hello
x dmsetup message b 0x0 hello
x dmsetup message b -- -1 hello
x dmsetup message b 0
x dmsetup message b 0 ""
x dmsetup message b 0 @foo
x dmsetup message b 0 @cancel_deferred_remove
x dmsetup message b 0 @CANCEL_deferred_remove
# Options that are accepted
x dmsetup create c --addnodeoncreate --noudevsync --noudevrules --verifyudev --noopencount --checks -y --uid 0 --gid 0 --mode 0600 --table "0 10 zero"
x dmsetup remove c
x dmsetup create c --readahead 100 --table "0 10 zero"
x dmsetup info c
x dmsetup remove c
x dmsetup create c --readahead none --table "0 10 zero"
x dmsetup info c
x dmsetup remove c
x dmsetup create c --readahead +100 --table "0 10 zero"
x dmsetup info c
x dmsetup remove c
x dmsetup create c --readahead +1000 --table "0 10 zero"
x dmsetup info c
x dmsetup remove c
x dmsetup create c --readahead auto --table "0 10 zero"
x dmsetup info c
x dmsetup remove c
x dmsetup create c --readahead foo --table "0 10 zero"
x dmsetup info -c -o name,read_ahead c
x dmsetup remove --retry c
x dmsetup remove --force a
x dmsetup remove_all --force
x dmsetup ls
