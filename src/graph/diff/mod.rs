//! Why two build graphs differ: which derivations differ by themselves, and what is rebuilt because of them.
//!
//! A derivation that needs a changed one is changed too: its inputs are written into it. So almost everything above a change
//! differs, and almost none of it is worth a word. The two graphs are gone through in pairs, from the roots down. Of each pair
//! the old one is rewritten to what it would be with the new one's inputs; only what differs then is its own. (What others do:
//! `nix-diff` compares every pair as it stands.)
//!
//! A state machine: it says whose contents it wants to know next, and takes them. Reading them is for others.

mod changes;
mod pairing;
mod rewrite;

use std::collections::{HashSet, VecDeque};

use nix_derivation::{StoreDir, StorePath};

use self::changes::own_changes;
use super::build_graph::{BuildGraph, DerivationIndex};
use super::contents::Contents;

pub use self::changes::Change;

/// One of the two graphs.
#[derive(Clone, Copy, Debug)]
pub struct Side<'a> {
    /// The graph.
    pub graph: &'a BuildGraph,
    /// Where it begins.
    pub roots: &'a [DerivationIndex],
}

/// A derivation of the old graph and the one that is in its place in the new.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pair {
    /// In the old graph.
    pub old: DerivationIndex,
    /// In the new.
    pub new: DerivationIndex,
}

/// A pair that differs by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The pair.
    pub pair: Pair,
    /// What differs.
    pub changes: Vec<Change>,
    /// How many derivations of the new graph are rebuilt because of it, itself included.
    pub rebuilds: usize,
}

/// What became of a comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Differences {
    /// What differs by itself, the ones first that rebuild the most.
    pub found: Vec<Difference>,
    /// How many derivations of the new graph are not in the old, by what they make.
    pub rebuilds: usize,
    /// Roots that have no partner.
    pub removed: Vec<DerivationIndex>,
    /// Roots of the new graph that have none.
    pub added: Vec<DerivationIndex>,
    /// Pairs of which one could not be read.
    pub unread: Vec<Pair>,
}

/// What a derivation says, as it is at hand.
#[derive(Clone, Copy, Debug)]
pub enum Says<'a> {
    /// The text of its `.drv` file.
    Text(&'a [u8]),
    /// What was read of it.
    Contents(&'a Contents),
}

/// What comparing a pair has given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compared {
    /// Its inputs that are in each other's place.
    partners: Vec<Pair>,
    changes: Vec<Change>,
}

/// A comparison under way.
#[derive(Debug)]
pub struct Comparison<'a> {
    old: Side<'a>,
    new: Side<'a>,
    store_dir: &'a StoreDir,
    open: VecDeque<Pair>,
    /// Members of the new graph that have met a partner.
    met: HashSet<DerivationIndex>,
    differences: Differences,
}

impl<'a> Comparison<'a> {
    /// Begins at the roots: those of one place are partners where there are as many, else those of one name.
    pub fn new(old: Side<'a>, new: Side<'a>, store_dir: &'a StoreDir) -> Self {
        let mut comparison = Self {
            old,
            new,
            store_dir,
            open: VecDeque::new(),
            met: HashSet::new(),
            differences: Differences::default(),
        };
        let partners = if old.roots.len() == new.roots.len() {
            pairing::in_order(old.roots, new.roots)
        } else {
            pairing::by_name(old, new)
        };
        comparison.differences.removed = partners.removed;
        comparison.differences.added = partners.added;
        for pair in partners.pairs {
            comparison.meet(pair);
        }
        comparison
    }

    /// Pairs whose contents are wanted next, not more than `most`; none when it is done.
    pub fn wanted(&mut self, most: usize) -> Vec<Pair> {
        let count = self.open.len().min(most);
        self.open.drain(..count).collect()
    }

