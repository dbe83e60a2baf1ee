//! `graph` as its users see it: what it says of real graphs, in every store, and what can be named.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::full_run;
use crate::support::graphs::{document, every_kind, instantiate, said_by_nix, said_in};
use crate::support::nix::{Nix, Store, a_nix, base, every_nix, with_every_nix};
use crate::support::program::{PROGRAM, Run};
use crate::support::project;
use crate::support::scene::Scene;

/// Holds a document against what Nix says of the same derivation, and its sums against what is in it.
#[track_caller]
fn agrees_with_nix(store: &Store, drv: &str, document: &Value) {
    let said = said_in(document);
    let nix = said_by_nix(store, drv, &said);
    assert_eq!(said.keys().collect::<Vec<_>>(), nix.keys().collect::<Vec<_>>());
    for (drv, said) in &said {
        assert_eq!(said, &nix[drv], "{drv}");
    }
    let summary = &document["summary"];
    let sum = |of: &dyn Fn(&crate::support::graphs::Said) -> usize| said.values().map(of).sum::<usize>();
    assert_eq!(summary["derivations"], said.len());
    assert_eq!(summary["outputs"], sum(&|one| one.outputs.len()));
    assert_eq!(summary["edges"], sum(&|one| one.inputs.len()));
    assert_eq!(summary["sources"], said.values().flat_map(|one| &one.sources).collect::<BTreeSet<_>>().len());
    let bytes: u64 = said.keys().map(|drv| fs::metadata(drv).unwrap().len()).sum();
    assert_eq!(summary["drvBytes"], bytes);
    assert_eq!(document["roots"], serde_json::json!([drv]));
    assert_eq!(
        (&document["storeDir"], &document["damaged"]),
        (&store.dir_text().into(), &serde_json::json!([]))
    );
}

#[test]
fn of_ten_and_of_a_thousand_derivations_it_says_what_nix_says() {
    with_every_nix(|nix| {
        for (count, width) in [(10, 4), (1000, 40)] {
            let store = Store::new(nix);
            let drv = instantiate(&store, count, width);
            let document = document(&store, &[&drv]);
            agrees_with_nix(&store, &drv, &document);
            let summary = &document["summary"];
            assert_eq!((&summary["derivations"], &summary["width"]), (&count.into(), &width.into()));
            let rows = (count - 1).div_ceil(width);
            assert_eq!(summary["depth"], rows + 1);
        }
    });
}

#[test]
fn of_twenty_thousand_derivations_it_says_all_in_little_memory() {
    let nixes: Vec<&Nix> = if full_run() { every_nix().iter().collect() } else { vec![a_nix()] };
    for nix in nixes {
        let store = Store::new(nix);
        let drv = instantiate(&store, 20_000, 80);
        let run = Run::new(&store).args(["graph", "--json", &drv]).limit(Duration::from_mins(3));
        let outcome = run.watch_memory().run().expect(0);
        // The document alone has three times as much.
        let mebibytes = outcome.peak_memory >> 20;
        assert!(mebibytes < 64, "{mebibytes} MiB");
        let document: Value = serde_json::from_str(&outcome.stdout).unwrap();
        let drvs: BTreeSet<String> = said_in(&document).into_keys().collect();
        let mut closure = store.closure(&[&drv]);
        closure.retain(|path| !path.ends_with("-builder.sh"));
        assert_eq!(drvs, closure);
        assert_eq!((drvs.len(), &document["summary"]["depth"]), (20_000, &251.into()));
        let text = Run::new(&store).args(["graph", &drv]).run().expect(0);
        drop(text.says(&["20000 derivations, 251 deep, at most 80 side by side", "fixed-output", "node-0"]));
    }
}

#[test]
fn every_kind_of_derivation_is_known() {
    with_every_nix(|nix| {
        let mut store = Store::new(nix);
        let (expression, features) = every_kind(nix);
        store.set("experimental-features", features);
        let drv = store.instantiate(&expression, "all");
        let document = document(&store, &[&drv]);
        agrees_with_nix(&store, &drv, &document);
        let kinds: BTreeMap<String, BTreeSet<String>> = by(&document, "kind");
        let set = |names: &[&str]| names.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
        let is_new = features.contains("dynamic");
        let maker = if is_new { "maker.drv" } else { "maker" };
        assert_eq!(kinds["input-addressed"], set(&["plain", "local", "structured"]));
        assert_eq!(kinds["fixed-output"], set(&["fixed"]));
        assert_eq!(kinds["content-addressed"], set(&["floating", maker]));
        assert_eq!(kinds["deferred"], set(&["deferred", "user"]));
        assert_eq!(kinds["impure"], set(&["impure", "all"]));
        assert_eq!(by(&document, "allowsSubstitutes")["false"], set(&["local", "structured"]));
        assert_eq!(document["summary"]["dynamicInputs"], usize::from(is_new));
        let text = Run::new(&store).args(["graph", "--path", "all", maker, &drv]).run().expect(0);
        let way = if is_new { "needs out^out of" } else { "needs out of" };
        drop(text.says(&["all needs", "in one way", way]));
    });
}

