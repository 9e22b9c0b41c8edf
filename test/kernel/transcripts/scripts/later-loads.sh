# What loads after the first one are spared, lines that end otherwise, events of failing stripes, and
# tables above read-only devices (spec: 2, 3, 5 and 9.3).
st() { dmsetup info -c --noheadings -o name,attr,tables_loaded,suspended,open,events; }
# A first load that fails is no first load; one that is cleared is.
x dmsetup create t --notable
x dmsetup load t --table "0 10 linear $A 600000"
x dmsetup load t --table "0 10 linear $A 600000"
x dmsetup load t --table "0 10 zero"
x dmsetup clear t
x dmsetup load t --table "0 10 linear $A 600000"
x st
x dmsetup resume t
x st
x dmsetup resume t
x dmsetup load t --table "0 10 zero"
x dmsetup resume t
x st
x dmsetup remove t
# Carriage returns
cd $W
printf '0 10 linear %s 0\r\n\r\n10 10 zero\r\n# end\r\n' $A >crlf.table
x dmsetup create t crlf.table
x dmsetup table t
x dmsetup remove t
printf '0 10 linear\t%s\v0\f\n' $A >crlf.table
x dmsetup create t crlf.table
x dmsetup table t
x dmsetup remove t
# Stripes that fail, up to the last event, and two of them on one device
x dmsetup create e --table "0 64 error"
x dmsetup create z --table "0 64 zero"
x dmsetup create s --table "0 128 striped 2 8 /dev/mapper/e 0 /dev/mapper/z 0"
for i in {1..13}; do rd s 0 1 >/dev/null; done
sleep 0.3
x st
for i in {1..7}; do rd s 0 1 >/dev/null; done
sleep 0.3
x st
x dmsetup status s
x dmsetup remove s
x dmsetup create s --table "0 128 striped 2 8 /dev/mapper/e 0 /dev/mapper/e 0"
for i in 1 2 3; do rd s 0 1 >/dev/null; sleep 0.3; done
x st
x dmsetup status s
x dmsetup remove_all
# Above a read-only device
x dmsetup create r -r --table "0 100 linear $A 0"
x dmsetup create t --table "0 100 linear /dev/mapper/r 0"
x st
differs "What is read-only stays so under other tables" wr t 0 8 1
x dmsetup load t -r --table "0 100 linear /dev/mapper/r 0"
x st
x dmsetup resume t
x st
x dmsetup remove_all
