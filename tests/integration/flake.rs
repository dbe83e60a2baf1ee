//! This repository's flake, with every Nix and the stand-in for nixpkgs: what it offers, its shells, and its lock.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::checkout::Checkout;
use crate::support::nix::{Nix, Store, a_nix, with_every_nix};
use crate::support::program::Run;

/// The systems that it is for.
const SYSTEMS: [&str; 3] = ["aarch64-darwin", "aarch64-linux", "x86_64-linux"];

/// What every shell has on its PATH.
const EVERYWHERE: [&str; 18] = [
    "bun",
    "cache-helper",
    "cachix",
    "cargo",
    "cargo-clippy",
    "elixir",
    "erl",
    "erlc",
    "escript",
    "iex",
    "just",
    "mix",
    "moon",
    "python3",
    "python3.11",
    "rebar3",
    "rustc",
    "rustfmt",
];

/// What those for people have besides.
const FOR_PEOPLE: [&str; 9] =
    ["elixir-ls", "flock", "initdb", "nats", "nats-server", "pg_ctl", "postgres", "psql", "rust-analyzer"];

/// The system of this machine, as Nix names it. These tests run on Linux.
fn system() -> String {
    format!("{}-linux", std::env::consts::ARCH)
}

/// Flags with which `nix flake check` goes through all systems and builds nothing.
fn evaluate_all(nix: &Nix) -> Vec<&'static str> {
    let mut words = vec!["flake", "check", "--no-build"];
    // Before, it always did.
    if nix.version >= (2, 16) {
        words.push("--all-systems");
    }
    words
}

/// Where the programs of a shell are, as the shell finds them; empty for those that it does not.
fn programs(checkout: &Checkout, shell: &str, names: &[&str]) -> Vec<String> {
    let script = "for name; do printf '%s\\n' \"$(command -v \"$name\")\"; done";
    let mut words = vec!["develop", shell, "--command", "bash", "-c", script, "bash"];
    words.extend(names);
    checkout.nix(&words).lines().map(str::to_owned).collect()
}

/// An attribute set of derivations by system and name, as the paths of their `.drv` files.
fn derivations(checkout: &Checkout, output: &str) -> Value {
    let each = "builtins.mapAttrs (_: builtins.mapAttrs (_: package: package.drvPath))";
    serde_json::from_str(&checkout.nix(&["eval", "--json", &format!(".#{output}"), "--apply", each])).unwrap()
}

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn every_output_evaluates_for_every_system() {
    with_every_nix(|nix| {
        let checkout = Checkout::new(nix);
        checkout.nix(&evaluate_all(nix));
        let expected = [
            ("packages", vec!["cache-helper", "default", "dev"]),
            ("devShells", vec!["ci", "default", "dev", "ml"]),
            (
                "checks",
                vec![
                    "clippy",
                    "flake-inputs",
                    "formatting",
                    "package",
                    "shell-ci",
                    "shell-dev",
                    "shell-ml",
                    "tests",
                ],
            ),
        ];
        for (output, names) in expected {
            let found = derivations(&checkout, output);
            assert_eq!(keys(&found), BTreeSet::from(SYSTEMS));
            for system in SYSTEMS {
                assert_eq!(keys(&found[system]), names.iter().copied().collect(), "{output}.{system}");
            }
        }
        let shells = derivations(&checkout, "devShells");
        for system in SYSTEMS {
            assert_eq!(shells[system]["default"], shells[system]["dev"]);
        }
        // It built nothing, and Nix had nothing to add to the lock.
        assert_eq!((checkout.builds(), checkout.changes()), (0, String::new()));
    });
}

#[test]
fn every_check_builds_and_every_program_of_the_shells_comes_from_the_store() {
    with_every_nix(|nix| {
        let checkout = Checkout::new(nix);
        checkout.nix(&["flake", "check"]);
        let store = format!("{}/", checkout.store.dir_text());
        let for_people = [&EVERYWHERE[..], &FOR_PEOPLE].concat();
        for (shell, names) in [
            (".", &for_people),
            (".#dev", &for_people),
            (".#ml", &for_people),
            (".#ci", &EVERYWHERE.to_vec()),
        ] {
            let found = programs(&checkout, shell, names);
            let outside: Vec<_> =
                names.iter().zip(&found).filter(|(_, path)| !path.starts_with(&store)).collect();
            assert!(outside.is_empty() && found.len() == names.len(), "{shell} lacks {outside:?}");
        }
        let not_in_ci = programs(&checkout, ".#ci", &FOR_PEOPLE);
        assert!(not_in_ci.iter().all(|path| !path.starts_with(&store)), "{not_in_ci:?}");
        assert_eq!(checkout.changes(), "");
    });
}

