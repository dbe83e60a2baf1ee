# A build graph of `count` derivations with some of everything: what tests and scripts/bench load. Nothing of it is built.
#
# The derivations stand in rows of `width`. Each needs the one above it, so that all are needed, and some of any row before its
# own; `top`, the last, needs the last row. Where there is a `seed`, one more that says it is needed by all.
{ count, width ? 40, bytes ? 0, seed ? "" }:

let
  inherit (builtins) concatStringsSep elemAt genList stringLength substring;
  mod = a: b: a - b * (a / b);

  # What a builder's text looks like, with what has to be escaped.
  line = "install -m 644 \"$src/share/file\" \"$out/share\"\n";
  text = substring 0 bytes (concatStringsSep "" (genList (_: line) (bytes / stringLength line + 1)));

  source = builtins.toFile "builder.sh" "echo $name > $out";

  common = {
    system = "x86_64-linux";
    builder = "/bin/sh";
    args = [ "-e" source ];
    inherit text;
  } // (if seed == "" then { } else {
    seed = derivation {
      name = "seed";
      system = "x86_64-linux";
      builder = "/bin/sh";
      flags = seed;
    };
  });

  # A third also has the output `dev`, which is the one that others want.
  wanted = node: node.dev or node.out;

  downloaded = n: {
    outputHashMode = "flat";
    outputHashAlgo = "sha256";
    outputHash = builtins.hashString "sha256" (toString n);
  };

  node = n:
    let
      row = n - mod n width;
      others = map (j: mod (n * 7919 + j * 104729) row) (genList (j: j) 6);
      needed = if n < width then [ ] else [ (n - width) ] ++ others;
    in
    derivation (common // {
      name = "node-${toString n}";
      inputs = map (other: wanted (elemAt nodes other)) needed;
    } // (if mod n 3 == 1 && n >= width then { outputs = [ "out" "dev" ]; } else { })
      // (if mod n 3 == 1 && n < width then downloaded n else { }));

  nodes = genList node (count - 1);
  last = genList (n: n + (if count - 1 > width then count - 1 - width else 0)) (if count - 1 > width then width else count - 1);
in
derivation (common // {
  name = "top";
  inputs = map (n: wanted (elemAt nodes n)) last;
})
