//! A graph is the same however it was put together, and what cannot be part of one is refused without a trace.

use proptest::prelude::*;

use super::*;
use crate::graph::build_graph_tests::{derivation, drv_path};
use crate::graph::tests::graphs;
use crate::graph::{Input, Output, SavedDerivation};

/// Some derivations of every kind, with several outputs, sources, dynamic inputs and some that are not read. Each needs some of those
/// before it.
fn derivations() -> impl Strategy<Value = Vec<Derivation>> {
    let odds = prop::collection::vec((0u8..8, 0usize..4, any::<bool>()), 40);
    (graphs(), odds).prop_map(|(graph, odds)| {
        let mut all: Vec<Derivation> = Vec::new();
        for (number, (needed, (kind, sources, substitutes))) in graph.iter().zip(odds).enumerate() {
            let mut one = derivation(number, &[]);
            one.kind = match kind {
                0 => DerivationKind::FixedOutput,
                1 => DerivationKind::Deferred,
                2 => DerivationKind::Floating,
                3 => DerivationKind::Impure,
                4 => DerivationKind::Unread,
                _ => DerivationKind::InputAddressed,
            };
            one.allows_substitutes = substitutes;
            one.sources = (0..sources).map(|source| drv_path(1000 + source)).collect();
            if kind > 5 {
                one.outputs.insert(0, Output { name: "dev".into(), path: None });
            }
            let mut needed = needed.clone();
            needed.sort_unstable();
            needed.dedup();
            for input in needed.into_iter().filter(|input| *input != number) {
                let last = all[input].outputs.len() - 1;
                let dynamic = if kind == 2 { vec!["out^dev".to_owned()] } else { Vec::new() };
                let outputs = vec![all[input].outputs[(number + input) % (last + 1)].name.clone()];
                one.inputs.push(Input { derivation: all[input].path.clone(), outputs, dynamic });
            }
            all.push(one);
        }
        all
    })
}

fn add(builder: &mut BuildGraphBuilder, derivation: &Derivation) {
    match derivation.kind {
        DerivationKind::Unread => builder.add_unread(&derivation.path),
        _ => builder.add(derivation),
    }
}

/// The graph of one builder, in which they are added in turn.
fn in_one(all: &[Derivation]) -> BuildGraph {
    let mut builder = BuildGraphBuilder::default();
    for derivation in all {
        add(&mut builder, derivation);
    }
    builder.finish().expect("a graph")
}

/// All that can be seen of a graph.
fn seen(graph: &BuildGraph) -> Vec<(SavedDerivation, Vec<usize>)> {
    let store_dir = StoreDir::default();
    let dependents = |index| graph.dependents(index).iter().map(|index| index.position()).collect();
    let mut all = Vec::new();
    for index in graph.indices() {
        let view = graph.derivation(index);
        assert_eq!(graph.find(&view.path()), Some(index));
        for (position, output) in view.outputs().enumerate() {
            if let Some(path) = output.path() {
                assert_eq!(graph.maker(&path), Some((index, position)));
            }
        }
        all.push((SavedDerivation::new(view, graph, None, &store_dir), dependents(index)));
    }
    all
}

proptest! {
    #[test]
    fn neither_order_nor_split_matters(
        all in derivations(),
        parts in prop::collection::vec(0usize..4, 40),
        order in Just((0..40).collect::<Vec<usize>>()).prop_shuffle(),
    ) {
        let expected = seen(&in_one(&all));
        prop_assert_eq!(expected.len(), all.len());

        let mut builders: Vec<BuildGraphBuilder> = (0..4).map(|_| BuildGraphBuilder::default()).collect();
        for number in order.into_iter().filter(|number| *number < all.len()) {
            add(&mut builders[parts[number]], &all[number]);
        }
        let mut whole = BuildGraphBuilder::default();
        for part in &builders {
            whole.absorb(part);
        }
        // And once more, which changes nothing.
        whole.absorb(&builders[0]);
        prop_assert_eq!(seen(&whole.finish().expect("a graph")), expected);
    }

    #[test]
    fn what_is_saved_is_the_same_graph(all in derivations()) {
        let graph = in_one(&all);
        let derivations: Vec<_> = seen(&graph).into_iter().map(|(saved, _)| saved).collect();
        let document = serde_json::json!({
            "schema": crate::graph::SAVED_SCHEMA,
            "storeDir": "/nix/store",
            "roots": derivations.iter().map(|saved| &saved.drv).collect::<Vec<_>>(),
            "derivations": derivations,
        });
        let back = crate::graph::SavedGraph::parse(document.to_string().as_bytes()).expect("a saved graph");
        prop_assert_eq!(seen(&back.graph), seen(&graph));
    }
}

