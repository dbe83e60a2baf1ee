//! Documents that are read back, and those that are refused.

use serde_json::{Value, json};

use super::*;
use crate::graph::Derivation;
use crate::graph::build_graph_tests::{derivation, drv_path};

fn saved(graph: &BuildGraph) -> Value {
    let store_dir = StoreDir::default();
    let contents = || Contents { builder: "/bin/sh".into(), args: vec!["-c".into()], ..Contents::default() };
    let derivations: Vec<SavedDerivation> = graph
        .indices()
        .map(|index| SavedDerivation::new(graph.derivation(index), graph, Some(contents()), &store_dir))
        .collect();
    json!({
        "schema": SCHEMA, "storeDir": store_dir.as_str(), "derivations": derivations, "more": 1,
        "roots": [derivations.last().map(|last| &last.drv)],
    })
}

#[test]
fn what_is_saved_is_read_back() {
    let mut dynamic = derivation(2, &[0, 1]);
    dynamic.inputs[1].dynamic.push("out^dev".into());
    let graph = BuildGraph::new(&[dynamic, derivation(1, &[0]), derivation(0, &[])]).expect("a graph");
    let document = saved(&graph);
    let back = SavedGraph::parse(document.to_string().as_bytes()).expect("a saved graph");
    assert_eq!(saved(&back.graph), document);
    assert_eq!((back.graph.len(), back.roots), (3, vec![drv_path(2)]));
    assert_eq!(back.contents[&drv_path(1)].builder, "/bin/sh");
}

#[test]
fn what_is_none_is_named() {
    let graph = BuildGraph::new(&[derivation(0, &[])]).expect("a graph");
    let broken = |change: fn(&mut Value)| {
        let mut document = saved(&graph);
        change(&mut document);
        SavedGraph::parse(document.to_string().as_bytes()).expect_err("broken").to_string()
    };
    assert!(broken(|document| document["schema"] = json!("cache-helper/audit/1")).contains("audit"));
    assert!(
        broken(|document| document["derivations"][0]["drv"] = json!("/tmp/x.drv")).contains("/tmp/x.drv")
    );
    assert!(broken(|document| document["derivations"] = json!({})).contains("no saved graph"));
    assert!(SavedGraph::parse(b"{").is_err());
    let drv = StoreDir::default().render_path(&drv_path(0));
    let named = |change| {
        let error = broken(change);
        assert!(error.contains(&drv), "{error}");
        error
    };
    named(|document| document["derivations"][0]["env"] = Value::Null);
    let without = |document: &mut Value| {
        document["derivations"][0].as_object_mut().expect("a derivation").remove("env");
    };
    assert!(named(without).contains("missing field `env`"));
    named(|document| document["derivations"][0]["env"] = json!({ "v": 1 }));
    named(|document| document["derivations"][0]["structuredAttrs"] = json!([]));
    let twice = |document: &mut Value| {
        let first = document["derivations"][0].clone();
        document["derivations"].as_array_mut().expect("derivations").push(first);
    };
    assert!(named(twice).contains("twice"));
    assert!(broken(|document| document["roots"] = json!([])).contains("roots"));
    let other = |document: &mut Value| {
        document["roots"] = json!([StoreDir::default().render_path(&drv_path(7))]);
    };
    assert!(broken(other).contains("-p7.drv is not among its derivations"));
    let output = |document: &mut Value| {
        document["derivations"][0]["drv"] = document["derivations"][0]["outputs"][0]["path"].clone();
    };
    assert!(broken(output).contains("is no path"));
    // What is no path is never taken for one, whatever else is wrong.
    let odd = |document: &mut Value| {
        document["derivations"][0]["drv"] = json!("/tmp\u{1b}[31m");
        document["derivations"][0].as_object_mut().expect("a derivation").remove("env");
    };
    let error = broken(odd);
    assert!(error.contains("is no path") && !error.contains('\u{1b}'), "{error}");
    let name = |document: &mut Value| {
        document["derivations"][0]["outputs"][0]["name"] = json!("o\u{1b}[31mut");
    };
    assert!(named(name).contains("is no name of an output"));
}

