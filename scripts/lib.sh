# shellcheck shell=bash
# What the scripts share: saying what runs, finding Nix and PostgreSQL, and a Nix store in a directory of its own.
# This file is read by the others (`. "${BASH_SOURCE%/*}/lib.sh"`); it does nothing by itself.

# The oldest Nix that cache-helper works with.
oldest_nix=2.8

# `cargo install` puts programs where not every shell looks, and Debian keeps nginx and NATS where only root looks.
PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin:/usr/local/sbin:/usr/sbin

# What may be kept between runs and lost at any time.
# shellcheck disable=SC2034 # Used by those who read this file.
cache_directory=${XDG_CACHE_HOME:-$HOME/.cache}/cache-helper

# Where scripts/setup puts actionlint's WebAssembly build, with the version of actionlint that it is.
# shellcheck disable=SC2034
actionlint_directory=$cache_directory/actionlint-1.7.7

# Gives up with one line that says why and, if there is anything, what to do.
die() {
  echo "${0##*/}: $*" >&2
  exit 1
}

# Prints a command as one would type it, then runs it.
run() {
  show "$@"
  "$@"
}

show() {
  {
    printf '$'
    printf ' %q' "$@"
    printf '\n'
  } >&2
}

have() {
  command -v "$1" >/dev/null
}

# at_least 2.18.1 2.8: whether the first version is the second or newer.
at_least() {
  [ "$(printf '%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]
}

# The version of the Nix in a directory; nothing where there is none that runs.
# The last word is the version in all of `nix (Nix) 2.8.0`, `nix (Lix, like Nix) 2.91.0`, `nix (Determinate Nix 3.5.2) 2.28.3`.
nix_version() {
  local words
  read -ra words < <("$1/nix" --version 2>/dev/null) || return 0
  echo "${words[-1]}"
}

# Prints the directories that hold a Nix that is new enough: those on PATH, then those where installers put it.
nix_directories() {
  local places directory version seen=:
  IFS=: read -ra places <<<"$PATH"
  places+=(
    /nix/var/nix/profiles/default/bin /run/current-system/sw/bin
    "$HOME/.nix-profile/bin" "${XDG_STATE_HOME:-$HOME/.local/state}/nix/profile/bin" /usr/bin
  )
  for directory in "${places[@]}"; do
    [ -x "$directory/nix" ] || continue
    case $seen in *":$directory:"*) continue ;; esac
    seen+=$directory:
    version=$(nix_version "$directory")
    if [ -n "$version" ] && at_least "$version" "$oldest_nix"; then
      echo "$directory"
    fi
  done
}

# Prints the directory that holds PostgreSQL's server: the one on PATH, or else the newest of those that Debian has beside
# each other, none of them on PATH. Nothing where there is none.
postgresql_directory() {
  local places
  if have initdb && have pg_ctl && have postgres; then
    dirname "$(command -v pg_ctl)"
    return
  fi
  places=$(compgen -G '/usr/lib/postgresql/*/bin/pg_ctl') || return 0
  dirname "$(sort -V <<<"$places" | tail -n 1)"
}

# Where cargo puts what it builds, which configuration and environment may move.
target_directory() {
  cargo metadata --locked --no-deps --format-version 1 | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p'
}

# Points Nix, and every program that asks it, at a store under a directory. Nothing outside that directory is read
# or written: no /nix, no daemon, no settings or caches of the user, no substituter.
use_store_in() {
  local directory variable
  mkdir -p "$1"
  # Nix refuses a store below a symbolic link, which a temporary directory may well be.
  directory=$(cd "$1" && pwd -P)
  for variable in ${!NIX_*}; do
    unset "$variable"
  done
  export NIX_STORE_DIR=$directory/store NIX_STATE_DIR=$directory/var NIX_LOG_DIR=$directory/log
  export NIX_CONF_DIR=$directory/etc HOME=$directory/home
  export XDG_CACHE_HOME=$HOME/.cache XDG_CONFIG_HOME=$HOME/.config
  export XDG_DATA_HOME=$HOME/.local/share XDG_STATE_HOME=$HOME/.local/state
  mkdir -p "$NIX_STORE_DIR" "$NIX_STATE_DIR" "$NIX_LOG_DIR" "$NIX_CONF_DIR" "$HOME"
  cat >"$NIX_CONF_DIR/nix.conf" <<'END'
experimental-features = nix-command flakes
# The sandbox and build users need root, and /bin/sh would not be in the sandbox.
sandbox = false
build-users-group =
# Nothing is asked over the network.
substituters =
flake-registry =
END
}

# Removes directories that a store may be in: Nix takes the write permission from all that it keeps.
throw_away() {
  local directory
  for directory in "$@"; do
    [ -e "$directory" ] || continue
    chmod -R u+w "$directory"
    rm -rf "$directory"
  done
}
