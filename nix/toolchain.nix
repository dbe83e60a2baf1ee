# The languages, at the versions that the team has agreed on.
#
# A nixpkgs that has others fails here, with a sentence, and not weeks later in somebody's build.
{
  lib,
  beam28Packages,
  python311,
}:

let
  # Elixir and all that is built with it come from one package set, so that they run on one Erlang: what is at the top level
  # of nixpkgs need not (https://github.com/NixOS/nixpkgs/issues/526423).
  beam = beam28Packages.overrideScope (
    _: previous: {
      elixir = previous.elixir_1_19;
    }
  );

  agreed =
    what: wanted: package:
    let
      found = package.version;
    in
    if found == wanted || lib.hasPrefix "${wanted}." found then
      package
    else
      throw ''
        the team has agreed on ${what} ${wanted}, and the nixpkgs in flake.lock has ${what} ${found}. Pin another revision, or change nix/toolchain.nix and tell the team.'';
in
{
  erlang = agreed "Erlang/OTP" "28" beam.erlang;
  elixir = agreed "Elixir" "1.19" beam.elixir;
  inherit (beam) elixir-ls hex rebar3;
  python = agreed "Python" "3.11" python311;
}