#[test]
fn what_no_way_can_be_is_refused() {
    let graph = BuildGraph::new(&[derivation(0, &[]), derivation(1, &[0])]).expect("a graph");
    let with = |way: &str| {
        let mut document = saved(&graph);
        document["derivations"][1]["inputs"][0]["dynamic"] = json!([way]);
        SavedGraph::parse(document.to_string().as_bytes()).map_err(|error| error.to_string())
    };
    assert!(with("out^dev").is_ok());
    for way in ["", "^", "out^", "^dev", "out", "a\u{1b}[31m^b"] {
        let error = with(way).expect_err(way);
        assert!(error.contains("is no name of an output") && !error.contains('\u{1b}'), "{error}");
    }
}

#[test]
fn a_derivation_that_says_nothing_was_not_read() {
    let graph = BuildGraph::new(&[derivation(0, &[])]).expect("a graph");
    let mut document = saved(&graph);
    for name in ["system", "builder", "args", "env", "structuredAttrs"] {
        document["derivations"][0].as_object_mut().expect("a derivation").remove(name);
    }
    let back = SavedGraph::parse(document.to_string().as_bytes()).expect("a saved graph");
    assert_eq!((back.graph.len(), back.contents.len()), (1, 0));
}

#[test]
fn where_a_derivation_stands_is_kept_instead_of_what_it_says() {
    let graph =
        BuildGraph::new(&[derivation(2, &[0, 1]), derivation(1, &[0]), derivation(0, &[])]).expect("a graph");
    let mut document = saved(&graph);
    document["zz"] = json!({ "derivations": [1, "\u{fc}"] });
    let text = document.to_string();
    // In any order of members, and with anything between them.
    let dir = "\"storeDir\":\"/nix/store\"";
    let first =
        text.replace(&format!("{dir},"), "").replacen('{', &format!("{{{dir},\"revision\":\"abc\","), 1);
    for text in [format!("\n {document:#}\n"), first, text] {
        let outline = SavedGraph::outline(text.as_bytes()).expect("a saved graph");
        let whole = SavedGraph::parse(text.as_bytes()).expect("a saved graph");
        assert_eq!((outline.contents.len(), &outline.roots), (3, &whole.roots));
        for (path, place) in &outline.contents {
            let start = usize::try_from(place.start).expect("a place");
            let there = &text.as_bytes()[start..start + place.length];
            let drv = outline.store_dir.render_path(path);
            assert_eq!(contents_of(&drv, there).as_ref(), Some(&whole.contents[path]));
            assert_eq!(contents_of("/nix/store/x", there), None);
        }
    }
}

#[test]
fn what_stands_there_twice_or_after_the_end_is_refused() {
    let graph = BuildGraph::new(&[derivation(0, &[])]).expect("a graph");
    let text = saved(&graph).to_string();
    for (from, to) in [
        ("\"derivations\":", "\"derivations\":[],\"derivations\":"),
        ("\"schema\":", "\"schema\":\"cache-helper/graph/1\",\"schema\":"),
        ("\"storeDir\":\"/nix/store\"", "\"storeDir\":\"/gnu/store\""),
        ("\"storeDir\":", "\"dir\":"),
        ("\"roots\":", "\"zz\":"),
        ("\"derivations\":", "\"zz\":"),
    ] {
        assert!(text.contains(from), "{from}");
        assert!(SavedGraph::parse(text.replacen(from, to, 1).as_bytes()).is_err(), "{to}");
    }
    assert!(SavedGraph::parse(format!("{text} {{}}").as_bytes()).is_err());
    assert!(SavedGraph::parse(text.as_bytes()).is_ok());
}

#[test]
fn each_of_many_inputs_has_its_own_ways() {
    const MANY: usize = 20_000;
    let needed: Vec<usize> = (0..MANY).collect();
    let mut top = derivation(MANY, &needed);
    for (number, input) in top.inputs.iter_mut().enumerate() {
        input.dynamic.push(format!("out^o{number}"));
    }
    let expected = top.inputs.clone();
    let all: Vec<Derivation> = needed.iter().map(|number| derivation(*number, &[])).chain([top]).collect();
    let graph = BuildGraph::new(&all).expect("a graph");
    let index = graph.find(&drv_path(MANY)).expect("a member");
    let saved = SavedDerivation::new(graph.derivation(index), &graph, None, &StoreDir::default());
    let ways = |drv: &StorePath| {
        let drv = StoreDir::default().render_path(drv);
        saved.inputs.iter().find(|input| input.drv == drv).map(|input| input.dynamic.clone())
    };
    for input in expected.iter().step_by(97) {
        assert_eq!(ways(&input.derivation).as_ref(), Some(&input.dynamic));
    }
}
