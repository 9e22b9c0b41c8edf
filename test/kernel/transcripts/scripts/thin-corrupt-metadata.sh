# disks: 4M 256M
# 16.38: one change each to the metadata of a pool that has four blocks mapped; see images.ts.
first() { "$@" 2>$W/first && return; head -n 1 $W/first; return 1; }
# Brings the pool up on an image; reads, writes a block, provisions one, or does only what is asked.
life() {
  dd if=$I/$1 of=$A bs=1M conv=notrunc,fsync 2>/dev/null
  if first dmsetup create p --table "0 524288 thin-pool $A $B 128 0"; then
    dmsetup status p
    if first dmsetup create t --table "0 65536 thin /dev/mapper/p 0"; then
      case ${2-all} in
        all) rd t 0 8; wr t 0 8 1; wr t 1024 8 1; dmsetup status ;;
        rd) rd t 0 8 ;;
        wr) wr t 0 8 1 ;;
        status) dmsetup status t ;;
      esac
      dmsetup remove t
    fi
    dmsetup remove p
  fi
  :
}
# The kernel logs each kind of message ten times in five seconds at most: sound ones in between.
x life sound
x life superblock-number
x life version-1
x life magic
x life version-3
x life superblock-bytes
x life compat
x life superblock-seal
x life flags-2
x life incompat
x life compat-ro
x life metadata-block-size
x life metadata-blocks
x life mapping-top-bytes rd
x life needs-check
x life leaf-bytes rd
x life held-root
x life leaf-bytes status
x life data-blocks
x life leaf-number rd
x life metadata-map-blocks
x life index-bytes
x life data-bitmap-bytes
x life leaf-max-entries wr
differs 'A block whose preparation fails, or is cut short, is not lost' life metadata-bitmap-bytes
x life leaf-nr-entries rd
x life data-index-bytes
x life leaf-flags rd
x life details-bytes
x life leaf-value-size rd
# Only a device that cannot be written at all may have features that forbid it.
dd if=$I/compat-ro of=$A bs=1M conv=notrunc,fsync 2>/dev/null
x dmsetup create p --table "0 524288 thin-pool $A $B 128 0 1 read_only"
x dmsetup create -r m --table "0 8192 linear $A 0"
x dmsetup create p --table "0 524288 thin-pool /dev/mapper/m $B 128 0"
x dmsetup create p --table "0 524288 thin-pool /dev/mapper/m $B 128 0 1 read_only"
x dmsetup status
x dmsetup load p --table "0 524288 thin-pool /dev/mapper/m $B 128 0"
x dmsetup remove_all
