//! What an audit knows: the build graph, what is valid here, and what each cache said of each path.

use std::collections::{HashMap, HashSet};

use nix_derivation::StorePath;

use super::{CacheAnswer, Nar};
use crate::graph::{BuildGraph, DerivationIndex, DerivationKind};

/// How many paths that the build graph does not name are followed, besides as many as it has derivations. What another
/// build of a derivation refers to is among them; a cache that names ever new ones must come to an end.
const STRANGERS: usize = 20_000;

/// Why an offer beyond that is not followed.
const TOO_MANY: &str = "the caches name more foreign paths than this program follows";

/// Which derivations an audit is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Those that somebody with these caches would have to fetch or build.
    Needed,
    /// Those that make a path in the targets' runtime closures.
    Runtime,
    /// All that the targets are built from.
    Build,
}

/// A cache as Nix would use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheState {
    /// It is asked.
    Used,
    /// Nix cannot use it, and goes on without it (it is no binary cache, or one for another store directory).
    Dropped,
    /// What it holds is not known (it cannot be asked here, or did not answer), and Nix goes on without it.
    DroppedUnknown,
    /// It does not let us ask, and Nix goes on without it.
    DroppedDenied,
    /// What it holds is not known, and Nix may well use it (a kind that this program does not speak).
    Unknown,
}

impl CacheState {
    /// Whether more could be on it than anybody knows.
    pub fn is_unknown(self) -> bool {
        matches!(self, Self::DroppedUnknown | Self::Unknown)
    }
}

/// Whose view an audit takes.
#[derive(Debug)]
pub struct View {
    /// What was asked for: derivations, and positions of the wanted outputs.
    pub targets: Vec<(DerivationIndex, Vec<usize>)>,
    /// Paths that are valid in the store and need not be fetched.
    pub valid: HashSet<StorePath>,
    /// Which derivations count.
    pub scope: Scope,
    /// The targets' runtime closures as far as the store knows them; read only for [`Scope::Runtime`].
    pub runtime: Vec<StorePath>,
    /// Whether Nix substitutes even what does not want it (`always-allow-substitutes`, or what comes to that).
    pub always_allows_substitutes: bool,
    /// The caches, in the order in which Nix asks them.
    pub caches: Vec<CacheState>,
}

impl View {
    /// Whether Nix builds a derivation even when a cache has its outputs.
    pub fn is_local_by_design(&self, graph: &BuildGraph, index: DerivationIndex) -> bool {
        let derivation = graph.derivation(index);
        derivation.kind() == DerivationKind::Impure
            || !(derivation.allows_substitutes() || self.always_allows_substitutes)
    }
}

/// A path that an audit has met.
///
/// It means something to the walk that gave it, and to the facts that come of that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PathId(u32);

impl PathId {
    pub(super) fn position(self) -> usize {
        self.0 as usize
    }
}

/// Everything that is known when there is nothing left to ask.
#[derive(Debug)]
pub struct Facts<'a> {
    /// The build graph.
    pub graph: &'a BuildGraph,
    /// Whose view it is.
    pub view: &'a View,
    paths: Vec<StorePath>,
    ids: HashMap<StorePath, PathId>,
    answers: Vec<Option<Vec<CacheAnswer>>>,
    /// References of each cache's offer, as ids, in the shape of `answers`.
    references: Vec<Vec<Vec<PathId>>>,
    /// Output paths of each derivation.
    outputs: Vec<Vec<Option<PathId>>>,
    makers: Vec<Option<(DerivationIndex, usize)>>,
    valid: Vec<bool>,
    /// How many paths were met that the build graph does not name.
    strangers: usize,
}

impl<'a> Facts<'a> {
    /// The outputs of the graph, and nothing known of them yet.
    pub(super) fn new(graph: &'a BuildGraph, view: &'a View) -> Self {
        let mut facts = Self {
            graph,
            view,
            paths: Vec::new(),
            ids: HashMap::new(),
            answers: Vec::new(),
            references: Vec::new(),
            outputs: Vec::new(),
            makers: Vec::new(),
            valid: Vec::new(),
            strangers: 0,
        };
        for index in graph.indices() {
            let outputs = graph.derivation(index).outputs();
            let ids = outputs.map(|output| Some(facts.id(&output.path()?))).collect();
            facts.outputs.push(ids);
        }
        // Sources are valid wherever the derivation is, which refers to them.
        for index in graph.indices() {
            for source in graph.derivation(index).sources() {
                let id = facts.id(&source);
                facts.valid[id.position()] = true;
            }
        }
        facts
    }

