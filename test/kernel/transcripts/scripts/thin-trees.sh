# disks: 4M 4096M
# What the metadata looks like after lives of many steps; tree-shape.pl prints how full leaves are.
begin() {
  dd if=/dev/zero of=$A bs=4k count=1 conv=notrunc,fsync 2>/dev/null
  dmsetup create p --table "0 524288 thin-pool $A $B 128 0 1 skip_block_zeroing" &&
    dmsetup message p 0 create_thin 0 &&
    dmsetup create t --table "0 1048576 thin /dev/mapper/p 0"
}
end() { dmsetup status && dmsetup remove_all && shape $A && thin_check -q $A; }
# 16.41
begin; wrs t 0 128 2000
x end
begin; wrs t 256000 -128 2000
x end
begin; wrs t 0 256 1500
wrs t 76928 256 5
x end
begin; wrs t 0 256 1500
dmsetup message p 0 create_snap 1 0
wrs t 76928 256 5
x end
begin; wrs t 0 128 3000
for i in 0 1 2 3 4 5 6 7 8 9; do trim t $((i * 38400)) 32000; done
x end
begin
dmsetup message p 0 create_thin 1000
messages p create_thin 1 219
dmsetup message p 0 create_thin 777
x end
# 16.42
begin; wrs t 0 128 6
trim t 128 256
for i in 1 2 3 4 5; do dmsetup message p 0 create_snap $i 0; done
wr t 640 8 7
x end
x thin_dump $A
# 16.43: metadata that thin_restore made
restore() { thin_restore -i $W/dump -o $A; }
thin_dump $A >$W/dump
dd if=/dev/zero of=$A bs=1M count=4 conv=notrunc,fsync 2>/dev/null
x restore
x shape $A
x dmsetup create p --table "0 524288 thin-pool $A $B 128 0"
x dmsetup create t --table "0 1048576 thin /dev/mapper/p 0"
x dmsetup status
x wr t 640 8 8
x wr t 12800 8 8
x rd t 640 8
x dmsetup message p 0 create_snap 9 3
x end
# 16.44
dd if=/dev/zero of=$A bs=4k count=1 conv=notrunc,fsync 2>/dev/null
x dmsetup create p --table "0 8388608 thin-pool $A $B 128 0"
x dmsetup message p 0 create_thin 0
x dmsetup create t --table "0 8388608 thin /dev/mapper/p 0"
x wr t 8388480 128 1
x end
