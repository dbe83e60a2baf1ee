{
  description = "Keeps a team's Nix binary cache hot";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";

  # What the team has built. Nix takes these from a flake only if it is told to: see README.md.
  nixConfig = {
    extra-substituters = [ "https://mikkihugo.cachix.org" ];
    extra-trusted-public-keys = [
      "mikkihugo.cachix.org-1:dxqCDAvMSMefAFwSnXYvUdPnHJYq+pqF8tul8bih9Po="
    ];
  };

  outputs =
    { self, nixpkgs }:
    let
      inherit (nixpkgs) lib;
      # nixpkgs 26.05 is the last release with x86_64-darwin.
      systems = [
        "x86_64-linux"
        "aarch64-linux"
        "aarch64-darwin"
      ];
      perSystem = lib.genAttrs systems (
        system:
        import ./nix {
          inherit self;
          pkgs = nixpkgs.legacyPackages.${system};
        }
      );
      eachSystem = output: lib.mapAttrs (_: outputs: outputs.${output}) perSystem;
    in
    {
      packages = eachSystem "packages";
      devShells = eachSystem "devShells";
      apps = eachSystem "apps";
      checks = eachSystem "checks";
      formatter = eachSystem "formatter";
      overlays.default = import ./nix/overlay.nix;
    };
}
