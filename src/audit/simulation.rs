//! Nix's goals, gone through by the rules of a version: what is fetched, what is built, and where everything stops.
//!
//! Lookups are taken to come before downloads, and both before builds: while Nix still asks caches, nothing has been fetched
//! or built yet. So it is wherever a build takes longer than a few answers. A reference that happens to be built, for
//! something else, before it is asked for is not foreseen.

use std::collections::{HashMap, HashSet};

use super::CacheAnswer;
use super::facts::{CacheState, Facts, PathId};
use super::prediction::NixSettings;
use super::rules::{IncompleteClosure, LookupError, PartialOutputs, Rules};
use crate::graph::{DerivationIndex, DerivationKind};

/// How a goal for a path ends (`Goal::ExitCode` in `src/libstore/include/nix/store/build/goal.hh`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fetch {
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

/// What Nix learns from one cache about one path.
enum Lookup {
    Offer,
    Nothing,
    Error,
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
    facts: &'a Facts<'f>,
    rules: Rules,
    settings: NixSettings,
    /// Caches that count as switched off.
    is_ignored: Vec<bool>,
    valid: Vec<bool>,
    fetched: Vec<bool>,
    /// How goals for paths ended, and in which attempt: what failed in an earlier one is tried anew.
    ends: HashMap<PathId, (Fetch, u32)>,
    attempt: u32,
    wanted: Vec<Vec<usize>>,
    courses: Vec<Course>,
    /// Goals that fetch a second time when their inputs are made.
    tries_again: Vec<bool>,
    /// Wanted outputs that cannot be made although others can.
    failed_outputs: Vec<Vec<usize>>,
    /// The different sets of outputs that were asked for.
    requests: Vec<HashSet<Vec<usize>>>,
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
            requests: vec![HashSet::new(); derivations],
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

    /// Whether a derivation is built of which several have asked for different outputs.
    pub(super) fn is_shared_unevenly(&self) -> bool {
        let mut indices = self.facts.graph.indices();
        indices.any(|index| self.course(index) == Course::Built && self.requests[index.position()].len() > 1)
    }

    /// Whether all that is wanted of a derivation is fetched because something else refers to it.
    ///
    /// Where Nix also builds it, by design, whichever is done first decides.
    pub(super) fn is_raced_for(&self, index: DerivationIndex) -> bool {
        let outputs = self.facts.outputs(index);
        let is_fetched = |output: &usize| {
            outputs[*output].is_some_and(|id| self.fetched[id.position()] || self.facts.is_valid(id))
        };
        self.wanted[index.position()].iter().all(is_fetched)
    }

    /// Whether an output of a derivation is fetched.
    pub(super) fn is_fetched(&self, index: DerivationIndex) -> bool {
        self.facts.outputs(index).iter().flatten().any(|id| self.fetched[id.position()])
    }

    /// `Store::queryMissing`, which runs before the goals, and whose lookups can stop everything.
    fn look_ahead(&mut self) {
        if !self.settings.substitute {
            return;
        }
        let facts = self.facts;
        let mut is_met = vec![false; facts.len()];
        let mut met_goals: HashSet<(DerivationIndex, Vec<usize>)> = HashSet::new();
        let mut goals: Vec<(DerivationIndex, Vec<usize>)> = facts.view.targets.clone();
        let mut paths: Vec<PathId> = Vec::new();
        loop {
            if let Some(id) = paths.pop() {
                if self.valid[id.position()] || std::mem::replace(&mut is_met[id.position()], true) {
                    continue;
                }
                match self.first_offer(id) {
                    Ok(Some(cache)) => paths.extend(facts.references(id, cache)),
                    Ok(None) => {}
                    Err(()) => self.stops = true,
                }
            } else if let Some((index, outputs)) = goals.pop() {
                if !met_goals.insert((index, outputs.clone())) {
                    continue;
                }
                let known: Option<Vec<PathId>> =
                    outputs.iter().map(|output| facts.outputs(index)[*output]).collect();
                let missing: Option<Vec<PathId>> =
                    known.map(|ids| ids.into_iter().filter(|id| !self.valid[id.position()]).collect());
                let mut is_built = missing.is_none() || !self.may_fetch(index);
                let missing = missing.unwrap_or_default();
                if !is_built {
                    for id in &missing {
                        match self.first_offer(*id) {
                            Ok(offer) => is_built |= offer.is_none(),
                            Err(()) => self.stops = true,
                        }
                    }
                }
                if is_built && !(missing.is_empty() && self.may_fetch(index)) {
                    goals.extend(
                        facts.graph.inputs(index).map(|input| (input.derivation, input.outputs.to_vec())),
                    );
                } else {
                    paths.extend(missing);
                }
            } else {
                return;
            }
        }
    }

    /// The first cache with a narinfo for a path, trusted or not; an error where the lookup stops everything.
    fn first_offer(&self, id: PathId) -> Result<Option<usize>, ()> {
        let mut failed = false;
        for cache in self.caches() {
            failed = false;
            match self.lookup(id, cache) {
                Lookup::Offer => return Ok(Some(cache)),
                Lookup::Nothing => {}
                Lookup::Error if self.settings.fallback => {}
                Lookup::Error if self.rules.lookup_error == LookupError::Stops => return Err(()),
                Lookup::Error => failed = true,
            }
        }
        if failed { Err(()) } else { Ok(None) }
    }

