//! Nix's goals, gone through by the rules of a version: what is fetched, what is built, and where everything stops.
//!
//! Lookups are taken to come before downloads, and both before builds: while Nix still asks caches, nothing has been fetched
//! or built yet. So it is wherever a build takes longer than a few answers. A reference that happens to be built, for
//! something else, before it is asked for is not foreseen.

use std::collections::HashMap;

use super::facts::{Facts, PathId};
use super::need::want;
use super::prediction::NixSettings;
use super::rules::{PartialOutputs, Rules};
use crate::graph::{DerivationIndex, DerivationKind};

/// How a goal for a path ends (`Goal::ExitCode` in `src/libstore/include/nix/store/build/goal.hh`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fetch {
    /// It is valid, or was fetched.
    Done,
    /// No cache has it.
    NoSubstituters,
    /// A cache has it, and a reference cannot be had.
    IncompleteClosure,
    /// A cache has it, and fetching fails.
    Failed,
    /// A lookup stops everything.
    Stops,
}

/// What becomes of a derivation that Nix is asked to make.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Course {
    /// Nix does not come to it.
    #[default]
    Untouched,
    /// Its outputs are valid, or were fetched.
    Made,
    /// Its inputs are made, then it is fetched.
    MadeLater,
    /// It is built.
    Built,
    /// It cannot be made.
    Fails,
    /// Everything stops at it.
    Stops,
    /// Its paths show only after building, so nobody knows.
    Unknown,
}

/// A run of Nix that only exists here.
pub(super) struct Simulation<'a, 'f> {
    pub(super) facts: &'a Facts<'f>,
    pub(super) rules: Rules,
    pub(super) settings: NixSettings,
    /// Caches that count as switched off.
    pub(super) is_ignored: Vec<bool>,
    pub(super) valid: Vec<bool>,
    pub(super) fetched: Vec<bool>,
    /// How goals for paths ended, and in which attempt: what failed in an earlier one is tried anew.
    pub(super) ends: HashMap<PathId, (Fetch, u32)>,
    pub(super) attempt: u32,
    pub(super) wanted: Vec<Vec<usize>>,
    courses: Vec<Course>,
    /// Goals that fetch a second time when their inputs are made.
    tries_again: Vec<bool>,
    /// Wanted outputs that cannot be made although others can.
    failed_outputs: Vec<Vec<usize>>,
    /// For a path that fails to be fetched only because of NARs that are gone: the derivations that make those.
    pub(super) holes: HashMap<PathId, Vec<DerivationIndex>>,
    /// Whether a lookup stops everything.
    pub(super) stops: bool,
}

impl<'a, 'f> Simulation<'a, 'f> {
    /// Runs Nix for the targets, with some caches switched off.
    pub(super) fn run(
        facts: &'a Facts<'f>,
        rules: Rules,
        settings: NixSettings,
        is_ignored: Vec<bool>,
    ) -> Self {
        let derivations = facts.graph.len();
        let mut simulation = Self {
            facts,
            rules,
            settings,
            is_ignored,
            valid: facts.ids().map(|id| facts.is_valid(id)).collect(),
            fetched: vec![false; facts.len()],
            ends: HashMap::new(),
            attempt: 0,
            wanted: vec![Vec::new(); derivations],
            courses: vec![Course::Untouched; derivations],
            tries_again: vec![false; derivations],
            failed_outputs: vec![Vec::new(); derivations],
            holes: HashMap::new(),
            stops: false,
        };
        simulation.look_ahead();
        simulation.go_down();
        for id in facts.ids() {
            simulation.valid[id.position()] |= simulation.fetched[id.position()];
        }
        simulation.go_up();
        simulation
    }

    /// What becomes of a derivation.
    pub(super) fn course(&self, index: DerivationIndex) -> Course {
        self.courses[index.position()]
    }

    /// Whether some wanted output of a derivation cannot be made although others can.
    pub(super) fn fails_in_part(&self, index: DerivationIndex) -> bool {
        !self.failed_outputs[index.position()].is_empty()
    }

    /// Whether an output of a derivation is fetched.
    pub(super) fn is_fetched(&self, index: DerivationIndex) -> bool {
        self.facts.outputs(index).iter().flatten().any(|id| self.fetched[id.position()])
    }

