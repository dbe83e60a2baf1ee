//! What has to move: closure − target − upstreams − excluded, in which order, and what is blocked by what.
//!
//! Pure values. The answers of caches come in as facts; nothing here asks anybody.

mod filter;
mod schedule;
mod tree;

use crate::graph::{Closure, PathIndex};

pub use filter::{Filter, FilterError};
pub use schedule::Schedule;
pub use tree::{Item, Tree};

/// What a cache was found to hold of a closure: one entry a path, in the closure's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holdings(Vec<Option<Box<[PathIndex]>>>);

impl Holdings {
    /// Nothing is held.
    pub fn none(closure: &Closure) -> Self {
        Self(vec![None; closure.len()])
    }

    /// Notes that a path is held, and with it what it needs nobody asks for.
    pub fn add(&mut self, index: PathIndex) {
        self.add_with(index, Vec::new());
    }

    /// Notes that a path is held, by a cache that says it refers to these members of the closure.
    pub fn add_with(&mut self, index: PathIndex, references: Vec<PathIndex>) {
        self.0[index.position()] = Some(references.into());
    }

    /// Whether a path is held.
    pub fn has(&self, index: PathIndex) -> bool {
        self.0[index.position()].is_some()
    }

    /// What a held path refers to there.
    fn references(&self, index: PathIndex) -> &[PathIndex] {
        self.0[index.position()].as_deref().unwrap_or_default()
    }
}

/// What a push does with one path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The target serves it already.
    Present,
    /// A declared upstream serves it, so that users of the target have it.
    Upstream,
    /// A filter leaves it out.
    Excluded,
    /// It refers, directly or not, to an excluded path that nobody serves; pushing it would make the target less closed.
    Blocked {
        /// The excluded path.
        by: PathIndex,
    },
    /// It has to move.
    Push,
}

impl Class {
    /// The class as reports name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Present => "present",
            Self::Upstream => "upstream",
            Self::Excluded => "excluded",
            Self::Blocked { .. } => "blocked",
            Self::Push => "push",
        }
    }
}

/// Paths and their NAR bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Tally {
    /// Number of paths.
    pub paths: usize,
    /// Their NARs' size in bytes, uncompressed.
    pub nar_bytes: u64,
}

impl Tally {
    /// Counts one path in.
    pub fn add(&mut self, nar_bytes: u64) {
        self.paths += 1;
        self.nar_bytes += nar_bytes;
    }
}

/// What a push will do with every path of a closure.
#[derive(Clone, Debug)]
pub struct Plan {
    classes: Vec<Class>,
}

impl Plan {
    /// Decides the class of each path. What may not move is excluded.
    ///
    /// A path that the target or an upstream serves is never excluded or blocked: filters say what to move, not what to
    /// take away. But where the target refers from a path that it has to one that is excluded, it cannot serve the
    /// former either, and what refers to that is blocked too.
    pub fn new(
        closure: &Closure,
        target: &Holdings,
        upstream: &Holdings,
        may_move: impl Fn(PathIndex) -> bool,
    ) -> Self {
        let mut classes: Vec<Class> = closure
            .indices()
            .map(|index| {
                if target.has(index) {
                    Class::Present
                } else if upstream.has(index) {
                    Class::Upstream
                } else if may_move(index) {
                    Class::Push
                } else {
                    Class::Excluded
                }
            })
            .collect();
        for (index, by) in unserved(closure, target, &classes) {
            if classes[index.position()] == Class::Push {
                classes[index.position()] = Class::Blocked { by };
            }
        }
        Self { classes }
    }

    /// What happens with a path.
    pub fn class(&self, index: PathIndex) -> Class {
        self.classes[index.position()]
    }

    /// The paths of a class, references first.
    pub fn paths<'a>(
        &'a self,
        closure: &'a Closure,
        wanted: impl Fn(Class) -> bool + 'a,
    ) -> impl Iterator<Item = PathIndex> + 'a {
        closure.indices().filter(move |index| wanted(self.class(*index)))
    }

    /// Count and NAR bytes of a class.
    pub fn tally(&self, closure: &Closure, wanted: impl Fn(Class) -> bool) -> Tally {
        let mut tally = Tally::default();
        for index in self.paths(closure, wanted) {
            tally.add(closure.info(index).nar_size);
        }
        tally
    }
}

