//! Why something is needed, and whether the caches have it.

use std::time::Duration;

use crate::support::graphs::rows;
use crate::support::nix::{Nix, Store, a_nix, with_every_nix};
use crate::support::outcome::Outcome;
use crate::support::program::Run;
use crate::support::project;

/// A diamond in a store, with a cache that has it.
struct Project {
    store: Store,
    file: String,
}

impl Project {
    fn new(nix: &Nix) -> Self {
        let store = Store::new(nix);
        let expression = project::diamond();
        let file = store.expression(&expression).to_str().unwrap().to_owned();
        store.build(&expression, "top");
        Run::push(&store)
            .args(["--allow-unsigned", "--file", &file, "top", "--to", "./cache"])
            .run()
            .expect(0);
        Self { store, file }
    }

    fn why(&self, words: &[&str]) -> Outcome {
        let common = ["why", "--file", &self.file, "--cache", "./cache", "--option", "require-sigs", "false"];
        Run::new(&self.store).args(common).args(words.to_vec()).run()
    }
}

#[test]
fn the_ways_stand_in_one_tree_and_the_caches_are_asked() {
    with_every_nix(|nix| {
        let project = Project::new(nix);
        let outcome = project.why(&["base", "--of", "top"]).expect(0);
        let outcome = outcome.says(&["present on file://", "hit: Nix can fetch it", "needed in 2 ways"]);
        let tree: Vec<&str> =
            outcome.stdout.lines().skip_while(|line| !line.starts_with("needed")).skip(1).collect();
        let tree = tree.join("\n");
        assert!(
            tree.starts_with("  top\n  ├─ ")
                && tree.contains("  │  → base\n  └─ ")
                && tree.ends_with("     → base"),
            "{tree}"
        );
        let document = project.why(&["base", "--of", "top", "--json"]).expect(0).json();
        assert_eq!(document["ways"]["number"], 2);
        let ways = document["ways"]["shortest"].as_array().unwrap();
        assert!(ways.iter().all(|way| way.as_array().unwrap().len() == 3), "{document:#}");
        assert_eq!(document["derivation"]["verdict"], "hit");
    });
}

#[test]
fn what_is_gone_from_the_cache_is_a_miss_with_its_reason() {
    with_every_nix(|nix| {
        let project = Project::new(nix);
        let base = project.store.run("nix-build", &["--no-out-link", &project.file, "-A", "base"]);
        let base = base.trim();
        let hash = base.rsplit('/').next().unwrap().split('-').next().unwrap();
        std::fs::remove_file(project.store.scratch.join(format!("cache/{hash}.narinfo"))).unwrap();
        // By its path, its base name, its `.drv` file, its name.
        let drv = project.store.run("nix-store", &["-q", "--deriver", base]);
        for what in [base, base.rsplit('/').next().unwrap(), drv.trim(), "base"] {
            let outcome = project.why(&[what, "--of", "top"]).expect(1);
            outcome.says(&[
                "absent",
                "miss: no cache has it",
                "-> build it once and push it",
                "needed in 2 ways",
            ]);
        }
    });
}

#[test]
fn what_is_no_part_is_said_with_what_is_near() {
    let project = Project::new(a_nix());
    project.why(&["bas", "--of", "top"]).expect(3).complains(&["bas"]);
    project.why(&["top", "--of", "base"]).expect(2).complains(&["top"]);
    // Without a cache there is still the tree.
    let run = Run::new(&project.store).args(["why", "--file", &project.file, "base", "--of", "top"]);
    let outcome = run.run().expect(4).says(&["inconclusive: no cache was asked", "needed in 2 ways"]);
    assert!(outcome.stdout.contains("inconclusive"), "the report has no verdict\n{outcome}");
    // What it is called, and of what it is a part: either may be wrong.
    let nowhere = format!("{}/{}-nowhere", project.store.dir_text(), "0".repeat(32));
    let outcome =
        project.why(&[&nowhere, "--of", "top"]).expect(2).complains(&["is not in this graph", "--of"]);
    assert!(!outcome.stderr().contains("--format dot"), "{outcome}");
}

#[test]
fn a_chain_of_fifty_thousand_is_told_in_a_few_lines() {
    let store = Store::new(a_nix());
    let top = rows(&store, 50_000, 1);
    let run = |words: &[&str]| {
        let run = Run::new(&store).args(["why", "--of", &top, "d0"]).args(words.to_vec());
        run.limit(Duration::from_mins(3)).run().expect(4)
    };
    let told = run(&[]).says(&["needed in one way", "  d49999\n", "… 49993 steps …", "  → d0\n", "-v"]);
    assert!(told.stdout.lines().count() < 20, "{told}");
    let whole = run(&["-v"]);
    // In proportion to the chain, not to its square.
    assert!(whole.stdout.len() < 50_000 * 20, "{} bytes", whole.stdout.len());
    assert!(whole.stdout.lines().filter(|line| line.contains("→ d")).count() == 49_999);
}

#[test]
fn more_ways_than_can_be_counted_are_no_number() {
    let store = Store::new(a_nix());
    let top = rows(&store, 140, 2);
    let run = |words: &[&str]| {
        Run::new(&store).args(["why", "--of", &top, "d0"]).args(words.to_vec()).run().expect(4)
    };
    drop(run(&[]).says(&["needed in more ways than can be counted; the shortest 8"]));
    let document = run(&["--json"]).json();
    assert_eq!(document["ways"]["number"], serde_json::Value::Null);
}

#[test]
fn of_a_source_it_is_said_what_needs_it() {
    with_every_nix(|nix| {
        let store = Store::new(nix);
        let expression = r#"let
  d = name: more: derivation ({ inherit name; system = "x"; builder = "/bin/sh"; } // more);
  src = builtins.toFile "main.txt" "text";
in rec { one = d "one" { inherit src; }; two = d "two" { inherit src one; }; top = d "top" { inherit two; }; }"#;
        let top = store.instantiate(expression, "top");
        let drv = std::fs::read_to_string(store.instantiate(expression, "one")).unwrap();
        let end = drv.find("-main.txt").unwrap() + "-main.txt".len();
        let source = &drv[drv[..end].rfind('"').unwrap() + 1..end];
        for what in [source, source.rsplit('/').next().unwrap(), "main.txt"] {
            let outcome = Run::new(&store).args(["why", "--of", &top, what]).run().expect(0);
            let tree = "needed in 2 ways\n  top\n  → two\n  ├─ main.txt\n  └─ one\n     → main.txt\n";
            outcome.says(&[source, "a source of 2 derivations", "one.drv", "two.drv", tree]);
        }
        let document = Run::new(&store).args(["why", "--json", "--of", &top, source]).run().expect(0).json();
        assert_eq!((&document["source"], &document["drv"]), (&source.into(), &serde_json::Value::Null));
        let needed_by =
            document["neededBy"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap());
        assert_eq!(needed_by.collect::<Vec<_>>(), ["one", "two"]);
        // Before any attribute of that name.
        let file = store.expression(expression).display().to_string();
        let words = ["why", "--file", &file, "--of", "top", "main.txt"];
        drop(Run::new(&store).args(words).run().expect(0).says(&["a source of 2 derivations"]));
        // Where only derivations will do, they are named.
        let outcome = Run::new(&store).args(["graph", "--path", "top", source, &top]).run().expect(2);
        outcome.complains(&["is a source, and no derivation", "needed by one, two", "cache-helper why"]);
        let outcome = Run::new(&store).args(["why", source]).run().expect(3);
        outcome.complains(&["--of"]);
    });
}