    /// From the targets down: which derivations are fetched, and which need their inputs.
    fn go_down(&mut self) {
        let facts = self.facts;
        let mut open: Vec<(DerivationIndex, Vec<usize>)> = facts.view.targets.clone();
        while let Some((index, outputs)) = open.pop() {
            let wanted = &mut self.wanted[index.position()];
            let mut is_new = false;
            for output in outputs {
                is_new |= want(wanted, output);
            }
            if !is_new {
                continue;
            }
            let was_opened = matches!(self.courses[index.position()], Course::Built | Course::Unknown);
            let course = self.try_to_fetch(index);
            self.courses[index.position()] = course;
            if matches!(course, Course::Built | Course::Unknown) && !was_opened {
                open.extend(
                    facts.graph.inputs(index).map(|input| (input.derivation, input.outputs.to_vec())),
                );
            }
        }
    }

    /// From the leaves up: what is built, what is fetched now that its inputs are there, and what fails.
    fn go_up(&mut self) {
        for index in self.facts.graph.indices() {
            if self.courses[index.position()] != Course::Built {
                continue;
            }
            let fails = self.facts.graph.inputs(index).any(|input| {
                let course = self.courses[input.derivation.position()];
                let failed = &self.failed_outputs[input.derivation.position()];
                !input.outputs.is_empty()
                    && (matches!(course, Course::Fails | Course::Stops)
                        || input.outputs.iter().any(|output| failed.contains(output)))
            });
            if fails {
                self.courses[index.position()] = Course::Fails;
                continue;
            }
            if self.tries_again[index.position()] {
                self.attempt += 1;
                match self.try_to_fetch(index) {
                    Course::Made => {
                        self.courses[index.position()] = Course::MadeLater;
                        continue;
                    }
                    course @ (Course::Fails | Course::Stops) => {
                        self.courses[index.position()] = course;
                        continue;
                    }
                    _ => {}
                }
            }
            for id in self.facts.outputs(index).iter().flatten() {
                self.valid[id.position()] = true;
            }
        }
    }

    /// Tries to have all wanted outputs of a derivation from the caches.
    fn try_to_fetch(&mut self, index: DerivationIndex) -> Course {
        let facts = self.facts;
        let known: Option<Vec<PathId>> =
            self.wanted[index.position()].iter().map(|output| facts.outputs(index)[*output]).collect();
        let Some(ids) = known else {
            let is_impure = facts.graph.derivation(index).kind() == DerivationKind::Impure;
            return if is_impure { Course::Built } else { Course::Unknown };
        };
        if ids.iter().all(|id| self.valid[id.position()]) {
            return Course::Made;
        }
        if !self.may_fetch(index) {
            return Course::Built;
        }
        let ends: Vec<Fetch> = ids.iter().map(|id| self.fetch(*id)).collect();
        let count = |wanted: Fetch| ends.iter().filter(|end| **end == wanted).count();
        if count(Fetch::Stops) > 0 {
            self.stops = true;
            return Course::Stops;
        }
        let (mut failed, incomplete) = (count(Fetch::Failed), count(Fetch::IncompleteClosure));
        let without = count(Fetch::NoSubstituters);
        if failed > 0 && !self.settings.fallback {
            if self.rules.partial_outputs == PartialOutputs::Together || failed == ids.len() {
                return Course::Fails;
            }
            let wanted = self.wanted[index.position()].iter().zip(&ends);
            self.failed_outputs[index.position()] =
                wanted.filter(|(_, end)| **end == Fetch::Failed).map(|(output, _)| *output).collect();
            failed = 0;
        }
        if failed + incomplete + without == 0 {
            return Course::Made;
        }
        // The hole may be another output of this very derivation, or something that is built on the way.
        self.tries_again[index.position()] = incomplete > 0 && failed + without == 0;
        Course::Built
    }

    /// Whether Nix asks caches for the outputs of a derivation.
    pub(super) fn may_fetch(&self, index: DerivationIndex) -> bool {
        self.settings.substitute && !self.facts.view.is_local_by_design(self.facts.graph, index)
    }
}