/// The names of derivations by something that is said of them.
fn by(document: &Value, what: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut by: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for one in document["derivations"].as_array().unwrap() {
        let value = one[what].as_str().map_or_else(|| one[what].to_string(), str::to_owned);
        by.entry(value).or_default().insert(one["name"].as_str().unwrap().to_owned());
    }
    by
}

/// The names in a document.
fn names(document: &Value) -> BTreeSet<String> {
    by(document, "name").into_keys().collect()
}

#[test]
fn it_works_for_every_store_directory() {
    with_every_nix(|nix| {
        // A store below a directory, whose paths begin with /nix/store.
        let store = Store::new(nix);
        let root = store.scratch.dir("root").to_str().unwrap().to_owned();
        let plain: Vec<(String, String)> = store
            .env()
            .into_iter()
            .filter(|(name, _)| name == "PATH" || !name.starts_with("NIX_") || name == "NIX_CONFIG")
            .collect();
        let run = |program: &std::path::Path, remote: &str, dir: Option<&str>| {
            let run =
                Run::of(program).envs(plain.clone()).env("NIX_REMOTE", remote).cwd(store.scratch.path());
            match dir {
                Some(dir) => run.env("NIX_STORE_DIR", dir),
                None => run,
            }
        };
        let instantiated = |remote: &str, dir: Option<&str>| {
            let run = run(&nix.dir.join("nix-instantiate"), remote, dir);
            let expression = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/graphs");
            run.args([expression, "--arg", "count", "10", "--arg", "width", "4"])
                .run()
                .expect(0)
                .stdout
                .trim()
                .to_owned()
        };
        let gnu = store.scratch.dir("gnu").to_str().unwrap().to_owned();
        let elsewhere = format!("local?real={gnu}/store&state={gnu}/var&log={gnu}/log");
        let rooted = format!("local?root={root}");
        for (remote, dir, files) in [
            (&root, None, format!("{root}/nix/store")),
            (&rooted, None, format!("{root}/nix/store")),
            (&elsewhere, Some("/gnu/store"), format!("{gnu}/store")),
        ] {
            let drv = instantiated(remote, dir);
            let expected = dir.unwrap_or("/nix/store");
            assert!(drv.starts_with(expected), "{drv}");
            let file = format!("{files}/{}", base(&drv));
            let graph = |what: &str| {
                run(PROGRAM.as_ref(), remote, dir).args(["graph", "--json", what]).run().expect(0).json()
            };
            // By its name, which only Nix knows where to find, and as a file, which needs no Nix.
            let document = graph(&drv);
            assert_eq!(
                (&document["storeDir"], &document["roots"][0]),
                (&expected.into(), &drv.clone().into())
            );
            assert_eq!((names(&document).len(), &document["warnings"]), (10, &serde_json::json!([])));
            let alone = Run::of(PROGRAM).args(["graph", "--json", &file]).run().expect(0).json();
            assert_eq!(alone["derivations"], document["derivations"]);
            assert_eq!(alone["storeDir"], expected);
        }
    });
}

#[test]
fn without_nix_files_can_be_shown_and_nothing_else() {
    let store = Store::new(a_nix());
    let (one, other) =
        (store.instantiate(&project::diamond(), "left"), store.instantiate(&project::diamond(), "right"));
    let alone =
        |what: &[&str]| Run::of(PROGRAM).cwd(store.dir()).args(["graph", "--json"]).args(what.to_vec()).run();
    let document = alone(&[&one, base(&other), &one]).expect(0).json();
    assert_eq!(document["roots"], serde_json::json!([one, other]));
    assert_eq!(names(&document).len(), 3);
    drop(alone(&[".#x"]).expect(3).complains(&["`nix` is not on PATH"]));
    drop(alone(&[&format!("{one}^out")]).expect(3).complains(&["`nix` is not on PATH"]));
}

