# `nix fmt`: all that has one right form. With arguments, these files and directories; without, the whole repository.
{
  writeShellApplication,
  cargo,
  findutils,
  nixfmt,
  rustfmt,
}:

writeShellApplication {
  name = "format";
  runtimeInputs = [
    cargo
    findutils
    nixfmt
    rustfmt
  ];
  text = ''
    # `--check` changes nothing, and fails where something would be changed.
    check=()
    if [ "''${1:-}" = --check ]; then
      check=(--check)
      shift
    fi
    [ $# -gt 0 ] || set -- .
    find "$@" -name target -prune -o -name '*.nix' -type f -print0 | xargs -0 nixfmt "''${check[@]}"
    if [ -e Cargo.toml ]; then cargo fmt "''${check[@]}"; fi
  '';
}
