# shellcheck shell=bash
# What scripts/database and scripts/nats share: a private directory for each service below .services, one call at a
# time, and whether the process that a file names is the service.
# This file is read by them after lib.sh (`. scripts/services.sh`); by itself it only says where things are.

umask 077
# How many seconds a server has to start or to end. It reads all that it keeps when it starts.
limit=60
project=$(pwd -P)
services=$project/.services
# A line break would end up in files that are read line by line.
case $project in
  *$'\n'*) die "the project's directory has a line break in its name: move it to one that has none" ;;
esac

# use_state NAME: which of the services this is about. Nothing is made.
use_state() {
  state=$services/$1
}

# What the server's command line has, so that it is known for this project's. The project's path would be lost when it
# is moved, and a word that is kept in a file would be copied with it.
token() {
  local inode
  read -r inode _ < <(ls -di "$state")
  echo "cache-helper-${state##*/}-$inode"
}

# Gives up where a directory is there and is somebody else's.
must_own() {
  local owner
  if [ -e "$1" ] && [ ! -O "$1" ]; then
    read -r _ _ owner _ < <(ls -ld "$1")
    die "$1 belongs to $owner: call this as $owner, or have it removed"
  fi
}

# Makes the service's directory where there is none, waits until no other call is at work in it, and enters it.
enter_state() {
  have flock || die "flock is missing: work inside \`nix develop\`, or install util-linux"
  must_own "$services"
  mkdir -p "$state" || die "cannot make $state: call this as the user who owns $project"
  must_own "$state"
  chmod 700 "$services" "$state" || exit
  cd "$state" || exit
  # Held until this script ends, and what it has started: an initdb that outlives it is still at work. Only a server
  # does not get it.
  exec {lock}<.
  flock -w "$((2 * limit))" "$lock" || die "another call is still at work in $state: end it, then try again"
}

# Whether the service runs. It is entered, but where it has no directory yet, none is made just to know that.
is_up() {
  must_own "$services"
  [ -d "$state" ] || return 1
  enter_state
  running
}

# The process number at the start of a file, if there is one.
number_in() {
  local number=''
  # NATS ends its file without a line break.
  { read -r number || true; } 2>/dev/null <"$1" || true
  [[ $number =~ ^[1-9][0-9]*$ ]] && echo "$number"
}

# The command line of a process, if there is one. After a crash, the number that the server has left in a file may be
# any other process's.
command_line() {
  if [ -d /proc/self ]; then
    tr '\0' ' ' 2>/dev/null <"/proc/$1/cmdline"
  else
    # macOS has it there, whatever PATH is.
    /bin/ps -ww -o command= -p "$1"
  fi
}

# is_server NUMBER WORD: whether a process has that word on its command line.
is_server() {
  [[ " $(command_line "$1") " == *" $2 "* ]]
}

# Waits until no process of the server lives any more, and holds the lock that tells so. A server that is started then
# has it in turn, with all the processes that it starts: they inherit the open file, and the kernel lets it go with the
# last of them.
wait_for_end() {
  exec {alive}>"$state/alive"
  flock -w "$limit" "$alive"
}

# Gives up as die does, below the end of the service's log.
fail() {
  tail -n 20 "$state/log" | sed 's/^/  /' >&2
  die "$*; the lines above are the end of $state/log"
}
