//! Whether the caches hold a path together with everything below it.

use super::facts::{Facts, PathId};
use super::{CacheAnswer, Nar};

/// Whether something is on the caches. Ordered: what is made of several is as good as its worst part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Holding {
    /// It is not.
    No,
    /// It cannot be known.
    Unknown,
    /// It is.
    Yes,
}

/// What the caches hold of each path that was met.
#[derive(Debug)]
pub(super) struct Holdings {
    held: Vec<Holding>,
}

impl Holdings {
    /// Looks at every path, references first.
    pub(super) fn new(facts: &Facts<'_>) -> Self {
        let mut holdings = Self { held: vec![Holding::No; facts.len()] };
        for id in references_first(facts) {
            let best = (0..facts.view.caches.len()).map(|cache| holdings.by(facts, id, cache)).max();
            let unknown =
                facts.view.caches.iter().any(|cache| cache.is_unknown()) || facts.answers(id).is_none();
            let least = if unknown { Holding::Unknown } else { Holding::No };
            holdings.held[id.position()] = best.unwrap_or(Holding::No).max(least);
        }
        holdings
    }

    /// Whether the caches hold a path and all below it.
    pub(super) fn of(&self, id: PathId) -> Holding {
        self.held[id.position()]
    }

    /// The same for a reference, which may as well be valid.
    pub(super) fn of_reference(&self, facts: &Facts<'_>, id: PathId) -> Holding {
        if facts.is_valid(id) { Holding::Yes } else { self.of(id) }
    }

    /// Whether a path can be had by the offer of one cache.
    fn by(&self, facts: &Facts<'_>, id: PathId, cache: usize) -> Holding {
        let Some(answer) = facts.answers(id).and_then(|answers| answers.get(cache)) else {
            return Holding::No;
        };
        match answer {
            CacheAnswer::Offer(offer) if answer.usable().is_some() => {
                let own = match offer.nar {
                    Nar::Unknown(_) | Nar::NotFollowed(_) => Holding::Unknown,
                    Nar::Refused { .. } => Holding::No,
                    _ => Holding::Yes,
                };
                let references = facts.references(id, cache).iter();
                references.map(|reference| self.of_reference(facts, *reference)).fold(own, Ord::min)
            }
            // What may not be read cannot be had either, whatever it is.
            CacheAnswer::Offer(_)
            | CacheAnswer::OtherPath(_)
            | CacheAnswer::Absent
            | CacheAnswer::Hidden
            | CacheAnswer::Broken { .. }
            | CacheAnswer::Denied { .. } => Holding::No,
            CacheAnswer::Unreachable { .. } => Holding::Unknown,
        }
    }

    /// The first cache by whose offer a path and all below it can be had.
    pub(super) fn source(&self, facts: &Facts<'_>, id: PathId) -> Option<usize> {
        (0..facts.view.caches.len()).find(|cache| self.by(facts, id, *cache) == Holding::Yes)
    }
}

/// All paths, what the usable offers of each refer to before itself. On a circle, which only a lying cache can make, some
/// path comes before what it refers to, and thereby counts as not held.
fn references_first(facts: &Facts<'_>) -> Vec<PathId> {
    let mut order = Vec::with_capacity(facts.len());
    let mut is_met = vec![false; facts.len()];
    for root in facts.ids() {
        let mut open = vec![(root, false)];
        while let Some((id, is_done)) = open.pop() {
            if is_done {
                order.push(id);
            } else if !std::mem::replace(&mut is_met[id.position()], true) {
                open.push((id, true));
                for (cache, _) in facts.usable(id) {
                    let references = facts.references(id, cache).iter();
                    open.extend(
                        references.filter(|other| !is_met[other.position()]).map(|other| (*other, false)),
                    );
                }
            }
        }
    }
    order
}
