//! Saved graphs and `.drv` files from elsewhere as sides of `diff`: which are taken, and which are refused without harm.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::full_run;
use crate::support::graphs::{document, instantiate_above};
use crate::support::nix::{Nix, Store, a_nix, base, every_nix, with_every_nix};
use crate::support::outcome::Outcome;
use crate::support::program::{PROGRAM, Run};
use crate::support::project;
use crate::support::scratch::{copy_tree, make_writable};

/// A diamond in a store, and the saved graph of it.
struct Saved {
    store: Store,
    top: String,
    document: Value,
}

impl Saved {
    fn new() -> Self {
        let store = Store::new(a_nix());
        let top = store.instantiate(&project::diamond(), "top");
        let document = document(&store, &[&top]);
        store.scratch.file("good.json", document.to_string());
        Self { store, top, document }
    }

    fn diff(&self, old: &str, new: &str) -> Outcome {
        Run::new(&self.store).args(["diff", old, new]).run()
    }

    /// Compares the graph with what a change makes of its document.
    fn changed(&self, change: impl Fn(&mut Value)) -> Outcome {
        let mut document = self.document.clone();
        change(&mut document);
        self.store.scratch.file("changed.json", document.to_string());
        self.diff("good.json", "changed.json")
    }
}

#[test]
fn nothing_that_a_saved_graph_says_steers_the_terminal() {
    let saved = Saved::new();
    // Every run is searched for escape codes.
    let odd = "/x/\u{1b}[31m";
    let last = saved.document["derivations"].as_array().unwrap().len() - 1;
    saved.changed(|document| document["derivations"][last]["kind"] = json!(odd)).expect(2);
    saved.changed(|document| document["storeDir"] = json!(odd)).expect(2);
    saved.changed(|document| document["schema"] = json!(odd)).expect(2);
    saved.changed(|document| document["derivations"][last]["outputs"][0]["name"] = json!(odd)).expect(2);
    saved.changed(|document| document["derivations"][last]["inputs"][0]["dynamic"] = json!([odd])).expect(2);
    let drv = |document: &mut Value| {
        document["derivations"][last]["drv"] = json!(odd);
        document["derivations"][last].as_object_mut().unwrap().remove("env");
    };
    saved.changed(drv).expect(2).complains(&["is no path of its store"]);
    // A whole graph of a store of such a name, and files of such names.
    let elsewhere = saved.document.to_string().replace(&saved.store.dir_text(), "/x/\\u001b[31ms");
    saved.store.scratch.file("elsewhere.json", elsewhere);
    saved.diff("elsewhere.json", "elsewhere.json").expect(2).complains(&["is no path of its store"]);
    saved.store.scratch.file("e\u{1b}]0;t\u{7}.json", "{");
    saved.diff("good.json", "e\u{1b}]0;t\u{7}.json").expect(2).complains(&["e\\u{1b}]0;t\\u{7}.json"]);
    let text = fs::read_to_string(&saved.top).unwrap();
    let file = saved
        .store
        .scratch
        .file(&format!("d/{}", base(&saved.top)), text.replace(&saved.store.dir_text(), "/x/\u{1b}[31ms"));
    Run::new(&saved.store).arg("graph").arg(file).run().expect(3);
}

#[test]
fn what_begins_with_a_brace_is_a_saved_graph_whatever_it_is_called() {
    let saved = Saved::new();
    let text = format!("\n  {:#}\n", saved.document);
    saved.store.scratch.file("before", &text);
    saved.diff("before", "good.json").expect(0).says(&["no difference"]);
    saved.store.scratch.file("odd", "{");
    saved.diff("odd", "good.json").expect(2).complains(&["odd", "is no saved graph"]);
    // A pipe can be read only once.
    let line = format!("{PROGRAM} diff <(cat before) <(cat good.json)");
    let run = || Run::of("bash").envs(saved.store.env()).cwd(saved.store.scratch.path());
    run().args(["-c", &line]).run().expect(0).says(&["no difference"]);
    let line = format!("{PROGRAM} diff <(echo x) good.json");
    run().args(["-c", &line]).run().expect(2).complains(&["/dev/fd/", "is no saved graph"]);
    saved.diff("nothing.json", "good.json").expect(3).complains(&["there is no such file", "nothing.json"]);
    // What is no file is what it always was.
    saved.store.scratch.dir("dir.json");
    saved.diff("dir.json", "good.json").expect(3).complains(&["dir.json"]);
    saved.store.scratch.file("plain", "text");
    saved.diff("plain", "good.json").expect(3).complains(&["plain"]);
}

