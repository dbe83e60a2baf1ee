//! Dev shells off the beaten track: what is no attribute of a flake, what Nix knows no bash for, and what nobody may build.

use std::fs;

use serde_json::Value;

use crate::support::cache::assert_closed;
use crate::support::checkout::Checkout;
use crate::support::flakes::{Project, stand_in, system};
use crate::support::nix::{Store, a_nix, base, with_every_nix};
use crate::support::outcome::Outcome;
use crate::support::program::Run;
use crate::support::scratch::copy_tree;

/// One shell made by mkDerivation.
const OURS: &str = "devShells.${system}.default = pkgs.mkShell { name = \"ours\"; };";

/// A shell that no mkDerivation makes.
const PLAIN: &str = r#"devShells.${system}.default = d { name = "plain"; outputs = [ "out" ]; builder = "${bash}/bin/bash"; };"#;

fn names(outcome: &Outcome, part: &str) -> Vec<String> {
    let report = outcome.json();
    let paths = report["devShells"][0][part].as_array().unwrap().iter();
    paths.map(|path| base(path.as_str().unwrap())[33..].to_owned()).collect()
}

fn warnings(outcome: &Outcome) -> Vec<String> {
    let report = outcome.json();
    report["warnings"].as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

#[test]
fn whatever_is_said_to_nix_nothing_is_built_without_build() {
    with_every_nix(|nix| {
        let project = Project::with_nixpkgs(nix, OURS);
        let said: [&[&str]; 6] = [
            &[],
            &["--option", "max-jobs", "4"],
            &["--option", "substitute", "true"],
            &["--", "-j4"],
            &["--", "--max-jobs", "4", "--option", "builders", "ssh://nowhere.invalid"],
            &["--", "--builders", "ssh://nowhere.invalid x86_64-linux"],
        ];
        for words in said {
            let outcome = project.push(&[&["--dev-shell"], words].concat()).run().expect(3);
            outcome.complains(&["the environment that Nix", "is not valid", "nix develop", "--command true"]);
            assert_eq!(project.builds(), 0, "{words:?}");
        }
        // Nor by what the flake says to Nix, accepted.
        let file = project.dir.join("flake.nix");
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, text.replacen('{', "{ nixConfig.max-jobs = 4;", 1)).unwrap();
        drop(project.push(&["--dev-shell", "--accept-flake-config"]).run().expect(3));
        assert_eq!(project.builds(), 0);
    });
}

#[test]
fn what_fails_to_build_is_said_with_a_command_that_a_person_can_run() {
    with_every_nix(|nix| {
        let outputs = r#"devShells.${system}.default = d { name = "broken"; builder = "${d { name = "bash";
            args = [ "-c" "echo it cannot be done; exit 7" ]; }}/bin/bash"; };"#;
        let project = Project::new(nix, "", outputs);
        let outcome = project.push(&["--dev-shell", "--build", "."]).run().expect(3);
        let stderr = outcome.stderr();
        assert!(
            stderr.contains("it cannot be done") && stderr.contains("`nix develop . --command true`"),
            "{outcome}"
        );
        assert!(!stderr.contains("print-dev-env") && !stderr.contains("--profile"), "{outcome}");
    });
}

#[test]
fn derivations_and_environments_are_shells_and_other_paths_are_not() {
    with_every_nix(|nix| {
        let project = Project::with_nixpkgs(nix, OURS);
        let attribute = format!(".#devShells.{}.default", system());
        let derivation = project.nix(&["path-info", "--derivation", &attribute]).trim().to_owned();
        let outcome = project.push(&["--dev-shell", &derivation]).run().expect(3);
        outcome.complains(&[&derivation, "is not valid"]);
        let outcome = project.push(&["--dev-shell", "--build", &derivation]).run().expect(0);
        assert_eq!(names(&outcome, "environment"), ["ours-env"]);
        let outcome = outcome.says(&["no inputDerivation", "the registry of whoever enters"]);
        assert_eq!(outcome.target()["verified"], true);
        let environment = outcome.json()["devShells"][0]["environment"][0].as_str().unwrap().to_owned();

        // The same shell by its environment: nothing is left to push.
        let outcome = project.push(&["--dev-shell", &environment]).run().expect(0);
        assert_eq!(
            (names(&outcome, "environment"), &outcome.target()["push"]["paths"]),
            (vec!["ours-env".to_owned()], &0.into())
        );
        let outcome = project.push(&["--dev-shell", "--include-sources", &environment]).run().expect(0);
        let sources = outcome.target()["sources"].as_array().unwrap().len();
        assert!(sources > 0, "its derivation is not pushed\n{outcome}");

        let bash = format!("path:{}#bash", stand_in().display());
        project.nix(&["build", &bash, "-o", "result"]);
        let path = fs::read_link(project.dir.join("result")).unwrap().to_str().unwrap().to_owned();
        for named in ["./result", &path] {
            let outcome = project.push(&["--dev-shell", named]).run().expect(2);
            outcome.complains(&["is no dev shell", &path, ".drv"]);
        }
        let chosen = format!("{derivation}^out");
        project
            .push(&["--dev-shell", &chosen])
            .run()
            .expect(2)
            .complains(&["no outputs to choose from", &chosen]);
        // Of what makes no shell, Nix itself says so.
        let outcome = project.push(&["--dev-shell", &format!(".#devShells.{}.default.name", system())]).run();
        outcome.expect(2).complains(&["a dev shell is a derivation"]);
    });
}

