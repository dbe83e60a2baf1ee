//! Every question against a naive reference, over random graphs.
#![expect(clippy::float_cmp, reason = "the weights here are whole numbers, whose sums are exact")]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::super::build_graph_tests::{derivation, drv_path};
use super::super::tests::graphs;
use super::super::{BuildGraph, DerivationIndex, DerivationKind, Output};

/// What each derivation needs, once each and never itself.
fn proper(graph: Vec<Vec<usize>>) -> Vec<Vec<usize>> {
    let proper = |(node, inputs): (usize, Vec<usize>)| -> Vec<usize> {
        let inputs: BTreeSet<usize> = inputs.into_iter().filter(|input| *input != node).collect();
        inputs.into_iter().collect()
    };
    graph.into_iter().enumerate().map(proper).collect()
}

/// A random graph, and its derivations by number.
fn any_graph() -> impl Strategy<Value = Vec<Vec<usize>>> {
    graphs().prop_map(proper)
}

/// Graphs in which all ways can be counted one by one.
fn small_graph() -> impl Strategy<Value = Vec<Vec<usize>>> {
    any_graph().prop_map(|mut graph| {
        graph.truncate(13);
        graph
    })
}

struct Built {
    graph: BuildGraph,
    needs: Vec<Vec<usize>>,
    numbers: BTreeMap<DerivationIndex, usize>,
}

impl Built {
    fn new(needs: Vec<Vec<usize>>) -> Self {
        let all: Vec<_> = needs.iter().enumerate().map(|(node, inputs)| derivation(node, inputs)).collect();
        let graph = BuildGraph::new(&all).expect("an acyclic graph");
        let mut built = Self { graph, needs, numbers: BTreeMap::new() };
        built.numbers = (0..built.needs.len()).map(|number| (built.index(number), number)).collect();
        built
    }

    fn index(&self, number: usize) -> DerivationIndex {
        self.graph.find(&drv_path(number)).expect("a member")
    }

    fn indices(&self, numbers: &BTreeSet<usize>) -> Vec<DerivationIndex> {
        numbers.iter().map(|number| self.index(*number)).collect()
    }

    fn numbers(&self, indices: &[DerivationIndex]) -> BTreeSet<usize> {
        assert!(indices.is_sorted(), "inputs come first");
        indices.iter().map(|index| self.numbers[index]).collect()
    }

    /// All that a derivation needs, itself included.
    fn below(&self, number: usize) -> BTreeSet<usize> {
        let mut all = BTreeSet::from([number]);
        for input in &self.needs[number] {
            all.append(&mut self.below(*input));
        }
        all
    }

    fn needs_other(&self, number: usize, other: usize) -> bool {
        number != other && self.below(number).contains(&other)
    }

    /// Every way from one to another.
    fn ways(&self, from: usize, to: usize) -> Vec<Vec<usize>> {
        let mut ways = if from == to { vec![vec![to]] } else { Vec::new() };
        for input in &self.needs[from] {
            for mut way in self.ways(*input, to) {
                way.insert(0, from);
                ways.push(way);
            }
        }
        ways
    }

    /// The weight of the heaviest chain that ends with a derivation.
    fn chain(&self, number: usize, weights: &[u8]) -> f64 {
        let below = self.needs[number].iter().map(|input| self.chain(*input, weights)).fold(0.0, f64::max);
        below + f64::from(weights[number])
    }

    fn depth(&self, number: usize) -> usize {
        1 + self.needs[number].iter().map(|input| self.depth(*input)).max().unwrap_or(0)
    }
}

/// Some of the derivations of a graph.
fn some(picks: &[bool], graph: &[Vec<usize>]) -> BTreeSet<usize> {
    (0..graph.len()).filter(|number| picks[*number]).collect()
}

