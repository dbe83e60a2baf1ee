//! In which order paths move, and when a narinfo may be written.
//!
//! NARs go up in any order; a narinfo only after its own NAR and after the narinfo of everything it refers to. That one
//! rule keeps a cache closed whenever the program stops, so it lives here, apart from threads and sockets, as a state
//! machine that is told what happened and answers what may happen next.

use std::cmp::Reverse;

use super::{Class, Plan};
use crate::graph::{Closure, PathIndex};

/// How far a path has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Not part of the push.
    Settled,
    /// Its NAR is not in the target yet.
    Waiting,
    /// Its NAR is there; some references are not published.
    Uploaded,
    /// Its narinfo may be written, or is being written.
    Publishable,
    /// Its narinfo is there.
    Published,
    /// It failed.
    Failed,
    /// Something it refers to failed.
    Blocked(PathIndex),
}

/// The progress of a push over a [`Plan`].
#[derive(Debug)]
pub struct Schedule<'a> {
    closure: &'a Closure,
    states: Vec<State>,
    /// How many references of a path are still to be published.
    unpublished: Vec<u32>,
}

impl<'a> Schedule<'a> {
    /// Starts a push of everything that the plan says has to move.
    pub fn new(closure: &'a Closure, plan: &Plan) -> Self {
        let is_pushed = |index: PathIndex| plan.class(index) == Class::Push;
        let states = closure
            .indices()
            .map(|index| if is_pushed(index) { State::Waiting } else { State::Settled })
            .collect();
        let unpublished = closure
            .indices()
            .map(|index| {
                let references = closure.references(index).iter().filter(|reference| is_pushed(**reference));
                u32::try_from(references.count()).unwrap_or(u32::MAX)
            })
            .collect();
        Self { closure, states, unpublished }
    }

    /// The order in which to pack and upload: large NARs early, each right behind what it refers to.
    ///
    /// A path is as urgent as the largest NAR among itself and what refers to it. So the longest uploads start first,
    /// which is what keeps all cores busy to the end, and their references have gone before them, so that narinfos
    /// appear as the push goes on and a killed run leaves little to do again.
    pub fn order(&self) -> Vec<PathIndex> {
        let mut urgency: Vec<u64> =
            self.closure.indices().map(|index| self.closure.info(index).nar_size).collect();
        for index in self.closure.indices().rev() {
            let own = urgency[index.position()];
            for reference in self.closure.references(index) {
                let theirs = &mut urgency[reference.position()];
                *theirs = own.max(*theirs);
            }
        }
        let mut order: Vec<PathIndex> =
            self.closure.indices().filter(|index| self.states[index.position()] == State::Waiting).collect();
        // Stable, and the closure's order has references first: equal urgency keeps them in front.
        order.sort_by_key(|index| Reverse(urgency[index.position()]));
        order
    }

    /// Whether a path still has to be packed and uploaded.
    pub fn is_waiting(&self, index: PathIndex) -> bool {
        self.states[index.position()] == State::Waiting
    }

    /// Notes that a path's NAR is in the target. Answers whether its narinfo may be written now.
    pub fn nar_uploaded(&mut self, index: PathIndex) -> bool {
        if self.states[index.position()] != State::Waiting {
            return false;
        }
        self.states[index.position()] = State::Uploaded;
        self.make_publishable(index)
    }

    /// Notes that a path's narinfo is in the target. Answers whose narinfos may be written now.
    pub fn published(&mut self, index: PathIndex) -> Vec<PathIndex> {
        self.states[index.position()] = State::Published;
        let closure = self.closure;
        let mut ready = Vec::new();
        for referrer in closure.referrers(index) {
            let left = &mut self.unpublished[referrer.position()];
            *left = left.saturating_sub(1);
            if self.make_publishable(*referrer) {
                ready.push(*referrer);
            }
        }
        ready
    }

