//! Which paths to ask about next, from the targets down.

use std::collections::VecDeque;

use nix_derivation::StorePath;

use super::CacheAnswer;
use super::facts::{Facts, PathId, Scope, View};
use super::guesses::{Guess, Guesses};
use crate::graph::{BuildGraph, DerivationIndex};

/// An audit that is still asking.
///
/// It wants to know the wanted outputs of the targets, whatever an offered path refers to, and, below everything that may
/// have to be built, the outputs that the build needs. Nothing below a sound offer is asked beyond its references. That is
/// how Nix goes, and a little more: where Nix stops at the first cache, all are asked, because the verdict is about all.
///
/// A walk that only asked what it knows to want would wait for the caches once for every level of the graph. So it also
/// guesses what it will want, from what the wanted derivations are built from (`guesses.rs` says how far).
///
/// Ask all caches about every path that [`Walk::ask_next`] gives, hand the answers to [`Walk::answer`] as they come, and go on
/// until [`Walk::is_done`].
#[derive(Debug)]
pub struct Walk<'a> {
    facts: Facts<'a>,
    notes: Vec<Notes>,
    /// Derivations whose inputs are wanted.
    opened: Vec<bool>,
    /// Wanted paths that nobody was asked about.
    wants: VecDeque<PathId>,
    guesses: Guesses,
    /// What was guessed, answered, and then wanted: yet to be gone through.
    ready: Vec<(PathId, Vec<CacheAnswer>)>,
    /// How many wanted paths are not answered.
    unanswered: usize,
}

/// What the walk remembers of a path.
#[derive(Clone, Debug, Default)]
struct Notes {
    is_wanted: bool,
    /// Whether Nix may find that it cannot be fetched.
    is_doubtful: bool,
    /// Paths of which some offer refers to this one.
    referrers: Vec<PathId>,
}

impl<'a> Walk<'a> {
    /// Starts at the targets of a view.
    pub fn new(graph: &'a BuildGraph, view: &'a View) -> Self {
        let mut walk = Self {
            facts: Facts::new(graph, view),
            notes: Vec::new(),
            opened: vec![false; graph.len()],
            wants: VecDeque::new(),
            guesses: Guesses::new(graph),
            ready: Vec::new(),
            unanswered: 0,
        };
        for (index, outputs) in &view.targets {
            for id in
                outputs.iter().filter_map(|output| walk.facts.outputs(*index)[*output]).collect::<Vec<_>>()
            {
                walk.want(id);
            }
            let is_valid = outputs
                .iter()
                .all(|output| walk.facts.outputs(*index)[*output].is_some_and(|id| walk.facts.is_valid(id)));
            if !is_valid {
                walk.add_goal(*index, outputs);
            }
        }
        match view.scope {
            Scope::Needed => {}
            Scope::Runtime => {
                for path in &view.runtime {
                    let id = walk.facts.id(path);
                    walk.want(id);
                }
            }
            Scope::Build => {
                for index in graph.indices() {
                    for id in walk.facts.outputs(index).iter().flatten().copied().collect::<Vec<_>>() {
                        walk.want(id);
                    }
                }
            }
        }
        walk
    }

    /// A path that every cache shall be asked about now, if there is any: what is wanted first, then what is guessed.
    pub fn ask_next(&mut self) -> Option<PathId> {
        self.wants.pop_front().or_else(|| {
            let is_wanted = |id: PathId| self.notes.get(id.position()).is_some_and(|notes| notes.is_wanted);
            self.guesses.make(&self.facts, is_wanted)
        })
    }

    /// The path of an id.
    pub fn path(&self, id: PathId) -> &StorePath {
        self.facts.path(id)
    }

    /// Whether everything that is wanted is known. Guesses may still be open; nobody has to wait for them.
    pub fn is_done(&self) -> bool {
        self.unanswered == 0
    }

