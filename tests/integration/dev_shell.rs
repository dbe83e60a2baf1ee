//! Pushing dev shells, flakes' outputs and flakes' inputs, so that whoever comes with an empty store builds nothing.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support::checkout::Checkout;
use crate::support::nix::{Store, a_nix, base, every_nix, with_every_nix};
use crate::support::outcome::{Outcome, count};
use crate::support::program::Run;
use crate::support::scratch::remove_tree;

/// Paths of the one dev shell in a report.
fn paths<'a>(report: &'a Value, part: &str) -> Vec<&'a str> {
    let shells = report["devShells"].as_array().unwrap();
    assert_eq!(shells.len(), 1, "{report:#}");
    shells[0][part].as_array().unwrap().iter().map(|path| path.as_str().unwrap()).collect()
}

fn names(report: &Value, part: &str) -> Vec<String> {
    paths(report, part).iter().map(|path| base(path)[33..].to_owned()).collect()
}

/// Enters a shell in an emptied store, with nothing but a cache and nothing built, and gives what a command prints there.
fn enter_from(checkout: &Checkout, cache: &Path, shell: &str, command: &str) -> (String, String) {
    checkout.store.throw_away();
    let url = format!("file://{}", cache.display());
    let mut words = vec!["develop", shell, "--max-jobs", "0", "--option", "substituters", &url];
    words.extend(["--option", "require-sigs", "false", "--command", "bash", "-c", command]);
    let output = checkout.try_nix(&words);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{shell}: {stderr}");
    (String::from_utf8(output.stdout).unwrap(), stderr)
}

#[test]
fn after_a_push_every_shell_is_entered_with_nothing_built_and_nothing_else_at_hand() {
    with_every_nix(|nix| {
        for (shell, is_for_people) in [(".", true), (".#dev", true), (".#ci", false), (".#ml", true)] {
            let checkout = Checkout::new(nix);
            let cache = checkout.store.scratch.join("cache");
            let push = checkout.push(&cache).args(["--dev-shell", "--flake-inputs", "--build", shell]);
            let outcome = push.run().expect(0);
            let (report, target) = (outcome.json(), outcome.target());
            assert_eq!(target["verified"], true, "{outcome}");
            let name = if shell == "." { "dev" } else { &shell[2..] };
            assert_eq!(names(&report, "environment"), [format!("{name}-env")]);
            assert_eq!(names(&report, "inputs"), [format!("inputDerivation-{name}")]);
            assert!(names(&report, "bash").contains(&"bash-interactive-5.3p9".to_owned()), "{outcome}");
            let version = report["devShells"][0]["nix"].as_str().unwrap();
            assert!(version.starts_with(&format!("{}.{}", nix.version.0, nix.version.1)), "{version}");

            let shown = "elixir; command -v elixir; echo $BASH; command -v psql";
            let (said, stderr) = enter_from(&checkout, &cache, shell, shown);
            let lines: Vec<&str> = said.lines().collect();
            assert_eq!(lines[0], "elixir 1.19.5 (with erlang-28.5.0.2)");
            assert!(lines[1].starts_with(&checkout.store.dir_text()), "{said}");
            let has_psql = lines.get(3).is_some_and(|path| path.starts_with(&checkout.store.dir_text()));
            assert_eq!(has_psql, is_for_people, "{shell}: {said}");
            // Nothing was built; nixpkgs itself came from the cache; and Nix did not fall back to another bash.
            assert_eq!(checkout.builds(), 0, "{stderr}");
            assert!(Path::new(&checkout.nixpkgs).exists());
            let bash =
                paths(&report, "bash").iter().map(|path| format!("{path}/bin/bash")).collect::<Vec<_>>();
            let is_here = bash.iter().any(|bash| Path::new(bash).exists());
            assert!(is_here && !stderr.contains("error"), "{stderr}");
            assert_eq!(checkout.changes(), "");
        }
    });
}

#[test]
fn pushing_what_nix_build_made_of_the_shell_leaves_only_its_environment_to_make() {
    with_every_nix(|nix| {
        let checkout = Checkout::new(nix);
        let cache = checkout.store.scratch.join("cache");
        checkout.nix(&["build", ".#dev"]);
        checkout
            .push(&cache)
            .args(["--flake-inputs", "./result"])
            .run()
            .expect(2)
            .complains(&["--flake-inputs needs a flake, and ./result names none"]);
        checkout.push(&cache).args(["--flake-inputs", ".#dev"]).run().expect(0);
        checkout.store.throw_away();
        let url = format!("file://{}", cache.display());
        let words =
            ["develop", ".#dev", "--option", "substituters", &url, "--option", "require-sigs", "false"];
        checkout.nix(&[&words[..], &["--command", "elixir"]].concat());
        assert_eq!(checkout.builds(), 1);
    });
}

