//! Any bytes as a saved graph: no panic, neither in reading it nor in asking it everything, and what is read is saved as the same.
#![no_main]

use cache_helper::graph::{BuildGraph, SAVED_SCHEMA, SavedDerivation, SavedGraph};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    let Ok(saved) = SavedGraph::parse(text) else { return };
    ask_everything(&saved.graph);
    let again = SavedGraph::parse(&write(&saved)).expect("what was written");
    assert_eq!(again.roots, saved.roots);
    assert_eq!(write(&again), write(&saved));
});

fn write(saved: &SavedGraph) -> Vec<u8> {
    let derivations: Vec<SavedDerivation> = saved
        .graph
        .indices()
        .map(|index| {
            let view = saved.graph.derivation(index);
            let contents = saved.contents.get(&view.path()).cloned();
            SavedDerivation::new(view, &saved.graph, contents, &saved.store_dir)
        })
        .collect();
    let roots: Vec<String> = saved.roots.iter().map(|root| saved.store_dir.render_path(root)).collect();
    let document = serde_json::json!({
        "schema": SAVED_SCHEMA,
        "storeDir": saved.store_dir.as_str(),
        "roots": roots,
        "derivations": derivations,
    });
    document.to_string().into_bytes()
}

fn ask_everything(graph: &BuildGraph) {
    let all: Vec<_> = graph.indices().collect();
    let (shape, sizes) = (graph.shape(), graph.sizes());
    assert_eq!(shape.depths.len(), graph.len());
    assert_eq!(sizes.kinds.iter().map(|(_, number)| number).sum::<usize>(), graph.len());
    let critical = graph.critical_path(|_| 1.0);
    assert_eq!(critical.steps.len(), shape.depth);
    let (Some(first), Some(last)) = (all.first(), all.last()) else { return };
    let paths = graph.paths(*last, *first, 5);
    assert_eq!(paths.number == 0, graph.between(*last, *first).is_empty());
    assert_eq!(paths.number == 0, paths.shortest.is_empty());
    assert_eq!(graph.all_dependencies(&all), all);
    let tops = graph.tops(&all);
    assert_eq!(graph.all_dependencies(&tops), all);
    assert_eq!(graph.all_dependents(&graph.bottoms(&all)), all);
    assert!(graph.blocked_by(&all).is_empty());
}
