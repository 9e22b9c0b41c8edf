# What both sides of a script begin with; see test/helpers/compare.ts for the words.
# A side has: W, a directory for scratch files; A, B, …, its disks; LOG, the log; and mark, wr, rd,
# trim, fsync, usage, no_space_timeout, finish; and SIDES, where this file is.
exec </dev/null
export LC_ALL=C
nr=0
step() { printf '\n%s %s\n' "$1" "$2"; }
x() {
  nr=$((nr + 1)); mark $nr
  step C "$*"
  "$@" >$W/o 2>$W/e; local r=$?
  while IFS= read -r l || [[ -n $l ]]; do step O "$l"; done <$W/o
  while IFS= read -r l || [[ -n $l ]]; do step E "$l"; done <$W/e
  step R $r
  return $r
}
differs() { step D "$1"; shift; x "$@"; }

# Waits at most 30 seconds for a command to succeed.
until_true() {
  local end=$((SECONDS + 30))
  until "$@"; do
    [[ $SECONDS -lt $end ]] || { echo "in vain: $*" >&2; return 1; }
    sleep 0.05
  done
}
logged() { sed -n "/MARK $nr\$/,\$p" $LOG | grep -qF -- "$1"; }
logs() {
  local text=$1 r=0
  shift
  "$@" || r=$?
  until_true logged "$text" || return 1
  return $r
}

shape() { perl $SIDES/tree-shape.pl $1; }

declare -A jobs
bg() {
  local name=$1
  shift
  "$@" >$W/bg.$name 2>&1 & jobs[$name]=$!
}
running() { kill -0 ${jobs[$1]} 2>/dev/null; }
gone() { ! running $1; }
blocks() {
  sleep 0.3
  if running $1; then echo blocks; else cat $W/bg.$1; fi
}
ended() {
  until_true gone $1 || return 1
  wait ${jobs[$1]}
  local r=$?
  cat $W/bg.$1
  return $r
}
