# Messages, names and numbers that are refused, and odd ones that are not (spec: thin, 4; dm-core, 7
# and 8).
all() { dmsetup status; dmsetup table; dmsetup info -c; }
x dmsetup create m --table "0 8192 linear $A 0"
x dmsetup create d -u UD --table "0 65536 linear $A 8192"
x dmsetup create pool --table "0 65536 thin-pool /dev/mapper/m /dev/mapper/d 128 0"
x dmsetup message pool 0 create_thin 0
x dmsetup create v --table "0 65536 thin /dev/mapper/pool 0"
x dmsetup create l --table "0 10 linear /dev/mapper/d 0
10 10 error
20 10 zero"
x all
# Sectors
for s in "" " " 0x0 x 1x 1.0 "1 2" 65536 -1 18446744073709551615 18446744073709551616 \
  " 65535" +0 -0 00; do
  x dmsetup message -- pool "$s" nosuch
done
# Words
for w in "" " " " nosuch " @ @@ @foo "@cancel_deferred_remove x" create_thin "create_thin " \
  " create_thin  0 " "create_thin -1" "create_thin 0x1" "create_thin 1e1" "create_thin 16777216" \
  "create_thin 18446744073709551617" "create_thin ''" "create_snap 1" "create_snap 1 0 0" \
  "create_snap 0 0" "create_snap x 0" "create_snap 9 77" "create_snap 9 9" delete "delete 55" \
  "delete 0" "delete x" "set_transaction_id 0" "set_transaction_id 1 2" \
  "set_transaction_id -0 1" "set_transaction_id 0 0x10" \
  "set_transaction_id 0 18446744073709551616" "reserve_metadata_snap x" release_metadata_snap \
  'create\ thin 3'; do
  x dmsetup message pool 0 "$w"
done
x all
for w in "CREATE_THIN 10" "create_thin	11" 'create\_thin \12' " create_thin +13 " "create_thin 014" \
  "set_transaction_id 0 18446744073709551615" "set_transaction_id 18446744073709551615 0"; do
  x dmsetup message pool 0 "$w"
done
x dmsetup message pool 0 "" create_thin "15 "
x dmsetup message pool 0 create_thin "" 16
x dmsetup status pool
for s in 0 9 10 25 30; do x dmsetup message l $s hello; done
x dmsetup message v 0 hello
x dmsetup suspend pool
x dmsetup message pool 0 create_thin 60
x dmsetup resume pool
x all
# Names, paths and uuids
long="$(printf 'n%.0s' {1..128})" blanks="$(printf ' %.0s' {1..40})"
for n in "" / /dev/mapper /dev/mapper/ /dev/mapper/nosuch /dev/mapper/m/ ./m a/b /dev/dm- \
  /dev/null "$A" "$long" "$blanks"; do
  x dmsetup table "$n"
done
for n in "" / /dev/mapper/; do x dmsetup info "$n"; done
x dmsetup info -c -o name /dev//mapper/../mapper/m
for n in "" a/b "$long" "$blanks" 'a b\x20c'; do
  x dmsetup create --notable "$n"
  x dmsetup rename l "$n"
done
for n in "" "$blanks" 'a b\x20c'; do x dmsetup rename l --setuuid "$n"; done
x dmsetup rename l --setuuid "$(printf 'u%.0s' {1..129})"
x dmsetup rename l --setuuid UD
for c in remove suspend table info; do x dmsetup $c -u ""; done
x dmsetup mknodes nosuch
x dmsetup mknodes ./nosuch
x dmsetup mknodes "$long"
x dmsetup load nosuch --table "0 10"
x dmsetup create - <<<"0 10"
x all
# Numbers of options
for n in -1 x "" 1x 1048575 1048576 4294967296; do
  x dmsetup create n --notable -j 254 -m "$n" && { x dmsetup info n; x dmsetup remove n; }
  x dmsetup table -j 254 -m "$n"
done
for n in -1 0 x 255 4350 +254 254x; do
  x dmsetup create n --notable -j "$n" -m 9 && { x dmsetup info n; x dmsetup remove n; }
  x dmsetup table -j "$n" -m 0
done
for r in "" -1 -2 7 x 0x10 +x +257 2147483647 4294967294 99999999999999999999; do
  x dmsetup create n --readahead "$r" --table "0 8 zero" && {
    x dmsetup info -c --noheadings -o read_ahead n
    dmsetup remove n
  }
done
for m in "" 8 0x1 "7 " 7777777777777777777777777 " 777" -777 00000777; do
  x dmsetup ls -M "$m"
done
x dmsetup ls --readahead -5 -M 9
x dmsetup ls -M 9 --readahead -5
x dmsetup info -c -o name --count 1x m
x dmsetup create w --notable
x dmsetup rename w k
x dmsetup rename k --setuuid UK
x dmsetup info -c -o name,events k
x dmsetup load k --table "0 8 zero"
x dmsetup resume k
x dmsetup rename k w
x dmsetup rename w w2
x dmsetup rename w2 k
x dmsetup info -c -o name,events k
for e in -2 x "" 4294967296 18446744073709551616; do x dmsetup wait -- k "$e"; done
for e in " 3x" +3 4294967299 -4294967293; do x timeout 0.7 dmsetup wait -- k "$e"; done
x dmsetup remove_all
x all