    /// From the targets down: which derivations are fetched, and which need their inputs.
    fn go_down(&mut self) {
        let facts = self.facts;
        let mut open: Vec<(DerivationIndex, Vec<usize>)> = facts.view.targets.clone();
        while let Some((index, outputs)) = open.pop() {
            self.requests[index.position()].insert(outputs.clone());
            let wanted = &mut self.wanted[index.position()];
            let before = wanted.len();
            for output in outputs {
                if let Err(place) = wanted.binary_search(&output) {
                    wanted.insert(place, output);
                }
            }
            if wanted.len() == before {
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
            let is_impure = facts.graph.derivation(index).kind == DerivationKind::Impure;
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
    fn may_fetch(&self, index: DerivationIndex) -> bool {
        self.settings.substitute && !self.facts.view.is_local_by_design(self.facts.graph, index)
    }

    /// Goes through the goal for a path and the goals for what it refers to.
    fn fetch(&mut self, id: PathId) -> Fetch {
        let mut open = vec![(id, false)];
        let mut is_open: HashSet<PathId> = HashSet::new();
        while let Some((id, is_ready)) = open.pop() {
            if self.end_of(id).is_some() {
                continue;
            }
            if self.valid[id.position()] {
                self.ends.insert(id, (Fetch::Done, self.attempt));
            } else if is_ready {
                let end = self.end(id);
                self.fetched[id.position()] |= end == Fetch::Done;
                // In the first attempt nothing is there yet when everything is decided.
                self.valid[id.position()] |= end == Fetch::Done && self.attempt > 0;
                self.ends.insert(id, (end, self.attempt));
            } else if is_open.insert(id) {
                open.push((id, true));
                open.extend(self.tried_references(id).into_iter().map(|reference| (reference, false)));
            }
        }
        // A path that waits for itself, which only a lying cache can bring about, never ends.
        self.end_of(id).unwrap_or(Fetch::NoSubstituters)
    }

    /// How the goal for a path has ended, unless it failed in an earlier attempt.
    fn end_of(&self, id: PathId) -> Option<Fetch> {
        let (end, attempt) = *self.ends.get(&id)?;
        (end == Fetch::Done || attempt == self.attempt).then_some(end)
    }

    /// What has to be fetched for the offers that Nix tries for a path.
    fn tried_references(&self, id: PathId) -> Vec<PathId> {
        let mut references = Vec::new();
        for cache in self.caches() {
            match self.lookup(id, cache) {
                Lookup::Error if self.rules.lookup_error == LookupError::Stops && !self.settings.fallback => {
                    break;
                }
                Lookup::Offer => {
                    let Some(offer) = self.trusted_offer(id, cache) else { continue };
                    references.extend(self.facts.references(id, cache));
                    if !offer.nar.is_unusable() {
                        break;
                    }
                }
                Lookup::Nothing | Lookup::Error => {}
            }
        }
        references
    }

    /// How the goal for a path ends, when those for its references have.
    fn end(&self, id: PathId) -> Fetch {
        let (mut lookup_failed, mut fetch_failed) = (false, false);
        for cache in self.caches() {
            lookup_failed = false;
            match self.lookup(id, cache) {
                Lookup::Nothing => continue,
                Lookup::Error if self.settings.fallback => continue,
                Lookup::Error if self.rules.lookup_error == LookupError::Stops => return Fetch::Stops,
                Lookup::Error => {
                    lookup_failed = true;
                    continue;
                }
                Lookup::Offer => {}
            }
            let Some(offer) = self.trusted_offer(id, cache) else { continue };
            let ends: Vec<Fetch> = self
                .facts
                .references(id, cache)
                .iter()
                .map(|reference| self.end_of(*reference).unwrap_or(Fetch::NoSubstituters))
                .collect();
            if ends.contains(&Fetch::Stops) {
                return Fetch::Stops;
            }
            if ends.iter().any(|end| *end != Fetch::Done) {
                let is_hole = |end: &Fetch| matches!(end, Fetch::NoSubstituters | Fetch::IncompleteClosure);
                return match self.rules.incomplete_closure {
                    _ if !ends.iter().any(is_hole) => Fetch::Failed,
                    IncompleteClosure::MakesInputsAndTriesAgain => Fetch::IncompleteClosure,
                    IncompleteClosure::Builds => Fetch::NoSubstituters,
                };
            }
            if matches!(offer.nar, super::Nar::WrongSize { .. }) {
                fetch_failed = true;
            } else if !offer.nar.is_unusable() {
                return Fetch::Done;
            }
        }
        match (lookup_failed, fetch_failed) {
            (true, _) => Fetch::Stops,
            (false, true) => Fetch::Failed,
            (false, false) => Fetch::NoSubstituters,
        }
    }

    /// The caches that Nix asks, in order.
    fn caches(&self) -> impl Iterator<Item = usize> + use<'_> {
        let states = self.facts.view.caches.iter().zip(&self.is_ignored).enumerate();
        states
            .filter(|(_, (state, is_ignored))| **state == CacheState::Used && !**is_ignored)
            .map(|(cache, _)| cache)
    }

    fn trusted_offer(&self, id: PathId, cache: usize) -> Option<&super::Offer> {
        let answer = self.facts.answers(id)?.get(cache)?;
        answer.offer().filter(|offer| offer.trust.is_enough())
    }

    fn lookup(&self, id: PathId, cache: usize) -> Lookup {
        let Some(answer) = self.facts.answers(id).and_then(|answers| answers.get(cache)) else {
            return Lookup::Nothing;
        };
        match answer {
            CacheAnswer::Offer(_) => Lookup::Offer,
            CacheAnswer::OtherPath(_) | CacheAnswer::Absent => Lookup::Nothing,
            CacheAnswer::Denied { status: Some(status), .. }
                if self.rules.absent_statuses.contains(status) =>
            {
                Lookup::Nothing
            }
            CacheAnswer::Denied { .. } | CacheAnswer::Broken { .. } | CacheAnswer::Unreachable { .. } => {
                Lookup::Error
            }
        }
    }
}
