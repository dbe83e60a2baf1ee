# What `$stdenv/setup` does that a shell and a simple build can see: PATH holds the programs of the inputs, and genericBuild
# runs the phases. It is read by builders and by `nix develop`.

export PATH=
addToPath() {
  if [ -d "$1/bin" ]; then PATH=${PATH:+$PATH:}$1/bin; fi
}
for input in $nativeBuildInputs $buildInputs $initialPath; do
  addToPath "$input"
done
# In place of coreutils, which the distribution has.
PATH=$PATH:/usr/bin:/bin:/run/current-system/sw/bin

runHook() {
  eval "${!1:-}"
}

genericBuild() {
  if [ -n "${buildCommand:-}" ]; then
    eval "$buildCommand"
    return
  fi
  if [ -n "${src:-}" ]; then
    cp -r "$src" source
    chmod -R u+w source
    cd source
  fi
  eval "${buildPhase:-}"
  eval "${installPhase:-}"
}