#[test]
fn whatever_can_be_audited_can_be_shown() {
    with_every_nix(|nix| {
        let scene = Scene::unsigned(nix, &project::diamond(), "top");
        let store = &scene.store;
        let drv = store.instantiate(&project::diamond(), "top");
        let all = said_in(&document(store, &[&drv])).into_keys().collect::<Vec<_>>();
        std::os::unix::fs::symlink(&scene.top, store.scratch.join("result")).unwrap();
        let text = fs::read_to_string(store.scratch.join("project/default.nix")).unwrap();
        let expression = format!("({text}).top");
        for what in [
            &[scene.top.as_str()][..],
            &["./result"],
            &[&format!("{drv}^out")],
            &["-f", "project", "top"],
            &["-f", "project", "top^*"],
            &["--expr", &expression, "--impure"],
            &[&drv, "./result"],
        ] {
            let document = document(store, what);
            assert_eq!(document["roots"], serde_json::json!([drv]), "{what:?}");
            assert_eq!(said_in(&document).into_keys().collect::<Vec<_>>(), all);
        }
        let listed = Run::new(store)
            .args(["graph", "--json", "-"])
            .stdin(format!("{drv}\n\n{}\n", scene.path("left")));
        assert_eq!(listed.run().expect(0).json()["roots"].as_array().unwrap().len(), 2);
    });
}

#[test]
fn wrong_input_gets_one_line_and_what_to_do() {
    let store = Store::new(a_nix());
    let drv = store.instantiate(&project::diamond(), "top");
    let complains = |arguments: &[&str], code: i32, words: &[&str]| {
        drop(Run::new(&store).arg("graph").args(arguments.to_vec()).run().expect(code).complains(words));
    };
    complains(&[&format!("{drv}^nope")], 2, &["nope", "out"]);
    complains(&["-f", "project", "nothing"], 3, &["nothing"]);
    complains(&["./nowhere"], 3, &["nowhere"]);
    let gone = format!("{}/{}-gone.drv", store.dir_text(), "0".repeat(32));
    complains(&[&gone], 3, &["cannot read", &gone]);
    complains(&[&format!("{}/{}-alone", store.dir_text(), "0".repeat(32))], 3, &["no derivation"]);
    complains(&["-"], 2, &["standard input names nothing"]);
    for usage in [
        &["--format", "svg", &drv][..],
        &["--json", "--format", "dot", &drv],
        &["--path", &drv],
        &["--path", "a", "b", "--path", "c", "d", &drv],
        &["--path", "a", "b", "--critical-path", &drv],
    ] {
        Run::new(&store).arg("graph").args(usage.to_vec()).run().expect(2);
    }
}

#[test]
fn its_help_shows_every_option_and_every_exit_status() {
    let help = Run::of(PROGRAM).args(["graph", "--help"]).run().expect(0).stdout;
    for word in [
        "--path",
        "--critical-path",
        "--format",
        "human",
        "json",
        "dot",
        "--file",
        "Examples:",
        "Exit status:",
        "130",
    ] {
        assert!(help.contains(word), "no {word} in\n{help}");
    }
}

#[test]
fn interrupted_it_does_not_wait_for_a_reader() {
    let store = Store::new(a_nix());
    let drv = instantiate(&store, 1000, 40);
    let pipe = store.scratch.join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    // Open for both, and never read: more than fits into it is waiting soon.
    let reader = fs::OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
    let line = format!("exec {PROGRAM} graph --json {drv} > {}", pipe.display());
    let run = Run::of("/bin/sh").args(["-c", &line]).envs(store.env()).cwd(store.scratch.path());
    let running = run.limit(Duration::from_secs(20)).spawn();
    while rustix::io::ioctl_fionread(&reader).unwrap() < 32_768 && !running.has_ended() {
        std::thread::sleep(Duration::from_millis(1));
    }
    running.signal(Signal::INT);
    drop(running.wait().expect(130).says(&["interrupted before the graph was written"]));
}

#[test]
fn a_full_disk_is_told() {
    let store = Store::new(a_nix());
    let drv = store.instantiate(&project::diamond(), "top");
    for format in ["json", "dot"] {
        let line = format!("{PROGRAM} graph --format {format} {drv} > /dev/full");
        let run = Run::of("/bin/sh").args(["-c", &line]).envs(store.env()).run();
        drop(run.expect(3).complains(&["cannot write to standard output"]));
        let head = format!("{PROGRAM} graph --format {format} {drv} | head -c 1; exit ${{PIPESTATUS[0]}}");
        Run::of("bash").args(["-c", &head]).envs(store.env()).run().expect(0);
    }
}
