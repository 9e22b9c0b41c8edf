# Our side. FILES are the disks, PROGRAMS is where io.js is.
LOG=$DEVMAPPER_DIR/daemon.log
n=0
for f in $FILES; do
  declare $(printf "\\x$(printf %x $((65 + n)))")=$f
  n=$((n + 1))
done
mark() { echo "MARK $1" >>$LOG; }
there() { :; }
here() { "$@"; }
io() { node $PROGRAMS/io.js "$DEVMAPPER_DIR/nbd.sock" "$@"; }
wr() { io wr "$@"; }
wrs() { io wrs "$@"; }
rd() { io rd "$@"; }
trim() { io trim "$@"; }
fsync() { io fsync "$@"; }
usage() { echo $(($(stat -c %b $1) / 2)) KiB; }
no_space_timeout() { devmapper parameter no_space_timeout $1; }
messages() { node $PROGRAMS/messages.js "$DEVMAPPER_DIR" "$@"; }
finish() {
  while IFS= read -r l; do step L "$l"; done <$LOG
  : >$LOG
  if [[ $1 = stop ]]; then devmapper stop; else kill -9 $(cat $DEVMAPPER_DIR/daemon.pid); fi
}
# The daemon numbers files in the order in which it meets them.
if [[ $FILES = *' '* ]]; then
  n=0
  for f in $FILES; do echo "$n 1 linear $f 0"; n=$((n + 1)); done >$W/numbers
  dmsetup create numbers $W/numbers && dmsetup remove numbers || exit
fi