#[test]
fn who_has_another_nix_makes_the_environment_and_nothing_else() {
    // With one Nix alone there is no other, and nothing to see.
    for (nix, other) in every_nix().iter().zip(every_nix().iter().cycle().skip(1)) {
        let mut checkout = Checkout::new(nix);
        let cache = checkout.store.scratch.join("cache");
        checkout.push(&cache).args(["--dev-shell", "--flake-inputs", "--build", ".#dev"]).run().expect(0);
        checkout.store.throw_away();
        checkout.store.nix = other.clone();
        let url = format!("file://{}", cache.display());
        let words =
            ["develop", ".#dev", "--option", "substituters", &url, "--option", "require-sigs", "false"];
        checkout.nix(&[&words[..], &["--command", "elixir"]].concat());
        assert_eq!(checkout.builds(), usize::from(nix.version != other.version));
    }
}

#[test]
fn without_build_nothing_is_built_and_the_error_says_what_would() {
    with_every_nix(|nix| {
        let checkout = Checkout::new(nix);
        let cache = checkout.store.scratch.join("cache");
        let push = |words: &[&str]| checkout.push(&cache).args(words.to_vec()).run();
        let run_the_hint = |outcome: Outcome| {
            let stderr = outcome.stderr();
            let command = stderr.lines().find_map(|line| line.strip_prefix("hint: build it with `")).unwrap();
            let command = command.split('`').next().unwrap();
            let output = std::process::Command::new("bash")
                .args(["-c", command])
                .env_clear()
                .envs(checkout.store.env())
                .current_dir(&checkout.dir)
                .output()
                .unwrap();
            assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        };
        let outcome =
            push(&["--dev-shell", ".#dev"]).expect(3).complains(&["dev shell .#dev", "is not valid"]);
        assert_eq!(checkout.builds(), 0, "{outcome}");
        run_the_hint(outcome);
        let built = checkout.builds();
        // Entering it does not build what `nix build` would.
        let outcome =
            push(&["--dev-shell", ".#dev"]).expect(3).complains(&["inputDerivation-dev", "is not valid"]);
        run_the_hint(outcome);
        assert_eq!(checkout.builds(), built + 1);
        let target = push(&["--dev-shell", ".#dev"]).expect(0).target();
        assert_eq!(target["verified"], true);
        assert_eq!(checkout.builds(), built + 1);
    });
}

#[test]
fn a_flakes_outputs_are_all_that_it_offers_for_this_system() {
    with_every_nix(|nix| {
        let checkout = Checkout::new(nix);
        let cache = checkout.store.scratch.join("cache");
        let outcome = checkout.push(&cache).args(["--flake-outputs", "--build"]).run().expect(0);
        let shells: BTreeSet<String> = outcome.json()["devShells"]
            .as_array()
            .unwrap()
            .iter()
            .map(|shell| shell["installable"].as_str().unwrap().rsplit('.').next().unwrap().to_owned())
            .collect();
        assert_eq!(shells, ["ci", "default", "dev", "ml"].map(str::to_owned).into());
        // Whoever checks the flake, or runs what is in it, builds nothing; its inputs were not asked for, and are at hand.
        checkout.store.throw_away();
        let stand_in = checkout.dir.join("tests/nixpkgs");
        checkout.store.run("nix", &["store", "add-path", "--name", "source", stand_in.to_str().unwrap()]);
        let url = format!("file://{}", cache.display());
        let from = ["--max-jobs", "0", "--option", "substituters", &url, "--option", "require-sigs", "false"];
        checkout.nix(&[&["flake", "check"], &from[..]].concat());
        checkout.nix(&[&["run"], &from[..], &[".", "--", "--version"]].concat());
        checkout.nix(&[&["fmt"], &from[..]].concat());
        assert_eq!(checkout.builds(), 0);
        let wrong = checkout.push(&cache).args(["--flake-outputs", ".#dev"]).run();
        wrong.expect(2).complains(&[".#dev", "not an attribute"]);
    });
}

/// A flake in a store of its own, with what is there besides the stand-in for nixpkgs.
fn flake(store: &Store, name: &str, text: &str) -> std::path::PathBuf {
    let dir = store.scratch.dir(name);
    fs::write(dir.join("flake.nix"), text).unwrap();
    dir
}

/// A dev shell that needs nothing but bash and the distribution, as no mkDerivation makes it.
fn plain_shell(more: &str) -> String {
    let system = format!("{}-linux", std::env::consts::ARCH);
    format!(
        r#"{{
  outputs = {{ self }}: let
    d = arguments: derivation ({{ system = "{system}"; PATH = "/usr/bin:/bin"; }} // arguments);
    bash = d {{ name = "bash"; builder = "/bin/sh"; args = [ "-ec" "mkdir -p $out/bin; ln -s $(command -v bash) $out/bin/bash" ]; }};
    shell = d {{ name = "plain"; builder = "${{bash}}/bin/bash"; outputs = [ "out" "dev" ]; }};
  in {{
    devShells.{system} = {{ default = shell; strange = d {{ name = "strange"; builder = "/bin/sh"; }}; }};
    {more}
  }};
}}
"#
    )
}