#[test]
fn bash_is_where_nix_develop_looks_for_it_and_nowhere_else() {
    with_every_nix(|nix| {
        let project = Project::with_nixpkgs(nix, OURS);
        let other = project.store.scratch.join("other");
        copy_tree(&stand_in(), &other);
        let file = other.join("flake.nix");
        let text = fs::read_to_string(&file).unwrap();
        let reference = format!("path:{}", other.display());
        let push = |replacement: &str| {
            fs::write(&file, text.replace("inherit lib;\n      legacyPackages", replacement)).unwrap();
            project.push(&["--dev-shell", "--build", "--override-input", "nixpkgs", &reference]).run()
        };
        // `nix build` would look here first.
        let elsewhere = "inherit lib;\n packages = lib.genAttrs systems (system: { bashInteractive = \
             derivation { name = \"elsewhere\"; inherit system; builder = \"/bin/sh\"; args = [ \"-c\" \": > $out\" ]; }; }); \
             legacyPackages";
        let outcome = push(elsewhere).expect(0);
        assert!(names(&outcome, "bash").contains(&"bash-interactive-5.3p9".to_owned()), "{outcome}");

        // Without one, `nix develop` goes on, and so do we.
        let without = "inherit lib;\n legacyPackages = builtins.mapAttrs (_: packages: removeAttrs packages \
             [ \"bashInteractive\" ]) self.all;\n all";
        let outcome = push(without).expect(0).says(&["has no bashInteractive", "on PATH"]);
        assert!(names(&outcome, "bash").is_empty(), "{outcome}");

        // One that does not build is another thing: the next push may have it.
        let broken = "inherit lib;\n legacyPackages = lib.genAttrs systems (system: self.all.${system} // { bashInteractive = \
             derivation { name = \"broken\"; inherit system; builder = \"/bin/sh\"; args = [ \"-c\" \"exit 7\" ]; }; });\n all";
        let outcome = push(broken).expect(3);
        assert!(outcome.stderr().contains("legacyPackages"), "{outcome}");
    });
}

#[test]
fn where_the_lock_has_no_nixpkgs_it_is_said_that_bash_is_left_out() {
    with_every_nix(|nix| {
        let project = Project::new(nix, "", PLAIN);
        let outcome = project.push(&["--dev-shell", "--build"]).run().expect(0);
        let registry = |outcome: &Outcome| {
            warnings(outcome).iter().filter(|text| text.contains("the registry of whoever enters")).count()
        };
        assert_eq!(registry(&outcome), 1, "{outcome}");
        let file = project.store.scratch.file(
            "shell.nix",
            format!(
                "(import {}/packages.nix {{ lib = import {0}/lib.nix; system = \"{}\"; }}).mkShell {{ name = \"file\"; }}",
                stand_in().display(),
                system()
            ),
        );
        let outcome =
            project.push(&["--dev-shell", "--build", "--file", file.to_str().unwrap()]).run().expect(0);
        assert_eq!(
            (registry(&outcome), names(&outcome, "inputs")),
            (1, vec!["inputDerivation-file".to_owned()])
        );
        // With one, there is nothing to say.
        let project = Project::with_nixpkgs(nix, OURS);
        let outcome = project.push(&["--dev-shell", "--build"]).run().expect(0);
        assert_eq!(warnings(&outcome), Vec::<String>::new(), "{outcome}");
    });
}

