//! Goals for paths: which cache has one, what it refers to, and how that ends.

use std::collections::HashSet;

use super::facts::{CacheState, PathId};
use super::rules::{IncompleteClosure, LookupError};
use super::simulation::{Fetch, Simulation};
use super::{CacheAnswer, Nar, Offer};
use crate::graph::DerivationIndex;

/// How many missing NARs are remembered for a path. With more, it is as good as certain that it cannot be fetched.
const HOLES: usize = 8;

/// What Nix learns from one cache about one path.
enum Lookup {
    Offer,
    Nothing,
    Error,
}

impl Simulation<'_, '_> {
    /// `Store::queryMissing`, which runs before the goals, and whose lookups can stop everything.
    pub(super) fn look_ahead(&mut self) {
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

    /// Goes through the goal for a path and the goals for what it refers to.
    pub(super) fn fetch(&mut self, id: PathId) -> Fetch {
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
                if end != Fetch::Done
                    && self.attempt == 0
                    && let Some(holes) = self.holes_of(id)
                {
                    self.holes.insert(id, holes);
                }
            } else if is_open.insert(id) {
                open.push((id, true));
                open.extend(self.tried_references(id).into_iter().map(|reference| (reference, false)));
            }
        }
        // A path that waits for itself, which only a lying cache can bring about, never ends.
        self.end_of(id).unwrap_or(Fetch::NoSubstituters)
    }

    /// How the goal for a path has ended, unless it failed in an earlier attempt.
    pub(super) fn end_of(&self, id: PathId) -> Option<Fetch> {
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
                    if matches!(offer.nar, Nar::NotChecked | Nar::There) {
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
            match &offer.nar {
                Nar::NotChecked | Nar::There => return Fetch::Done,
                Nar::Missing => {}
                Nar::Refused { status: Some(status), .. } if self.rules.absent_statuses.contains(status) => {}
                Nar::WrongSize { .. } | Nar::Refused { .. } | Nar::Unknown(_) | Nar::NotFollowed(_) => {
                    fetch_failed = true;
                }
            }
        }
        match (lookup_failed, fetch_failed) {
            (true, _) => Fetch::Stops,
            (false, true) => Fetch::Failed,
            (false, false) => Fetch::NoSubstituters,
        }
    }

    /// The caches that Nix asks, in order.
    pub(super) fn caches(&self) -> impl Iterator<Item = usize> + use<'_> {
        let states = self.facts.view.caches.iter().zip(&self.is_ignored).enumerate();
        states
            .filter(|(_, (state, is_ignored))| **state == CacheState::Used && !**is_ignored)
            .map(|(cache, _)| cache)
    }

    pub(super) fn trusted_offer(&self, id: PathId, cache: usize) -> Option<&Offer> {
        let answer = self.facts.answers(id)?.get(cache)?;
        answer.offer().filter(|offer| offer.trust.is_enough())
    }

    fn lookup(&self, id: PathId, cache: usize) -> Lookup {
        let Some(answer) = self.facts.answers(id).and_then(|answers| answers.get(cache)) else {
            return Lookup::Nothing;
        };
        match answer {
            CacheAnswer::Offer(_) => Lookup::Offer,
            CacheAnswer::OtherPath(_) | CacheAnswer::Absent | CacheAnswer::Hidden => Lookup::Nothing,
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

    /// The makers of the paths whose missing NARs alone keep a path from being fetched; nothing where something else does.
    /// It is asked of paths whose goals have failed, when those of what they refer to have.
    fn holes_of(&self, id: PathId) -> Option<Vec<DerivationIndex>> {
        let mut makers: Vec<DerivationIndex> = Vec::new();
        let (cache, offer) = self.caches().find_map(|cache| Some((cache, self.trusted_offer(id, cache)?)))?;
        let mut is_whole = true;
        for reference in self.facts.references(id, cache) {
            if self.end_of(*reference) != Some(Fetch::Done) {
                is_whole = false;
                makers.extend(self.holes.get(reference)?);
            }
        }
        if is_whole {
            let is_good = matches!(offer.nar, Nar::NotChecked | Nar::There);
            makers.extend(self.facts.maker(id).filter(|_| !is_good).map(|(maker, _)| maker));
        }
        makers.sort_unstable();
        makers.dedup();
        (!makers.is_empty() && makers.len() <= HOLES).then_some(makers)
    }
}
