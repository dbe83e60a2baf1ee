//! What can be asked of a graph: by which ways something is needed, what decides how long a build takes, and a drawing of it.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::support::graphs::instantiate;
use crate::support::nix::{Store, a_nix, base, with_every_nix};
use crate::support::outcome::Outcome;
use crate::support::program::Run;
use crate::support::project;
use crate::support::scene::Scene;

fn ask(store: &Store, arguments: &[&str]) -> Outcome {
    Run::new(store).arg("graph").args(arguments.to_vec()).run()
}

/// The names on each way of an answer.
fn ways(answer: &Value) -> Vec<Vec<String>> {
    let name = |step: &Value| step["name"].as_str().unwrap().to_owned();
    let way = |way: &Value| way.as_array().unwrap().iter().map(name).collect();
    answer["paths"].as_array().unwrap().iter().map(way).collect()
}

#[test]
fn both_ends_of_a_way_can_be_named_in_many_ways() {
    with_every_nix(|nix| {
        let scene = Scene::unsigned(nix, &project::diamond(), "top");
        let store = &scene.store;
        let drv = |attr| store.instantiate(&project::diamond(), attr);
        let (top, bottom) = (drv("top"), drv("base"));
        std::os::unix::fs::symlink(scene.path("base"), store.scratch.join("result")).unwrap();
        let output = scene.path("base");
        let below = format!("{output}/text");
        let hashed = base(&output).to_owned();
        for to in [
            "base",
            "base.drv",
            &bottom,
            base(&bottom),
            &output,
            &below,
            &hashed,
            "./result",
            &format!("{bottom}^out"),
        ] {
            let answer = ask(store, &["--json", "--path", "top", to, &top]).expect(0).json();
            assert_eq!(
                (&answer["number"], &answer["from"], &answer["to"]),
                (&2.into(), &top.clone().into(), &bottom.clone().into())
            );
            let mut ways = ways(&answer);
            ways.sort();
            assert_eq!(ways, [["top", "left", "base"], ["top", "right", "base"]], "{to}");
            assert_eq!(answer["paths"][0][2]["outputs"], serde_json::json!(["out"]));
        }
        // Attribute paths, where an expression is named.
        let answer =
            ask(store, &["--json", "-f", "project", "--path", "left", "base", "top"]).expect(0).json();
        assert_eq!(ways(&answer), [["left", "base"]]);
        let text = ask(store, &["--path", &top, "base", &top]).expect(0);
        drop(text.says(&["top needs base in 2 ways\n", &format!("needs out of {bottom}")]));
        drop(ask(store, &["--path", "left", "left", &top]).expect(0).says(&["both are"]));
    });
}

#[test]
fn where_there_is_no_way_the_answer_is_no() {
    let store = Store::new(a_nix());
    let top = store.instantiate(&project::diamond(), "top");
    let no = |from: &str, to: &str| ask(&store, &["--path", from, to, &top]).expect(1);
    let outcome = no("left", "right");
    assert!(outcome.stdout.is_empty(), "{outcome}");
    drop(outcome.says(&["error: ", "left.drv does not need ", "right.drv"]));
    drop(no("base", "top").complains(&["does not need", "the other way round"]));
    let answer = ask(&store, &["--json", "--path", "left", "right", &top]).expect(1).json();
    assert_eq!((&answer["number"], &answer["paths"]), (&0.into(), &serde_json::json!([])));
}