    /// The id of a path, which it gets when it is first met.
    pub(super) fn id(&mut self, path: &StorePath) -> PathId {
        if let Some(id) = self.ids.get(path) {
            return *id;
        }
        let id = PathId(u32::try_from(self.paths.len()).expect("a store holds fewer than 2^32 paths"));
        self.ids.insert(path.clone(), id);
        self.paths.push(path.clone());
        self.answers.push(None);
        self.references.push(Vec::new());
        self.makers.push(self.graph.maker(path));
        self.valid.push(self.view.valid.contains(path));
        id
    }

    /// Notes what the caches said of a path, in the order of [`View::caches`].
    ///
    /// An offer that would make the audit follow more foreign paths than it may is noted as one of which nobody knows.
    pub(super) fn learn(&mut self, id: PathId, mut answers: Vec<CacheAnswer>) {
        let references = answers
            .iter_mut()
            .map(|answer| {
                let CacheAnswer::Offer(offer) = answer else { return Vec::new() };
                // Ids from here on.
                let references = std::mem::take(&mut offer.references);
                let strangers =
                    references.iter().filter(|reference| !self.ids.contains_key(*reference)).count();
                if self.strangers + strangers > self.graph.len() + STRANGERS {
                    offer.nar = Nar::NotFollowed(TOO_MANY.to_owned());
                    return Vec::new();
                }
                self.strangers += strangers;
                references.iter().map(|reference| self.id(reference)).filter(|other| *other != id).collect()
            })
            .collect();
        self.references[id.position()] = references;
        self.answers[id.position()] = Some(answers);
    }

    /// How many paths were met.
    pub(super) fn len(&self) -> usize {
        self.paths.len()
    }

    /// Every path that was met.
    pub(super) fn ids(&self) -> impl Iterator<Item = PathId> + use<> {
        (0..u32::try_from(self.paths.len()).unwrap_or(u32::MAX)).map(PathId)
    }

    /// The id of a path that was met.
    pub(super) fn find(&self, path: &StorePath) -> Option<PathId> {
        self.ids.get(path).copied()
    }

    /// The path of an id.
    pub fn path(&self, id: PathId) -> &StorePath {
        &self.paths[id.position()]
    }

    /// What the caches said of a path, in the order of [`View::caches`]; nothing where nobody asked.
    pub fn answers(&self, id: PathId) -> Option<&[CacheAnswer]> {
        self.answers[id.position()].as_deref()
    }

    /// What the offer of a cache refers to, other than the path itself.
    pub fn references(&self, id: PathId, cache: usize) -> &[PathId] {
        self.references[id.position()].get(cache).map(Vec::as_slice).unwrap_or_default()
    }

    /// The paths of a derivation's outputs; nothing for one that is known only after building.
    pub fn outputs(&self, index: DerivationIndex) -> &[Option<PathId>] {
        &self.outputs[index.position()]
    }

    /// The derivation that makes a path, and the position of the output.
    pub fn maker(&self, id: PathId) -> Option<(DerivationIndex, usize)> {
        self.makers[id.position()]
    }

    /// Whether a path need not be fetched.
    pub fn is_valid(&self, id: PathId) -> bool {
        self.valid[id.position()]
    }

    /// Whether the audit wants to know what the caches say of a path that something needs.
    pub(super) fn may_be_fetched(&self, id: PathId) -> bool {
        !self.is_valid(id) || self.view.scope == Scope::Runtime
    }

    /// The usable offers of a path with the caches that make them, first asked first.
    pub(super) fn usable(&self, id: PathId) -> impl Iterator<Item = (usize, &super::Offer)> {
        let answers = self.answers(id).unwrap_or_default();
        answers.iter().enumerate().filter_map(|(cache, answer)| Some((cache, answer.usable()?)))
    }
}
