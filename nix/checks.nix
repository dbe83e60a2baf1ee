# What `nix flake check` builds.
{
  lib,
  callPackage,
  runCommand,
  clippy,
  cache-helper,
  formatter,
  self,
  shells,
}:

let
  inherit (lib) fileset;

  sources =
    more:
    fileset.toSource {
      root = ../.;
      fileset = fileset.unions ([ cache-helper.fileset ] ++ more);
    };

  # The package with another command in place of its build.
  instead =
    name: tools: command:
    cache-helper.overrideAttrs (previous: {
      pname = "${previous.pname}-${name}";
      src = sources [
        ../clippy.toml
        # Unit tests hold pages against the code.
        ../docs
        ../tests/integration
      ];
      nativeBuildInputs = previous.nativeBuildInputs ++ tools;
      buildPhase = ''
        runHook preBuild
        ${command}
        runHook postBuild
      '';
      installPhase = "touch $out";
    });

  formatted = sources [
    ../examples
    ../flake.nix
    ../nix
    ../rustfmt.toml
    ../tests
  ];
in
{
  package = cache-helper;

  clippy = instead "clippy" [ clippy ] "cargo clippy --offline --locked --all-targets -- --deny warnings";

  # The integration tests drive a Nix of their own, which the sandbox has no room for. Those of the house need none.
  tests = instead "tests" [ ] ''
    cargo test --offline --locked --lib --bins
    cargo test --offline --locked --test integration -- house::
  '';

  formatting = runCommand "cache-helper-formatting" { } ''
    cp --recursive --no-preserve=mode ${formatted} source
    cd source
    ${lib.getExe formatter} --check
    touch $out
  '';

  flake-inputs = callPackage ./flake-inputs.nix { } self;
}
// lib.mapAttrs' (name: shell: lib.nameValuePair "shell-${name}" shell.inputDerivation) shells
