//! Why something is needed, and whether the caches have it.

use std::time::Duration;

use crate::support::graphs::chain;
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
    run.run().expect(4).says(&["no cache was asked", "needed in 2 ways"]);
}

#[test]
fn a_chain_of_fifty_thousand_is_told_in_a_few_lines() {
    let store = Store::new(a_nix());
    let top = chain(&store, 50_000);
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
