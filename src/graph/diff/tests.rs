//! Comparisons of graphs that are made as Nix makes them: the path of a derivation comes from what is in it.

use std::collections::{BTreeMap, HashMap};

use nix_derivation::{HashAlgorithm, StoreDir, StorePath, hash_bytes};

use super::*;
use crate::graph::aterm::tests::text;
use crate::graph::{Derivation, DerivationKind, Input, Output};

/// A derivation to be: a name, variables, and inputs by number, each in a variable of its own.
#[derive(Clone, Debug, Default)]
struct Model {
    name: String,
    variables: BTreeMap<String, String>,
    inputs: Vec<usize>,
    /// The content of a download.
    fixed: Option<String>,
    sources: Vec<(&'static str, String)>,
    /// Derivations that are sources as such, by number, each in a variable of its own.
    derivations: Vec<usize>,
    outputs: Vec<&'static str>,
}

fn model(name: &str, inputs: &[usize]) -> Model {
    Model { name: name.to_owned(), inputs: inputs.to_vec(), outputs: vec!["out"], ..Model::default() }
}

impl Model {
    fn with(mut self, name: &str, value: &str) -> Self {
        self.variables.insert(name.to_owned(), value.to_owned());
        self
    }

    fn fixed(mut self, content: &str) -> Self {
        self.fixed = Some(content.to_owned());
        self
    }

    fn source(mut self, name: &'static str, content: &str) -> Self {
        self.sources.push((name, content.to_owned()));
        self
    }

    fn derivations(mut self, derivations: &[usize]) -> Self {
        self.derivations = derivations.to_vec();
        self
    }

