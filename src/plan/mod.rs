//! What has to move: closure − target − upstreams − excluded, in which order, and what is blocked by what.
//!
//! Pure values. The answers of caches come in as facts; nothing here asks anybody.

mod filter;
mod schedule;

use crate::graph::{Closure, PathIndex};

pub use filter::{Filter, FilterError};
pub use schedule::Schedule;

/// What a cache was found to hold of a closure: one entry a path, in the closure's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holdings(Vec<bool>);

impl Holdings {
    /// Nothing is held.
    pub fn none(closure: &Closure) -> Self {
        Self(vec![false; closure.len()])
    }

    /// Notes that a path is held.
    pub fn add(&mut self, index: PathIndex) {
        self.0[index.position()] = true;
    }

    /// Whether a path is held.
    pub fn has(&self, index: PathIndex) -> bool {
        self.0[index.position()]
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
    /// Decides the class of each path.
    ///
    /// A path that the target or an upstream serves is never excluded or blocked: filters say what to move, not what to
    /// take away.
    pub fn new(closure: &Closure, target: &Holdings, upstream: &Holdings, filter: &Filter) -> Self {
        let mut classes: Vec<Class> = Vec::with_capacity(closure.len());
        for index in closure.indices() {
            let class = if target.has(index) {
                Class::Present
            } else if upstream.has(index) {
                Class::Upstream
            } else if !filter.keeps(&closure.info(index).base_name()) {
                Class::Excluded
            } else {
                let culprit = closure.references(index).iter().find_map(|reference| {
                    match classes[reference.position()] {
                        Class::Excluded => Some(*reference),
                        Class::Blocked { by } => Some(by),
                        Class::Present | Class::Upstream | Class::Push => None,
                    }
                });
                culprit.map_or(Class::Push, |by| Class::Blocked { by })
            };
            classes.push(class);
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::graph::tests::{closure, graphs};

    fn at(closure: &Closure, number: usize) -> PathIndex {
        closure
            .indices()
            .find(|index| closure.info(*index).path.name() == format!("p{number}"))
            .expect("a member")
    }

    #[test]
    fn what_refers_to_an_excluded_path_is_blocked_by_it() {
        // 3 -> 2 -> 1 -> 0, and 4 -> 0.
        let closure = closure(&[vec![], vec![0], vec![1], vec![2], vec![0]]);
        let none = Holdings::none(&closure);
        let filter = Filter::new(&[], &["-p1$".to_owned()]).expect("a pattern");
        let plan = Plan::new(&closure, &none, &none, &filter);
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
            let plan = Plan::new(&closure, target, upstream, &filter);
            assert_eq!(plan.class(at(&closure, 0)), class);
            assert_eq!(plan.class(at(&closure, 2)), Class::Push);
        }
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
                    holdings.add(index);
                }
                holdings
            };
            let (held, upstream) = (bits(held & upstream), bits(upstream & !held));
            let patterns: Vec<String> = (0..graph.len()).filter(|n| excluded >> (n % 64) & 1 == 1)
                .map(|n| format!("-p{n}$")).collect();
            let filter = Filter::new(&[], &patterns).expect("patterns");
            let plan = Plan::new(&closure, &held, &upstream, &filter);
            for index in plan.paths(&closure, |class| class == Class::Push) {
                for reference in closure.references(index) {
                    prop_assert!(matches!(
                        plan.class(*reference), Class::Present | Class::Upstream | Class::Push
                    ));
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