#[test]
fn of_a_content_addressed_shell_it_is_said_what_a_cache_does_not_get() {
    with_every_nix(|nix| {
        let mut store = Store::new(nix);
        store.set("experimental-features", "nix-command flakes ca-derivations");
        let addressed =
            "__contentAddressed = true; outputHashMode = \"recursive\"; outputHashAlgo = \"sha256\";";
        let outputs = format!(
            r#"devShells.${{system}} = let shell = {{ name = "shell"; outputs = [ "out" ]; builder = "${{bash}}/bin/bash"; }}; in {{
                itself = d (shell // {{ {addressed} }});
                needs = d (shell // {{ builder = "${{d {{ name = "needed"; {addressed}
                    args = [ "-ec" "mkdir -p $out/bin; ln -s $(command -v bash) $out/bin/bash" ]; }}}}/bin/bash"; }});
                is-not = d shell;
            }};"#
        );
        let project = Project::in_store(store, "", &outputs);
        let is_said = |shell: &str| {
            let outcome = project.push(&["--dev-shell", "--build", shell]).run().expect(0);
            assert_eq!(names(&outcome, "environment"), ["shell-env"]);
            warnings(&outcome).iter().any(|text| text.contains("is content-addressed, or needs what is"))
        };
        assert!(is_said(".#itself") && is_said(".#needs") && !is_said(".#is-not"));
        if nix.version >= (2, 34) {
            // The store does not tell which derivation made it.
            let push = project.push(&["--dev-shell", "--build", "--include-sources", ".#itself"]);
            push.run().expect(0).says(&["the derivation of the environment", "left out"]);
        }
        // It is true: with nothing but the cache, Nix would have to build.
        project.store.throw_away();
        let url = format!("file://{}?trusted=1", project.cache.display());
        let enters = |shell: &str| {
            let words =
                ["develop", shell, "--max-jobs", "0", "--option", "substituters", &url, "--command", "true"];
            project
                .store
                .command("nix")
                .args(words)
                .current_dir(&project.dir)
                .output()
                .unwrap()
                .status
                .success()
        };
        assert!(enters(".#is-not") && !enters(".#needs"));
    });
}

/// A script in place of Nix that notes how it was called, one line a call.
fn noting(project: &Project) -> (String, std::path::PathBuf) {
    let log = project.store.scratch.join("calls");
    (project.instead_of_nix(&format!("echo \"$*\" >> {}\nnix \"$@\"", log.display())), log)
}

#[test]
fn a_password_in_the_lock_reaches_neither_a_command_line_nor_the_output() {
    with_every_nix(|nix| {
        let secret = "http://me:sesame@nowhere.invalid/n.tar.gz?private_token=hush";
        let inputs = format!("nixpkgs.url = \"{secret}\"; other = {{ url = \"{secret}\"; flake = false; }};");
        let project = Project::new(nix, &inputs, OURS);
        let other = project.store.scratch.file("other/file", "x").parent().unwrap().to_owned();
        let locked = serde_json::json!({ "type": "tarball", "url": secret });
        project.lock(&[("nixpkgs", &stand_in(), locked.clone()), ("other", &other, locked)]);
        let (path, calls) = noting(&project);
        // Where Nix builds, it writes to the terminal itself.
        let other = format!("path:{}", other.display());
        for words in [&["--build"][..], &["--override-input", "other", &other]] {
            let push = project.push(&["--dev-shell", "-vv"]).args(words.to_vec()).env("PATH", &path);
            let outcome = push.run().expect(0);
            assert!(names(&outcome, "bash").contains(&"bash-interactive-5.3p9".to_owned()), "{outcome}");
            for text in [outcome.output(), fs::read_to_string(&calls).unwrap()] {
                assert!(!text.contains("sesame") && !text.contains("hush"), "{words:?}: {text}");
            }
        }
        // Nix itself shows it where it cannot fetch something.
        let file = project.dir.join("flake.lock");
        let mut lock: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
        lock["nodes"]["nixpkgs"]["locked"]["narHash"] = format!("sha256-{}=", "A".repeat(43)).into();
        project.file("flake.lock", &lock.to_string());
        let outcome = project.push(&["--dev-shell", "-vv"]).run().expect(3);
        assert!(!outcome.output().contains("sesame") && !outcome.output().contains("hush"), "{outcome}");
        if nix.version < (2, 34) {
            assert!(outcome.output().contains("private_token=…"), "it does not even say what\n{outcome}");
        }
    });
}