proptest! {
    #[test]
    fn who_needs_whom_is_what_recursion_finds(needs in small_graph(), picks in prop::collection::vec(any::<bool>(), 40)) {
        let set = some(&picks, &needs);
        let built = Built::new(needs);
        let all: BTreeSet<usize> = (0..built.needs.len()).collect();
        let where_ = |fits: &dyn Fn(usize) -> bool| all.iter().copied().filter(|number| fits(*number)).collect::<BTreeSet<_>>();
        let indices = built.indices(&set);
        let graph = &built.graph;
        let down: BTreeSet<usize> = set.iter().flat_map(|number| built.below(*number)).collect();
        prop_assert_eq!(built.numbers(&graph.all_dependencies(&indices)), down);
        let up = where_(&|number| built.below(number).iter().any(|below| set.contains(below)));
        prop_assert_eq!(built.numbers(&graph.all_dependents(&indices)), up.clone());
        prop_assert_eq!(built.numbers(&graph.blocked_by(&indices)), &up - &set);
        let tops = where_(&|number| set.contains(&number) && !set.iter().any(|other| built.needs_other(*other, number)));
        prop_assert_eq!(built.numbers(&graph.tops(&indices)), tops.clone());
        let bottoms = where_(&|number| set.contains(&number) && !set.iter().any(|other| built.needs_other(number, *other)));
        prop_assert_eq!(built.numbers(&graph.bottoms(&indices)), bottoms);
        // What tops are for: they stand for the set, and none of them could be left out.
        let tops = built.indices(&tops);
        prop_assert_eq!(graph.all_dependencies(&tops), graph.all_dependencies(&indices));
        for left_out in &tops {
            let others: Vec<_> = tops.iter().copied().filter(|top| top != left_out).collect();
            prop_assert!(!graph.all_dependencies(&others).contains(left_out));
        }
    }

    #[test]
    fn the_ways_are_those_that_recursion_finds_shortest_first(needs in small_graph(), picks: (prop::sample::Index, prop::sample::Index), most in 0usize..40) {
        let (from, to) = (picks.0.index(needs.len()), picks.1.index(needs.len()));
        let built = Built::new(needs);
        let mut expected = built.ways(from, to);
        let paths = built.graph.paths(built.index(from), built.index(to), most);
        prop_assert_eq!(paths.number, expected.len() as u64);
        prop_assert_eq!(paths.shortest.len(), expected.len().min(most));
        let lengths: Vec<usize> = paths.shortest.iter().map(Vec::len).collect();
        let mut shortest: Vec<usize> = expected.iter().map(Vec::len).collect();
        shortest.sort_unstable();
        shortest.truncate(most);
        prop_assert_eq!(lengths, shortest);
        for way in &paths.shortest {
            let way: Vec<usize> = way.iter().map(|index| built.numbers[index]).collect();
            let place = expected.iter().position(|known| *known == way);
            prop_assert!(place.is_some(), "{way:?} is no way, or there twice");
            expected.remove(place.unwrap_or_default());
        }
        let on_a_way: BTreeSet<usize> = built.ways(from, to).into_iter().flatten().collect();
        prop_assert_eq!(built.numbers(&built.graph.between(built.index(from), built.index(to))), on_a_way);
    }

    #[test]
    fn the_ways_to_any_of_several_are_those_to_each(needs in small_graph(), from: prop::sample::Index, picks in prop::collection::vec(any::<bool>(), 40), most in 0usize..9) {
        let (from, set) = (from.index(needs.len()), some(&picks, &needs));
        let built = Built::new(needs);
        let paths = built.graph.paths_to_any(&[built.index(from)], &built.indices(&set), most);
        let expected: Vec<Vec<Vec<usize>>> =
            set.iter().map(|to| built.ways(from, *to)).filter(|ways| !ways.is_empty()).collect();
        prop_assert_eq!(paths.number, expected.iter().map(Vec::len).sum::<usize>() as u64);
        let mut shortest: Vec<usize> =
            expected.iter().filter_map(|ways| ways.iter().map(Vec::len).min()).collect();
        shortest.sort_unstable();
        shortest.truncate(most);
        prop_assert_eq!(paths.shortest.iter().map(Vec::len).collect::<Vec<_>>(), shortest);
        for way in &paths.shortest {
            let way: Vec<usize> = way.iter().map(|index| built.numbers[index]).collect();
            prop_assert!(expected.iter().flatten().any(|known| *known == way), "{way:?} is no way");
        }
    }

    #[test]
    fn the_critical_path_is_a_heaviest_chain(needs in small_graph(), weights in prop::collection::vec(0u8..4, 40)) {
        let built = Built::new(needs);
        let weight = |index: DerivationIndex| f64::from(weights[built.numbers[&index]]);
        let path = built.graph.critical_path(weight);
        let heaviest = (0..built.needs.len()).map(|number| built.chain(number, &weights)).fold(0.0, f64::max);
        prop_assert_eq!(path.weight, heaviest);
        prop_assert_eq!(path.steps.iter().map(|step| step.weight).sum::<f64>(), heaviest);
        for pair in path.steps.windows(2) {
            prop_assert!(built.graph.dependencies(pair[1].derivation).contains(&pair[0].derivation));
        }
        if let (Some(first), Some(last)) = (path.steps.first(), path.steps.last()) {
            prop_assert!(first.weight > 0.0 && last.weight > 0.0);
        }
    }

    #[test]
    fn depth_and_width_are_those_of_the_layers(needs in small_graph()) {
        let built = Built::new(needs);
        let shape = built.graph.shape();
        let mut layers: BTreeMap<usize, usize> = BTreeMap::new();
        for number in 0..built.needs.len() {
            let depth = built.depth(number);
            prop_assert_eq!(shape.depths[built.index(number).position()] as usize, depth);
            *layers.entry(depth).or_default() += 1;
        }
        prop_assert_eq!(shape.depth, layers.len());
        prop_assert_eq!(Some(shape.width), layers.into_values().max());
        let by_chain = built.graph.critical_path(|index| built.graph.unit_weight(index));
        prop_assert_eq!(by_chain.weight, shape.depth as f64);
    }

    #[test]
    fn the_order_and_both_directions_agree(needs in any_graph()) {
        let built = Built::new(needs);
        prop_assert_eq!(built.graph.len(), built.needs.len());
        for index in built.graph.indices() {
            let needed: BTreeSet<usize> = built.needs[built.numbers[&index]].iter().copied().collect();
            prop_assert_eq!(built.graph.dependencies(index).iter().map(|input| built.numbers[input]).collect::<BTreeSet<_>>(), needed);
            for input in built.graph.dependencies(index) {
                prop_assert!(*input < index);
                prop_assert!(built.graph.dependents(*input).contains(&index));
            }
            for dependent in built.graph.dependents(index) {
                prop_assert!(built.graph.dependencies(*dependent).contains(&index));
            }
        }
        let edges = built.needs.iter().map(Vec::len).sum::<usize>();
        prop_assert_eq!(built.graph.sizes().edges, edges);
        let ranked = built.graph.most_needed(usize::MAX);
        let numbers: Vec<usize> = ranked.iter().map(|index| built.graph.dependents(*index).len()).collect();
        prop_assert!(numbers.is_sorted_by(|one, next| one >= next));
        prop_assert_eq!(numbers.iter().sum::<usize>(), edges);
    }
}

