//! Derivations of every kind compared: content-addressed, deferred, impure, and outputs of outputs.

use std::collections::BTreeSet;

use crate::support::nix::{Store, every_nix};
use crate::support::program::Run;

const EXPRESSION: &str = r#"
{ v ? "1", w ? "a", addressed ? false }:
let
  step = name: more: derivation ({
    inherit name; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" "echo $name > $out" ];
  } // more);
  floating = { __contentAddressed = true; outputHashMode = "recursive"; outputHashAlgo = "sha256"; };
  q = step "q" ({ inherit v; } // (if addressed then floating else { }));
  n = step "n" { m = step "m" { inherit q; }; };
  same = k: step "s" (floating // { inherit q k; });
  recipe = step "recipe.drv" (floating // { outputHashMode = "text"; inherit w; });
in {
  top = step "top" { inherit n; };
  many = step "many" { a = same "a"; b = same "b"; c = same "c"; inherit w; };
  dynamic = step "dynamic" { x = builtins.outputOf recipe.outPath "out"; };
  impure = step "impure" { i = step "i" { __impure = true; outputHashMode = "recursive"; outputHashAlgo = "sha256"; inherit q; }; };
}
"#;

/// A way to evaluate the expression, and what differs by itself between two.
struct Kinds {
    store: Store,
}

impl Kinds {
    fn instantiate(&self, attribute: &str, arguments: &[&str]) -> String {
        let file = self.store.expression(EXPRESSION);
        let words = [&[file.to_str().unwrap(), "-A", attribute], arguments].concat();
        self.store.run("nix-instantiate", &words).trim().to_owned()
    }

    fn differences(&self, attribute: &str, old: &[&str], new: &[&str]) -> BTreeSet<String> {
        let (old, new) = (self.instantiate(attribute, old), self.instantiate(attribute, new));
        let run = Run::new(&self.store).args(["diff", &old, &new, "--json"]);
        let document = run.run().expect(1).json();
        let found = document["differences"].as_array().unwrap().iter();
        found.map(|difference| difference["new"]["name"].as_str().unwrap().to_owned()).collect()
    }
}

#[test]
fn only_what_changed_is_named_however_it_is_addressed() {
    // What older ones have of this is of another form.
    let able = every_nix().iter().filter(|nix| nix.version >= (2, 20));
    for nix in able {
        let mut store = Store::new(nix);
        store.set(
            "experimental-features",
            "nix-command flakes ca-derivations dynamic-derivations impure-derivations",
        );
        let kinds = Kinds { store };
        let only = |name: &str| BTreeSet::from([name.to_owned()]);
        let (plain, floating) = (&[][..], &["--arg", "addressed", "true"][..]);
        let changed = &["--arg", "addressed", "true", "--argstr", "v", "2"][..];
        assert_eq!(kinds.differences("top", plain, floating), only("q"));
        assert_eq!(kinds.differences("top", floating, plain), only("q"));
        assert_eq!(kinds.differences("top", floating, changed), only("q"));
        assert_eq!(kinds.differences("many", floating, changed), only("q"));
        assert_eq!(kinds.differences("impure", floating, changed), only("q"));
        assert_eq!(kinds.differences("dynamic", plain, &["--argstr", "w", "b"]), only("recipe.drv"));
    }
}
