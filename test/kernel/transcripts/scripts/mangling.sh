# Names with other characters (spec: 8).
x dmsetup create "a b#c" --table "0 10 zero"
x dmsetup ls
x dmsetup info
x dmsetup info -c
x dmsetup info -c -o name,mangled_name,unmangled_name,blkdevname
x dmsetup ls -o devname
x dmsetup ls --exec echo
x dmsetup ls --tree
x dmsetup status
x dmsetup table --concise
x dmsetup table "a b#c"
x dmsetup table 'a\x20b#c'
x dmsetup table "/dev/mapper/a\\x20b#c"
x dmsetup create 'a\x20b#c' --notable
x dmsetup message "a b#c" 0 foo
x dmsetup table "n o"
x dmsetup remove "n o"
x dmsetup rename "a b#c" "d e"
x dmsetup ls
x dmsetup rename "d e" f
x dmsetup rename f --setuuid "U U"
x dmsetup info -c -o name,uuid,mangled_uuid
x dmsetup info -u "U U"
x dmsetup info -u 'U\x20U'
x dmsetup remove f
x dmsetup create 'x\y' --notable
x dmsetup ls -o devname
x dmsetup info -c -o mangled_name,name
x dmsetup remove 'x\y'
x dmsetup create 'mix ed\x20q' --notable
x dmsetup create 'hx#+-.:=@_Z9' --notable
x dmsetup info -c -o mangled_name,name
x dmsetup remove_all
x dmsetup create --manglename hex "a b" --notable
x dmsetup --manglename hex ls
x dmsetup --manglename none ls
x dmsetup create --manglename hex 'c\x20d' --notable
x dmsetup --manglename none ls
x dmsetup --manglename hex remove "a b"
x dmsetup remove_all
x dmsetup create --manglename none "q r" --notable
x dmsetup --manglename none ls
x dmsetup ls
x dmsetup info -c
x dmsetup status
x dmsetup remove_all
x dmsetup --manglename none remove "q r"
x dmsetup create "ä" --notable -u "ü"
x dmsetup info -c -o name,mangled_name,uuid,mangled_uuid
x dmsetup info -c
x dmsetup remove "ä"
export DM_DEFAULT_NAME_MANGLING_MODE=none
x dmsetup create "s t" --table "0 10 zero"
x dmsetup ls
x dmsetup info "s t"
x dmsetup remove "s t"