#[test]
fn a_shell_that_is_not_nixpkgs_is_pushed_as_far_as_nix_goes() {
    with_every_nix(|nix| {
        let store = Store::new(nix);
        let dir = flake(&store, "plain", &plain_shell(""));
        let cache = store.scratch.join("cache");
        let push =
            || Run::push(&store).cwd(&dir).args(["--json", "--allow-unsigned", "--dev-shell"]).to(&cache);
        let outcome = push().arg("--build").run().expect(0).says(&["has no inputDerivation"]);
        let report = outcome.json();
        // Every output of the environment: Nix wants them all valid.
        assert_eq!(paths(&report, "environment").len(), 2, "{outcome}");
        assert!(paths(&report, "inputs").is_empty() && paths(&report, "bash").is_empty());
        store.throw_away();
        let url = format!("file://{}", cache.display());
        let words = ["develop", "--max-jobs", "0", "--option", "substituters", &url];
        let words = [&words[..], &["--option", "require-sigs", "false", "--command", "true"]].concat();
        let output = store.command("nix").args(words).current_dir(&dir).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        // What Nix says no to, it says itself.
        push().args(["--build", ".#strange"]).run().expect(3).says(&["use 'bash' as their builder"]);
        push().arg(".#nothing").run().expect(3).complains(&["does not provide attribute", "devShells"]);
        push().arg(".#default^out").run().expect(2).complains(&["no outputs to choose from"]);
    });
}

#[test]
fn an_attribute_of_a_file_is_a_shell_too() {
    with_every_nix(|nix| {
        let checkout = Checkout::new(nix);
        let cache = checkout.store.scratch.join("cache");
        let system = format!("{}-linux", std::env::consts::ARCH);
        let file = checkout.store.scratch.file(
            "shell.nix",
            format!(
                "let lib = import {0}/tests/nixpkgs/lib.nix; in {{ ours = (import {0}/tests/nixpkgs/packages.nix \
                 {{ inherit lib; system = \"{system}\"; }}).mkShell {{ name = \"ours\"; }}; }}",
                checkout.dir.display()
            ),
        );
        let file = file.to_str().unwrap();
        let push = checkout.push(&cache).args(["--dev-shell", "--build", "--file", file, "ours"]);
        let report = push.run().expect(0).json();
        assert_eq!(names(&report, "environment"), ["ours-env"]);
        assert_eq!(names(&report, "inputs"), ["inputDerivation-ours"]);
        // The same without an attribute.
        let file = checkout.store.scratch.file("one.nix", format!("(import {file}).ours"));
        let push = checkout.push(&cache).args(["--dev-shell", "--build", "--file", file.to_str().unwrap()]);
        let outcome = push.run().expect(0);
        assert_eq!(names(&outcome.json(), "inputs"), ["inputDerivation-ours"]);
        assert_eq!(count(&outcome.target(), "push"), 0);
    });
}

#[test]
fn an_overridden_nixpkgs_is_where_bash_comes_from() {
    with_every_nix(|nix| {
        let checkout = Checkout::new(nix);
        let cache = checkout.store.scratch.join("cache");
        // A name that has to be written otherwise in a URL, where Nix can read that.
        let name = if nix.version < (2, 19) { "other+nixpkgs" } else { "other nixpkgs+" };
        let other = checkout.store.scratch.join(name);
        crate::support::scratch::copy_tree(&checkout.dir.join("tests/nixpkgs"), &other);
        let stdenv = other.join("stdenv.nix");
        let text = fs::read_to_string(&stdenv).unwrap();
        fs::write(stdenv, text.replace("bash-interactive-5.3p9", "bash-interactive-6")).unwrap();
        let reference = format!("path:{}", other.display().to_string().replace(' ', "%20"));
        let push =
            checkout.push(&cache).args(["--dev-shell", "--build", "--override-input", "nixpkgs", &reference]);
        let outcome = push.arg(".#ci").run().expect(0);
        let bash = names(&outcome.json(), "bash");
        assert!(bash.contains(&"bash-interactive-6".to_owned()), "{outcome}");
        remove_tree(&other);
    });
}

#[test]
fn without_a_network_a_locked_input_that_is_not_here_fails_soon_and_says_so() {
    let checkout = Checkout::new(a_nix());
    let cache = checkout.store.scratch.join("cache");
    checkout.store.throw_away();
    let outcome = checkout.push(&cache).args(["--dev-shell", "--flake-inputs"]).run().expect(3);
    outcome.complains(&["unable to download"]);
}
