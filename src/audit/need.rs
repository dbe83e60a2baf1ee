//! Which derivations somebody with these caches needs, and what each misses by.

use super::facts::{Facts, PathId, Scope};
use super::holding::{Holding, Holdings};
use crate::graph::DerivationIndex;

/// How a derivation is needed.
#[derive(Clone, Debug, Default)]
pub(super) struct Need {
    /// Positions of the outputs that are wanted, in order.
    pub(super) outputs: Vec<usize>,
    /// Whether Nix is asked to make it: as a target, or for a build.
    pub(super) is_goal: bool,
    /// Whether it was named.
    pub(super) is_target: bool,
    /// Whether it is needed for sure: not only where something of which nobody knows turns out to be missing.
    pub(super) is_certain: bool,
    /// Whether something on a cache refers to it, or is believed to.
    pub(super) is_reference: bool,
    /// What has to be mended before this can be a hit: for what is on no cache, the inputs; for what is there, the
    /// references that are not.
    pub(super) waits_for: Vec<DerivationIndex>,
}

impl Need {
    /// Whether anything needs it.
    pub(super) fn is_needed(&self) -> bool {
        self.is_goal || self.is_reference
    }

    fn want(&mut self, output: usize) -> bool {
        want(&mut self.outputs, output)
    }
}

/// Adds an output to those that are wanted, which stay in order; whether it is new among them.
pub(super) fn want(outputs: &mut Vec<usize>, output: usize) -> bool {
    let Err(place) = outputs.binary_search(&output) else { return false };
    outputs.insert(place, output);
    true
}

/// The needs of each derivation, by its index.
pub(super) fn needs(facts: &Facts<'_>, holdings: &Holdings) -> Vec<Need> {
    let mut walk =
        Needs { facts, holdings, found: vec![Need::default(); facts.graph.len()], open: Vec::new() };
    for (index, outputs) in &facts.view.targets {
        walk.add_goal(*index, outputs, true);
        walk.found[index.position()].is_target = true;
    }
    match facts.view.scope {
        Scope::Needed => {}
        Scope::Runtime => {
            for id in facts.view.runtime.iter().filter_map(|path| facts.find(path)) {
                walk.add_reference(id, true);
            }
        }
        Scope::Build => {
            for index in facts.graph.indices() {
                for input in facts.graph.inputs(index) {
                    walk.add_goal(input.derivation, input.outputs, true);
                }
            }
        }
    }
    while let Some(index) = walk.open.pop() {
        walk.follow(index);
    }
    for need in &mut walk.found {
        need.waits_for.sort_unstable();
        need.waits_for.dedup();
    }
    walk.found
}

struct Needs<'a, 'f> {
    facts: &'a Facts<'f>,
    holdings: &'a Holdings,
    found: Vec<Need>,
    open: Vec<DerivationIndex>,
}

impl Needs<'_, '_> {
    fn add_goal(&mut self, index: DerivationIndex, outputs: &[usize], is_certain: bool) {
        let need = &mut self.found[index.position()];
        let mut is_new = !std::mem::replace(&mut need.is_goal, true);
        is_new |= is_certain && !std::mem::replace(&mut need.is_certain, true);
        for output in outputs {
            is_new |= need.want(*output);
        }
        if is_new {
            self.open.push(index);
        }
    }

    fn add_reference(&mut self, id: PathId, is_certain: bool) {
        let Some((index, output)) = self.facts.maker(id) else { return };
        let need = &mut self.found[index.position()];
        let mut is_first = !std::mem::replace(&mut need.is_reference, true);
        is_first |= is_certain && !std::mem::replace(&mut need.is_certain, true);
        if need.want(output) || is_first {
            self.open.push(index);
        }
    }

    /// Needs what a derivation needs.
    fn follow(&mut self, index: DerivationIndex) {
        let (facts, holdings) = (self.facts, self.holdings);
        let need = self.found[index.position()].clone();
        let is_there =
            |output: &usize| facts.outputs(index)[*output].is_some_and(|id| self.counts_as_there(id));
        if need.outputs.iter().all(is_there) {
            return;
        }
        let is_local = need.is_goal && facts.view.is_local_by_design(facts.graph, index);
        let mut must_build = is_local;
        let mut is_absent = is_local;
        let mut is_known = true;
        let mut waits_for = Vec::new();
        for output in &need.outputs {
            let Some(id) = facts.outputs(index)[*output] else {
                (must_build, is_absent) = (true, true);
                continue;
            };
            if self.counts_as_there(id) {
                continue;
            }
            must_build |= holdings.of(id) != Holding::Yes;
            is_known &= holdings.of(id) != Holding::Unknown;
            let cache =
                holdings.source(facts, id).or_else(|| facts.usable(id).next().map(|(cache, _)| cache));
            match cache {
                Some(cache) => {
                    for reference in facts.references(id, cache) {
                        if self.counts_as_there(*reference) {
                            continue;
                        }
                        self.add_reference(*reference, need.is_certain);
                        if holdings.of(*reference) != Holding::Yes {
                            let maker = facts.maker(*reference).map(|(maker, _)| maker);
                            waits_for.extend(maker.filter(|maker| *maker != index));
                        }
                    }
                }
                None => is_absent |= is_absent_everywhere(facts, id),
            }
        }
        if must_build && self.facts.view.scope != Scope::Runtime {
            for input in facts.graph.inputs(index) {
                let is_there = input.outputs.iter().all(|output| {
                    facts.outputs(input.derivation)[*output].is_some_and(|id| facts.is_valid(id))
                });
                if is_there && facts.view.scope == Scope::Needed {
                    continue;
                }
                self.add_goal(input.derivation, input.outputs, need.is_certain && (is_known || is_local));
                if is_absent && !is_there {
                    waits_for.push(input.derivation);
                }
            }
        }
        self.found[index.position()].waits_for.extend(waits_for);
    }

    /// Whether a path need not be had from anywhere.
    fn counts_as_there(&self, id: PathId) -> bool {
        self.facts.is_valid(id) && self.facts.view.scope != Scope::Runtime
    }
}

/// Whether every cache says that it has nothing for a path, or something that Nix takes for nothing.
fn is_absent_everywhere(facts: &Facts<'_>, id: PathId) -> bool {
    use super::CacheAnswer::{Absent, Denied, Hidden};
    let answers = facts.answers(id).unwrap_or_default();
    answers.iter().all(|answer| matches!(answer, Absent | Hidden | Denied { .. }))
}
