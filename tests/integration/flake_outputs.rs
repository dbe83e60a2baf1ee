//! `--flake-outputs`: all that a flake offers for a system, under whatever names, and nothing that was not named.

use std::collections::BTreeSet;

use crate::support::cache::assert_closed;
use crate::support::flakes::{Project, system};
use crate::support::nix::{a_nix, with_every_nix};

/// The names of what is in a project's cache.
fn pushed(project: &Project) -> BTreeSet<String> {
    let cached = assert_closed(&project.cache, &project.store.dir_text(), &[]);
    cached.paths().iter().map(|path| path[33..].to_owned()).collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// A package by this name.
fn package(name: &str) -> String {
    format!("d {{ name = \"{name}\"; args = [ \"-c\" \"echo {name} > $out\" ]; }}")
}

#[test]
fn attributes_are_found_whatever_their_names_are() {
    with_every_nix(|nix| {
        let outputs = format!(
            "packages.${{system}} = {{ \"a%25b\" = {}; \"c^out\" = {}; \"d#e\" = {}; \"ä\" = {}; \"n\\nl\" = {}; \"dotted.name\" = {}; \
             \"${{builtins.fromJSON ''\"\\u001b[31m\"''}}\" = {}; \"quo\\\"te\" = {}; \"\" = {}; }};\n\
             devShells.${{system}} = {{ \"s^h\" = d {{ name = \"shell\"; outputs = [ \"out\" ]; builder = \"${{bash}}/bin/bash\"; }};
               none = \"a string\"; }};",
            package("percent"), package("caret"), package("hash"), package("umlaut"), package("newline"), package("dotted"),
            package("escape"), package("quote"), package("empty"),
        );
        let project = Project::new(nix, "", &outputs);
        let outcome = project.push(&["--flake-outputs", "--build"]).run().expect(0);
        let names =
            ["bash", "caret", "dotted", "escape", "hash", "newline", "percent", "shell-env", "umlaut"];
        assert_eq!(pushed(&project), set(&names), "{outcome}");
        // What Nix has no way to write is named, and does not stop the rest.
        let outcome = outcome.says(&["the package 'quo\"te' of the flake . is left out", "the package ''"]);
        outcome.says(&["the dev shell 'none' of the flake . is left out: it is no derivation"]);
    });
}

#[test]
fn of_what_an_app_runs_only_that_is_pushed() {
    with_every_nix(|nix| {
        let outputs = r#"apps.${system} = let
            many = d { name = "many"; outputs = [ "out" "doc" ]; args = [ "-c" "mkdir -p $out $doc; echo x > $doc/x" ]; };
          in {
            one = { type = "app"; program = "${many}/bin/x"; };
            script = { type = "app"; program = "${builtins.toFile "script" "true"}"; };
          };"#;
        let project = Project::new(nix, "", outputs);
        let outcome = project.push(&["--flake-outputs", "--build"]).run().expect(0);
        assert_eq!(pushed(&project), set(&["many", "script"]), "{outcome}");
    });
}

#[test]
fn a_flake_that_offers_nothing_stands_for_nothing_else() {
    with_every_nix(|nix| {
        let project = Project::new(nix, "", &format!("packages.${{system}}.default = {};", package("ours")));
        let other = project.store.scratch.file("other/flake.nix", "{ outputs = _: { }; }");
        let other = format!("path:{}", other.parent().unwrap().display());
        let words = ["--flake-outputs", "--build"];
        let outcome = project.push(&[&words[..], &[&other]].concat()).run().expect(3);
        let outcome = outcome.complains(&[&other, "offers nothing for", &system(), "--system"]);
        assert!(!project.cache.exists(), "{outcome}");
        let far = ["--system", "riscv64-linux"];
        let outcome = project.push(&[&words[..], &far].concat()).run().expect(3);
        outcome.complains(&["the flake . offers nothing for riscv64-linux"]);
        // Beside another it is worth a word.
        let outcome = project.push(&[&words[..], &[&other, "."]].concat()).run().expect(0);
        outcome.says(&["offers nothing for"]);
        assert_eq!(pushed(&project), set(&["ours"]));
        // Its inputs are something.
        project.push(&[&words[..], &["--include-sources", &other]].concat()).run().expect(0);
    });
}

#[test]
fn what_is_no_flake_is_said_to_be_none_with_a_hint_that_helps() {
    let project = Project::new(a_nix(), "", &format!("packages.${{system}}.default = {};", package("ours")));
    let file = project.store.scratch.file("x.nix", "{ }");
    let file = file.to_str().unwrap();
    let cases: [(&[&str], &[&str]); 5] = [
        (
            &["--flake-inputs", "--file", file],
            &["--flake-inputs needs a flake, and a file or an expression names none"],
        ),
        (
            &["--flake-outputs", "--flake-inputs", "--file", file, "x"],
            &["--flake-outputs need a flake, and x names none"],
        ),
        (
            &["--flake-outputs", ".#default"],
            &["takes a flake, and not an attribute of one: '.#default'", "the flake alone"],
        ),
        (&["--flake-outputs", ".^out"], &["a flake has no outputs to choose from: '.^out'", "leave out"]),
        (&["--dev-shell", ".#default^*"], &["a dev shell has no outputs to choose from: '.#default^*'"]),
    ];
    for (args, words) in cases {
        let outcome = project.push(args).run().expect(2).complains(words);
        assert!(!outcome.stderr().contains("installable"), "{outcome}");
    }
}