#[test]
fn sizes_count_each_thing_once() {
    let mut multi = derivation(0, &[]);
    multi.outputs.push(Output { name: "dev".into(), path: None });
    multi.sources = vec![drv_path(90), drv_path(91)];
    let mut download = derivation(1, &[]);
    download.kind = DerivationKind::FixedOutput;
    download.sources = vec![drv_path(90)];
    let mut user = derivation(2, &[0, 1]);
    user.inputs[0].outputs = vec!["dev".into()];
    user.inputs[0].dynamic = vec!["out^dev".into()];
    let graph = BuildGraph::new(&[multi, download, user]).expect("a graph");
    let sizes = graph.sizes();
    assert_eq!(sizes.kinds, [(DerivationKind::InputAddressed, 2), (DerivationKind::FixedOutput, 1)]);
    assert_eq!((sizes.outputs, sizes.sources, sizes.edges), (4, 2, 2));
    assert_eq!((sizes.wanted_outputs, sizes.dynamic_inputs), (2, 1));
    // A download is not built.
    let path = graph.critical_path(|index| graph.unit_weight(index));
    assert_eq!((path.weight, path.steps.len()), (2.0, 2));
    let none = graph.critical_path(|_| f64::NAN);
    assert_eq!((none.weight, none.steps.len()), (0.0, 0));
}

/// Every question of a chain that would overflow a stack if anything called itself, and of a ladder with more ways than can be counted.
#[test]
fn long_chains_are_no_trouble() {
    const LENGTH: usize = 50_000;
    let chain =
        (0..LENGTH).map(|n| derivation(n, &n.checked_sub(1).map_or_else(Vec::new, |below| vec![below])));
    let graph = BuildGraph::new(&chain.collect::<Vec<_>>()).expect("a chain");
    let index = |number| graph.find(&drv_path(number)).expect("a member");
    let (bottom, top) = (index(0), index(LENGTH - 1));
    assert_eq!(graph.all_dependencies(&[top]).len(), LENGTH);
    assert_eq!(graph.blocked_by(&[bottom]).len(), LENGTH - 1);
    assert_eq!((graph.tops(&[bottom, top]), graph.bottoms(&[bottom, top])), (vec![top], vec![bottom]));
    let paths = graph.paths(top, bottom, 3);
    assert_eq!((paths.number, paths.shortest.len(), paths.shortest[0].len()), (1, 1, LENGTH));
    assert_eq!(graph.paths(bottom, top, 3).number, 0);
    assert_eq!((graph.shape().depth, graph.shape().width), (LENGTH, 1));
    assert_eq!(graph.critical_path(|_| 1.0).steps.len(), LENGTH);

    // Two a rung, and each needs both of the rung below.
    let rung = |n: usize| if n < 2 { Vec::new() } else { vec![n - n % 2 - 2, n - n % 2 - 1] };
    let ladder: Vec<_> = (0..2000).map(|n| derivation(n, &rung(n))).collect();
    let graph = BuildGraph::new(&ladder).expect("a ladder");
    let index = |number| graph.find(&drv_path(number)).expect("a member");
    let paths = graph.paths(index(1999), index(0), 100);
    assert_eq!((paths.number, paths.shortest.len()), (u64::MAX, 100));
    assert_eq!(paths.shortest.iter().collect::<BTreeSet<_>>().len(), 100);
}

#[test]
fn an_empty_graph_has_answers_too() {
    let graph = BuildGraph::new(&[]).expect("a graph");
    assert_eq!((graph.shape().depth, graph.shape().width), (0, 0));
    assert_eq!(graph.sizes(), super::Sizes::default());
    assert_eq!(graph.critical_path(|_| 1.0).steps.len(), 0);
    assert!(graph.all_dependents(&[]).is_empty() && graph.tops(&[]).is_empty());
}
