# disks: 4M 64M
# 16.27: reading metadata while the pool is in use, through a metadata snapshot.
block() { dd if=$A bs=4k skip=$1 count=1 iflag=direct 2>/dev/null | od -An -v -tx8 -w64 | uniq -c; }
x dmsetup create p --table "0 131072 thin-pool $A $B 128 0"
x dmsetup message p 0 create_thin 0
x dmsetup create t --table "0 65536 thin /dev/mapper/p 0"
# Each with a commit of its own, so that both sides allocate the same metadata blocks.
for i in 0 1 2 3; do wr t $((i * 128)) 128 17 fua; done
x thin_dump -m $A
x dmsetup message p 0 reserve_metadata_snap
x dmsetup status p
x thin_dump -m $A
x block $(dmsetup status p | cut -d' ' -f7)
x wr t 512 512 18
x dmsetup message p 0 create_thin 5
x dmsetup message p 0 create_snap 6 0
x wr t 0 8 19
x trim t 128 128
x dmsetup status
x thin_dump -m $A
x dmsetup message p 0 set_transaction_id 0 3
x dmsetup remove t
x dmsetup message p 0 delete 0
x thin_dump -m $A
# It outlives the pool.
x dmsetup remove p
x thin_check $A
x thin_dump $A
x thin_dump -m $A
x dmsetup create p --table "0 131072 thin-pool $A $B 128 0"
x dmsetup status p
x dmsetup message p 0 reserve_metadata_snap
x dmsetup message p 0 release_metadata_snap
x dmsetup status p
x thin_dump -m $A
x dmsetup message p 0 reserve_metadata_snap
x thin_dump -m $A
x dmsetup message p 0 release_metadata_snap
x dmsetup remove p
x thin_check $A
x thin_dump $A
