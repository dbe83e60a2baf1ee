{
  description = "Keeps a team's Nix binary cache hot";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";

  outputs =
    { self, nixpkgs }:
    let
      # nixpkgs 26.05 is the last release with x86_64-darwin.
      systems = [
        "x86_64-linux"
        "aarch64-linux"
        "aarch64-darwin"
      ];
      eachSystem = outputsOf: nixpkgs.lib.genAttrs systems (system: outputsOf nixpkgs.legacyPackages.${system});
    in
    {
      packages = eachSystem (pkgs: rec {
        cache-helper = pkgs.callPackage ./nix/package.nix { };
        default = cache-helper;
      });

      checks = eachSystem (
        pkgs:
        import ./nix/checks.nix {
          inherit pkgs;
          inherit (self.packages.${pkgs.stdenv.hostPlatform.system}) cache-helper;
        }
      );
    };
}
