# mkDerivation and what it stands on.
{ lib, system }:

let
  path = "/usr/bin:/bin:/run/current-system/sw/bin";

  # One that does not need mkDerivation.
  bootstrap =
    attributes: script:
    derivation (
      {
        inherit system;
        builder = "/bin/sh";
        args = [
          "-ec"
          script
        ];
        PATH = path;
      }
      // attributes
    );

  # As in nixpkgs, `nix build` takes two of its outputs.
  bashInteractive =
    bootstrap
      {
        name = "bash-interactive-5.3p9";
        outputs = [
          "out"
          "man"
        ];
      }
      ''
        mkdir -p $out/bin $man/share/man/man1
        ln -s "$(command -v bash)" $out/bin/bash
        echo 'the manual of bash' > $man/share/man/man1/bash.1
      ''
    // {
      meta.outputsToInstall = [
        "out"
        "man"
      ];
    };

  shell = "${bash}/bin/bash";

  bash = bootstrap { name = "bash-5.3p9"; } ''
    mkdir -p $out/bin
    ln -s "$(command -v bash)" $out/bin/bash
  '';

  cc = bootstrap { name = "gcc-wrapper-15.2.0"; } ''
    mkdir -p $out/bin
    printf '#!/bin/sh\necho gcc 15.2.0\n' > $out/bin/cc
    chmod +x $out/bin/cc
  '';

  setup = bootstrap { name = "stdenv-linux"; } ''
    mkdir $out
    cat ${./setup.sh} > $out/setup
  '';

  mkDerivation =
    attributes:
    let
      arguments =
        {
          inherit system;
          name = attributes.name or "${attributes.pname}-${attributes.version}";
          builder = shell;
          args = [
            "-e"
            ./default-builder.sh
          ];
          outputs = [ "out" ];
          stdenv = setup;
          initialPath = [
            bash
            cc
          ];
          buildInputs = [ ];
          nativeBuildInputs = [ ];
        }
        // removeAttrs attributes [
          "env"
          "meta"
          "passthru"
        ]
        // (attributes.env or { });
    in
    derivation arguments
    // {
      inherit (arguments) name;
      # Always builds, and refers to everything that the derivation is built from.
      inputDerivation = derivation (
        arguments
        // {
          name = "inputDerivation-${arguments.name}";
          outputs = [ "out" ];
          _derivation_original_builder = arguments.builder;
          _derivation_original_args = arguments.args;
          args = [
            "-c"
            "declare -p > $out"
          ];
        }
      );
      overrideAttrs =
        change:
        mkDerivation (
          attributes
          // (if builtins.isFunction change then change attributes else change)
        );
      meta = attributes.meta or { };
      passthru = attributes.passthru or { };
    }
    // builtins.intersectAttrs {
      pname = null;
      src = null;
      version = null;
      nativeBuildInputs = null;
    } attributes
    // attributes.passthru or { };
in
{
  inherit bash bashInteractive bootstrap;
  stdenv = {
    inherit cc mkDerivation shell;
    hostPlatform = {
      inherit system;
      isDarwin = lib.hasPrefix "aarch64-darwin" system;
    };
  };
}
