# Table text, the checks of a load in their order, and what a refused load leaves (spec: 2 and 3).
# A table that is refused, or is printed and removed again.
try() { x dmsetup create t --table "$1" && { x dmsetup table t; x dmsetup remove t; }; }
x dmsetup create a --table "0 8192 linear $A 0"
x dmsetup create a --table "0 8192 zero"
# Text that cannot be split.
x dmsetup create t --table "0 100"
x dmsetup create t --table "x 100 zero"
x dmsetup create t --table "0 y zero"
x dmsetup create t --table "0 100 zero
100 zero"
x dmsetup create t --table "# a comment

0 100"
printf '# comment\n\n0 8 zero\nfoo\n' >$W/bad.table
cd $W
x dmsetup create t bad.table
x dmsetup create t nosuch.table
x dmsetup create t <bad.table
printf '# comment\n\n  0 8 zero\n\t8 8 error and more\n# end\n' >$W/good.table
x dmsetup create t good.table
x dmsetup table t
x dmsetup remove t
x dmsetup create t <good.table
x dmsetup table t
x dmsetup load t </dev/null
x dmsetup load t --table ""
x dmsetup load t nosuch.table
x dmsetup load t bad.table
x dmsetup table --inactive t
x dmsetup remove t
x dmsetup create t --table ""
x dmsetup table t
x dmsetup info -c t
x dmsetup remove t
x dmsetup create t </dev/null
x dmsetup remove t
x dmsetup create t --table "   0   100   zero   "
x dmsetup table t
x dmsetup remove t
x dmsetup create t --table "0 10 zero
10 10 error
20 12 zero"
x dmsetup status t
x dmsetup info t
x dmsetup remove t
try "+0 +10 zero"
try "0 10zero"
try "0+10 zero"
try "0 10 zero x"
try "00 010 zero"
# The rows of section 3.
try "0 0 zero"
try "0 -1 zero"
try "-1 10 zero"
try "0 36028797018963968 zero"
try "0 18014398509481984 zero"
try "0 9007199254740991 zero"
try "0 9007199254740990 zero
9007199254740990 1 zero"
try "0 36028797018963969 zero"
try "36028797018963967 10 zero"
try "0 100000000000000000000 zero"
try "0 10 nosuch"
try "0 10 averylongtargettypename"
try "0 10 fifteen-letters"
try "0 10 sixteen--letters"
try "1 10 zero"
try "0 10 zero
11 10 zero"
try "0 10 zero
9 10 zero"
try "0 10 zero
0 10 zero"
try "0 10 linear"
try "0 10 linear $A"
try "0 10 linear $A 0 0"
try "0 10 linear $A x"
try "0 10 linear $A -1"
try "0 10 linear $A +1"
try "0 10 linear $A 0x10"
try "0 10 linear $A 1s"
try "0 10 linear $A 9007199254740991"
try "0 10 linear /dev/nosuch 0"
try "0 10 linear /dev 0"
try "0 10 linear /dev/null 0"
try "0 10 linear nosuch 0"
try "0 10 linear 254:77 0"
try "0 10 linear 77:77 0"
try "0 10 linear 254:0 5"
try "0 10 linear /dev/dm-0 5"
x dmsetup create t --table "0 10 linear /dev/mapper/a 5"
x dmsetup deps t
x dmsetup load t --table "0 10 linear 254:1 0"
x dmsetup info -c
x dmsetup clear t
x dmsetup info -c
x dmsetup remove t
# Numbers that table printed can be loaded again.
try "$(dmsetup table a)"
try "0 10 zero arg"
try "0 10 error arg arg"
# Areas beyond the device: at once on the first load, at the resume on later ones.
x dmsetup create t --table "0 100 linear $A 600000"
x dmsetup create t --table "0 600000 linear $A 0"
x dmsetup create t --table "0 100 linear $A 524288"
x dmsetup create t --table "0 100 linear $A 524188"
x dmsetup load t --table "0 101 linear $A 524188"
x dmsetup info -c -o name,attr --noheadings t
x dmsetup resume t
x dmsetup info -c -o name,attr --noheadings t
x dmsetup table t
x dmsetup resume t
x dmsetup info -c -o name,attr --noheadings t
x dmsetup load t --table "0 10 nosuch"
x dmsetup info -c -o name,attr --noheadings t
x dmsetup remove t
x dmsetup create t --notable
x dmsetup load t --table "0 101 linear $A 524188"
x dmsetup load t --table "0 1 zero"
x dmsetup load t --table "0 101 linear $A 524188"
x dmsetup resume t
x dmsetup info -c -o name,attr --noheadings t
x dmsetup resume t
x dmsetup remove t
# striped (9.3)
x dmsetup create b --table "0 8192 linear $A 8192"
x dmsetup create s --table "0 1024 striped 2 128 /dev/mapper/a 0 /dev/mapper/b 0"
x dmsetup table s
x dmsetup status s
x dmsetup deps s
x dmsetup info -c
x dmsetup info s
x dmsetup remove s
x dmsetup create s --table "0 1024 striped 2"
x dmsetup create s --table "0 1024 striped 0 128 /dev/mapper/a 0"
x dmsetup create s --table "0 1024 striped x 128 /dev/mapper/a 0"
x dmsetup create s --table "0 1024 striped 1 0 /dev/mapper/a 0"
x dmsetup create s --table "0 1024 striped 1 x /dev/mapper/a 0"
x dmsetup create s --table "0 1023 striped 2 8 /dev/mapper/a 0 /dev/mapper/b 0"
x dmsetup create s --table "0 1000 striped 2 128 /dev/mapper/a 0 /dev/mapper/b 0"
x dmsetup create s --table "0 1024 striped 2 128 /dev/mapper/a 0"
x dmsetup create s --table "0 1024 striped 2 128 /dev/mapper/a 0 /dev/mapper/b"
x dmsetup create s --table "0 1024 striped 2 128 /dev/mapper/a 0 /dev/mapper/b 0 0"
x dmsetup create s --table "0 1024 striped 2 128 /dev/mapper/a 0 /dev/mapper/nosuch 0"
x dmsetup create s --table "0 1024 striped 2 128 /dev/mapper/a x /dev/mapper/b 0"
x dmsetup create s --table "0 1026 striped 3 19 /dev/mapper/a 0 /dev/mapper/b 0 /dev/mapper/b 1000"
x dmsetup table s
x dmsetup status s
x dmsetup deps s
x dmsetup info -c
x dmsetup remove s
x dmsetup create s --table "0 1024 striped 1 4 /dev/mapper/a 0"
x dmsetup remove s
# Several of several.
x dmsetup create c --table "0 4096 linear /dev/mapper/b 100
4096 4096 linear /dev/mapper/a 0
8192 10 linear $A 0
8202 100 linear $B 7"
x dmsetup deps c
x dmsetup table c
x dmsetup info -c
x dmsetup load c --table "0 100 linear /dev/mapper/b 0"
x dmsetup info -c
x dmsetup deps c
x dmsetup resume c
x dmsetup info -c
x dmsetup remove_all
x dmsetup table
