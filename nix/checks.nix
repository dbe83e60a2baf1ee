# What `nix flake check` builds.
{ pkgs, cache-helper }:

{
  package = cache-helper;

  clippy = cache-helper.overrideAttrs (previous: {
    pname = "${previous.pname}-clippy";
    nativeBuildInputs = previous.nativeBuildInputs ++ [ pkgs.clippy ];
    buildPhase = ''
      runHook preBuild
      cargo clippy --offline --all-targets -- --deny warnings
      runHook postBuild
    '';
    doCheck = false;
    installPhase = "touch $out";
  });

  formatting =
    pkgs.runCommand "cache-helper-formatting"
      {
        nativeBuildInputs = [
          pkgs.cargo
          pkgs.rustfmt
        ];
      }
      ''
        cd ${cache-helper.src}
        cargo fmt --check
        touch $out
      '';
}
