# The shells of `nix develop`.
{
  lib,
  mkShell,
  cache-helper,
  toolchain,

  actionlint,
  bashInteractive,
  bun,
  cachix,
  cargo,
  cargo-deny,
  cargo-nextest,
  clippy,
  flock,
  just,
  moon,
  nats-server,
  natscli,
  nginx,
  postgresql_17,
  rust-analyzer,
  rustPlatform,
  rustc,
  rustfmt,
  shellcheck,
}:

let
  # What a job needs to build and test what the team writes.
  building = [
    toolchain.erlang
    toolchain.elixir
    toolchain.hex
    toolchain.rebar3

    cargo
    clippy
    rustc
    rustfmt

    bun
    cache-helper
    cachix
    just
    moon
  ];

  # What a person needs besides.
  working = [
    toolchain.elixir-ls
    rust-analyzer

    nats-server
    natscli
    postgresql_17
    # For scripts/database and scripts/nats. macOS has none.
    flock

    # For scripts/test of this project.
    actionlint
    cargo-deny
    cargo-nextest
    nginx
    shellcheck
  ]
  # What `nix develop` takes of the bash that it starts. Here it is part of what `nix build .#dev` builds, too.
  ++ map (output: bashInteractive.${output}) bashInteractive.meta.outputsToInstall;

  environment = {
    # Mix takes Hex and rebar3 from here and does not fetch its own.
    MIX_PATH = "${toolchain.hex}/lib/erlang/lib/hex/ebin";
    MIX_REBAR3 = "${toolchain.rebar3}/bin/rebar3";
    # File names are UTF-8, whatever the locale is.
    ELIXIR_ERL_OPTIONS = "+fnu";
    ERL_AFLAGS = "-kernel shell_history enabled";
  };

  # For rust-analyzer.
  sources.RUST_SRC_PATH = "${rustPlatform.rustLibSrc}";

  # No public cache builds Python packages for 3.11, so that this is compiled from source wherever our own cache lacks it.
  pythonWithTorch = toolchain.python.withPackages (packages: [ packages.torch ]);
in
{
  dev = mkShell (
    environment
    // sources
    // {
      name = "dev";
      packages = building ++ working ++ [ toolchain.python ];
    }
  );

  ci = mkShell (
    environment
    // {
      name = "ci";
      packages = building ++ [ toolchain.python ];
    }
  );

  ml = mkShell (
    environment
    // sources
    // {
      name = "ml";
      packages = building ++ working ++ [ pythonWithTorch ];
      shellHook = ''
        echo "PyTorch on Python 3.11 is in no public cache: what https://mikkihugo.cachix.org lacks of it is" >&2
        echo "compiled here, for hours. Before an update: cache-helper audit .#devShells.$system.ml.inputDerivation" >&2
      '';
    }
  );
}
