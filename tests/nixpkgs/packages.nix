# The packages, each a script that says its name and version, and the functions that build others.
{ lib, system }:

let
  inherit (import ./stdenv.nix { inherit lib system; })
    bash
    bashInteractive
    bootstrap
    stdenv
    ;

  # A package whose programs say what they are. It refers to what it is built with.
  tool =
    pname: version: programs: builtWith:
    bootstrap
      {
        name = "${pname}-${version}";
        inherit programs;
        says = "${pname} ${version}${
          builtins.concatStringsSep "" (map (other: " (with ${other.name})") builtWith)
        }";
        uses = builtWith;
      }
      ''
        mkdir -p $out/bin
        for program in $programs; do
          printf '#!/bin/sh\n# Uses %s\necho "%s"\n' "$uses" "$says" > $out/bin/$program
          chmod +x $out/bin/$program
        done
      ''
    // {
      inherit pname version;
      meta.mainProgram = builtins.head (lib.splitString " " programs);
    };
  simple = pname: version: tool pname version pname [ ];

  # Gone from the top level, or going: whoever uses them gets another Erlang than they think, or a warning.
  gone = name: throw "${name} is an alias that nixpkgs gives up";

  beamPackagesWith =
    erlang:
    lib.makeScope (scope: lib.callPackageWith (packages // scope)) (self: {
      inherit erlang;
      elixir = self.elixir_1_18;
      elixir_1_18 = tool "elixir" "1.18.4" "elixir iex mix" [ self.erlang ];
      elixir_1_19 = tool "elixir" "1.19.5" "elixir iex mix" [ self.erlang ];
      elixir-ls = tool "elixir-ls" "0.30.0" "elixir-ls" [ self.elixir ];
      hex = tool "hex" "2.3.1" "" [ self.elixir ];
      rebar3 = tool "rebar3" "3.26.0" "rebar3" [ self.erlang ];
    });

  python =
    version:
    tool "python3" version "python3 python3.11" [ ]
    // {
      withPackages =
        choose: tool "python3" "${version}-env" "python3 python3.11" (choose pythonPackages);
    };
  pythonPackages.torch = simple "torch" "2.11.0";

  mkShell =
    attributes@{
      name ? "nix-shell",
      packages ? [ ],
      ...
    }:
    stdenv.mkDerivation (
      removeAttrs attributes [ "packages" ]
      // {
        inherit name;
        nativeBuildInputs = packages ++ attributes.nativeBuildInputs or [ ];
        phases = [ "buildPhase" ];
        # Record all build inputs as runtime dependencies.
        buildPhase = ''
          export > "$out"
        '';
        preferLocalBuild = true;
      }
    );

  # Builds nothing, but wants what the real one wants: a source with a Cargo.toml, and a lock file.
  buildRustPackage =
    attributes@{
      pname,
      version,
      src,
      cargoLock,
      ...
    }:
    assert builtins.pathExists cargoLock.lockFile;
    stdenv.mkDerivation (
      {
        buildPhase = ''
          runHook preBuild
          [ -e Cargo.toml ] && [ -e Cargo.lock ]
          cargo build --release
          runHook postBuild
        '';
        installPhase = ''
          mkdir -p $out/bin
          printf '#!/bin/sh\necho "${pname} ${version}"\n' > $out/bin/${pname}
          chmod +x $out/bin/${pname}
        '';
      }
      // removeAttrs attributes [ "cargoLock" ]
      // {
        nativeBuildInputs = attributes.nativeBuildInputs or [ ] ++ [
          packages.cargo
          packages.rustc
        ];
      }
    );

  writeText =
    name: text:
    stdenv.mkDerivation {
      inherit name text;
      passAsFile = [ "text" ];
      buildCommand = "cp $textPath $out";
    };

  runCommand =
    name: environment: buildCommand:
    stdenv.mkDerivation ({ inherit name buildCommand; } // environment);

  writeShellApplication =
    {
      name,
      runtimeInputs ? [ ],
      text,
    }:
    stdenv.mkDerivation {
      inherit name;
      script = ''
        #!${bash}/bin/bash
        set -o errexit
        set -o nounset
        set -o pipefail
        export PATH="${builtins.concatStringsSep ":" (map (input: "${input}/bin") runtimeInputs)}:$PATH"
        ${text}
      '';
      passAsFile = [ "script" ];
      buildCommand = ''
        mkdir -p $out/bin
        cp $scriptPath $out/bin/${name}
        chmod +x $out/bin/${name}
      '';
      meta.mainProgram = name;
    };

  packages = {
    inherit
      bash
      bashInteractive
      lib
      mkShell
      runCommand
      stdenv
      system
      writeShellApplication
      writeText
      ;
    callPackage = lib.callPackageWith packages;
    callPackages = lib.callPackageWith packages;

    beam28Packages = beamPackagesWith (tool "erlang" "28.5.0.2" "erl erlc escript" [ ]);
    elixir = gone "elixir";
    elixir_1_19 = gone "elixir_1_19";
    elixir-ls = gone "elixir-ls";
    erlang = gone "erlang";
    erlang_28 = gone "erlang_28";
    hex = gone "hex";
    rebar3 = gone "rebar3";
    nixfmt-rfc-style = gone "nixfmt-rfc-style";
    nodePackages = gone "nodePackages";

    cargo = simple "cargo" "1.95.0";
    clippy = tool "clippy" "1.95.0" "cargo-clippy clippy-driver" [ ];
    rustc = simple "rustc" "1.95.0";
    rustfmt = tool "rustfmt" "1.95.0" "rustfmt cargo-fmt" [ ];
    rust-analyzer = simple "rust-analyzer" "2026-05-18";
    rustPlatform = {
      inherit buildRustPackage;
      rustLibSrc = tool "rust-lib-src" "1.95.0" "" [ ];
    };

    python311 = python "3.11.15";
    python311Packages = pythonPackages;

    postgresql_17 = tool "postgresql" "17.10" "postgres psql initdb pg_ctl createdb" [ ];
    nats-server = simple "nats-server" "2.14.4";
    natscli = tool "natscli" "0.3.2" "nats" [ ];
    flock = simple "flock" "0.4.0";

    bun = simple "bun" "1.3.4";
    cachix = simple "cachix" "1.11.1";
    just = simple "just" "1.51.0";
    moon = simple "moon" "1.41.7";

    actionlint = simple "actionlint" "1.7.12";
    cargo-deny = simple "cargo-deny" "0.20.2";
    cargo-nextest = simple "cargo-nextest" "0.9.143";
    findutils = tool "findutils" "4.10.0" "" [ ];
    nginx = simple "nginx" "1.30.0";
    nixfmt = simple "nixfmt" "1.2.0";
    shellcheck = simple "shellcheck" "0.11.0";
  };
in
packages
