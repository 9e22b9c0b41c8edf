# info, info -c, ls, deps and their options, byte for byte (spec: 7.1 to 7.3).
x dmsetup create a --table "0 8192 linear $A 0"
x dmsetup create b -u TEST-abc --table "0 100 linear /dev/mapper/a 0
100 100 linear $A 8192"
x dmsetup create c --table "0 100 linear /dev/mapper/b 0
100 100 linear /dev/mapper/a 0
200 100 zero
300 100 error"
x dmsetup create vg--a-lv--b-layer -u LVM-xyz --table "0 10 zero"
x dmsetup create e -r --table "0 10 linear $B 0"
x dmsetup create n --notable
x dmsetup info
x dmsetup info -c
x dmsetup info -c -o name,attr c a
x dmsetup info c
x dmsetup info b
x dmsetup info n
x dmsetup info -c n
x dmsetup info -c -o name,mangled_name,unmangled_name,uuid,mangled_uuid,unmangled_uuid
x dmsetup info -c -o attr,tables_loaded,suspended,readonly,devno,major,minor,open,segments,events
x dmsetup info -c -o name,device_count,devs_used,devnos_used,blkdevs_used
x dmsetup info -c -o name,device_ref_count,names_using_dev,devnos_using_dev
x dmsetup info -c -o name,subsystem,vg_name,lv_name,lv_layer
# A device without a table has neither.
x dmsetup info -c -o name,read_ahead,blkdevname a b c e
x dmsetup info -c -o name_all a
x dmsetup info -c -o info_all a b c e
x dmsetup info -c -o deps_all
x dmsetup info -c -o splitname_all
x dmsetup info -c -o all
x dmsetup info -c -o +readonly,devno
x dmsetup info -c -o +
x dmsetup info -c -o ""
x dmsetup info -c -o help
x dmsetup info -c -o foo
x dmsetup info -c -o name,foo
x dmsetup help -c
x dmsetup info -c -o nam
x dmsetup info -c -o NAME,Uuid
x dmsetup info -c -o name,name
x dmsetup info -c --noheadings
x dmsetup info -c --noheadings -o name,devs_used,devnos_used,blkdevs_used,names_using_dev
x dmsetup info -c --separator /
x dmsetup info -c --separator "" -o name,major
x dmsetup info -c --noheadings --separator " " -o name,major
x dmsetup info -c --nameprefixes
x dmsetup info -c --nameprefixes --noheadings
x dmsetup info -c --nameprefixes --unquoted --noheadings -o name,uuid
x dmsetup info -c --nameprefixes --unquoted -o name,uuid,major
x dmsetup info -c --rows
x dmsetup info -c --rows --noheadings -o name,major
x dmsetup info -c --rows --separator : -o name,major
x dmsetup info -c --unbuffered -o name
x dmsetup info -C -o name
x dmsetup info --columns -o name
x dmsetup info -o name
for s in -name minor -uuid attr,minor -segments,+minor foo; do
  x dmsetup info -c -o name,minor,segments -O $s
done
x dmsetup info -c -o name --sort -minor
x dmsetup info -c -o name -O ""
# Selections
for s in 'name!=a' 'name=~^[ab]$' 'name!~^[ab]$' 'minor>1' 'minor<=1' 'minor!=1' \
  'segments>=1 && (name=a || minor>3)' 'name=a,name=b' '!(name=a)' '! name=a' \
  'name="a"#minor=1' 'uuid=""' 'devs_used=a' 'devs_used=[b,a]' \
  'name=a &&' 'name' '=a' 'foo=1' 'name=a)' '(name=a' 'minor=x' 'minor=~1' 'name>a' ''; do
  x dmsetup info -c -o name -S "$s"
done
x dmsetup info -c -o name,selected -S name=a
x dmsetup info -c -o name,selected
x dmsetup info -c --select minor=0 -o minor a b
x dmsetup info -c -S help
x dmsetup info -c -o name --count 2 --interval 1 a
x dmsetup info -c -o name --interval 0.1
x dmsetup info -c -o name --interval 0
# ls
x dmsetup ls
x dmsetup ls -c
x dmsetup ls -o devno
x dmsetup ls -o devname
x dmsetup ls -o blkdevname
x dmsetup ls --target linear
x dmsetup ls --target linear -o devname
x dmsetup ls --target linear -o blkdevname
x dmsetup ls --target nosuch
x dmsetup ls --exec echo
x dmsetup ls --target linear --exec "echo two"
x dmsetup ls --target nosuch --exec echo
for o in inverted utf vt100 blkdevname open,active,rw,uuid nodevice compact,utf compact,vt100 \
  compact,notrunc inverted,compact,blkdevname,nodevice inverted,uuid devno ascii,foo; do
  x dmsetup ls --tree -o "$o"
done
x dmsetup ls --tree
x dmsetup ls --tree --target linear
x dmsetup ls --tree c
# deps
x dmsetup deps
x dmsetup deps -o devname
x dmsetup deps -o blkdevname
x dmsetup deps -o devno c
x dmsetup deps c b
x dmsetup deps n
x dmsetup deps --inactive c
x dmsetup deps -o devname c
# status and table of all
x dmsetup status
x dmsetup table
x dmsetup table --inactive
x dmsetup status --inactive
x dmsetup status --target zero
x dmsetup table --target linear
x dmsetup table --target linear a
x dmsetup table --target zero a
x dmsetup table --target zero a c
x dmsetup status --noflush c
x dmsetup status -c c
x dmsetup table --concise
x dmsetup table --concise c
x dmsetup table --concise a n e
x dmsetup table --concise --target zero
x dmsetup table --showkeys a
x dmsetup suspend a c
x dmsetup info -c
x dmsetup ls --tree -o active
x dmsetup resume c a
# Concise text in
x dmsetup remove_all
x dmsetup create --concise "a,,,,0 100 zero;b,U,7,ro,0 10 zero,10 10 error"
x dmsetup info -c
x dmsetup table --concise
x dmsetup create --concise "$(dmsetup table --concise)"
x dmsetup remove_all
x dmsetup create --concise <<<"a,,,,0 100 zero"
x dmsetup create --concise "x6"
x dmsetup create --concise "x7,,,zz,0 1 zero"
x dmsetup create --concise "x8,,,"
x dmsetup create --concise "x9,,,,"
x dmsetup create --concise "x1,,,,0 1 zero;;x2,,,,0 1 zero"
x dmsetup create --concise "x3,,,,0 1 zero;"
x dmsetup create --concise ""
x dmsetup create --concise a b
x dmsetup create --concise "x4,,,,0 1 nosuch;x5,,,,0 1 zero"
x dmsetup create --concise 'c\,d,U\;1,,rw,0 1 zero'
x dmsetup ls
x dmsetup table --concise
x dmsetup remove_all
