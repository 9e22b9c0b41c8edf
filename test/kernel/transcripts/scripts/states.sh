# The life of a device: tables, states, numbers, events, removal (spec: 1, 4, 6, 10).
later() { cat $W/later; }
st() { dmsetup info -c --noheadings -o name,attr,tables_loaded,suspended,open,events; }
x st
x dmsetup create a --notable
x st
x dmsetup resume a
x dmsetup suspend a
x st
x dmsetup suspend a
x dmsetup resume a
x dmsetup status a
x dmsetup table a
x dmsetup deps a
x dmsetup remove a
x dmsetup create a --notable -u U1
x dmsetup create a --notable
x dmsetup create b --notable -u U1
x dmsetup create b --notable -u U1 -u U2
x dmsetup create c --notable -j 254 -m 1
x dmsetup create c --notable -j 254 -m 7
x dmsetup create d --notable
x dmsetup info -c
x dmsetup info c
x dmsetup remove_all
# 10.1
x dmsetup create a --notable
x dmsetup load a --table "0 100 zero"
x st
x dmsetup info a
x dmsetup status --inactive a
x dmsetup status a
x dmsetup message a 0 hello
x dmsetup resume a
x st
x dmsetup resume a
x dmsetup load a --table "0 200 zero"
x st
x dmsetup info a
x dmsetup table a
x dmsetup table --inactive a
x dmsetup suspend a
x st
x dmsetup resume a
x st
x dmsetup table a
x dmsetup suspend --noflush a
x dmsetup suspend --nolockfs a
x dmsetup resume --noflush --nolockfs a
x dmsetup load a --table "0 300 zero"
x dmsetup clear a
x dmsetup clear a
x st
x dmsetup status --inactive a
x dmsetup suspend a
x dmsetup remove a
x st
# 10.3: I/O that waits
x dmsetup create q --table "0 1024 zero"
x rd q 0 8
x wr q 0 8 17
x rd q 0 8
x dmsetup suspend q
x dmsetup info q
x dmsetup load q --table "0 1024 error"
rd q 0 8 >$W/later & later=$!
sleep 0.5
x later
x dmsetup resume q
wait $later
x later
x wr q 8 8 1
x rd q 8 8
x dmsetup remove q
# 10.8: read-only
x dmsetup create r -r --table "0 1024 zero"
x st
x dmsetup info r
x dmsetup load r --table "0 1024 zero"
x st
x dmsetup resume r
x st
x wr r 0 8 1
x dmsetup load -r r --table "0 1024 zero"
x st
x dmsetup resume r
x st
x dmsetup resume -r r
x st
x dmsetup load r --table "0 1024 zero"
x dmsetup resume -r r
x st
x dmsetup remove r
x dmsetup create r --readonly --table "0 100 linear $A 0"
x dmsetup table --concise
x dmsetup remove r
# 10.5: pieces
x dmsetup create D --table "0 65536 linear $B 0"
x wr D 0 7 1
x wr D 2048 9 2
x dmsetup create t --table "0 7 linear /dev/mapper/D 0
7 9 linear /dev/mapper/D 2048
16 100 zero"
x rd t 0 32
x wr t 6 4 51
x rd D 0 8
x rd D 2048 9
x dmsetup remove t
x dmsetup create s --table "0 24 striped 2 4 /dev/mapper/D 0 /dev/mapper/D 1024"
x wr s 0 8 1
x wr s 8 8 2
x wr s 16 8 3
x rd s 0 24
x rd D 0 12
x rd D 1024 12
x dmsetup remove s
x dmsetup create s --table "0 30 striped 3 5 /dev/mapper/D 0 /dev/mapper/D 1024 /dev/mapper/D 2048"
x wr s 0 30 4
x wr s 7 11 5
x rd D 0 10
x rd D 1024 10
x rd D 2048 10
x dmsetup remove s
# A stripe that fails: its letter and its events.
x dmsetup create E --table "0 64 error"
x dmsetup create s --table "0 24 striped 2 4 /dev/mapper/D 0 /dev/mapper/E 0"
x wr s 0 4 1
x dmsetup status s
x wr s 4 4 1
x dmsetup status s
x dmsetup remove s
x dmsetup remove E
# Sizes: a smaller and a larger one at once visible.
x dmsetup load D --table "0 100 linear $B 0"
x dmsetup resume D
x rd D 99 1
x dmsetup load D --table "0 200 linear $B 0"
x dmsetup resume D
x wr D 199 1 9
x rd D 199 1
x dmsetup remove D
# Rename, uuid, events, wait
x dmsetup create a --table "0 8192 linear $A 0"
x dmsetup rename a b
x dmsetup info -c -o name,events
x dmsetup wait b
x dmsetup wait b 0
x dmsetup wait b x
x dmsetup wait -v b
x dmsetup wait b -1
x dmsetup wait b 0 x
dmsetup wait b 1 >$W/later 2>&1 & later=$!
sleep 0.5
x dmsetup rename b c
wait $later
x echo $?
x later
x dmsetup rename c c
x dmsetup create top --table "0 100 linear /dev/mapper/c 0"
x dmsetup rename top c
x dmsetup rename top ""
x dmsetup rename top
x dmsetup rename
x dmsetup rename nosuch other
x dmsetup rename top a/b
x dmsetup rename top "$(printf 'n%.0s' {1..128})"
x dmsetup create "$(printf 'n%.0s' {1..128})" --notable
x dmsetup create "$(printf 'n%.0s' {1..127})" --notable -u "$(printf 'u%.0s' {1..128})"
x dmsetup create u128 --notable -u "$(printf 'u%.0s' {1..128})"
x dmsetup create u129 --notable -u "$(printf 'u%.0s' {1..129})"
x dmsetup remove "$(printf 'n%.0s' {1..127})"
x dmsetup ls
x dmsetup rename top --setuuid UU-1
x dmsetup rename top --setuuid UU-2
x dmsetup rename c --setuuid UU-1
differs 'rename takes -u' dmsetup rename -u UU-1 top2
here dmsetup rename top2 top
there dmsetup rename top top2
there dmsetup rename top2 top
x dmsetup info -u UU-1
x dmsetup info -j 254 -m 0
x dmsetup status -u UU-1
x dmsetup table -u UU-1
x dmsetup suspend -u UU-1
x dmsetup resume -u UU-1
x dmsetup deps -j 254 -m 1
x dmsetup remove -u nosuch
x dmsetup status -u nosuch
x dmsetup info -j 254 -m 99
x dmsetup table -j 254 -m 99
x dmsetup wait -u UU-1 0
# Removal
x dmsetup remove c
x dmsetup remove top c
x dmsetup remove c
x dmsetup remove
x dmsetup create a --table "0 8192 linear $A 0"
x dmsetup create b --table "0 100 linear /dev/mapper/a 0"
x dmsetup remove a b
x st
x dmsetup remove --force a
x dmsetup table
x wr b 0 8 1
x dmsetup load a --table "0 8192 linear $A 0"
x dmsetup resume a
x wr b 0 8 1
x dmsetup remove --deferred a
x dmsetup info a
x dmsetup info -c a
x wr b 0 8 2
x dmsetup message a 0 @cancel_deferred_remove
x dmsetup info a
x dmsetup remove b
x st
x dmsetup create b --table "0 100 linear 254:0 0"
x dmsetup remove --deferred a
x dmsetup remove b
x st
x dmsetup create a --table "0 8192 linear $A 0"
x dmsetup create b --table "0 100 linear /dev/mapper/a 0"
x dmsetup remove_all --deferred
x st
x dmsetup create a --table "0 8192 linear $A 0"
x dmsetup create b --table "0 100 linear /dev/mapper/a 0"
x dmsetup remove_all
x st
x dmsetup create a --table "0 8192 linear $A 0"
x dmsetup create b --table "0 100 linear /dev/mapper/a 0"
x dmsetup remove -f b a
x st
# A device in its own table.
x dmsetup create a --table "0 8192 linear $A 0"
x dmsetup create b --table "0 100 linear /dev/mapper/a 0"
x dmsetup load a --table "0 8192 linear /dev/mapper/b 0"
x st
x dmsetup clear a
x st
x dmsetup load a --table "0 8192 linear /dev/mapper/a 0"
x st
x dmsetup remove b
x dmsetup remove a
x dmsetup clear a
x dmsetup remove a
x st
