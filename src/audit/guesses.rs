//! What a walk will probably want, asked before it is known.
//!
//! Each answer shows what is wanted next, so that asking takes as many round trips as the graph has levels: with 100 of them,
//! to a cache 20 ms away, two seconds. But what is wanted is nearly always among what the wanted derivations are built from.
//! So the nearest of those are asked for ahead, breadth first.
//!
//! A guess that turns out right allows two more, so that the walk looks ahead twice as far with every round trip; one that does
//! not stays open. In all, no more than [`AHEAD`] paths are asked for in vain, besides as many as were guessed right.

use std::collections::{HashMap, VecDeque};

use super::CacheAnswer;
use super::facts::{Facts, PathId};
use crate::graph::{BuildGraph, DerivationIndex};

/// How many guesses may be open before any has turned out right.
pub(super) const AHEAD: usize = 128;

/// What became of a guess.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Guess {
    /// Nobody guessed it.
    None,
    /// It is asked for, and not answered yet.
    Open,
    /// It is answered.
    Answered(Vec<CacheAnswer>),
}

/// Paths that are asked for before they are wanted.
#[derive(Debug)]
pub(super) struct Guesses {
    /// Derivations whose inputs may be wanted, the nearest first.
    frontier: VecDeque<DerivationIndex>,
    is_in_frontier: Vec<bool>,
    /// Outputs that may be wanted, the nearest first.
    candidates: VecDeque<PathId>,
    /// Guesses that are not known to be wanted, with their answers where those have come.
    open: HashMap<PathId, Option<Vec<CacheAnswer>>>,
    /// How many turned out right.
    right: usize,
}

impl Guesses {
    /// No guesses.
    pub(super) fn new(graph: &BuildGraph) -> Self {
        Self {
            frontier: VecDeque::new(),
            is_in_frontier: vec![false; graph.len()],
            candidates: VecDeque::new(),
            open: HashMap::new(),
            right: 0,
        }
    }

    /// Notes that a path is wanted, and says what is known of it already.
    pub(super) fn confirm(&mut self, facts: &Facts<'_>, id: PathId) -> Guess {
        if let Some((maker, _)) = facts.maker(id).filter(|_| facts.may_be_fetched(id)) {
            self.look_below(maker);
        }
        let Some(answers) = self.open.remove(&id) else { return Guess::None };
        self.right += 1;
        answers.map_or(Guess::Open, Guess::Answered)
    }

    /// One more path to ask about, as long as there are not too many that nobody wants.
    pub(super) fn make(&mut self, facts: &Facts<'_>, is_wanted: impl Fn(PathId) -> bool) -> Option<PathId> {
        if self.open.len() >= AHEAD + self.right {
            return None;
        }
        loop {
            while let Some(id) = self.candidates.pop_front() {
                if !is_wanted(id) && !self.open.contains_key(&id) {
                    self.open.insert(id, None);
                    return Some(id);
                }
            }
            let index = self.frontier.pop_front()?;
            for input in facts.graph.inputs(index) {
                let outputs = facts.outputs(input.derivation);
                let paths = input.outputs.iter().filter_map(|output| outputs[*output]);
                let before = self.candidates.len();
                self.candidates.extend(paths.filter(|id| facts.may_be_fetched(*id)));
                // Below what is valid nothing is wanted.
                if self.candidates.len() > before {
                    self.look_below(input.derivation);
                }
            }
        }
    }

    /// Keeps the answers about a path that nobody wants yet.
    pub(super) fn keep(&mut self, id: PathId, answers: Vec<CacheAnswer>) {
        if let Some(open) = self.open.get_mut(&id) {
            *open = Some(answers);
        }
    }

    fn look_below(&mut self, index: DerivationIndex) {
        if !std::mem::replace(&mut self.is_in_frontier[index.position()], true) {
            self.frontier.push_back(index);
        }
    }
}
