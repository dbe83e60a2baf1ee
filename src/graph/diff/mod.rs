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

use std::collections::{HashMap, HashSet, VecDeque};

use nix_derivation::{StoreDir, StorePath};

use self::changes::own_changes;
use super::build_graph::{BuildGraph, DerivationIndex};
use super::contents::Contents;
use super::derivation::DerivationKind;

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
    /// Members of each graph that make what the other graph makes too. They are in nobody's place but their own.
    kept: Kept,
    names: Names<'a>,
    open: VecDeque<Pair>,
    /// Pairs that were opened, or need not be.
    met: HashSet<Pair>,
    /// The partners among the inputs of each pair that has no changes of its own.
    inherited: HashMap<Pair, Vec<Pair>>,
    differences: Differences,
}

/// Members that make what the other graph makes too, by their positions.
#[derive(Debug)]
struct Kept {
    old: Vec<bool>,
    new: Vec<bool>,
}

/// The members of each graph by name: how many have it, and one of them.
#[derive(Debug)]
struct Names<'a> {
    old: HashMap<&'a str, (usize, DerivationIndex)>,
    new: HashMap<&'a str, (usize, DerivationIndex)>,
}

impl<'a> Names<'a> {
    fn new(old: &'a BuildGraph, new: &'a BuildGraph) -> Self {
        let counted = |graph: &'a BuildGraph| {
            let mut names = HashMap::new();
            for index in graph.indices() {
                names.entry(graph.derivation(index).name()).or_insert((0, index)).0 += 1;
            }
            names
        };
        Self { old: counted(old), new: counted(new) }
    }

    /// Whether both names are in both graphs, so that neither is what the other has become.
    fn are_on_both_sides(&self, old: &str, new: &str) -> bool {
        old != new && self.new.contains_key(old) && self.old.contains_key(new)
    }

    /// The member of the new graph that has a name which each graph has once.
    fn only(&self, name: &str) -> Option<DerivationIndex> {
        match (self.old.get(name), self.new.get(name)) {
            (Some((1, _)), Some((1, new))) => Some(*new),
            _ => None,
        }
    }
}

impl<'a> Comparison<'a> {
    /// Begins at the roots. One alone is in the place of the other; of several those are that are equal, have one name, or are
    /// left in one place.
    pub fn new(old: Side<'a>, new: Side<'a>, store_dir: &'a StoreDir) -> Self {
        let kept = Kept { old: kept(old.graph, new.graph), new: kept(new.graph, old.graph) };
        let partners = pairing::roots(old, new);
        let differences =
            Differences { removed: partners.removed, added: partners.added, ..Differences::default() };
        let (open, met, inherited) = (VecDeque::new(), HashSet::new(), HashMap::new());
        let names = Names::new(old.graph, new.graph);
        let mut comparison = Self { old, new, store_dir, kept, names, open, met, inherited, differences };
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
        let mut partners = pairing::by_graph(self, pair);
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
        let mut partners = partners.done();
        let changes = own_changes(self, pair, contents, &partners);
        if !changes.is_empty() {
            partners.pairs.extend(self.elsewhere(&partners.removed));
        }
        Ok(Compared { partners: partners.pairs, changes })
    }

    /// Removed inputs with what they have become, where that is needed by another way: something that wraps it, for instance. Only by
    /// a name that each graph has once, as nothing else tells that they belong together.
    fn elsewhere(&self, removed: &[DerivationIndex]) -> Vec<Pair> {
        let changed = removed.iter().filter(|old| !self.kept.old[old.position()]);
        let found = changed.filter_map(|old| {
            let new = self.names.only(self.old.graph.derivation(*old).name())?;
            Some(Pair { old: *old, new })
        });
        found.filter(|pair| !self.kept.new[pair.new.position()]).collect()
    }

    /// Takes what comparing a wanted pair has given; nothing for what could not be read.
    pub fn take(&mut self, pair: Pair, compared: Option<Compared>) {
        let Some(Compared { partners, changes }) = compared else {
            self.differences.unread.push(pair);
            return;
        };
        for partner in &partners {
            self.meet(*partner);
        }
        if changes.is_empty() {
            self.inherited.insert(pair, partners);
        } else {
            self.differences.found.push(Difference { pair, changes, rebuilds: 0 });
        }
    }