#[test]
fn all_that_runs_on_the_beam_runs_on_one_erlang_and_elixir() {
    let checkout = Checkout::new(a_nix());
    let said =
        checkout.nix(&["develop", "--command", "bash", "-c", "elixir; elixir-ls; rebar3; erl; python3"]);
    let expected = [
        "elixir 1.19.5 (with erlang-28.5.0.2)",
        "elixir-ls 0.30.0 (with elixir-1.19.5)",
        "rebar3 3.26.0 (with erlang-28.5.0.2)",
        "erlang 28.5.0.2",
        "python3 3.11.15",
    ];
    assert_eq!(said.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn a_nixpkgs_with_other_versions_fails_with_a_sentence() {
    let moves = [
        ("1.19.5", "1.20.1", "Elixir 1.19, and the nixpkgs in flake.lock has Elixir 1.20.1"),
        ("28.5.0.2", "29.0", "Erlang/OTP 28, and the nixpkgs in flake.lock has Erlang/OTP 29.0"),
        ("3.11.15", "3.12.1", "Python 3.11, and the nixpkgs in flake.lock has Python 3.12.1"),
        ("3.11.15", "3.110", "Python 3.11, and the nixpkgs in flake.lock has Python 3.110"),
    ];
    for (from, to, words) in moves {
        let checkout = Checkout::changed(a_nix(), |dir| {
            let packages = dir.join("tests/nixpkgs/packages.nix");
            let text = fs::read_to_string(&packages).unwrap();
            assert!(text.contains(from));
            fs::write(packages, text.replace(from, to)).unwrap();
        });
        for shell in [".#dev", ".#ci"] {
            let output = checkout.try_nix(&["develop", shell, "--command", "true"]);
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert!(!output.status.success() && stderr.contains(words), "{shell}: {stderr}");
        }
        // The program itself needs none of them.
        checkout.nix(&["eval", "--raw", ".#cache-helper.drvPath"]);
    }
}

#[test]
fn the_shell_with_torch_says_on_entry_what_it_costs() {
    let checkout = Checkout::new(a_nix());
    let enter = |shell: &str| {
        let output = checkout.try_nix(&["develop", shell, "--command", "python3"]);
        assert!(output.status.success());
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (python, notice) = enter(".#ml");
    assert_eq!(python, "python3 3.11.15-env (with torch-2.11.0)\n");
    assert!(notice.contains("PyTorch on Python 3.11 is in no public cache"), "{notice}");
    assert!(!enter(".#dev").1.contains("PyTorch"));
}

#[test]
fn what_the_package_and_its_checks_are_built_from_is_all_there() {
    let checkout = Checkout::new(a_nix());
    let source = |attribute: &str| checkout.nix(&["eval", "--raw", &format!(".#{attribute}.src")]);
    let (package, tests) = (source("cache-helper"), source(&format!("checks.{}.tests", system())));
    // Evaluation alone puts them there.
    for source in [&package, &tests] {
        let manifest = format!("{source}/Cargo.toml");
        Run::of("cargo")
            .args(["metadata", "--offline", "--locked", "--no-deps", "--format-version", "1"])
            .args(["--manifest-path", &manifest])
            .envs(std::env::vars().collect())
            .run()
            .expect(0);
    }
    let has_files_of = |source: &str, kind: &str| {
        let below = Path::new(env!("CARGO_MANIFEST_DIR")).join(kind);
        crate::support::scratch::files_below(&below)
            .iter()
            .all(|file| Path::new(source).join(kind).join(file).exists())
    };
    assert!(has_files_of(&package, "src") && has_files_of(&tests, "src"));
    assert!(has_files_of(&tests, "tests/integration") && has_files_of(&tests, "docs"));
    // A page of documentation rebuilds no package.
    assert!(!Path::new(&package).join("docs").exists() && !Path::new(&package).join("README.md").exists());
}

#[test]
fn apps_overlay_and_formatter_are_what_they_say() {
    with_every_nix(|nix| {
        let checkout = Checkout::new(nix);
        let version = format!("cache-helper {}\n", env!("CARGO_PKG_VERSION"));
        let default = format!(".#apps.{}.default", system());
        for app in [".", ".#cache-helper", &default] {
            assert_eq!(checkout.nix(&["run", app, "--", "--version"]), version);
        }
        let overlaid = "(builtins.getFlake (toString ./.)).overlays.default \
            { callPackage = file: arguments: builtins.baseNameOf file; } { }";
        let overlaid = checkout.nix(&["eval", "--impure", "--json", "--expr", overlaid]);
        assert_eq!(overlaid.trim(), r#"{"cache-helper":"package.nix"}"#);
        let formatter = format!(".#formatter.{}", system());
        let formatter = checkout.nix(&["build", &formatter, "--no-link", "--json"]);
        let formatter: Value = serde_json::from_str(&formatter).unwrap();
        let script = format!("{}/bin/format", formatter[0]["outputs"]["out"].as_str().unwrap());
        // As nixpkgs' writeShellApplication does.
        Run::of("shellcheck").arg(script).env("PATH", "/usr/bin:/bin").run().expect(0);
    });
}

#[test]
fn nothing_else_than_the_cache_is_in_the_flakes_settings() {
    let url = "https://mikkihugo.cachix.org";
    let key = "mikkihugo.cachix.org-1:dxqCDAvMSMefAFwSnXYvUdPnHJYq+pqF8tul8bih9Po=";
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("flake.nix");
    let settings =
        Store::new(a_nix()).run("nix", &["eval", "--json", "--file", file.to_str().unwrap(), "nixConfig"]);
    let settings: Value = serde_json::from_str(&settings).unwrap();
    let expected = json!({ "extra-substituters": [url], "extra-trusted-public-keys": [key] });
    assert_eq!(settings, expected);
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    assert!(readme.contains(url) && readme.contains(key));
}

#[test]
fn what_the_documentation_builds_is_every_check_but_the_shell_that_takes_hours() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/dev-shell.md")).unwrap();
    let (_, after) = page.split_once("Everything but that:\n\n```console\n").unwrap();
    let commands: Vec<&str> = after.lines().map_while(|line| line.strip_prefix("$ ")).collect();
    let checkout = Checkout::new(a_nix());
    let script = checkout.store.scratch.file("commands", commands.join("\n"));
    let environment = checkout.store.env();
    Run::of("bash").arg("-eu").arg(script).envs(environment).cwd(&checkout.dir).run().expect(0);
    let checks = derivations(&checkout, "checks");
    let is_built = |name: &str| {
        let derivation = checks[system()][name].as_str().unwrap();
        Path::new(checkout.store.run("nix-store", &["--query", "--outputs", derivation]).trim()).exists()
    };
    for name in keys(&checks[system()]) {
        assert_eq!(is_built(name), name != "shell-ml", "{name}");
    }
}
