//! What decides how long everything takes, however many machines there are.

use super::super::build_graph::{BuildGraph, DerivationIndex};
use super::super::derivation::DerivationKind;

/// The chain of derivations, each of which needs the one before it, that weighs most.
#[derive(Clone, Debug, PartialEq)]
pub struct CriticalPath {
    /// The sum of the weights.
    pub weight: f64,
    /// The derivations, inputs first.
    pub steps: Vec<Step>,
}

/// A derivation on the critical path.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// The derivation.
    pub derivation: DerivationIndex,
    /// What it weighs.
    pub weight: f64,
}

impl BuildGraph {
    /// The critical path, where each derivation takes as long as `weight` says, such as the seconds that it took the last time. What is
    /// negative or no number weighs nothing. What weighs nothing is on the path only between what does.
    pub fn critical_path(&self, weight: impl Fn(DerivationIndex) -> f64) -> CriticalPath {
        // The weight of the heaviest chain that ends with a derivation, and what comes before it on that chain.
        let mut chains: Vec<(f64, Option<DerivationIndex>)> = Vec::with_capacity(self.len());
        let mut last: Option<DerivationIndex> = None;
        let chain_of =
            |chains: &[(f64, Option<DerivationIndex>)], index: DerivationIndex| chains[index.position()].0;
        for index in self.indices() {
            let (mut most, mut before) = (0.0, None);
            for input in self.dependencies(index) {
                if chain_of(&chains, *input) > most {
                    (most, before) = (chain_of(&chains, *input), Some(*input));
                }
            }
            chains.push((most + sane(weight(index)), before));
            if chain_of(&chains, index) > last.map_or(0.0, |last| chain_of(&chains, last)) {
                last = Some(index);
            }
        }
        let mut steps = Vec::new();
        let mut next = last;
        while let Some(derivation) = next {
            steps.push(Step { derivation, weight: sane(weight(derivation)) });
            next = chains[derivation.position()].1;
        }
        steps.reverse();
        CriticalPath { weight: last.map_or(0.0, |last| chain_of(&chains, last)), steps }
    }

    /// The weight of a derivation where it is not known how long it takes: what is built counts as one, a download as nothing.
    pub fn unit_weight(&self, index: DerivationIndex) -> f64 {
        match self.derivation(index).kind() {
            DerivationKind::FixedOutput => 0.0,
            _ => 1.0,
        }
    }
}

fn sane(weight: f64) -> f64 {
    if weight > 0.0 && weight.is_finite() { weight } else { 0.0 }
}