#[test]
fn what_was_not_read_has_the_outputs_that_others_want() {
    let wants = |number, outputs: &[&str]| {
        let mut one = derivation(number, &[0]);
        one.inputs[0].outputs = outputs.iter().map(ToString::to_string).collect();
        one
    };
    let mut builder = BuildGraphBuilder::default();
    builder.add(&wants(1, &["out", "lib"]));
    builder.add_unread(&drv_path(0));
    builder.add(&wants(2, &["dev", "lib"]));
    builder.add_unread(&drv_path(3));
    let graph = builder.finish().expect("a graph");
    let outputs = |number| {
        let index = graph.find(&drv_path(number)).expect("a member");
        graph.derivation(index).outputs().map(|output| output.name().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(outputs(0), ["dev", "lib", "out"]);
    assert!(outputs(3).is_empty());
    let user = graph.find(&drv_path(1)).expect("a member");
    assert_eq!(graph.inputs(user).map(|input| input.outputs.to_vec()).collect::<Vec<_>>(), [[2, 1]]);
}

#[test]
fn what_is_named_twice_counts_once() {
    let mut once = derivation(1, &[0]);
    once.inputs[0].outputs = vec!["out".into(), "dev".into()];
    let mut twice = derivation(1, &[0, 0]);
    twice.inputs[1].outputs = vec!["dev".into(), "out".into(), "dev".into()];
    let mut needed = derivation(0, &[]);
    needed.outputs.push(Output { name: "dev".into(), path: None });
    let expected = seen(&BuildGraph::new(&[needed.clone(), once]).expect("a graph"));
    needed.outputs.push(Output { name: "dev".into(), path: Some(drv_path(9)) });
    assert_eq!(seen(&BuildGraph::new(&[needed, twice]).expect("a graph")), expected);
}

#[test]
fn two_names_with_one_hash_part_are_two_paths() {
    // No store has them, but a forged file may name them, in whichever builder that one happens to be read.
    let twin = StorePath::from_parts(*drv_path(0).digest(), "twin.drv").expect("a name");
    let mut other = derivation(7, &[]);
    other.path = twin.clone();
    let mut user = derivation(2, &[0]);
    user.inputs.push(Input { derivation: twin.clone(), outputs: vec!["out".into()], dynamic: Vec::new() });
    let all = [derivation(0, &[]), other, user];
    let expected = seen(&BuildGraph::new(&all).expect("a graph"));
    assert_eq!(expected.len(), 3);
    for split in 0..8 {
        let mut builders = [BuildGraphBuilder::default(), BuildGraphBuilder::default()];
        for (number, derivation) in all.iter().enumerate() {
            builders[split >> number & 1].add(derivation);
        }
        let [mut one, other] = builders;
        one.absorb(&other);
        let graph = one.finish().expect("a graph");
        assert_eq!(seen(&graph), expected, "split {split}");
        assert_ne!(graph.find(&twin), graph.find(&drv_path(0)));
        let third = StorePath::from_parts(*twin.digest(), "third.drv").expect("a name");
        assert_eq!(graph.find(&third), None);
    }
}

#[test]
fn a_text_that_is_refused_leaves_nothing_behind() {
    let store_dir = StoreDir::new("/s").expect("a directory");
    let shown = |path: &StorePath| store_dir.render_path(path);
    let (good, input, bad) = (drv_path(1), drv_path(0), drv_path(2));
    let text = |outputs: &str, inputs: &str, sources: &str| {
        format!(r#"Derive([{outputs}],[{inputs}],[{sources}],"x","/b",[],[])"#)
    };
    let output = r#"("out","","","")"#;
    let edge = |outputs: &str| format!(r#"("{}",[{outputs}])"#, shown(&input));
    let refused = [
        (text(output, &edge(r#""a/b""#), ""), "no name of an output"),
        (text(r#"("o\"t","","","")"#, "", ""), "without escapes"),
        (text(output, r#"("/elsewhere/x.drv",["out"])"#, ""), "no store path of the store /s"),
        (text(output, &edge(r#""out""#), r#""/s/short""#), "/s/short"),
        (text(&format!("{output},{output}"), "", ""), "\"out\" twice"),
        (text(output, &format!("{0},{0}", edge(r#""out""#)), ""), "-p0.drv\" twice"),
        (text(output, &edge(r#""out","out""#), ""), "\"out\" twice"),
        (text(output, "", "").replace("[])", "[]"), "the end"),
    ];
    let alone = {
        let mut builder = BuildGraphBuilder::default();
        builder.add_text(&good, text(output, "", "").as_bytes(), &store_dir, drop).expect("a derivation");
        seen(&builder.finish().expect("a graph"))
    };
    let mut builder = BuildGraphBuilder::default();
    for round in 0..2 {
        for (text, words) in &refused {
            let told = |_| panic!("an input of what is refused");
            let error =
                builder.add_text(&bad, text.as_bytes(), &store_dir, told).expect_err(text).to_string();
            assert!(error.contains(words), "{error} does not say {words}");
        }
        if round == 0 {
            builder.add_text(&good, text(output, "", "").as_bytes(), &store_dir, drop).expect("a derivation");
        }
    }
    assert_eq!(seen(&builder.finish().expect("a graph")), alone);
}
