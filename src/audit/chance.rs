//! Where it is a matter of chance what Nix does, because two things happen at the same time.

use super::facts::PathId;
use super::simulation::{Course, Simulation};
use crate::graph::DerivationIndex;

impl Simulation<'_, '_> {
    /// Whether a derivation is built of which some output is there already, and somebody who is built wants that one.
    pub(super) fn is_built_beside_a_valid_output(&self) -> bool {
        self.facts.graph.indices().filter(|index| self.course(*index) == Course::Built).any(|index| {
            self.facts.graph.inputs(index).any(|input| {
                let outputs = self.facts.outputs(input.derivation);
                self.course(input.derivation) == Course::Built
                    && !self.is_raced_for(input.derivation)
                    && input.outputs.iter().filter_map(|output| outputs[*output]).any(|id| self.is_had(id))
            })
        })
    }

    /// Whether a path is valid before anything is built.
    fn is_had(&self, id: PathId) -> bool {
        self.fetched[id.position()] || self.facts.is_valid(id)
    }

    /// Whether all that is wanted of a derivation is fetched because something else refers to it.
    ///
    /// Where Nix also builds it, by design, whichever is done first decides.
    pub(super) fn is_raced_for(&self, index: DerivationIndex) -> bool {
        let outputs = self.facts.outputs(index);
        self.wanted[index.position()].iter().all(|output| outputs[*output].is_some_and(|id| self.is_had(id)))
    }

    /// Whether a goal may come to be fetched after all, by index, because others build meanwhile what it lacks.
    ///
    /// A download waits for whoever is building the same path, and then there is nothing left to download. So a goal that
    /// fails only by NARs that are gone succeeds if it tries when those paths are being built: for others than itself.
    pub(super) fn may_be_fetched_late(&self) -> Vec<bool> {
        let count = self.facts.graph.len();
        let soft: Vec<Option<Vec<DerivationIndex>>> =
            self.facts.graph.indices().map(|index| self.soft_holes(index)).collect();
        if soft.iter().all(Option::is_none) {
            return vec![false; count];
        }
        let dominators = self.dominators();
        let is_certain = |index: DerivationIndex, hole: DerivationIndex| {
            self.course(hole) != Course::Built || dominators.dominates(index, hole)
        };
        let is_late = |index: DerivationIndex| match &soft[index.position()] {
            Some(holes) => !holes.iter().any(|hole| is_certain(index, *hole)),
            None => false,
        };
        self.facts.graph.indices().map(is_late).collect()
    }

    /// Whether it is not certain that a goal which fails does fail, by index: it may be fetched late, or it fails only by
    /// inputs of which that is so.
    pub(super) fn may_not_fail(&self, is_late: &[bool]) -> Vec<bool> {
        let mut may_not_fail = vec![false; is_late.len()];
        for index in self.facts.graph.indices().filter(|index| self.course(*index) == Course::Fails) {
            let fails =
                |input: &DerivationIndex| matches!(self.course(*input), Course::Fails | Course::Stops);
            let mut failing =
                self.facts.graph.inputs(index).map(|input| input.derivation).filter(fails).peekable();
            let by_inputs = failing.peek().is_some() && failing.all(|input| may_not_fail[input.position()]);
            may_not_fail[index.position()] = is_late[index.position()] || by_inputs;
        }
        may_not_fail
    }

    /// The makers of the NARs by whose lack alone a derivation is not fetched.
    fn soft_holes(&self, index: DerivationIndex) -> Option<Vec<DerivationIndex>> {
        let outputs = self.facts.outputs(index);
        let mut holes = Vec::new();
        for id in self.wanted[index.position()].iter().filter_map(|output| outputs[*output]) {
            if !self.is_had(id) {
                holes.extend(self.holes.get(&id)?);
            }
        }
        (!holes.is_empty() && !holes.contains(&index)).then_some(holes)
    }

    /// Who stands on every way from the targets to a goal (Cooper, Harvey and Kennedy, "A Simple, Fast Dominance Algorithm",
    /// which needs one round here, because what asks comes before what it asks for).
    fn dominators(&self) -> Dominators {
        let count = self.facts.graph.len();
        let mut dominators =
            Dominators { above: vec![None; count], depth: vec![0; count], is_met: vec![false; count] };
        for (target, _) in &self.facts.view.targets {
            dominators.is_met[target.position()] = true;
        }
        for index in self.facts.graph.indices().rev() {
            let is_opened = matches!(self.course(index), Course::Built | Course::MadeLater);
            if is_opened && dominators.is_met[index.position()] {
                for input in self.facts.graph.inputs(index) {
                    dominators.add(input.derivation, index);
                }
            }
        }
        dominators
    }
}

/// The tree of dominators: for each goal the nearest that stands on every way to it; none below the targets.
struct Dominators {
    above: Vec<Option<DerivationIndex>>,
    depth: Vec<usize>,
    is_met: Vec<bool>,
}

impl Dominators {
    fn add(&mut self, goal: DerivationIndex, asker: DerivationIndex) {
        let is_first = !std::mem::replace(&mut self.is_met[goal.position()], true);
        let above =
            if is_first { Some(asker) } else { self.common(self.above[goal.position()], Some(asker)) };
        self.above[goal.position()] = above;
        self.depth[goal.position()] = above.map_or(0, |above| self.depth[above.position()] + 1);
    }

    fn common(
        &self,
        mut one: Option<DerivationIndex>,
        mut other: Option<DerivationIndex>,
    ) -> Option<DerivationIndex> {
        while one != other {
            let (a, b) = (one?, other?);
            if self.depth[a.position()] >= self.depth[b.position()] {
                one = self.above[a.position()];
            } else {
                other = self.above[b.position()];
            }
        }
        one
    }

    fn dominates(&self, goal: DerivationIndex, other: DerivationIndex) -> bool {
        let mut next = Some(other);
        while let Some(place) = next {
            if place == goal {
                return true;
            }
            next = self.above[place.position()];
        }
        false
    }
}