    /// Notes that a path cannot be pushed. Answers what is blocked by that, references first; nothing where the path had
    /// failed or was blocked before, so that it counts once.
    pub fn failed(&mut self, index: PathIndex) -> Option<Vec<PathIndex>> {
        let state = &mut self.states[index.position()];
        if matches!(state, State::Failed | State::Blocked(_)) {
            return None;
        }
        *state = State::Failed;
        let closure = self.closure;
        let mut blocked = Vec::new();
        let mut open = vec![index];
        while let Some(next) = open.pop() {
            for referrer in closure.referrers(next) {
                let state = &mut self.states[referrer.position()];
                if matches!(state, State::Waiting | State::Uploaded) {
                    *state = State::Blocked(index);
                    blocked.push(*referrer);
                    open.push(*referrer);
                }
            }
        }
        blocked.sort();
        Some(blocked)
    }

    /// The paths that are not in the target and neither failed nor are blocked: what an early stop left undone.
    pub fn unfinished(&self) -> impl Iterator<Item = PathIndex> + '_ {
        self.closure.indices().filter(|index| {
            matches!(self.states[index.position()], State::Waiting | State::Uploaded | State::Publishable)
        })
    }

    fn make_publishable(&mut self, index: PathIndex) -> bool {
        let state = &mut self.states[index.position()];
        let ready = *state == State::Uploaded && self.unpublished[index.position()] == 0;
        if ready {
            *state = State::Publishable;
        }
        ready
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;
    use crate::graph::tests::{closure, graphs};
    use crate::plan::Holdings;

    fn everything(closure: &Closure) -> Plan {
        let none = Holdings::none(closure);
        Plan::new(closure, &none, &none, |_| true)
    }

    #[test]
    fn a_large_nar_goes_first_but_behind_its_references() {
        // p0..p2 are small; p3 refers to p0. Sizes are 100 + number, so p3 is the largest.
        let closure = closure(&[vec![], vec![], vec![1], vec![0]]);
        let schedule_order = Schedule::new(&closure, &everything(&closure)).order();
        let names: Vec<_> = schedule_order.iter().map(|i| closure.info(*i).path.name().to_owned()).collect();
        assert_eq!(names, ["p0", "p3", "p1", "p2"]);
    }

    proptest! {
        /// Uploads finish in any order and some fail: no narinfo is ever offered before its references', every path
        /// ends published, failed or blocked, and exactly those above a failure are blocked.
        #[test]
        fn narinfos_follow_their_references(
            graph in graphs(), shuffle in any::<u64>(), failing in any::<u64>(), held in any::<u64>(),
        ) {
            let closure = closure(&graph);
            let mut target = Holdings::none(&closure);
            for index in closure.indices().filter(|i| held >> (i.position() % 64) & 1 == 1) {
                target.add(index);
            }
            let plan = Plan::new(&closure, &target, &Holdings::none(&closure), |_| true);
            let mut schedule = Schedule::new(&closure, &plan);
            let mut uploads = schedule.order();
            let planned: HashSet<_> = uploads.iter().copied().collect();
            uploads.sort_by_key(|i| (i.position() as u64).wrapping_mul(shuffle | 1));
            let (mut published, mut failed, mut blocked) = (HashSet::new(), HashSet::new(), HashSet::new());
            for index in uploads {
                if !schedule.is_waiting(index) {
                    continue;
                }
                if failing >> (index.position() % 64) & 1 == 1 {
                    failed.insert(index);
                    blocked.extend(schedule.failed(index).expect("it was waiting"));
                    prop_assert!(schedule.failed(index).is_none(), "it counts once");
                    for above in &blocked {
                        prop_assert!(schedule.failed(*above).is_none(), "what is blocked does not fail too");
                    }
                    continue;
                }
                let mut ready: Vec<_> = schedule.nar_uploaded(index).then_some(index).into_iter().collect();
                while let Some(next) = ready.pop() {
                    for reference in closure.references(next) {
                        prop_assert!(target.has(*reference) || published.contains(reference));
                    }
                    prop_assert!(published.insert(next));
                    ready.extend(schedule.published(next));
                }
            }
            prop_assert_eq!(schedule.unfinished().count(), 0);
            prop_assert_eq!(published.len() + failed.len() + blocked.len(), planned.len());
            for index in &planned {
                let above_failure = closure.references(*index).iter()
                    .any(|r| failed.contains(r) || blocked.contains(r));
                prop_assert_eq!(blocked.contains(index), above_failure && !failed.contains(index));
            }
        }
    }
}
