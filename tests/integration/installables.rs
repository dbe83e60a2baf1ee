//! What can be named on the command line, with every Nix.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::support::cache::assert_closed;
use crate::support::nix::{Nix, Store, a_nix, bases, with_every_nix};
use crate::support::outcome::count;
use crate::support::program::Run;
use crate::support::project;
use crate::support::scratch::{files_below, remove_tree};

/// A store with `multi` and what it needs, built or not, unsigned.
struct Project {
    store: Store,
    drv: String,
}

impl Project {
    fn new(nix: &Nix) -> Self {
        let store = Store::new(nix);
        let drv = store.instantiate(&project::multi(), "multi");
        Self { store, drv }
    }

    fn built(nix: &Nix) -> Self {
        let project = Self::new(nix);
        project.store.build(&project::multi(), "user");
        project
    }

    fn output(&self, name: &str) -> String {
        let outputs = self.store.run("nix-store", &["-q", "--binding", name, &self.drv]);
        outputs.trim().to_owned()
    }

    fn push(&self) -> Run {
        Run::push(&self.store).args(["--allow-unsigned", "--json", "--to", "./cache"])
    }

    /// Runs a push that must work, and gives the names of all paths that are in the cache then, and empties it.
    #[track_caller]
    fn pushed(&self, push: Run) -> BTreeSet<String> {
        let outcome = push.run().expect(0);
        let dir = self.store.scratch.join("cache");
        let cache = assert_closed(&dir, &self.store.dir_text(), &[]);
        assert_eq!(count(&outcome.target(), "pushed"), cache.entries.len() as u64);
        remove_tree(&dir);
        cache.paths().iter().map(|path| path[33..].to_owned()).collect()
    }
}

fn set<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn a_store_path_stands_for_itself() {
    with_every_nix(|nix| {
        let project = Project::built(nix);
        let (out, doc) = (project.output("out"), project.output("doc"));
        assert_eq!(project.pushed(project.push().arg(&doc)), set(["multi-doc"]));
        assert_eq!(project.pushed(project.push().arg(&out)), set(["base", "multi"]));
        assert_eq!(
            project.pushed(project.push().args([&doc, &out, &doc])),
            set(["base", "multi", "multi-doc"])
        );
    });
}

#[test]
fn a_link_into_the_store_stands_for_what_it_points_to() {
    with_every_nix(|nix| {
        let project = Project::built(nix);
        let file = project.store.expression(&project::multi());
        project.store.run("nix-build", &[file.to_str().unwrap(), "-A", "multi.dev", "-o", "result"]);
        let link = fs::read_dir(project.store.scratch.path()).unwrap().map(|entry| entry.unwrap().path());
        let link = link.filter(|path| path.is_symlink()).collect::<Vec<_>>();
        assert_eq!(link.len(), 1, "{link:?}");
        let name = link[0].file_name().unwrap().to_str().unwrap();
        for named in [format!("./{name}"), link[0].to_str().unwrap().to_owned()] {
            assert_eq!(project.pushed(project.push().arg(named)), set(["base", "multi", "multi-dev"]));
        }
        std::os::unix::fs::symlink(name, project.store.scratch.join("link-to-link")).unwrap();
        assert_eq!(project.pushed(project.push().arg("./link-to-link")), set(["base", "multi", "multi-dev"]));
    });
}

#[test]
fn a_link_stops_at_the_store_and_a_file_inside_stands_for_its_path() {
    with_every_nix(|nix| {
        let store = Store::new(nix);
        let path = store.build_one(&project::zoo(), "link");
        let tools = store.build_one(&project::zoo(), "tools");
        assert!(Path::new(&path).is_symlink(), "the output is a link itself");
        let project = Project { drv: String::new(), store };
        let link = project.store.scratch.join("result");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert_eq!(project.pushed(project.push().arg("./result")), set(["file", "fixed", "link"]));
        assert_eq!(project.pushed(project.push().arg(&path)), set(["file", "fixed", "link"]));
        let inside = project.push().arg(format!("{tools}/bin/alias"));
        assert_eq!(project.pushed(inside), set(["itself", "tools"]));
    });
}

