{
  description = "A small project that Nix builds without nixpkgs and without a network";

  outputs =
    { self }:
    let
      systems = [
        "x86_64-linux"
        "aarch64-linux"
      ];
    in
    {
      packages = builtins.listToAttrs (
        map (system: {
          name = system;
          value = import ./. { inherit system; };
        }) systems
      );
    };
}