#[test]
fn nix_is_asked_once_for_what_shells_have_in_common() {
    with_every_nix(|nix| {
        let outputs = r#"devShells.${system} = rec { default = dev; dev = pkgs.mkShell { name = "dev"; };
            ci = pkgs.mkShell { name = "ci"; }; };"#;
        let project = Project::with_nixpkgs(nix, outputs);
        let (path, calls) = noting(&project);
        project.push(&["--flake-outputs", "--build"]).run().expect(0);
        let count = |words: &[&str]| {
            fs::write(&calls, "").unwrap();
            project.push(words).env("PATH", &path).run().expect(0);
            let calls = fs::read_to_string(&calls).unwrap();
            let of = |word: &str| calls.lines().filter(|line| line.contains(word)).count();
            (calls.lines().count(), of("print-dev-env"), of("bashInteractive"), calls)
        };
        let (all, environments, bash, calls) = count(&["--flake-outputs"]);
        assert!((environments, bash) == (2, 2) && all <= 15, "{all}: {calls}");
        let (all, environments, bash, calls) = count(&["--dev-shell", ".#dev"]);
        assert!((environments, bash) == (1, 2) && all <= 9, "{all}: {calls}");
    });
}

#[test]
fn an_error_that_only_quotes_nix_is_not_taken_for_nixs_own() {
    with_every_nix(|nix| {
        let quoting = "flake 'x' does not provide attribute 'devShells.'";
        for (what, value) in [("devShells.${system}", "throw"), ("packages.${system}", "throw")] {
            let project = Project::new(nix, "", &format!("{what} = {value} \"{quoting}\";"));
            let outcome = project.push(&["--flake-outputs"]).run().expect(3);
            outcome.says(&[quoting]);
        }
    });
}

#[test]
fn with_an_out_of_date_lock_it_is_still_known_what_the_flake_is() {
    with_every_nix(|nix| {
        let inputs = |project: &Project, name: &str| {
            let data = project.store.scratch.file(&format!("{name}/data"), name);
            format!("{name} = {{ url = \"path:{}\"; flake = false; }};", data.parent().unwrap().display())
        };
        let shell = r#"devShells.${system}.default = d { name = "own"; outputs = [ "out" ]; builder = "${bash}/bin/bash"; src = self; };"#;
        let project = Project::new(nix, "", shell);
        // First there is no lock file, then one that lacks an input.
        let mut all = String::new();
        for name in ["first", "second"] {
            all.push_str(&inputs(&project, name));
            project.write(&all, shell);
            let outcome = project.push(&["--dev-shell", "--build"]).run().expect(1);
            let target = outcome.target();
            let own: Vec<&Value> = target["sources"].as_array().unwrap().iter().collect();
            assert_eq!(own.len(), 1, "{outcome}");
            assert_eq!(own[0]["what"], "the flake's own source", "{outcome}");
            let now = project.nix(&["flake", "metadata", "--json"]);
            let now: Value = serde_json::from_str(&now).unwrap();
            assert_eq!(own[0]["path"], now["path"], "{outcome}");
            let cached = assert_closed(&project.cache, &project.store.dir_text(), &[]);
            assert!(cached.paths().iter().all(|path| path.ends_with("-bash")), "{:?}", cached.paths());
        }
    });
}

#[test]
fn a_network_that_fails_while_bash_is_built_is_an_error() {
    // As in CI, where the exit status is all that somebody looks at.
    let checkout = Checkout::new(a_nix());
    let cache = checkout.store.scratch.join("cache");
    let wrapper = checkout.store.scratch.script(
        "instead/nix",
        &format!(
            "case \"$*\" in *'build '*bashInteractive*) echo 'error: unable to download' >&2; exit 1 ;; esac\nexec {} \"$@\"",
            checkout.store.nix.dir.join("nix").display()
        ),
    );
    let path = format!("{}:{}", wrapper.parent().unwrap().display(), checkout.store.nix.path());
    let push: Run = checkout.push(&cache).args(["--dev-shell", "--build", ".#ci"]).env("PATH", path);
    push.run().expect(3).says(&["bashInteractive"]);
}