#[test]
fn a_derivation_stands_for_all_its_outputs_and_outputs_can_be_chosen() {
    with_every_nix(|nix| {
        let project = Project::built(nix);
        let drv = &project.drv;
        let all = set(["base", "multi", "multi-dev", "multi-doc"]);
        assert_eq!(project.pushed(project.push().arg(drv)), all);
        assert_eq!(project.pushed(project.push().arg(format!("{drv}^*"))), all);
        assert_eq!(project.pushed(project.push().arg(format!("{drv}^doc"))), set(["multi-doc"]));
        let two = project.push().arg(format!("{drv}^out,doc"));
        assert_eq!(project.pushed(two), set(["base", "multi", "multi-doc"]));
    });
}

#[test]
fn an_output_that_a_derivation_does_not_have_is_named() {
    with_every_nix(|nix| {
        let project = Project::built(nix);
        let outcome = project.push().arg(format!("{}^out,nope", project.drv)).run();
        assert!(matches!(outcome.status.code(), Some(2 | 3)), "{outcome}");
        drop(outcome.says(&["error:", "nope", "dev, doc, out"]));
        assert!(!project.store.scratch.join("cache").exists());
    });
}

#[test]
fn a_dash_reads_installables_from_standard_input() {
    with_every_nix(|nix| {
        let project = Project::built(nix);
        let list = format!("{}^doc\n\n  {}  \n", project.drv, project.output("out"));
        let push = project.push().arg("-").stdin(list);
        assert_eq!(project.pushed(push), set(["base", "multi", "multi-doc"]));
        let both = project.push().arg(project.output("out")).arg("-").stdin(format!("{}^doc", project.drv));
        assert_eq!(project.pushed(both), set(["base", "multi", "multi-doc"]));
    });
}

#[test]
fn an_empty_list_on_standard_input_is_no_reason_to_push_something_else() {
    let project = Project::built(a_nix());
    let outcome = project.push().arg("-").stdin("\n").run();
    assert!(matches!(outcome.status.code(), Some(0 | 2)), "{outcome}");
    assert!(files_below(&project.store.scratch.join("cache")).iter().all(|file| file == "nix-cache-info"));
}

#[test]
fn a_flake_is_evaluated_by_nix() {
    with_every_nix(|nix| {
        let project = Project::built(nix);
        let store = &project.store;
        let body = project::multi();
        let system = format!("{}-linux", std::env::consts::ARCH);
        let flake = format!(
            "{{ outputs = _: let all = ({body}); in {{ packages.{system} = all // {{ default = all.multi; }}; }}; }}"
        );
        let dir = store.scratch.file("flake/flake.nix", flake).parent().unwrap().to_owned();
        let at = |fragment: &str| format!("path:{}{fragment}", dir.display());

        assert_eq!(project.pushed(project.push().arg(at("#base"))), set(["base"]));
        assert_eq!(project.pushed(project.push().arg(at("#multi^doc"))), set(["multi-doc"]));
        let two = project.push().arg(at("#multi^doc,dev"));
        assert_eq!(project.pushed(two), set(["base", "multi", "multi-dev", "multi-doc"]));
        assert_eq!(
            project.pushed(project.push().args([at("#base"), at("#multi^doc")])),
            set(["base", "multi-doc"])
        );
        let mixed = project.push().arg(project.output("doc")).arg(at("#base"));
        assert_eq!(project.pushed(mixed), set(["base", "multi-doc"]));

        // It has no revision until it is in a repository that has one.
        let revision = |flake: &str| {
            let outcome = project.push().arg(flake).arg("--dry-run").run().expect(0);
            outcome.json()["revision"].as_str().map(str::to_owned)
        };
        assert_eq!(revision(&at("#base")), None);
        let git = |args: &[&str]| {
            let mut git = std::process::Command::new("git");
            git.args(["-c", "user.name=x", "-c", "user.email=x", "-C"]).arg(&dir).args(args);
            let output = git.env("HOME", store.scratch.path()).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap().trim().to_owned()
        };
        git(&["init", "-q"]);
        git(&["add", "."]);
        git(&["commit", "-q", "-m", "x"]);
        assert_eq!(
            revision(&format!("git+file://{}#base", dir.display())),
            Some(git(&["rev-parse", "HEAD"]))
        );

        // The default installable, and a path to a flake.
        let cache = store.scratch.join("cache");
        let here = Run::push(store).cwd(&dir).args(["--allow-unsigned", "--json"]).to(&cache);
        assert_eq!(project.pushed(here), set(["base", "multi"]));
        assert_eq!(project.pushed(project.push().arg("./flake")), set(["base", "multi"]));
        assert!(!dir.join("result").exists(), "a link is left behind");
        assert!(!dir.join("flake.lock").exists(), "a lock file is left behind");
    });
}