/// Every path that cannot be fetched because of an excluded one, with that one.
fn unserved(closure: &Closure, target: &Holdings, classes: &[Class]) -> Vec<(PathIndex, PathIndex)> {
    // From the excluded paths upwards. The target may have another build of a path, with references of its own, so that the
    // closure's order says nothing of them.
    let mut referrers: Vec<Vec<PathIndex>> = vec![Vec::new(); closure.len()];
    for index in closure.indices() {
        let references = match classes[index.position()] {
            Class::Present => target.references(index),
            Class::Push => closure.references(index),
            Class::Upstream | Class::Excluded | Class::Blocked { .. } => &[],
        };
        for reference in references {
            referrers[reference.position()].push(index);
        }
    }
    let mut found = Vec::new();
    let mut is_found = vec![false; closure.len()];
    for culprit in closure.indices().filter(|index| classes[index.position()] == Class::Excluded) {
        let mut open = vec![culprit];
        while let Some(next) = open.pop() {
            for referrer in &referrers[next.position()] {
                if !std::mem::replace(&mut is_found[referrer.position()], true) {
                    found.push((*referrer, culprit));
                    open.push(*referrer);
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;
    use crate::graph::tests::{closure, graphs};

    fn at(closure: &Closure, number: usize) -> PathIndex {
        closure
            .indices()
            .find(|index| closure.info(*index).path.name() == format!("p{number}"))
            .expect("a member")
    }

    fn by<'a>(closure: &'a Closure, filter: &'a Filter) -> impl Fn(PathIndex) -> bool + 'a {
        |index| filter.keeps(&closure.info(index).base_name())
    }

    #[test]
    fn what_refers_to_an_excluded_path_is_blocked_by_it() {
        // 3 -> 2 -> 1 -> 0, and 4 -> 0.
        let closure = closure(&[vec![], vec![0], vec![1], vec![2], vec![0]]);
        let none = Holdings::none(&closure);
        let filter = Filter::new(&[], &["-p1$".to_owned()]).expect("a pattern");
        let plan = Plan::new(&closure, &none, &none, by(&closure, &filter));
        let excluded = at(&closure, 1);
        assert_eq!(plan.class(at(&closure, 0)), Class::Push);
        assert_eq!(plan.class(excluded), Class::Excluded);
        assert_eq!(plan.class(at(&closure, 2)), Class::Blocked { by: excluded });
        assert_eq!(plan.class(at(&closure, 3)), Class::Blocked { by: excluded });
        assert_eq!(plan.class(at(&closure, 4)), Class::Push);
    }

    #[test]
    fn an_excluded_path_that_somebody_serves_blocks_nothing() {
        let closure = closure(&[vec![], vec![0], vec![1]]);
        let none = Holdings::none(&closure);
        let mut held = none.clone();
        held.add(at(&closure, 0));
        let filter = Filter::new(&[], &["-p0$".to_owned()]).expect("a pattern");
        for (target, upstream, class) in [(&held, &none, Class::Present), (&none, &held, Class::Upstream)] {
            let plan = Plan::new(&closure, target, upstream, by(&closure, &filter));
            assert_eq!(plan.class(at(&closure, 0)), class);
            assert_eq!(plan.class(at(&closure, 2)), Class::Push);
        }
    }

    #[test]
    fn what_is_excluded_below_a_present_path_blocks_what_is_above_it() {
        // 2 -> 1 -> 0, and the target has 1.
        let closure = closure(&[vec![], vec![0], vec![1]]);
        let mut held = Holdings::none(&closure);
        let (lowest, top) = (at(&closure, 0), at(&closure, 2));
        held.add_with(at(&closure, 1), vec![lowest]);
        let none = Holdings::none(&closure);
        let filter = Filter::new(&[], &["-p0$".to_owned()]).expect("a pattern");
        let plan = Plan::new(&closure, &held, &none, by(&closure, &filter));
        assert_eq!(plan.class(at(&closure, 1)), Class::Present);
        assert_eq!(plan.class(top), Class::Blocked { by: lowest });
        // Where the hole is filled, or there is none, nothing is blocked.
        let plan = Plan::new(&closure, &held, &none, |_| true);
        assert_eq!((plan.class(lowest), plan.class(top)), (Class::Push, Class::Push));
        held.add_with(at(&closure, 1), Vec::new());
        let plan = Plan::new(&closure, &held, &none, by(&closure, &filter));
        assert_eq!(plan.class(top), Class::Push);
    }

    proptest! {
        #[test]
        fn nothing_is_pushed_whose_references_are_not_served_or_pushed(
            graph in graphs(), held in any::<u64>(), upstream in any::<u64>(), excluded in any::<u64>(),
        ) {
            let closure = closure(&graph);
            let bits = |word: u64| {
                let mut holdings = Holdings::none(&closure);
                for index in closure.indices().filter(|i| word >> (i.position() % 64) & 1 == 1) {
                    // Some are other builds, which refer to what they like.
                    let references = if word >> (index.position() % 61) & 2 == 2 {
                        closure.referrers(index)
                    } else {
                        closure.references(index)
                    };
                    holdings.add_with(index, references.to_vec());
                }
                holdings
            };
            let (held, upstream) = (bits(held & upstream), bits(upstream & !held));
            let patterns: Vec<String> = (0..graph.len()).filter(|n| excluded >> (n % 64) & 1 == 1)
                .map(|n| format!("-p{n}$")).collect();
            let filter = Filter::new(&[], &patterns).expect("patterns");
            let plan = Plan::new(&closure, &held, &upstream, by(&closure, &filter));
            for index in plan.paths(&closure, |class| class == Class::Push) {
                let (mut open, mut seen) = (vec![index], HashSet::from([index]));
                while let Some(next) = open.pop() {
                    let references = match plan.class(next) {
                        Class::Push => closure.references(next),
                        Class::Present => held.references(next),
                        Class::Upstream => &[],
                        class => {
                            prop_assert!(false, "{class:?} below what is pushed");
                            &[]
                        }
                    };
                    open.extend(references.iter().filter(|reference| seen.insert(**reference)));
                }
            }
            for index in closure.indices() {
                if let Class::Blocked { by } = plan.class(index) {
                    prop_assert_eq!(plan.class(by), Class::Excluded);
                }
            }
            let total: usize = [
                plan.tally(&closure, |c| c == Class::Present), plan.tally(&closure, |c| c == Class::Upstream),
                plan.tally(&closure, |c| c == Class::Excluded), plan.tally(&closure, |c| c == Class::Push),
                plan.tally(&closure, |c| matches!(c, Class::Blocked { .. })),
            ].iter().map(|tally| tally.paths).sum();
            prop_assert_eq!(total, closure.len());
        }
    }
}
