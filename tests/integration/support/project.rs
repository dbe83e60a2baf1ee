//! Small Nix expressions with chosen reference graphs. They need `/bin/sh` and coreutils, no nixpkgs and no network.
//!
//! Each function gives the text of an attribute set of derivations.

use std::fmt::Write as _;

/// The attribute set with these attributes, written in terms of `d { name; script; … }`.
fn with(attributes: &str) -> String {
    format!(
        r#"let
  d = {{ name, script, ... }}@a: derivation ({{
    inherit name;
    system = "{arch}-linux";
    builder = "/bin/sh";
    PATH = "/usr/bin:/bin:/run/current-system/sw/bin";
    args = [ "-euc" script ];
  }} // removeAttrs a [ "name" "script" ]);
in rec {{
{attributes}}}
"#,
        arch = std::env::consts::ARCH
    )
}

/// `p0`, and each further `pN` refers to the one before: `count` paths, each with so many incompressible bytes.
pub(crate) fn chain(count: usize, bytes: usize) -> String {
    let mut text = String::new();
    for n in 0..count {
        let below = n.checked_sub(1).map_or(String::new(), |n| format!("${{p{n}}}"));
        let script =
            format!("mkdir $out; echo p{n} {below} > $out/text; head -c {bytes} /dev/urandom > $out/noise");
        writeln!(text, "  p{n} = d {{ name = \"p{n}\"; script = \"{script}\"; }};").unwrap();
    }
    with(&text)
}

/// `base`, `left` and `right` on it, `top` on both.
pub(crate) fn diamond() -> String {
    with(
        r#"
  base = d { name = "base"; script = "mkdir $out; echo base > $out/text"; };
  left = d { name = "left"; script = "mkdir $out; echo left ${base} > $out/text"; };
  right = d { name = "right"; script = "mkdir $out; echo right ${base} > $out/text"; };
  top = d { name = "top"; script = "mkdir $out; echo ${left} ${right} > $out/text"; };
"#,
    )
}

/// `leaf0`, `leaf1`, … with so many incompressible bytes each, and `top` that refers to all: `count + 1` paths.
pub(crate) fn wide(count: usize, bytes: usize) -> String {
    let mut text = String::new();
    let mut all = String::new();
    for n in 0..count {
        writeln!(
            text,
            "  leaf{n} = d {{ name = \"leaf{n}\"; script = \"mkdir $out; head -c {bytes} /dev/urandom > $out/noise\"; }};"
        )
        .unwrap();
        write!(all, " ${{leaf{n}}}").unwrap();
    }
    writeln!(text, "  top = d {{ name = \"top\"; script = \"mkdir $out; echo{all} > $out/text\"; }};")
        .unwrap();
    with(&text)
}

/// `big`, one path with one file of so many bytes that do not compress, on `base`.
pub(crate) fn big(bytes: usize) -> String {
    with(&format!(
        r#"
  base = d {{ name = "base"; script = "mkdir $out; echo base > $out/text"; }};
  big = d {{ name = "big"; script = "mkdir $out; echo ${{base}} > $out/text; head -c {bytes} /dev/urandom > $out/noise"; }};
"#
    ))
}

/// `multi` with outputs `out`, `dev`, `doc`; `out` refers to `base`, `dev` to `out`, `doc` to nothing. `user` refers to `dev`.
pub(crate) fn multi() -> String {
    with(
        r#"
  base = d { name = "base"; script = "mkdir $out; echo base > $out/text"; };
  multi = d {
    name = "multi"; outputs = [ "out" "dev" "doc" ];
    script = "mkdir $out $dev $doc; echo ${base} > $out/text; echo $out > $dev/text; echo manual > $doc/text";
  };
  user = d { name = "user"; script = "mkdir $out; echo ${multi.dev} > $out/text"; };
"#,
    )
}

/// Content-addressed leaves of every kind that needs no experimental feature, `fixed`, `tree` and `text`, and `top` on all, which is not.
pub(crate) fn addressed() -> String {
    with(
        r#"
  fixed = d {
    name = "fixed"; script = "printf fixed > $out";
    outputHashMode = "flat"; outputHashAlgo = "sha256"; outputHash = builtins.hashString "sha256" "fixed";
  };
  tree = builtins.path { name = "tree"; path = ./tree; };
  text = builtins.toFile "text" "refers to nothing";
  top = d { name = "top"; script = "mkdir $out; echo ${fixed} ${tree} ${text} > $out/text"; };
"#,
    )
}

/// Every shape a path can have, all below `zoo`: a self reference, executables, links dangling and not, empty files and directories,
/// names with every character, a file as output, a link as output, several outputs, a fixed-output leaf, and two
/// paths with the same bytes.
pub(crate) fn zoo() -> String {
    with(
        r#"
  itself = d { name = "itself"; script = "mkdir $out; echo $out > $out/self"; };
  fixed = d {
    name = "fixed"; script = "printf fixed > $out";
    outputHashMode = "flat"; outputHashAlgo = "sha256"; outputHash = builtins.hashString "sha256" "fixed";
  };
  text = builtins.toFile "text" "refers to nothing";
  tools = d { name = "tools"; script = ''
    mkdir -p $out/bin $out/libexec
    printf '#!/bin/sh\necho hello\n' > $out/bin/hello; chmod +x $out/bin/hello
    ln -s hello $out/bin/alias
    ln -s ${itself}/self $out/libexec/elsewhere
    ln -s /nowhere/at/all $out/libexec/dangling
    ln $out/bin/hello $out/libexec/hardlink
  ''; };
  empties = d { name = "empties"; script = "mkdir -p $out/dir/below; : > $out/file; : > $out/dir/.hidden"; };
  names = d { name = "Names-0+1.2_3?=Z"; script = ''
    mkdir $out; cd $out
    : > 'with space'; : > 'quote"and'\'; : > 'new
line'; : > ünïcode; : > "$(printf 'bytes\377')"; : > -dash; : > 'a=b?c&d%20#e'; : > '\back'
  ''; };
  file = d { name = "file"; script = "echo ${fixed} > $out"; };
  program = d { name = "program"; script = "printf '#!/bin/sh\n' > $out; chmod +x $out"; };
  link = d { name = "link"; script = "ln -s ${file} $out"; };
  deep = d { name = "deep"; script = ''
    mkdir $out; cd $out; i=0
    while [ $i -lt 60 ]; do mkdir d$i; cd d$i; i=$((i+1)); done; echo ${link} > end
  ''; };
  many = d { name = "many"; script = ''
    mkdir $out; i=0; while [ $i -lt 400 ]; do echo $i > $out/f$i; i=$((i+1)); done
  ''; };
  noise = d { name = "noise"; script = "head -c 3000000 /dev/urandom > $out"; };
  zeros = d { name = "zeros"; script = "head -c 5000000 /dev/zero > $out"; };
  twin = d { name = "twin"; script = "echo ${file} > $out"; };
  other = d { name = "other-twin"; script = "echo ${file} > $out"; };
  multi = d {
    name = "multi"; outputs = [ "out" "dev" ];
    script = "mkdir $out $dev; echo ${tools} ${text} > $out/text; echo $out > $dev/text";
  };
  zoo = d { name = "zoo"; script = ''
    mkdir $out
    echo ${itself} ${tools} ${empties} ${names} ${program} ${deep} ${many} ${noise} ${zeros} ${multi.dev} ${twin} ${other} > $out/text
  ''; };
"#,
    )
}