#[test]
fn files_and_expressions_are_evaluated_by_nix() {
    with_every_nix(|nix| {
        let project = Project::built(nix);
        let file = project.store.expression(&project::multi()).to_str().unwrap().to_owned();
        let push = || project.push();
        let expr = format!("import {file}");
        let expr_doc = format!("(import {file}).multi.doc");
        // Which outputs an attribute stands for has changed between versions; it is for Nix to say.
        let named: [&[&str]; 6] = [
            &["-f", &file, "base"],
            &["--file", &file, "multi"],
            &["--file", &file, "multi.doc"],
            &["--file", &file, "multi.dev", "base"],
            &["--impure", "--expr", &expr_doc],
            &["--impure", "--expr", &expr, "user"],
        ];
        for args in named {
            let all: Vec<&str> = ["build", "--no-link", "--json"].iter().chain(args).copied().collect();
            let built: serde_json::Value = serde_json::from_str(&project.store.run("nix", &all)).unwrap();
            let outputs =
                built.as_array().unwrap().iter().flat_map(|one| one["outputs"].as_object().unwrap().values());
            let outputs: Vec<&str> = outputs.map(|path| path.as_str().unwrap()).collect();
            let closure = bases(&project.store.closure(&outputs));
            let closure = closure.iter().map(|path| path[33..].to_owned()).collect();
            assert_eq!(project.pushed(push().args(args.iter().copied())), closure, "{args:?}");
        }
        assert_eq!(project.pushed(push().args(["--file", &file, "multi^doc"])), set(["multi-doc"]));
        let chosen = ["--impure", "--expr", &expr, "multi^doc", "base"];
        assert_eq!(project.pushed(push().args(chosen)), set(["base", "multi-doc"]));

        let function = format!("{{ which, not ? true }}: if not then (import {file}).${{which}} else null");
        let function = project.store.scratch.file("function.nix", function).to_str().unwrap().to_owned();
        let named = ["-f", &function, "--argstr", "which", "base", "--arg", "not", "true"];
        assert_eq!(project.pushed(push().args(named)), set(["base"]));
        // What follows `--` goes to Nix as it is.
        assert_eq!(
            project.pushed(push().args(["-f", &function, "--", "--argstr", "which", "base"])),
            set(["base"])
        );
    });
}

#[test]
fn an_output_of_a_content_addressed_derivation_is_found() {
    with_every_nix(|nix| {
        let mut store = Store::new(nix);
        store.set("experimental-features", "nix-command flakes ca-derivations");
        let body = project::multi().replace(
            "name = \"multi\";",
            "name = \"multi\"; __contentAddressed = true; outputHashMode = \"recursive\"; outputHashAlgo = \"sha256\";",
        );
        let doc = store.build_one(&body, "multi.doc");
        let file = store.expression(&body).to_str().unwrap().to_owned();
        let push = Run::push(&store).args([
            "--allow-unsigned",
            "--json",
            "--to",
            "./cache",
            "-f",
            &file,
            "multi^doc",
        ]);
        if nix.version < (2, 14) {
            // Only a newer one says where such an output is.
            drop(push.run().expect(3).complains(&["--build"]));
            return;
        }
        push.run().expect(0);
        let cache = assert_closed(&store.scratch.join("cache"), &store.dir_text(), &[]);
        assert_eq!(cache.paths(), bases(&[doc].into()));
    });
}

