# What the flake offers for one system.
{ self, pkgs }:

let
  inherit (pkgs) lib;
  cache-helper = pkgs.callPackage ./package.nix { };
  toolchain = pkgs.callPackage ./toolchain.nix { };
  shells = pkgs.callPackage ./shells.nix { inherit cache-helper toolchain; };
  formatter = pkgs.callPackage ./formatter.nix { };
  app = {
    type = "app";
    program = lib.getExe cache-helper;
    meta.description = cache-helper.meta.description;
  };
in
{
  packages = {
    inherit cache-helper;
    default = cache-helper;
    # `nix build .#dev` makes everything valid that `nix develop .#dev` needs. The shell's own output would not do: it is of
    # no use, and refers to less.
    dev = shells.dev.inputDerivation;
  };

  devShells = shells // {
    default = shells.dev;
  };

  apps = {
    cache-helper = app;
    default = app;
  };

  checks = pkgs.callPackages ./checks.nix {
    inherit
      cache-helper
      formatter
      self
      shells
      ;
  };

  inherit formatter;
}
