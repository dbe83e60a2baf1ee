# The sources of a flake's inputs and of theirs, as one derivation: whoever has it can evaluate without fetching anything.
{ lib, writeText }:

flake:
let
  # An input that is no flake has no inputs of its own.
  sourcesOf =
    flake:
    lib.concatMap (input: [ "${input}" ] ++ sourcesOf input) (builtins.attrValues (flake.inputs or { }));
in
writeText "flake-inputs" (lib.concatLines (lib.unique (sourcesOf flake)))