#[test]
fn what_is_written_wrongly_is_answered_with_how_to_write_it() {
    let project = Project::built(a_nix());
    let link = project.store.scratch.join("nowhere");
    std::os::unix::fs::symlink("not-there", &link).unwrap();
    let wrong = [
        (format!("{}^", project.drv), "no output is named after the `^`"),
        (".#multi^".to_owned(), "no output is named after the `^`"),
        (format!("{}!dev", project.drv), "drv^dev"),
        ("./nowhere".to_owned(), "what it leads to is not there"),
        ("nowhere".to_owned(), "what it leads to is not there"),
    ];
    for (text, words) in wrong {
        project.push().arg(&text).run().expect(2).complains(&[words, &text]);
    }
}

#[test]
fn an_output_that_is_not_valid_is_named_with_the_command_that_builds_it() {
    with_every_nix(|nix| {
        let project = Project::new(nix);
        let file = project.store.expression(&project::multi()).to_str().unwrap().to_owned();
        let (out, doc) = (project.output("out"), project.output("doc"));
        for named in
            [vec![project.drv.clone()], vec!["-f".into(), file.clone(), "multi".into()], vec![out.clone()]]
        {
            let outcome = project.push().args(&named).run().expect(3).complains(&[&out]);
            if named[0] != out {
                let command = outcome.stderr().contains("nix build")
                    || outcome.stderr().contains("nix-store --realise");
                assert!(command && outcome.stderr().contains("--build"), "{outcome}");
            }
        }
        drop(project.push().arg(format!("{}^doc", project.drv)).run().expect(3).complains(&[&doc]));
        assert!(!Path::new(&out).exists() && !Path::new(&doc).exists(), "it was built");
        assert!(!project.store.scratch.join("cache").exists(), "something was pushed");
    });
}

#[test]
fn with_build_what_is_not_valid_is_built_first() {
    with_every_nix(|nix| {
        let project = Project::new(nix);
        let push = project.push().arg("--build").arg(&project.drv);
        assert_eq!(project.pushed(push), set(["base", "multi", "multi-dev", "multi-doc"]));
        let project = Project::new(nix);
        let file = project.store.expression(&project::multi()).to_str().unwrap().to_owned();
        let push = project.push().args(["--build", "-f", &file, "user", "multi.doc"]);
        assert_eq!(project.pushed(push), set(["base", "multi", "multi-dev", "multi-doc", "user"]));
        assert!(!project.store.scratch.join("result").exists(), "a link is left behind");
    });
}

#[test]
fn a_build_that_fails_is_reported_with_its_own_words() {
    with_every_nix(|nix| {
        let store = Store::new(nix);
        let body = "derivation { name = \"no\"; system = \"SYS\"; builder = \"/bin/sh\"; \
                    args = [ \"-c\" \"echo it cannot be done; exit 7\" ]; }";
        let body = body.replace("SYS", &format!("{}-linux", std::env::consts::ARCH));
        let outcome =
            Run::push(&store).args(["--impure", "--build", "--expr", &body, "--to", "./cache"]).run();
        drop(outcome.expect(3).says(&["it cannot be done", "error:", "-no"]));
    });
}

#[test]
fn a_dry_run_builds_nothing_even_when_asked_to() {
    let project = Project::new(a_nix());
    let outcome = project.push().args(["--dry-run", "--build"]).arg(&project.drv).run();
    assert!(matches!(outcome.status.code(), Some(0 | 2 | 3 | 4)), "{outcome}");
    assert!(!project.store.scratch.join("cache").exists());
}

#[test]
fn a_path_with_every_character_of_a_name_is_pushed() {
    with_every_nix(|nix| {
        let store = Store::new(nix);
        let path = store.build_one(&project::zoo(), "names");
        let outcome =
            Run::push(&store).args(["--allow-unsigned", "--json", "--to", "./cache"]).arg(&path).run();
        outcome.expect(0);
        let cache = assert_closed(&store.scratch.join("cache"), &store.dir_text(), &[]);
        assert_eq!(cache.paths(), bases(&[path].into()));
    });
}

#[test]
fn the_report_names_the_installables_as_they_were_given() {
    let project = Project::built(a_nix());
    let doc = project.output("doc");
    let report = project.push().arg(&doc).run().expect(0).json();
    assert_eq!(report["installables"], serde_json::json!([doc]));
    assert_eq!(report["schema"], "cache-helper/push-closure/1");
    assert_eq!(report["tool"]["name"], "cache-helper");
    assert_eq!(report["dryRun"], false);
}
