//! From a path whose closure has a hole to the nearest hole.

use std::collections::VecDeque;

use super::facts::{Facts, PathId};
use super::holding::{Holding, Holdings};

/// The way from one path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Way {
    /// How many steps there are.
    pub(super) length: u32,
    /// The first step; nothing at the hole itself.
    pub(super) next: Option<PathId>,
    /// The hole.
    pub(super) end: PathId,
}

/// The shortest way from each path to a reference that cannot be had, by the offers that Nix would take first.
///
/// Found for all at once, from the holes up, so that a chain of thousands costs no more than its length.
#[derive(Debug)]
pub(super) struct Ways(Vec<Option<Way>>);

impl Ways {
    /// Looks for the ways: to what is surely missing first, and for what has no such way to what nobody knows of.
    pub(super) fn new(facts: &Facts<'_>, holdings: &Holdings) -> Self {
        let mut referrers: Vec<Vec<PathId>> = vec![Vec::new(); facts.len()];
        let mut holes = Vec::new();
        for id in facts.ids().filter(|id| holdings.of_reference(facts, *id) != Holding::Yes) {
            let Some((cache, _)) = facts.usable(id).next() else {
                holes.push(id);
                continue;
            };
            let is_missing = |reference: &&PathId| holdings.of_reference(facts, **reference) != Holding::Yes;
            let mut is_whole = true;
            for reference in facts.references(id, cache).iter().filter(is_missing) {
                is_whole = false;
                referrers[reference.position()].push(id);
            }
            if is_whole {
                holes.push(id);
            }
        }
        let mut ways = Self(vec![None; facts.len()]);
        for wanted in [Holding::No, Holding::Unknown] {
            let mut open: VecDeque<PathId> = VecDeque::new();
            for hole in holes.iter().copied().filter(|hole| holdings.of(*hole) == wanted) {
                if ways.of(hole).is_none() {
                    ways.0[hole.position()] = Some(Way { length: 0, next: None, end: hole });
                    open.push_back(hole);
                }
            }
            while let Some(id) = open.pop_front() {
                let Some(way) = ways.of(id) else { continue };
                for referrer in &referrers[id.position()] {
                    if ways.of(*referrer).is_none() {
                        let longer = Way { length: way.length + 1, next: Some(id), end: way.end };
                        ways.0[referrer.position()] = Some(longer);
                        open.push_back(*referrer);
                    }
                }
            }
        }
        ways
    }

    /// The way from a path; nothing where there is no hole below it.
    pub(super) fn of(&self, id: PathId) -> Option<Way> {
        self.0[id.position()]
    }
}