    /// Compares what a wanted pair says. Changes nothing, so that many pairs can be compared at once.
    ///
    /// # Errors
    ///
    /// When a text is no derivation.
    pub fn compare(&self, pair: Pair, old: &Says<'_>, new: &Says<'_>) -> Result<Compared, String> {
        let mut partners = pairing::by_graph(self.old.graph, self.new.graph, pair);
        // Most differ by their inputs alone, which the texts tell without being understood.
        if let (Says::Text(old), Says::Text(new)) = (old, new)
            && partners.is_settled()
            && changes::is_the_same(self, pair, &partners, old, new)
        {
            return Ok(Compared { partners: partners.done().pairs, changes: Vec::new() });
        }
        let contents = |says: &Says<'_>, side: Side<'_>, index| match says {
            Says::Contents(contents) => Ok((*contents).clone()),
            Says::Text(text) => Contents::parse(text, side.graph.derivation(index).name(), self.store_dir),
        };
        let contents = (contents(old, self.old, pair.old)?, contents(new, self.new, pair.new)?);
        let contents = (&contents.0, &contents.1);
        partners.settle_by_use(contents, self.store_dir);
        let partners = partners.done();
        let changes = own_changes(self, pair, contents, &partners);
        Ok(Compared { partners: partners.pairs, changes })
    }

    /// Takes what comparing a wanted pair has given; nothing for what could not be read.
    pub fn take(&mut self, pair: Pair, compared: Option<Compared>) {
        let Some(Compared { partners, changes }) = compared else {
            self.differences.unread.push(pair);
            return;
        };
        for partner in partners {
            self.meet(partner);
        }
        if !changes.is_empty() {
            self.differences.found.push(Difference { pair, changes, rebuilds: 0 });
        }
    }

    /// Notes two partners, and opens them where they make different things.
    fn meet(&mut self, pair: Pair) {
        if self.met.insert(pair.new) && !self.makes_the_same(pair) {
            self.open.push_back(pair);
        }
    }

    /// Whether two derivations are one, or make one and the same: a download that is fetched in another way.
    fn makes_the_same(&self, pair: Pair) -> bool {
        let (old, new) = (self.old.graph.derivation(pair.old), self.new.graph.derivation(pair.new));
        if old.path() == new.path() {
            return true;
        }
        let mut outputs = old.outputs().zip(new.outputs()).peekable();
        outputs.peek().is_some()
            && old.outputs().len() == new.outputs().len()
            && outputs.all(|(old, new)| {
                old.name() == new.name() && old.path().is_some() && old.path() == new.path()
            })
    }

    /// What was found, when nothing is wanted any more.
    pub fn finish(mut self) -> Differences {
        let rebuilt = self.rebuilt();
        for difference in &mut self.differences.found {
            difference.rebuilds = count_rebuilds(self.new.graph, difference, &rebuilt);
        }
        self.differences.rebuilds = rebuilt.iter().filter(|is_rebuilt| **is_rebuilt).count();
        let name = |difference: &Difference| self.new.graph.derivation(difference.pair.new).name();
        self.differences
            .found
            .sort_by(|one, other| other.rebuilds.cmp(&one.rebuilds).then_with(|| name(one).cmp(name(other))));
        self.differences
    }

    /// Which members of the new graph make something that none of the old graph makes.
    fn rebuilt(&self) -> Vec<bool> {
        let old = self.old.graph;
        self.new
            .graph
            .indices()
            .map(|index| {
                let derivation = self.new.graph.derivation(index);
                let is_made = |path: Option<StorePath>| path.is_some_and(|path| old.maker(&path).is_some());
                let all_made = derivation.outputs().len() > 0
                    && derivation.outputs().all(|output| is_made(output.path()));
                !all_made && old.find(&derivation.path()).is_none()
            })
            .collect()
    }
}

/// How many of the rebuilt derivations need a changed one, itself included, or are below an input that it has got.
fn count_rebuilds(graph: &BuildGraph, difference: &Difference, rebuilt: &[bool]) -> usize {
    let mut counted: HashSet<DerivationIndex> = HashSet::new();
    let mut go = |starts: Vec<DerivationIndex>,
                  next: fn(&BuildGraph, DerivationIndex) -> &[DerivationIndex]| {
        let mut open = starts;
        while let Some(index) = open.pop() {
            if rebuilt[index.position()] && counted.insert(index) {
                open.extend(next(graph, index));
            }
        }
    };
    go(vec![difference.pair.new], BuildGraph::dependents);
    let added = difference.changes.iter().filter_map(|change| match change {
        Change::InputAdded { input, .. } => Some(*input),
        _ => None,
    });
    go(added.collect(), BuildGraph::dependencies);
    counted.len()
}

#[cfg(test)]
mod tests;
