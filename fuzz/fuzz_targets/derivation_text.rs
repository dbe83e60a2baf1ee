//! Any bytes as the text of a `.drv` file: no panic, the same as `nix-derivation` reads where both take it, and what that writes
//! itself is taken.
#![no_main]

use std::collections::{BTreeMap, BTreeSet};

use cache_helper::graph::{BuildGraph, BuildGraphBuilder, BuildGraphError, DerivationIndex, DerivationKind};
use libfuzzer_sys::fuzz_target;
use nix_derivation::{Derivation, InputDerivation, Output, StoreDir, StorePath};

/// As deep as the scanner follows outputs of outputs.
const DEPTH: usize = 16;

fuzz_target!(|text: &[u8]| {
    let store_dir = cache_helper::graph::store_dir_of(text).unwrap_or_default();
    let own = StorePath::from_parts([7; 20], "fuzzed.drv").expect("a path");
    let mut builder = BuildGraphBuilder::default();
    let mut inputs = Vec::new();
    let added = builder.add_text(&own, text, &store_dir, |input| inputs.push(input));
    let reference = Derivation::from_aterm_bytes_in(text, "fuzzed", store_dir.clone());
    if let Err(error) = added {
        assert!(!reference.is_ok_and(|reference| is_canonical(&reference, text)), "refused: {error}");
        // Nothing is left behind.
        assert!(builder.finish().expect("a graph").is_empty());
        return;
    }
    for input in inputs.iter().filter(|input| **input != own) {
        builder.add_unread(input);
    }
    match builder.finish() {
        Ok(graph) => {
            let index = graph.find(&own).expect("a member");
            if let Ok(reference) = reference {
                compare(&graph, index, &reference, &store_dir);
            }
        }
        Err(BuildGraphError::Circle { .. }) => assert!(inputs.contains(&own)),
        Err(error) => panic!("{error}"),
    }
});

/// Whether the text is what would be written, and all names in it are such as there can be.
fn is_canonical(reference: &Derivation, text: &[u8]) -> bool {
    let is_name = |name: &str| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-._?=".contains(&byte))
    };
    let written = reference.to_aterm_bytes();
    written == text
        && reference.outputs().keys().all(|name| is_name(name))
        && reference.input_derivations().values().all(|input| {
            input.walk().all(|node| {
                node.depth() <= DEPTH
                    && node.input().outputs().iter().all(|name| is_name(name))
                    && node.input().dynamic_outputs().keys().all(|name| is_name(name))
            })
        })
}

fn compare(graph: &BuildGraph, index: DerivationIndex, reference: &Derivation, store_dir: &StoreDir) {
    let view = graph.derivation(index);
    let outputs: BTreeMap<&str, Option<StorePath>> =
        view.outputs().map(|output| (output.name(), output.path())).collect();
    assert_eq!(outputs.keys().copied().collect::<Vec<_>>(), reference.outputs().keys().collect::<Vec<_>>());
    let mut kinds = BTreeSet::new();
    for (name, known) in reference.outputs() {
        kinds.insert(match known {
            Output::InputAddressed { .. } => DerivationKind::InputAddressed,
            Output::Fixed { .. } => DerivationKind::FixedOutput,
            Output::Floating { .. } => DerivationKind::Floating,
            Output::Deferred => DerivationKind::Deferred,
            Output::Impure { .. } => DerivationKind::Impure,
        });
        // Where a download will be, the reference computes by itself.
        if !matches!(known, Output::Fixed { .. }) {
            let path = known.path_in(store_dir, "fuzzed", name).expect("checked when it was read");
            assert_eq!(outputs[name.as_str()], path);
        }
    }
    if let Some(kind) = kinds.last() {
        assert_eq!(view.kind(), *kind);
    }
    let mut wanted: BTreeMap<StorePath, BTreeSet<String>> = BTreeMap::new();
    for input in graph.inputs(index) {
        let input_view = graph.derivation(input.derivation);
        let names = input.outputs.iter().map(|output| input_view.output(*output).name().to_owned());
        assert!(wanted.insert(input_view.path(), names.collect()).is_none());
    }
    for (input, way) in graph.dynamic_inputs(index) {
        wanted.entry(graph.derivation(input).path()).or_default().insert(way.to_owned());
    }
    let known = reference.input_derivations().iter().map(|(path, input)| (path.clone(), ways(input)));
    assert_eq!(wanted, known.collect());
    let sources: BTreeSet<StorePath> = view.sources().collect();
    assert_eq!(sources, reference.input_sources().iter().cloned().collect());
}

/// The outputs that are wanted of an input, and of outputs that are derivations the ways to what is wanted.
fn ways(input: &InputDerivation) -> BTreeSet<String> {
    let mut ways: BTreeSet<String> = input.outputs().iter().cloned().collect();
    for (name, below) in input.dynamic_outputs() {
        ways.extend(self::ways(below).into_iter().map(|way| format!("{name}^{way}")));
    }
    ways
}
