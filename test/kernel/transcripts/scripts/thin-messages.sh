# disks: 4M 256M
# 16.9, and what messages meet when the pool is suspended or full.
m() { x dmsetup message p 0 "$@"; }
x dmsetup create p --table "0 524288 thin-pool $A $B 128 0"
m "create_thin 0"
m "create_thin 0"
for words in "CREATE_THIN 1" "create_thin +2" "create_thin 007" "create_thin 16777215" \
  "create_thin 20 " create_thin "create_thin 1 2" "create_thin abc" "create_thin -1" \
  "create_thin 16777216" "create_thin 0x3" "create_snap 3 0" "create_snap 3 0" "create_snap 4 99" \
  "create_snap 4 4" "create_snap x 0" "create_snap 4 -1" "create_snap 4" "delete 99" "delete" \
  "set_transaction_id 0 7" "set_transaction_id 0 8" "set_transaction_id x 8" \
  "set_transaction_id 7 y" "set_transaction_id 7"; do
  m "$words"
done
x dmsetup status p
m set_transaction_id 7 18446744073709551615
x dmsetup status p
m set_transaction_id 18446744073709551615 5
m release_metadata_snap
m reserve_metadata_snap
x dmsetup status p
m reserve_metadata_snap
x dmsetup status p
m reserve_metadata_snap 1
m release_metadata_snap
m release_metadata_snap
x dmsetup status p
m wibble
x dmsetup message p 5 create_thin 30
x dmsetup message p 524287 create_thin 31
x dmsetup message p 524288 create_thin 32
m ""
# Suspended, everything works.
x dmsetup suspend p
m create_thin 50
m create_snap 51 50
m delete 31
m set_transaction_id 5 6
m reserve_metadata_snap
# The kernel allocated a block for the snapshot that it refused above, and gave it back.
differs 'A metadata snapshot is not referred to before it is there' dmsetup status p
m release_metadata_snap
x dmsetup resume p
x dmsetup create t --table "0 65536 thin /dev/mapper/p 50"
x dmsetup message t 0 hello
m delete 50
# Devices of one transaction: made and deleted again, snapshotted, used.
m delete 51
m create_snap 51 50
x wr t 0 128 17
m create_snap 52 50
m delete 51
x dmsetup status
x dmsetup remove t
m delete 50
x dmsetup status
x dmsetup remove_all
x thin_check $A
x thin_dump $A