    fn outputs(mut self, outputs: &[&'static str]) -> Self {
        self.outputs = outputs.to_vec();
        self
    }
}

fn path(text: &str, name: &str) -> StorePath {
    let hash = hash_bytes(HashAlgorithm::Sha256, text.as_bytes());
    let digest = hash.digest_as_bytes().first_chunk().expect("32 bytes");
    StorePath::from_parts(*digest, name).expect("a path")
}

/// A graph with what its members say. The last is the root.
struct Made {
    graph: BuildGraph,
    contents: HashMap<StorePath, Contents>,
    /// The texts of their files; without one, what they say stands for itself.
    texts: HashMap<StorePath, Vec<u8>>,
    root: Vec<DerivationIndex>,
}

impl Made {
    fn side(&self) -> Side<'_> {
        Side { graph: &self.graph, roots: &self.root }
    }
}

fn make(models: &[Model]) -> Made {
    let dir = StoreDir::default();
    let (mut derivations, mut all): (Vec<Derivation>, _) = (Vec::new(), HashMap::new());
    for model in models {
        let mut env = model.variables.clone();
        env.insert("name".into(), model.name.clone());
        let mut inputs = BTreeMap::new();
        let mut modulo = String::new();
        for (place, input) in model.inputs.iter().enumerate() {
            let input: &Derivation = &derivations[*input];
            let output = input.outputs[0].path.as_ref().expect("a path");
            env.insert(format!("in{place}"), format!("{}/bin and more", dir.render_path(output)));
            modulo.push_str(&output.to_basename());
            inputs.insert(input.path.clone(), vec![input.outputs[0].name.clone()]);
        }
        let mut sources: Vec<StorePath> =
            model.sources.iter().map(|(name, content)| path(content, name)).collect();
        for (place, source) in sources.iter().enumerate() {
            env.insert(format!("source{place}"), dir.render_path(source));
        }
        for (place, number) in model.derivations.iter().enumerate() {
            let source = &derivations[*number].path;
            env.insert(format!("drv{place}"), dir.render_path(source));
            sources.push(source.clone());
        }
        let own = format!("{model:?}");
        let outputs: Vec<Output> = model
            .outputs
            .iter()
            .map(|output| {
                let text = match &model.fixed {
                    Some(content) => format!("fixed {content}"),
                    None => format!("{:?} {env:?} {modulo} {output}", model.sources),
                };
                let name =
                    if *output == "out" { model.name.clone() } else { format!("{}-{output}", model.name) };
                Output { name: (*output).to_owned(), path: Some(path(&text, &name)) }
            })
            .collect();
        for output in &outputs {
            let path = output.path.as_ref().expect("a path");
            env.insert(output.name.clone(), dir.render_path(path));
        }
        let drv = path(&format!("{own} {inputs:?} {env:?}"), &format!("{}.drv", model.name));
        let contents = Contents { system: "x".into(), builder: "/bin/sh".into(), env, ..Contents::default() };
        all.insert(drv.clone(), contents);
        derivations.push(Derivation {
            path: drv,
            kind: if model.fixed.is_some() {
                DerivationKind::FixedOutput
            } else {
                DerivationKind::InputAddressed
            },
            outputs,
            inputs: inputs
                .into_iter()
                .map(|(derivation, outputs)| Input { derivation, outputs, dynamic: Vec::new() })
                .collect(),
            sources,
            allows_substitutes: true,
        });
    }
    let graph = BuildGraph::new(&derivations).expect("a graph");
    let root = graph.find(&derivations.last().expect("a root").path).into_iter().collect();
    let says = |derivation: &Derivation| text(derivation, &all[&derivation.path], &dir);
    let texts = derivations.iter().map(|derivation| (derivation.path.clone(), says(derivation))).collect();
    Made { graph, contents: all, texts, root }
}

/// The differences, which are the same whether the texts are compared or what was read of them.
fn compare(old: &Made, new: &Made) -> Differences {
    let read = compare_as(old, new, |made, path| Says::Contents(&made.contents[path]));
    if !old.texts.is_empty() {
        let from_texts = compare_as(old, new, |made, path| Says::Text(&made.texts[path]));
        assert_eq!(from_texts, read);
    }
    read
}

fn compare_as<'a>(
    old: &'a Made,
    new: &'a Made,
    says: impl Fn(&'a Made, &StorePath) -> Says<'a>,
) -> Differences {
    let dir = StoreDir::default();
    let mut comparison = Comparison::new(old.side(), new.side(), &dir);
    loop {
        let wanted = comparison.wanted(3);
        if wanted.is_empty() {
            return comparison.finish();
        }
        for pair in wanted {
            let said = |made: &'a Made, index| says(made, &made.graph.derivation(index).path());
            let compared = comparison.compare(pair, &said(old, pair.old), &said(new, pair.new));
            comparison.take(pair, Some(compared.expect("it can be read")));
        }
    }
}

/// What differs: the name in the new graph, the changes in short, and the rebuilds.
fn shown(old: &Made, new: &Made) -> Vec<(String, Vec<String>, usize)> {
    let name = |made: &Made, index| made.graph.derivation(index).name().to_owned();
    let found = compare(old, new).found;
    let shown = found.iter().map(|difference| {
        let changes = difference.changes.iter().map(|change| match change {
            Change::Variable { name, old, new } => {
                let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".into());
                format!("{name}: {} -> {}", text(old), text(new))
            }
            Change::Source { name, old, new } => format!("source {name} {} {}", old.is_some(), new.is_some()),
            Change::InputAdded { input, .. } => format!("+ {}", name(new, *input)),
            Change::InputRemoved { input, .. } => format!("- {}", name(old, *input)),
            Change::InputOutputs { pair, old, new: now } => {
                format!("{}: {old:?} -> {now:?}", name(new, pair.new))
            }
            other => format!("{other:?}"),
        });
        (name(new, difference.pair.new), changes.collect(), difference.rebuilds)
    });
    shown.collect()
}

fn one(name: &str, changes: &[&str], rebuilds: usize) -> Vec<(String, Vec<String>, usize)> {
    vec![(name.to_owned(), changes.iter().map(ToString::to_string).collect(), rebuilds)]
}

#[test]
fn a_changed_variable_is_all_that_is_named_and_what_is_above_it_is_counted() {
    let models = |flags| {
        make(&[
            model("libc", &[]),
            model("zlib", &[0]).with("flags", flags),
            model("tool", &[0]),
            model("app", &[1, 2]),
            model("top", &[3, 2]),
        ])
    };
    assert_eq!(shown(&models("-O2"), &models("-O3")), one("zlib", &["flags: -O2 -> -O3"], 3));
    let same = compare(&models("-O2"), &models("-O2"));
    assert_eq!(same, Differences::default());
}

#[test]
fn another_version_is_in_the_place_of_the_one_before() {
    let models = |zlib| make(&[model(zlib, &[]), model("app", &[0]), model("top", &[1])]);
    let found = shown(&models("zlib-1.2"), &models("zlib-1.3"));
    assert_eq!(found, one("zlib-1.3", &["name: zlib-1.2 -> zlib-1.3"], 3));
}

#[test]
fn a_download_from_another_place_is_no_difference_and_another_content_is() {
    let models = |url: &str, content: &str| {
        make(&[model("source", &[]).with("url", url).fixed(content), model("app", &[0]), model("top", &[1])])
    };
    let same = compare(&models("http://a", "x"), &models("http://b", "x"));
    assert_eq!(same, Differences::default());
    let found = shown(&models("http://a", "x"), &models("http://b", "y"));
    assert_eq!(found, one("source", &["url: http://a -> http://b"], 3));
}

/// Found by fuzzing: they were rebuilt, and nothing said why.
#[test]
fn what_no_variable_tells_is_named_too() {
    let nameless = |mut made: Made| {
        for says in made.contents.values_mut() {
            says.env.remove("name");
        }
        made.texts.clear();
        made
    };
    let app = |input: Model| make(&[input, model("app", &[0])]);
    let found = shown(&app(model("x", &[]).fixed("1")), &app(model("x", &[]).fixed("2")));
    let content = |content: &str| path(&format!("fixed {content}"), "x");
    let change = Change::Content { old: content("1"), new: content("2") };
    assert_eq!(found, one("x", &[&format!("{change:?}")], 2));
    let found = shown(&app(model("x", &[])), &app(model("x", &[]).fixed("1")));
    let (old, new) = (DerivationKind::InputAddressed, DerivationKind::FixedOutput);
    assert_eq!(found, one("x", &[&format!("{:?}", Change::Kind { old, new })], 2));
    let found = shown(&nameless(app(model("x-1", &[]))), &nameless(app(model("x-2", &[]))));
    let change = Change::Name { old: "x-1".into(), new: "x-2".into() };
    assert_eq!(found, one("x-2", &[&format!("{change:?}")], 2));
}

#[test]
fn of_several_with_one_name_the_variable_tells_which_is_which() {
    let models = |first: &str, swap: bool| {
        let sources = [
            model("source", &[]).with("url", first),
            model("source", &[]).with("url", "second"),
            model("source", &[]).with("url", "third"),
        ];
        let order = if swap { [2, 1, 0] } else { [0, 1, 2] };
        let mut all: Vec<Model> = order.iter().map(|place| sources[*place].clone()).collect();
        let place = |wanted: usize| order.iter().position(|number| *number == wanted).expect("one");
        all.push(model("top", &[place(0), place(1), place(2)]));
        make(&all)
    };
    for swap in [false, true] {
        let found = shown(&models("first", false), &models("other", swap));
        assert_eq!(found, one("source", &["url: first -> other"], 2));
    }
}

#[test]
fn inputs_come_go_and_are_wanted_otherwise() {
    let before = make(&[model("a", &[]), model("b", &[]), model("top", &[0, 1])]);
    let now = make(&[model("a", &[]), model("c", &[]), model("d", &[1]), model("top", &[0, 2])]);
    let found = shown(&before, &now);
    // The input itself, and what only it needs, are built because of it.
    assert_eq!(
        found,
        one("top", &["in1: ", "- b", "+ d"], 3)
            .into_iter()
            .map(|(name, changes, rebuilds)| {
                let changes = changes
                    .into_iter()
                    .map(|change| if change == "in1: " { found[0].1[0].clone() } else { change });
                (name, changes.collect(), rebuilds)
            })
            .collect::<Vec<_>>()
    );
    assert!(found[0].1[0].starts_with("in1: "), "{found:?}");
    let outputs = |first| make(&[model("a", &[]).outputs(&[first, "doc"]), model("top", &[0])]);
    let found = shown(&outputs("dev"), &outputs("out"));
    assert_eq!(found.len(), 2, "{found:?}");
    let last = |name: &str| {
        let (_, changes, _) = found.iter().find(|(found, ..)| found == name).expect("it differs");
        changes.last().cloned().unwrap_or_default()
    };
    assert!(last("a").starts_with("Outputs"), "{found:?}");
    assert_eq!(last("top"), r#"a: ["dev"] -> ["out"]"#);
}

#[test]
fn a_changed_source_is_named_and_not_the_variable_that_holds_its_path() {
    let models = |content: &str| make(&[model("app", &[]).source("builder.sh", content), model("top", &[0])]);
    let found = shown(&models("one"), &models("two"));
    assert_eq!(found, one("app", &["source builder.sh true true"], 2));
}

#[test]
fn what_cannot_be_read_is_told_and_the_rest_is_compared() {
    let models = |flags| make(&[model("a", &[]).with("flags", flags), model("top", &[0])]);
    let (old, new) = (models("1"), models("2"));
    let dir = StoreDir::default();
    let mut comparison = Comparison::new(old.side(), new.side(), &dir);
    let wanted = comparison.wanted(9);
    assert_eq!(wanted.len(), 1);
    comparison.take(wanted[0], None);
    assert!(comparison.wanted(9).is_empty());
    let found = comparison.finish();
    assert_eq!((found.unread, found.rebuilds), (wanted, 2));
}

#[test]
fn who_takes_another_of_two_that_were_there_before_has_changed() {
    // app needs the new one, which top has needed before.
    let before = make(&[model("ssl-1", &[]), model("ssl-3", &[]), model("app", &[0]), model("top", &[1, 2])]);
    let now = make(&[model("ssl-3", &[]), model("app", &[0]), model("top", &[0, 1])]);
    let found = shown(&before, &now);
    assert_eq!((found.len(), found[0].0.as_str(), found[0].2), (1, "app", 2), "{found:?}");
    assert_eq!(found[0].1[1..], ["- ssl-1", "+ ssl-3"]);
    // Two that swap what they need.
    let swapped = |first, second| {
        make(&[
            model("lib-1", &[]),
            model("lib-2", &[]),
            model("p", &[first]),
            model("q", &[second]),
            model("top", &[2, 3]),
        ])
    };
    let found = shown(&swapped(0, 1), &swapped(1, 0));
    let names: Vec<&str> = found.iter().map(|(name, ..)| name.as_str()).collect();
    assert_eq!(names, ["p", "q"], "{found:?}");
}

#[test]
fn a_tool_below_a_download_rebuilds_nothing_that_is_there() {
    let models = |flags| {
        make(&[model("curl", &[]).with("flags", flags), model("source", &[0]).fixed("x"), model("top", &[1])])
    };
    assert_eq!(compare(&models("1"), &models("2")), Differences::default());
}

#[test]
fn what_a_download_is_fetched_with_does_not_rebuild_what_needs_the_download() {
    let models = |flags: &str, content: &str| {
        make(&[
            model("curl", &[]).with("flags", flags),
            model("source", &[0]).with("hash", content).fixed(content),
            model("app", &[1]),
            model("top", &[2]),
        ])
    };
    let found = shown(&models("1", "x"), &models("2", "y"));
    let expected = [one("source", &["hash: x -> y"], 3), one("curl", &["flags: 1 -> 2"], 1)].concat();
    assert_eq!(found, expected);
}

#[test]
fn of_several_roots_each_is_compared_with_the_one_of_its_name() {
    let models = |names: [&str; 2], flags| {
        let mut made = make(&[model(names[0], &[]), model(names[1], &[]).with("flags", flags)]);
        made.root = made.graph.indices().collect();
        made
    };
    let (before, now) = (models(["a", "b"], "1"), models(["c", "b"], "2"));
    let found = compare(&before, &now);
    let name = |made: &Made, index| made.graph.derivation(index).name().to_owned();
    assert_eq!(found.found.len(), 1);
    assert_eq!(name(&now, found.found[0].pair.new), "b");
    assert_eq!(found.removed.iter().map(|index| name(&before, *index)).collect::<Vec<_>>(), ["a"]);
    assert_eq!(found.added.iter().map(|index| name(&now, *index)).collect::<Vec<_>>(), ["c"]);
}

mod derivation_sources;
mod places;
mod properties;

#[test]
fn of_several_sources_of_one_name_the_variable_tells_which_is_which() {
    let models = |contents: [&str; 3]| {
        let all = contents.iter().fold(model("app", &[]), |model, content| model.source("f", content));
        make(&[all, model("top", &[0])])
    };
    for (number, old) in ["one", "two", "three", "four", "five"].iter().enumerate() {
        let found = shown(&models([old, "x", "y"]), &models(["new", &format!("{number}x"), "y"]));
        assert_eq!(found, one("app", &["source f true true", "source f true true"], 2));
    }
}

#[test]
fn structured_attributes_differ_by_being_there_by_kind_and_by_name() {
    let with = |attributes: serde_json::Value, number: &str| {
        let mut made = make(&[model("x", &[]).with("n", number).outputs(&["out", "dev"])]);
        for says in made.contents.values_mut() {
            let structured_attributes = attributes.as_object().cloned();
            *says = Contents { structured_attributes, ..Contents::default() };
        }
        made.texts.clear();
        made
    };
    let changes = |old, new| shown(&with(old, "1"), &with(new, "2")).remove(0).1;
    let null = serde_json::Value::Null;
    let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).expect("JSON");
    assert_eq!(changes(null, json("{}")), ["__structuredAttrs: nothing -> true"]);
    assert_eq!(changes(json(r#"{"a":"1"}"#), json(r#"{"a":1}"#)), [r#"a: "1" -> 1"#]);
    assert_eq!(changes(json(r#"{"dev":"x"}"#), json(r#"{"dev":"y"}"#)), ["dev: x -> y"]);
    let both = changes(json(r#"{"a":{"b":"1"},"a.b":"2"}"#), json(r#"{"a":{"b":"2"},"a.b":"1"}"#));
    assert_eq!(both, [r#""a.b": 2 -> 1"#, "a.b: 1 -> 2"]);
}

/// Found by fuzzing: the attribute hid the variable.
#[test]
fn a_variable_beside_a_structured_attribute_of_its_name_is_compared_too() {
    let with = |value: &str| {
        let mut made = make(&[model("x", &[]).with("flags", value)]);
        for says in made.contents.values_mut() {
            says.structured_attributes = serde_json::json!({ "flags": "same" }).as_object().cloned();
        }
        made.texts.clear();
        made
    };
    assert_eq!(shown(&with("1"), &with("2")), one("x", &["flags: 1 -> 2"], 1));
}

#[test]
fn structured_attributes_are_compared_by_their_members() {
    let attributes = |flag| serde_json::json!({ "env": { "flags": ["-a", flag] }, "name": "x" });
    let contents = |flag| Contents {
        structured_attributes: attributes(flag).as_object().cloned(),
        ..Contents::default()
    };
    let mut old = make(&[model("x", &[]).with("n", "1")]);
    let mut new = make(&[model("x", &[]).with("n", "2")]);
    for (made, flag) in [(&mut old, "-b"), (&mut new, "-c")] {
        for says in made.contents.values_mut() {
            *says = contents(flag);
        }
        made.texts.clear();
    }
    assert_eq!(shown(&old, &new), one("x", &[r#"env.flags: [ "-a" "-b" ] -> [ "-a" "-c" ]"#], 1));
}

#[test]
fn a_long_chain_and_a_wide_graph_are_gone_through() {
    let models = |flags: &str| {
        let mut all = vec![model("root", &[]).with("flags", flags)];
        all.extend((0..5_000).map(|number| model(&format!("c{number}"), &[number])));
        all.extend((0..2_000).map(|number| model(&format!("w{number}"), &[number])));
        all.push(model("top", &(0..all.len()).collect::<Vec<_>>()));
        make(&all)
    };
    let found = shown(&models("1"), &models("2"));
    assert_eq!(found, one("root", &["flags: 1 -> 2"], 7_002));
}