    /// Notes two partners, and opens them where they make different things.
    fn meet(&mut self, pair: Pair) {
        if self.met.insert(pair) && !self.makes_the_same(pair) {
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
        let dependents = dependents_by_source(self.new.graph, &rebuilt);
        for difference in &mut self.differences.found {
            difference.rebuilds = count_rebuilds(self.new.graph, difference, &rebuilt, &dependents);
        }
        self.differences.rebuilds = rebuilt.iter().filter(|is_rebuilt| **is_rebuilt).count();
        let name = |difference: &Difference| self.new.graph.derivation(difference.pair.new).name();
        self.differences
            .found
            .sort_by(|one, other| other.rebuilds.cmp(&one.rebuilds).then_with(|| name(one).cmp(name(other))));
        self.differences
    }

    /// Which members of the new graph are rebuilt: they make something that none of the old graph makes, and something that is
    /// rebuilt needs them, or they were named.
    fn rebuilt(&self) -> Vec<bool> {
        let graph = self.new.graph;
        let same = self.same_after_all();
        let mut rebuilt = vec![false; graph.len()];
        let mut open = self.new.roots.to_vec();
        while let Some(index) = open.pop() {
            let position = index.position();
            if !rebuilt[position] && !self.kept.new[position] && !same.contains(&index) {
                rebuilt[position] = true;
                open.extend(graph.dependencies(index));
            }
        }
        rebuilt
    }

    /// Members of the new graph whose paths show only after building, and will be those of their partners: nothing of them has
    /// changed but inputs that make the same. (Nix builds such a derivation by the paths of its inputs.)
    fn same_after_all(&self) -> HashSet<DerivationIndex> {
        let mut pairs: Vec<(&Pair, &Vec<Pair>)> = self.inherited.iter().collect();
        // Inputs before what needs them.
        pairs.sort_by_key(|(pair, _)| pair.new);
        let mut same = HashSet::new();
        for (pair, partners) in pairs {
            let is_late = self.new.graph.derivation(pair.new).outputs().all(|output| output.path().is_none());
            let is_same = |partner: &Pair| same.contains(&partner.new) || self.makes_the_same(*partner);
            if is_late && !self.is_impure(*pair) && partners.iter().all(is_same) {
                same.insert(pair.new);
            }
        }
        same
    }

    fn is_impure(&self, pair: Pair) -> bool {
        self.new.graph.derivation(pair.new).kind() == DerivationKind::Impure
    }
}

/// Which members of a graph make what another makes too, all of it.
fn kept(graph: &BuildGraph, other: &BuildGraph) -> Vec<bool> {
    let is_made = |path: Option<StorePath>| path.is_some_and(|path| other.maker(&path).is_some());
    graph
        .indices()
        .map(|index| {
            let derivation = graph.derivation(index);
            let makes_known =
                derivation.outputs().len() > 0 && derivation.outputs().all(|output| is_made(output.path()));
            makes_known || other.find(&derivation.path()).is_some()
        })
        .collect()
}

/// By which of the rebuilt derivations each is needed as a source: its `.drv` file, and not what it makes.
fn dependents_by_source(
    graph: &BuildGraph,
    rebuilt: &[bool],
) -> HashMap<DerivationIndex, Vec<DerivationIndex>> {
    let mut dependents: HashMap<DerivationIndex, Vec<DerivationIndex>> = HashMap::new();
    for index in graph.indices().filter(|index| rebuilt[index.position()]) {
        let named =
            graph.derivation(index).sources().filter(|source| source.name().strip_suffix(".drv").is_some());
        for source in named.filter_map(|source| graph.find(&source)) {
            dependents.entry(source).or_default().push(index);
        }
    }
    dependents
}

/// How many of the rebuilt derivations need a changed one, itself included, or are below an input that it has got.
fn count_rebuilds(
    graph: &BuildGraph,
    difference: &Difference,
    rebuilt: &[bool],
    by_source: &HashMap<DerivationIndex, Vec<DerivationIndex>>,
) -> usize {
    let mut counted: HashSet<DerivationIndex> = HashSet::new();
    let mut go = |starts: Vec<DerivationIndex>, next: &dyn Fn(DerivationIndex) -> Vec<DerivationIndex>| {
        let mut open = starts;
        while let Some(index) = open.pop() {
            if rebuilt[index.position()] && counted.insert(index) {
                open.extend(next(index));
            }
        }
    };
    // A download that is fetched with something else stays where it is. If it is fetched anew, its content is another.
    let follows = |index: &DerivationIndex| graph.derivation(*index).kind() != DerivationKind::FixedOutput;
    let above = |index| {
        let as_source = by_source.get(&index).into_iter().flatten();
        graph.dependents(index).iter().chain(as_source).copied().filter(follows).collect()
    };
    go(vec![difference.pair.new], &above);
    let added = difference.changes.iter().filter_map(|change| match change {
        Change::InputAdded { input, .. } => Some(*input),
        _ => None,
    });
    go(added.collect(), &|index| graph.dependencies(index).to_vec());
    counted.len()
}

#[cfg(test)]
mod tests;
