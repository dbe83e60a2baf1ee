//! Build graphs of real Nix expressions, and Nix as the judge of what is in them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde_json::Value;

use super::nix::{Nix, Store};
use super::program::Run;

/// The expression that makes graphs of any size.
const EXPRESSION: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/graphs");

/// Instantiates a graph of so many derivations in rows of `width`, and gives the `.drv` at the top.
pub(crate) fn instantiate(store: &Store, count: usize, width: usize) -> String {
    instantiate_with(store, count, width, &[])
}

/// The same with a derivation that all others need, which has this text.
pub(crate) fn instantiate_above(store: &Store, seed: &str, count: usize, width: usize) -> String {
    instantiate_with(store, count, width, &["--argstr", "seed", seed])
}

fn instantiate_with(store: &Store, count: usize, width: usize, more: &[&str]) -> String {
    let (count, width) = (count.to_string(), width.to_string());
    let words = [&[EXPRESSION, "--arg", "count", &count, "--arg", "width", &width], more].concat();
    store.run("nix-instantiate", &words).trim().to_owned()
}

/// Writes the files of so many derivations, `d0` and up, in rows of `width`, each of which needs all of the row before its own, into a
/// store, and gives the last. Nix would take minutes for a long chain, and a stack that it does not have.
pub(crate) fn rows(store: &Store, length: usize, width: usize) -> String {
    let (dir, real) = (store.dir_text(), store.dir());
    fs::create_dir_all(&real).unwrap();
    let file = |number: usize| format!("{number:032}-d{number}.drv");
    for number in 0..length {
        let row = number - number % width;
        let inputs: Vec<String> = (row.saturating_sub(width)..row)
            .map(|below| format!(r#"("{dir}/{}",["out"])"#, file(below)))
            .collect();
        let text = format!(
            r#"Derive([("out","{dir}/{:032}-d{number}","","")],[{}],[],"x","/b",[],[("name","d{number}")])"#,
            length + number,
            inputs.join(",")
        );
        fs::write(real.join(file(number)), text).unwrap();
    }
    real.join(file(length - 1)).display().to_string()
}

/// Attributes of every kind that the Nix knows, and the experimental features that they need. `all` is above all of them.
pub(crate) fn every_kind(nix: &Nix) -> (String, &'static str) {
    let is_new = nix.version >= (2, 32);
    let dynamic = if is_new { "(builtins.outputOf maker.outPath \"out\")" } else { "maker" };
    let expression = format!(
        r#"let
  d = a: derivation ({{ system = "{arch}-linux"; builder = "/bin/sh"; args = [ "-c" "true" ]; }} // a);
  addressed = {{ outputHashMode = "recursive"; outputHashAlgo = "sha256"; }};
in rec {{
  plain = d {{ name = "plain"; outputs = [ "out" "dev" ]; text = "say \"hello\"\n"; }};
  local = d {{ name = "local"; allowSubstitutes = false; }};
  structured = d {{ name = "structured"; __structuredAttrs = true; list = [ 1 2 ]; allowSubstitutes = false; }};
  fixed = d ({{ name = "fixed"; outputHash = builtins.hashString "sha256" "x"; }} // addressed);
  floating = d ({{ name = "floating"; __contentAddressed = true; }} // addressed);
  deferred = d {{ name = "deferred"; needs = [ floating plain.dev ]; }};
  maker = d {{ name = "maker{drv}"; __contentAddressed = true; outputHashMode = "{mode}"; outputHashAlgo = "sha256"; }};
  user = d {{ name = "user"; needs = [ {dynamic} ]; }};
  impure = d ({{ name = "impure"; __impure = true; needs = [ user ]; }} // addressed);
  all = d ({{ name = "all"; __impure = true; needs = [ deferred fixed impure local structured ]; }} // addressed);
}}
"#,
        arch = std::env::consts::ARCH,
        drv = if is_new { ".drv" } else { "" },
        mode = if is_new { "text" } else { "recursive" },
    );
    let features = if is_new {
        "nix-command flakes ca-derivations impure-derivations dynamic-derivations"
    } else {
        "nix-command flakes ca-derivations impure-derivations"
    };
    (expression, features)
}

/// What a derivation says, in one form for what Nix says of it and what the program does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) outputs: BTreeMap<String, Option<String>>,
    /// By `.drv` path the outputs that are needed, or the ways to them.
    pub(crate) inputs: BTreeMap<String, BTreeSet<String>>,
    pub(crate) sources: BTreeSet<String>,
    pub(crate) own: Value,
}

/// `cache-helper graph WHAT --format json`, checked against its schema.
#[track_caller]
pub(crate) fn document(store: &Store, what: &[&str]) -> Value {
    Run::new(store).args(["graph", "--format", "json"]).args(what.to_vec()).run().expect(0).json()
}

/// What a document says of every derivation, by `.drv` path. Inputs must come first.
#[track_caller]
pub(crate) fn said_in(document: &Value) -> BTreeMap<String, Said> {
    let mut said: BTreeMap<String, Said> = BTreeMap::new();
    for one in document["derivations"].as_array().unwrap() {
        let mut inputs: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for input in one["inputs"].as_array().unwrap() {
            let wanted = texts(&input["outputs"]).chain(texts(&input["dynamic"]));
            inputs.insert(text(&input["drv"]), wanted.collect());
            assert!(said.contains_key(&text(&input["drv"])), "{input} comes after what needs it");
        }
        let outputs = one["outputs"].as_array().unwrap().iter();
        let own = ["system", "builder", "args", "env", "structuredAttrs"];
        let new = Said {
            outputs: outputs
                .map(|output| (text(&output["name"]), output["path"].as_str().map(str::to_owned)))
                .collect(),
            inputs,
            sources: texts(&one["sources"]).collect(),
            own: own
                .iter()
                .filter_map(|key| Some(((*key).to_owned(), one.get(key)?.clone())))
                .collect::<serde_json::Map<_, _>>()
                .into(),
        };
        assert!(said.insert(text(&one["drv"]), new).is_none(), "{} is there twice", one["drv"]);
    }
    said
}

/// What Nix says of a derivation and all below it. (Newer versions print base names, sort what they say otherwise, and do not tell the
/// paths of downloads, which are taken from `known` then.)
pub(crate) fn said_by_nix(
    store: &Store,
    drv: &str,
    known: &BTreeMap<String, Said>,
) -> BTreeMap<String, Said> {
    let words: &[&str] =
        if store.nix.version < (2, 15) { &["show-derivation"] } else { &["derivation", "show"] };
    let shown = store.run("nix", &[words, &["--recursive", drv]].concat());
    let document: Value = serde_json::from_str(&shown).unwrap();
    let all = document.get("derivations").unwrap_or(&document).as_object().unwrap();
    let full = |path: &str| {
        if path.starts_with('/') { path.to_owned() } else { format!("{}/{path}", store.dir_text()) }
    };
    let mut said = BTreeMap::new();
    for (drv, one) in all {
        let (drvs, sources) = match one.get("inputs") {
            Some(inputs) => (&inputs["drvs"], &inputs["srcs"]),
            None => (&one["inputDrvs"], &one["inputSrcs"]),
        };
        let mut inputs = BTreeMap::new();
        for (input, wanted) in drvs.as_object().unwrap() {
            let mut ways = BTreeSet::new();
            add_ways(wanted, "", &mut ways);
            inputs.insert(full(input), ways);
        }
        let known = known.get(&full(drv));
        let outputs = one["outputs"].as_object().unwrap().iter().map(|(name, output)| {
            let path = match output.get("path") {
                Some(path) => path.as_str().map(full),
                None if output.get("hash").is_some() => known.and_then(|known| known.outputs[name].clone()),
                None => None,
            };
            (name.clone(), path)
        });
        let own = ["system", "builder", "args", "env", "structuredAttrs"];
        let mut own: serde_json::Map<String, Value> =
            own.iter().filter_map(|key| Some(((*key).to_owned(), one.get(key)?.clone()))).collect();
        // Older versions leave structured attributes where they stand in the file.
        if let Some(attributes) = own["env"].as_object_mut().unwrap().remove("__json") {
            let attributes = serde_json::from_str(attributes.as_str().unwrap()).unwrap();
            own.insert("structuredAttrs".to_owned(), attributes);
        }
        let sources = texts(sources).map(|source| full(&source)).collect();
        said.insert(full(drv), Said { outputs: outputs.collect(), inputs, sources, own: own.into() });
    }
    said
}

/// The outputs that are wanted of an input: a list, or, of newer versions, with what is wanted of outputs that are derivations.
fn add_ways(wanted: &Value, before: &str, ways: &mut BTreeSet<String>) {
    let outputs = wanted.get("outputs").unwrap_or(wanted);
    ways.extend(texts(outputs).map(|output| format!("{before}{output}")));
    for (output, below) in wanted.get("dynamicOutputs").and_then(Value::as_object).into_iter().flatten() {
        add_ways(below, &format!("{before}{output}^"), ways);
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}

fn texts(value: &Value) -> impl Iterator<Item = String> {
    value.as_array().into_iter().flatten().map(text)
}