#[test]
fn a_derivation_that_stands_elsewhere_is_compared_without_nix() {
    let store = Store::new(a_nix());
    let expression = project::diamond();
    let [before, now] =
        [expression.clone(), expression.replace("name = \"base\";", "name = \"base\"; x = \"1\";")];
    assert_ne!(before, now);
    let [old, new] = [&before, &now].map(|expression| store.instantiate(expression, "top"));
    copy_tree(&store.dir(), &store.scratch.dir("elsewhere"));
    let away = |drv: &str| store.scratch.join("elsewhere").join(base(drv));
    let saved = document(&store, &[&old]);
    store.scratch.file("old.json", saved.to_string());
    let elsewhere = away(&new);
    for old in [PathBuf::from(&old), away(&old), store.scratch.join("old.json")] {
        let run = Run::of(PROGRAM).cwd(store.scratch.path()).arg("diff").args([&old, &elsewhere]);
        run.run().expect(1).says(&["1 derivation differs by itself", "base  rebuilds 4"]);
    }
    // Of one graph all files are in one directory.
    let run = Run::new(&store).arg("graph").args([PathBuf::from(&old), away(&new)]);
    run.run().expect(2).complains(&["are of different stores", "one directory"]);
}

#[test]
fn reading_stops_when_it_is_interrupted() {
    let saved = Saved::new();
    let pipe = saved.store.scratch.join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let running =
        Run::new(&saved.store).args(["diff", "pipe", "good.json"]).limit(Duration::from_secs(20)).spawn();
    // Opened when the program has opened it, too.
    let mut writer = File::options().write(true).open(&pipe).unwrap();
    writer.write_all(b"{").unwrap();
    running.signal(Signal::INT);
    running.wait().expect(130);
}

#[test]
fn each_side_has_its_revision() {
    let saved = Saved::new();
    let mut document = saved.document.clone();
    document["revision"] = json!("0123456789abcdef");
    saved.store.scratch.file("of-a-flake.json", document.to_string());
    let report =
        Run::new(&saved.store).args(["diff", "--json", "of-a-flake.json", &saved.top]).run().expect(0).json();
    assert_eq!(
        (&report["old"]["revision"], &report["new"]["revision"]),
        (&json!("0123456789abcdef"), &Value::Null)
    );
}

#[test]
fn many_files_that_are_gone_are_told_once_each_and_not_all() {
    let store = Store::new(a_nix());
    let expression = project::wide(40, 10);
    let old = store.instantiate(&expression, "top");
    let new = store.instantiate(&expression.replace("name = \"top\";", "name = \"top\"; x = \"1\";"), "top");
    assert_ne!(old, new);
    make_writable(&store.dir());
    for entry in fs::read_dir(store.dir()).unwrap() {
        let file = entry.unwrap().path();
        if ![&old, &new].contains(&&file.display().to_string())
            && file.extension().is_some_and(|end| end == "drv")
        {
            fs::remove_file(&file).unwrap();
        }
    }
    let outcome = Run::new(&store).args(["diff", &old, &new]).run().expect(1);
    let warnings: Vec<String> =
        outcome.stderr().lines().filter(|line| line.starts_with("warning: ")).map(str::to_owned).collect();
    assert_eq!(warnings.len(), 11, "{outcome}");
    assert!(warnings[10].contains("30 more .drv files cannot be used"), "{outcome}");
    let told: std::collections::BTreeSet<&String> = warnings.iter().collect();
    assert_eq!(told.len(), 11, "{outcome}");
}

/// A graph in which nearly all differ because of one, from the store and saved.
fn one_root_changed(nix: &Nix, count: usize, width: usize) {
    let store = Store::new(nix);
    let drvs = ["before", "after"].map(|seed| instantiate_above(&store, seed, count, width));
    let files = ["old.json", "new.json"];
    for (drv, file) in drvs.iter().zip(files) {
        let line = format!("{PROGRAM} graph --json {drv} > {file}");
        Run::of("bash").args(["-c", &line]).envs(store.env()).cwd(store.scratch.path()).run().expect(0);
    }
    let size = fs::metadata(store.scratch.join(files[0])).unwrap().len();
    for sides in [drvs.each_ref().map(String::as_str), files] {
        let run = Run::new(&store).args(["diff", "--json"]).args(sides).limit(Duration::from_secs(40));
        let outcome = run.watch_memory().run().expect(1);
        let report = outcome.json();
        let found: Vec<&Value> =
            report["differences"].as_array().unwrap().iter().map(|found| &found["new"]["name"]).collect();
        assert_eq!(found, ["seed"]);
        let rebuilds = usize::try_from(report["rebuilds"].as_u64().unwrap()).unwrap();
        // Downloads are what they are.
        assert!(rebuilds + width > count && rebuilds <= count + 1, "{rebuilds}");
        // Of a file not even what it says stays in memory.
        let allowed = (32 << 20) + size;
        assert!(outcome.peak_memory < allowed, "{} of {allowed}", outcome.peak_memory);
    }
}

#[test]
fn of_a_thousand_that_differ_because_of_one_only_that_is_named() {
    with_every_nix(|nix| one_root_changed(nix, 1000, 40));
}

#[test]
fn of_twenty_thousand_that_differ_because_of_one_only_that_is_named() {
    if full_run() {
        for nix in every_nix() {
            one_root_changed(nix, 20_000, 80);
        }
    }
}