    /// Takes what each cache said about a path, in the order of [`View::caches`].
    pub fn answer(&mut self, id: PathId, answers: Vec<CacheAnswer>) {
        if !self.note(id).is_wanted {
            self.guesses.keep(id, answers);
            return;
        }
        self.ready.push((id, answers));
        while let Some((id, answers)) = self.ready.pop() {
            self.unanswered -= 1;
            self.go_on_from(id, answers);
        }
    }

    /// Wants whatever the answers about a path make necessary.
    fn go_on_from(&mut self, id: PathId, answers: Vec<CacheAnswer>) {
        self.facts.learn(id, answers);
        for cache in 0..self.facts.view.caches.len() {
            for reference in self.facts.references(id, cache).to_vec() {
                self.note(reference).referrers.push(id);
                self.need(reference);
            }
        }
        let mut open = vec![id];
        while let Some(id) = open.pop() {
            if self.note(id).is_doubtful || !self.has_reason_to_doubt(id) {
                continue;
            }
            let notes = self.note(id);
            notes.is_doubtful = true;
            open.extend(&notes.referrers);
            if let (Some((maker, _)), false) = (self.facts.maker(id), self.facts.is_valid(id)) {
                self.open(maker);
            }
        }
    }

    /// Ends the walk.
    pub fn into_facts(self) -> Facts<'a> {
        self.facts
    }

    fn note(&mut self, id: PathId) -> &mut Notes {
        if self.notes.len() <= id.position() {
            self.notes.resize(self.facts.len(), Notes::default());
        }
        &mut self.notes[id.position()]
    }

    fn want(&mut self, id: PathId) {
        if std::mem::replace(&mut self.note(id).is_wanted, true) {
            return;
        }
        self.unanswered += 1;
        match self.guesses.confirm(&self.facts, id) {
            Guess::None => self.wants.push_back(id),
            Guess::Open => {}
            Guess::Answered(answers) => self.ready.push((id, answers)),
        }
    }

    fn need(&mut self, id: PathId) {
        if self.facts.may_be_fetched(id) {
            self.want(id);
        }
    }

    /// Whether the offer that Nix would take first is missing, or leads to something doubtful.
    fn has_reason_to_doubt(&self, id: PathId) -> bool {
        if self.facts.answers(id).is_none() {
            return false;
        }
        let Some((cache, _)) = self.facts.usable(id).next() else { return true };
        let is_doubtful = |reference: &PathId| {
            !self.facts.is_valid(*reference)
                && self.notes.get(reference.position()).is_some_and(|notes| notes.is_doubtful)
        };
        self.facts.references(id, cache).iter().any(is_doubtful)
    }

    /// Wants outputs of a derivation as Nix does when it is asked to make them.
    fn add_goal(&mut self, index: DerivationIndex, outputs: &[usize]) {
        if self.wants_inputs(index, outputs) {
            self.open(index);
        }
    }

    /// Wants outputs of a derivation, and says whether it may have to be built for them.
    fn wants_inputs(&mut self, index: DerivationIndex, outputs: &[usize]) -> bool {
        let mut is_doubtful = self.facts.view.is_local_by_design(self.facts.graph, index);
        let mut is_valid = true;
        for output in outputs {
            let Some(id) = self.facts.outputs(index)[*output] else { return true };
            self.need(id);
            is_valid &= self.facts.is_valid(id);
            is_doubtful |= self.note(id).is_doubtful;
        }
        is_doubtful && !is_valid
    }

    /// Wants what a derivation is built from, and what that is built from where it must be.
    fn open(&mut self, index: DerivationIndex) {
        let graph = self.facts.graph;
        let mut open = vec![index];
        while let Some(next) = open.pop() {
            if std::mem::replace(&mut self.opened[next.position()], true) {
                continue;
            }
            for input in graph.inputs(next) {
                if self.wants_inputs(input.derivation, input.outputs) {
                    open.push(input.derivation);
                }
            }
        }
    }
}
