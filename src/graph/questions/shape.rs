//! How large a graph is, how deep and how wide.

use super::super::build_graph::{BuildGraph, DerivationIndex};
use super::super::derivation::DerivationKind;

/// How much there is of everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Derivations of each kind, of which there is one.
    pub kinds: Vec<(DerivationKind, usize)>,
    /// Outputs of all of them.
    pub outputs: usize,
    /// Sources, each once.
    pub sources: usize,
    /// Pairs of derivations of which one needs the other.
    pub edges: usize,
    /// Outputs that somebody wants, each once.
    pub wanted_outputs: usize,
    /// What is needed of derivations that are outputs of others.
    pub dynamic_inputs: usize,
}

/// How a graph is layered. What needs nothing has depth 1, and everything else one more than the deepest of its inputs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// The depth of each derivation.
    pub depths: Vec<u32>,
    /// The greatest depth: the number of derivations on the longest chain.
    pub depth: usize,
    /// The greatest number of derivations of one depth. None of these needs another, so that all can be built at the same time.
    pub width: usize,
}

impl BuildGraph {
    /// How the graph is layered.
    pub fn shape(&self) -> Shape {
        let mut depths: Vec<u32> = Vec::with_capacity(self.len());
        let mut numbers: Vec<usize> = Vec::new();
        for index in self.indices() {
            let below = self.dependencies(index).iter().map(|input| depths[input.position()]).max();
            let depth = below.unwrap_or_default();
            depths.push(depth + 1);
            match numbers.get_mut(depth as usize) {
                Some(number) => *number += 1,
                None => numbers.push(1),
            }
        }
        Shape { depths, depth: numbers.len(), width: numbers.into_iter().max().unwrap_or_default() }
    }

    /// How much there is of everything.
    pub fn sizes(&self) -> Sizes {
        let mut kinds: Vec<(DerivationKind, usize)> = Vec::new();
        for kind in &self.kinds {
            match kinds.iter_mut().find(|(known, _)| known == kind) {
                Some((_, number)) => *number += 1,
                None => kinds.push((*kind, 1)),
            }
        }
        kinds.sort_unstable();
        let mut is_source = vec![false; self.paths.len()];
        for source in self.sources.items() {
            is_source[source.position()] = true;
        }
        let mut is_wanted = vec![false; self.outputs.items().len()];
        for index in self.indices() {
            for input in self.inputs(index) {
                let first = self.outputs.range(input.derivation.position()).start;
                for output in input.outputs {
                    is_wanted[first + output] = true;
                }
            }
        }
        let number = |marks: &[bool]| marks.iter().filter(|mark| **mark).count();
        Sizes {
            kinds,
            outputs: self.outputs.items().len(),
            sources: number(&is_source),
            edges: self.indices().map(|index| self.dependencies(index).len()).sum(),
            wanted_outputs: number(&is_wanted),
            dynamic_inputs: self.dynamic.len(),
        }
    }

    /// The derivations that most others need directly, those first, and at most so many.
    pub fn most_needed(&self, most: usize) -> Vec<DerivationIndex> {
        let mut all: Vec<DerivationIndex> =
            self.indices().filter(|index| !self.dependents(*index).is_empty()).collect();
        // Stable, so that among equals the order of the graph holds.
        all.sort_by_key(|index| std::cmp::Reverse(self.dependents(*index).len()));
        all.truncate(most);
        all
    }
}
