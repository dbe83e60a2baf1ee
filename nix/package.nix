# The program. Its tests are checks of their own (checks.nix), so that nobody who wants the program waits for them.
{
  lib,
  rustPlatform,
}:

let
  inherit (lib) fileset;
  inherit (lib.importTOML ../Cargo.toml) package;

  # Only what cargo reads to build it, so that a change to a test, a script or a page of documentation rebuilds nothing.
  files = fileset.unions [
    ../Cargo.lock
    ../Cargo.toml
    ../src
    # Cargo looks for whatever Cargo.toml names.
    ../tests/integration/main.rs
  ];
in
rustPlatform.buildRustPackage {
  pname = package.name;
  inherit (package) version;

  src = fileset.toSource {
    root = ../.;
    fileset = files;
  };
  cargoLock.lockFile = ../Cargo.lock;

  doCheck = false;

  # For checks.nix, which adds what they need.
  passthru.fileset = files;

  meta = {
    inherit (package) description;
    license = with lib.licenses; [
      mit
      asl20
    ];
    mainProgram = "cache-helper";
  };
}