#[test]
fn what_is_not_clear_is_asked_back() {
    let store = Store::new(a_nix());
    let body = project::diamond()
        .replace("left = d { name = \"left\";", "left = d { name = \"lib-1.0\";")
        .replace("right = d { name = \"right\";", "right = d { name = \"lib-2.0\";");
    let top = store.instantiate(&body, "top");
    let ask = |to: &str| ask(&store, &["--path", "top", to, &top]);
    drop(ask("lib").expect(2).complains(&[
        "\"lib\" may be any of 2",
        "lib-1.0.drv",
        "lib-2.0.drv",
        "name one of them by its .drv path",
    ]));
    // The download of a source is seldom meant.
    let body = body.replace(
        "lib-2.0\";",
        "lib-2.0.tar.gz\"; outputHashMode = \"flat\"; outputHashAlgo = \"sha256\"; outputHash = builtins.hashString \"sha256\" \"\";",
    );
    let with_download = store.instantiate(&body, "top");
    let outcome = Run::new(&store).args(["graph", "--path", "top", "lib", &with_download]).run().expect(0);
    drop(outcome.says(&["top needs lib-1.0 in one way"]));
    drop(ask("lib-1.0").expect(0).says(&["top needs lib-1.0 in one way"]));
    drop(ask("bas").expect(2).complains(&["\"bas\"", "there is base"]));
    drop(ask("xyz").expect(2).complains(&["\"xyz\"", "no derivation of this graph"]));
    // What lies about here is not meant, unless it is a link.
    store.scratch.file("xyz", "");
    drop(ask("xyz").expect(2).complains(&["no derivation of this graph"]));
    drop(ask("").expect(2).complains(&["no derivation of this graph"]));
    let other = format!("{}/{}-base", store.dir_text(), "0".repeat(32));
    drop(ask(&other).expect(2).complains(&[&other, "is not in this graph", "there is base"]));
    drop(ask("./nowhere").expect(3).complains(&["nowhere"]));
    drop(ask("a\u{1b}[31mb").expect(2).complains(&["\\u{1b}"]));
}

