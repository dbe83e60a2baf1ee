# The program, with the tests that need neither Nix nor a network.
{
  lib,
  rustPlatform,
}:

let
  inherit (lib) fileset;
  inherit (lib.importTOML ../Cargo.toml) package;
in
rustPlatform.buildRustPackage {
  pname = package.name;
  inherit (package) version;

  # Only what cargo reads, so that a change to a script or a page of documentation rebuilds nothing.
  src = fileset.toSource {
    root = ../.;
    fileset = fileset.unions [
      ../Cargo.lock
      ../Cargo.toml
      ../clippy.toml
      ../rustfmt.toml
      ../src
      ../tests
    ];
  };
  cargoLock.lockFile = ../Cargo.lock;

  # The integration tests drive a Nix of their own, which the sandbox has no room for.
  cargoTestFlags = [
    "--lib"
    "--bins"
  ];

  meta = {
    inherit (package) description;
    license = with lib.licenses; [
      mit
      asl20
    ];
    mainProgram = "cache-helper";
  };
}
