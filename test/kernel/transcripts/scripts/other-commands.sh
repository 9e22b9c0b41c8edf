# Commands that scripts call now and then: wipe_table, splitname, mangle, those about udev; and
# remove --retry (spec: 7 and 8).
x dmsetup create a --table "0 8192 linear $A 0"
x dmsetup create b --table "0 100 linear /dev/mapper/a 0
100 100 zero"
x dmsetup create n --notable
x dmsetup wipe_table b
x dmsetup table
x dmsetup info -c
x dmsetup wipe_table b /dev/mapper/a
x dmsetup table
x dmsetup wipe_table
x dmsetup wipe_table b nosuch a
x dmsetup wipe_table n
x dmsetup wipe_table -u nosuch
x dmsetup suspend b
x dmsetup load b --table "0 300 zero"
x dmsetup wipe_table --noflush --nolockfs -f -v b
x dmsetup info b
x dmsetup table b
x rd b 0 1
x dmsetup remove b a n
for n in vg--a-lv--b-layer vg-lv vg "" a-b-c-d a---b a--b; do x dmsetup splitname "$n"; done
x dmsetup splitname
x dmsetup splitname vg-lv LVM
x dmsetup splitname vg-lv foo
x dmsetup splitname a b c
x dmsetup splitname --noheadings vg-lv
x dmsetup splitname --separator : vg-lv
x dmsetup splitname -o vg_name,lv_name vg-lv
x dmsetup splitname --nameprefixes vg-lv
x dmsetup splitname --nameprefixes --noheadings --rows vg-lv
x dmsetup splitname -o foo vg-lv
x dmsetup mangle
x dmsetup create "a b" --notable
x dmsetup create c -u U-1 --notable
x dmsetup --manglename none create "x y" --notable
x dmsetup mangle
x dmsetup ls
x dmsetup mangle c nosuch
x dmsetup --manglename hex mangle
x dmsetup --manglename none mangle
x dmsetup --manglename none create "q r" --notable -u "u v"
x dmsetup mangle
x dmsetup --manglename none mangle "q r"
x dmsetup --manglename none create 'mix ed\x20' --notable
x dmsetup mangle 'mix ed\x20'
x dmsetup --manglename none remove_all
x dmsetup udevcreatecookie
x dmsetup udevcreatecookie x
x dmsetup udevcookies
for n in 0 5 x -- 010 0xd4d0005 0xffff0000 4294967295 4294967296; do x dmsetup udevflags $n; done
for n in "" 0 x 5 0x1234abcd; do
  x dmsetup udevcomplete $n
  x dmsetup udevreleasecookie $n
done
x dmsetup udevcomplete_all -y
x dmsetup udevcomplete_all x -y
x dmsetup udevcomplete_all
for n in y n "q
y" q; do x dmsetup udevcomplete_all 5 <<<"$n"; done
x dmsetup create a -u U-1 --table "0 8192 linear $A 0"
x dmsetup info -c --rows --nameprefixes
x dmsetup info -c --rows --nameprefixes --unquoted --noheadings -o name,uuid
x dmsetup create b --table "0 100 linear /dev/mapper/a 0"
x dmsetup remove --retry a
x dmsetup remove --retry nosuch
(sleep 0.7; dmsetup remove b) &
dmsetup remove --retry a >/dev/null 2>&1
x echo $?
x dmsetup ls