#[test]
fn many_of_one_name_hide_no_other_that_may_be_meant() {
    let store = Store::new(a_nix());
    let body = "rec { d = more: derivation ({ system = \"s\"; builder = \"b\"; } // more);
        some = builtins.genList (n: d { name = \"source\"; inherit n; below = d { name = \"my-source\"; }; }) 9;
        top = d { name = \"top\"; inherit some; }; }";
    let top = store.instantiate(body, "top");
    let outcome = ask(&store, &["--path", "top", "sourc", &top]).expect(2);
    drop(outcome.complains(&["source", "my-source"]));
}

#[test]
fn more_ways_than_anybody_reads_are_counted() {
    let store = Store::new(a_nix());
    let drv = instantiate(&store, 1000, 40);
    let answer = |more: &[&str]| {
        ask(&store, &[more, &["--json", "--path", "top", "node-0", &drv]].concat()).expect(0).json()
    };
    let many = answer(&[]);
    let number = many["number"].as_u64().unwrap();
    let lengths: Vec<usize> = ways(&many).iter().map(Vec::len).collect();
    assert_eq!((number > 1000, lengths.len(), lengths.is_sorted()), (true, 1000, true), "{number}");
    // How much is said of the work changes nothing in its result.
    assert_eq!(ways(&answer(&["-v"])), ways(&many));
    for (asked, told) in [("0", 0), ("7", 7), ("1001", 1001), ("all", 10_000)] {
        let some = answer(&["--paths", asked]);
        assert_eq!((some["number"].as_u64(), ways(&some).len()), (Some(number), told));
        assert!(ways(&some).iter().zip(&ways(&many)).all(|(one, other)| one == other), "{asked}");
    }
    let text = |more: &[&str]| ask(&store, &[more, &["--path", "top", "node-0", &drv]].concat());
    drop(text(&[]).expect(0).says(&[&format!("in {number} ways; the shortest 5"), "--paths N"]));
    drop(text(&["--paths", "7"]).expect(0).says(&[&format!("in {number} ways; the shortest 7")]));
    for wrong in ["10001", "-1", "some"] {
        drop(
            text(&[&format!("--paths={wrong}")])
                .expect(2)
                .says(&["write a number from 0 to 10000, or `all`"]),
        );
    }
}

#[test]
fn the_critical_path_leaves_downloads_out() {
    let store = Store::new(a_nix());
    let body = project::diamond().replace(
        "base = d { name = \"base\";",
        "base = d { name = \"base\"; outputHashMode = \"recursive\"; outputHashAlgo = \"sha256\"; \
         outputHash = \"sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\";",
    );
    let top = store.instantiate(&body, "top");
    let text = ask(&store, &["--critical-path", &top]).expect(0);
    drop(text.says(&["2 derivations have to be built one after the other, of 3 in all", "top.drv"]));
    let answer = ask(&store, &["--json", "--critical-path", &top]).expect(0).json();
    let way = &ways(&answer)[0];
    assert_eq!((answer["question"].as_str(), way.len(), &*way[0]), (Some("critical-path"), 2, "top"));
    assert!(["left", "right"].contains(&&*way[1]));
    let left = store.instantiate(&body, "left");
    drop(
        ask(&store, &["--critical-path", &left])
            .expect(0)
            .says(&["1 derivation has to be built, of 1 in all"]),
    );
    let download = store.instantiate(&body, "base");
    let answer = ask(&store, &["--json", "--critical-path", &download]).expect(0).json();
    assert_eq!(
        (&answer["number"], &answer["paths"], &answer["from"]),
        (&0.into(), &serde_json::json!([]), &Value::Null)
    );
    drop(ask(&store, &["--critical-path", &download]).expect(0).says(&["0 derivations"]));
}

#[test]
fn what_misses_block_is_said_and_which_of_them_follow_from_others() {
    let store = Store::new(a_nix());
    let [top, left, base] = ["top", "left", "base"].map(|attr| store.instantiate(&project::diamond(), attr));
    let text = ask(&store, &["--blocked-by", "base", &top]).expect(0);
    drop(text.says(&["3 derivations of 4 need base\n", "right.drv", "top.drv"]));
    let several = ["--blocked-by", &left, "--blocked-by", "base", &top];
    let text = ask(&store, &several).expect(0);
    drop(
        text.says(&[
            "2 derivations of 4 need base, left\n",
            "of the missing only base needs no other of them",
        ]),
    );
    let answer = ask(&store, &[&["--json"], several.as_slice()].concat()).expect(0).json();
    let names = |of: &str| {
        let all = answer[of].as_array().unwrap().iter();
        all.map(|one| one["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(
        (names("missing"), names("blocked")),
        (vec!["base".into(), "left".into()], vec!["right".into(), "top".into()])
    );
    assert_eq!(answer["missingRoots"], serde_json::json!([base]));
    let (nodes, _) = drawn(&ask(&store, &["--format", "dot", "--blocked-by", "left", &top]).expect(0));
    assert_eq!(nodes, BTreeSet::from(["left".to_owned(), "top".to_owned()]));
    drop(ask(&store, &["--blocked-by", "nothing", &top]).expect(2).complains(&["nothing"]));
    // The fewest roots with which all is built.
    drop(
        ask(&store, &[&left, &top, &base])
            .expect(0)
            .says(&["of these 1 would do: the others are needed by them"]),
    );
    let document = ask(&store, &["--json", &left, &top, &base]).expect(0).json();
    assert_eq!(document["summary"]["minimalRoots"], serde_json::json!([top]));
    assert!(!ask(&store, &[&top]).expect(0).stdout.contains("would do"));
}

#[test]
fn the_critical_path_is_told_in_seconds_where_these_are_known() {
    let store = Store::new(a_nix());
    let [top, left] = ["top", "left"].map(|attr| store.instantiate(&project::diamond(), attr));
    // By name, by path, by base name; the most exact one counts.
    let known = serde_json::json!({ "base": 100.5, left.as_str(): 60, "left": 1, "right": 7.25, "other": 3 });
    store.scratch.file("seconds.json", known.to_string());
    let words = ["--critical-path", "--seconds", "seconds.json", &top];
    let text = ask(&store, &words).expect(0);
    drop(text.says(&[
        "2 min 40 s at least, for 2 derivations one after the other",
        "1 min 40 s  ",
        "left.drv",
        "unknown: of 1 derivation no seconds are known, and none are counted: top",
    ]));
    let answer = ask(&store, &[&["--json"], words.as_slice()].concat()).expect(0).json();
    assert_eq!(
        (ways(&answer), answer["seconds"].as_f64()),
        (vec![vec!["left".into(), "base".into()]], Some(160.5))
    );
    assert_eq!(answer["paths"][0][0]["seconds"].as_f64(), Some(60.0));
    assert_eq!(answer["unknownSeconds"], serde_json::json!([top]));
    let answer = ask(&store, &["--json", "--critical-path", &top]).expect(0).json();
    assert_eq!((&answer["seconds"], &answer["unknownSeconds"]), (&Value::Null, &serde_json::json!([])));
    for wrong in ["", "[1]", r#"{"base": "1"}"#, r#"{"base": -1}"#, r#"{"base": 1e999}"#] {
        store.scratch.file("seconds.json", wrong);
        let outcome = ask(&store, &words).expect(2);
        drop(outcome.complains(&["seconds.json does not say how long builds take", "one JSON object"]));
    }
    drop(ask(&store, &["--seconds", "seconds.json", &top]).expect(2));
    std::fs::remove_file(store.scratch.join("seconds.json")).unwrap();
    drop(ask(&store, &words).expect(2).complains(&["seconds.json"]));
}

/// What is drawn: the derivations' names, and the edges between them with their labels.
type Drawing = (BTreeSet<String>, BTreeSet<(String, String, Option<String>)>);

/// Reads a drawing back, line by line, as strictly as what is written.
#[track_caller]
fn drawn(outcome: &Outcome) -> Drawing {
    let (mut nodes, mut edges) = (BTreeSet::new(), BTreeSet::new());
    let name = |quoted: &str| -> String {
        let base = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap();
        base.split_once('-').unwrap().1.strip_suffix(".drv").unwrap().to_owned()
    };
    let lines: Vec<&str> = outcome.stdout.lines().collect();
    assert_eq!((lines[0], *lines.last().unwrap()), ("digraph {", "}"), "{outcome}");
    for line in &lines[2..lines.len() - 1] {
        let line = line.trim().strip_suffix(';').unwrap();
        let (what, attributes) =
            line.split_once(" [").map_or((line, None), |(what, rest)| (what, rest.strip_suffix(']')));
        let label =
            attributes.and_then(|text| text.strip_prefix("label=\"")).and_then(|text| text.split('"').next());
        match what.split_once(" -> ") {
            Some((from, to)) => drop(edges.insert((name(from), name(to), label.map(str::to_owned)))),
            None => drop(nodes.insert(name(what))),
        }
    }
    assert!(edges.iter().all(|(from, to, _)| nodes.contains(from) && nodes.contains(to)));
    (nodes, edges)
}

#[test]
fn the_drawing_has_every_derivation_and_every_edge() {
    let store = Store::new(a_nix());
    let user = store.instantiate(&project::multi(), "user");
    let edge = |from: &str, to: &str, label: Option<&str>| {
        (from.to_owned(), to.to_owned(), label.map(str::to_owned))
    };
    let set = |names: &[&str]| names.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
    let (nodes, edges) = drawn(&ask(&store, &["--format", "dot", &user]).expect(0));
    assert_eq!(nodes, set(&["base", "multi", "user"]));
    assert_eq!(edges, BTreeSet::from([edge("multi", "base", None), edge("user", "multi", Some("dev"))]));
    // Of a question only what is on a way.
    let top = store.instantiate(&project::diamond(), "top");
    let (nodes, edges) = drawn(&ask(&store, &["--format", "dot", "--path", "top", "left", &top]).expect(0));
    assert_eq!((nodes, edges), (set(&["left", "top"]), BTreeSet::from([edge("top", "left", None)])));
    let (nodes, _) = drawn(&ask(&store, &["--format", "dot", "--path", "top", "base", &top]).expect(0));
    assert_eq!(nodes, set(&["base", "left", "right", "top"]));
    let (nodes, edges) = drawn(&ask(&store, &["--format", "dot", "--critical-path", &top]).expect(0));
    assert_eq!((nodes.len(), edges.len()), (3, 2));
    assert_eq!(
        drawn(&ask(&store, &["--format", "dot", "--path", "left", "right", &top]).expect(1)),
        (set(&[]), BTreeSet::new())
    );
}
