//! Which input of an old derivation is in the place of which input of the new.

use std::collections::{HashMap, HashSet};

use nix_derivation::StoreDir;

use super::rewrite::{paths_in, placeholder};
use super::{Comparison, Names, Pair, Side};
use crate::graph::build_graph::{BuildGraph, DerivationIndex, OutputView};
use crate::graph::contents::Contents;
use crate::graph::derivation::without_version;

/// Partners, and those that have none.
#[derive(Debug, Default)]
pub(super) struct Partners {
    pub(super) pairs: Vec<Pair>,
    pub(super) removed: Vec<DerivationIndex>,
    pub(super) added: Vec<DerivationIndex>,
}

/// Roots that are in each other's place.
pub(super) fn roots(old: Side<'_>, new: Side<'_>) -> Partners {
    if let ([old], [new]) = (old.roots, new.roots) {
        let pairs = vec![Pair { old: *old, new: *new }];
        return Partners { pairs, ..Partners::default() };
    }
    let mut matching = Matching::new(old.graph, new.graph, old.roots, new.roots);
    matching.match_equal();
    matching.match_names();
    matching.match_rest();
    matching.done()
}

/// The inputs of a pair. Those are partners that
///
/// 1. are one derivation, or make the same,
/// 2. have the same name, if no other has it; or the same but for the version, or for digits (`python3.10-x`, `python3.11-x`),
/// 3. have the same name, with or without the version, and are used in the same places of the pair's own variables: one of
///    several `source`s is known by the variables that it stands in,
/// 4. have the same name and stand in the same place among those that are left.
///
/// What both graphs have is in nobody's place but its own: who takes another of two that were there before has changed. So it is where
/// both graphs have both names: neither is a version of the other, whatever is rebuilt besides.
///
/// Here by the first two, which need nothing but the graphs; [`Matching::settle_by_use`] goes on.
pub(super) fn by_graph<'a>(comparison: &'a Comparison<'_>, pair: Pair) -> Matching<'a> {
    let (old_graph, new_graph) = (comparison.old.graph, comparison.new.graph);
    let (old, new) = (needed(old_graph, pair.old), needed(new_graph, pair.new));
    let mut matching = Matching::new(old_graph, new_graph, &old, &new);
    matching.names = Some(&comparison.names);
    matching.match_equal();
    let is_kept = |kept: &[bool], index: &DerivationIndex| kept[index.position()];
    matching.apart.0 = matching.old.extract_if(.., |index| is_kept(&comparison.kept.old, index)).collect();
    matching.apart.1 = matching.new.extract_if(.., |index| is_kept(&comparison.kept.new, index)).collect();
    matching.match_names();
    matching
}

/// The inputs, and the derivations that are sources as such. Of these only what no other of them needs: the rest is found below.
fn needed(graph: &BuildGraph, index: DerivationIndex) -> Vec<DerivationIndex> {
    let mut needed = graph.dependencies(index).to_vec();
    needed.extend(DerivationSources::new(graph, index).top);
    needed
}

/// Derivations that are sources of another as such: the `.drv` file is, and not what it makes. In Nix that is what `x.drvPath`
/// stands for, then with all that is below, and `builtins.unsafeDiscardOutputDependency`.
#[derive(Debug, Default)]
pub(super) struct DerivationSources {
    /// Those that are no inputs, and are not needed by an input or by another of them.
    top: Vec<DerivationIndex>,
    /// Those that an input or another of them needs.
    pub(super) below: Vec<DerivationIndex>,
}

impl DerivationSources {
    pub(super) fn new(graph: &BuildGraph, index: DerivationIndex) -> Self {
        let named =
            graph.derivation(index).sources().filter(|source| source.name().strip_suffix(".drv").is_some());
        let all: Vec<DerivationIndex> = named.filter_map(|source| graph.find(&source)).collect();
        // Hardly any derivation has such.
        if all.is_empty() {
            return Self::default();
        }
        let inputs: HashSet<DerivationIndex> = graph.dependencies(index).iter().copied().collect();
        let known: HashSet<DerivationIndex> = inputs.iter().chain(&all).copied().collect();
        let (below, others): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|source| graph.dependents(*source).iter().any(|by| known.contains(by)));
        Self { top: others.into_iter().filter(|source| !inputs.contains(source)).collect(), below }
    }
}

/// Those below that are in each other's place by their names.
pub(super) fn sources_below(comparison: &Comparison<'_>, pair: Pair) -> Vec<Pair> {
    let (old_graph, new_graph) = (comparison.old.graph, comparison.new.graph);
    let old = DerivationSources::new(old_graph, pair.old).below;
    let new = DerivationSources::new(new_graph, pair.new).below;
    if old.is_empty() || new.is_empty() {
        return Vec::new();
    }
    let mut matching = Matching::new(old_graph, new_graph, &old, &new);
    matching.match_equal();
    matching.match_names();
    matching.pairs
}

/// Where something is used: the variable, and its place there. Nothing for the place where it is all of the variable.
pub(super) type Use = (String, Option<usize>);

/// Where each path, or what stands for one, is used in what a derivation says: by its hash part, or by its placeholder.
pub(super) fn uses(contents: &Contents, store_dir: &StoreDir) -> HashMap<String, Vec<Use>> {
    let mut uses: HashMap<String, Vec<Use>> = HashMap::new();
    let mut add = |name: &str, value: &str| {
        let found = paths_in(value, store_dir);
        let is_alone = matches!(&*found, [(_, whole)] if whole.len() == value.trim().len());
        for (place, (key, _)) in found.into_iter().enumerate() {
            let place = (!is_alone).then_some(place);
            uses.entry(key.to_owned()).or_default().push((name.to_owned(), place));
        }
    };
    for argument in &contents.args {
        add("", argument);
    }
    for (name, value) in &contents.env {
        add(name, value);
    }
    for (name, value) in contents.structured_attributes.iter().flatten() {
        match value.as_str() {
            Some(text) => add(name, text),
            None => add(name, &value.to_string()),
        }
    }
    uses
}

/// Makes partners of those that are used alike: wherever they are used, else in a variable that one of them has for itself, else
/// in the first place.
pub(super) fn keys_of_use(uses: Option<&Vec<Use>>) -> [Option<Vec<Use>>; 3] {
    let Some(uses) = uses else { return [None, None, None] };
    let alone = uses.iter().find(|(_, place)| place.is_none()).cloned();
    [Some(uses.clone()), alone.map(|alone| vec![alone]), uses.first().cloned().map(|first| vec![first])]
}

/// Two lists whose members find partners, rule by rule.
pub(super) struct Matching<'a> {
    old_graph: &'a BuildGraph,
    new_graph: &'a BuildGraph,
    old: Vec<DerivationIndex>,
    new: Vec<DerivationIndex>,
    pairs: Vec<Pair>,
    /// Those that the other graph has too, and are in nobody's place.
    apart: (Vec<DerivationIndex>, Vec<DerivationIndex>),
    /// Where names decide which are no partners.
    names: Option<&'a Names<'a>>,
}

impl<'a> Matching<'a> {
    fn new(
        old_graph: &'a BuildGraph,
        new_graph: &'a BuildGraph,
        old: &[DerivationIndex],
        new: &[DerivationIndex],
    ) -> Self {
        let apart = (Vec::new(), Vec::new());
        Self {
            old_graph,
            new_graph,
            old: old.to_vec(),
            new: new.to_vec(),
            pairs: Vec::new(),
            apart,
            names: None,
        }
    }

    /// Whether every member has a partner.
    pub(super) fn is_settled(&self) -> bool {
        [&self.old, &self.new, &self.apart.0, &self.apart.1].iter().all(|left| left.is_empty())
    }

    /// The partners so far.
    pub(super) fn pairs(&self) -> &[Pair] {
        &self.pairs
    }

    /// Finds partners by where they are used, and then by their order.
    pub(super) fn settle_by_use(&mut self, contents: (&Contents, &Contents), store_dir: &StoreDir) {
        if self.is_ambiguous() {
            self.match_uses(&uses(contents.0, store_dir), &uses(contents.1, store_dir));
            self.match_rest();
        }
    }

    pub(super) fn done(self) -> Partners {
        let removed = [self.old, self.apart.0].concat();
        Partners { pairs: self.pairs, removed, added: [self.new, self.apart.1].concat() }
    }

    /// Whether members are left on both sides that a name could still match.
    fn is_ambiguous(&self) -> bool {
        let stems: HashSet<&str> = self.old.iter().map(|index| stem(self.old_graph, *index)).collect();
        self.new.iter().any(|index| stems.contains(stem(self.new_graph, *index)))
    }

    /// Makes partners of those for which a key is the same, if each side has one alone.
    fn match_by<K: Eq + std::hash::Hash>(
        &mut self,
        old_key: impl Fn(DerivationIndex) -> Option<K>,
        new_key: impl Fn(DerivationIndex) -> Option<K>,
    ) {
        let mut by_key: HashMap<K, (Vec<DerivationIndex>, Vec<DerivationIndex>)> = HashMap::new();
        for index in &self.old {
            if let Some(key) = old_key(*index) {
                by_key.entry(key).or_default().0.push(*index);
            }
        }
        for index in &self.new {
            if let Some(key) = new_key(*index) {
                by_key.entry(key).or_default().1.push(*index);
            }
        }
        let mut found: Vec<Pair> = by_key
            .into_values()
            .filter_map(|(old, new)| match (&*old, &*new) {
                ([old], [new]) => Some(Pair { old: *old, new: *new }),
                _ => None,
            })
            .collect();
        found.sort_by_key(|pair| pair.new);
        self.settle(found);
    }

    fn settle(&mut self, mut found: Vec<Pair>) {
        let name = |graph: &'a BuildGraph, index| graph.derivation(index).name();
        let (old_graph, new_graph) = (self.old_graph, self.new_graph);
        if let Some(names) = self.names {
            found.retain(|pair| {
                !names.are_on_both_sides(name(old_graph, pair.old), name(new_graph, pair.new))
            });
        }
        let old: HashSet<DerivationIndex> = found.iter().map(|pair| pair.old).collect();
        let new: HashSet<DerivationIndex> = found.iter().map(|pair| pair.new).collect();
        self.old.retain(|index| !old.contains(index));
        self.new.retain(|index| !new.contains(index));
        self.pairs.extend(found);
    }

    fn match_equal(&mut self) {
        let (old_graph, new_graph) = (self.old_graph, self.new_graph);
        self.match_by(
            |index| Some(old_graph.derivation(index).path()),
            |index| Some(new_graph.derivation(index).path()),
        );
        let made = |graph: &BuildGraph, index| graph.derivation(index).outputs().next()?.path();
        self.match_by(|index| made(old_graph, index), |index| made(new_graph, index));
    }

    fn match_names(&mut self) {
        let (old_graph, new_graph) = (self.old_graph, self.new_graph);
        self.match_by(
            |index| Some(old_graph.derivation(index).name()),
            |index| Some(new_graph.derivation(index).name()),
        );
        self.match_by(|index| Some(stem(old_graph, index)), |index| Some(stem(new_graph, index)));
        let bare = |graph: &BuildGraph, index| without_digits(graph.derivation(index).name());
        self.match_by(|index| Some(bare(old_graph, index)), |index| Some(bare(new_graph, index)));
    }

    fn match_uses(&mut self, old_uses: &HashMap<String, Vec<Use>>, new_uses: &HashMap<String, Vec<Use>>) {
        let key =
            |graph: &'a BuildGraph, index, uses: &HashMap<String, Vec<Use>>, whole: bool, rule: usize| {
                let derivation = graph.derivation(index);
                let found = derivation.outputs().find_map(|output| uses.get(&key_of(graph, index, output)));
                let name = if whole { derivation.name() } else { stem(graph, index) };
                keys_of_use(found).into_iter().nth(rule).flatten().map(|key| (name, key))
            };
        let (old_graph, new_graph) = (self.old_graph, self.new_graph);
        for rule in 0..3 {
            for whole in [true, false] {
                self.match_by(
                    |index| key(old_graph, index, old_uses, whole, rule),
                    |index| key(new_graph, index, new_uses, whole, rule),
                );
            }
        }
    }

    fn match_rest(&mut self) {
        let mut by_stem: HashMap<&str, Vec<DerivationIndex>> = HashMap::new();
        for index in self.old.iter().rev() {
            by_stem.entry(stem(self.old_graph, *index)).or_default().push(*index);
        }
        let mut found = Vec::new();
        for new in &self.new {
            let old = by_stem.get_mut(stem(self.new_graph, *new)).and_then(Vec::pop);
            found.extend(old.map(|old| Pair { old, new: *new }));
        }
        self.settle(found);
    }
}

fn stem(graph: &BuildGraph, index: DerivationIndex) -> &str {
    without_version(graph.derivation(index).name())
}

/// How an output is written where it is used: the hash part of its path, or its placeholder.
fn key_of(graph: &BuildGraph, index: DerivationIndex, output: OutputView<'_>) -> String {
    match output.path() {
        Some(path) => path.to_basename().split('-').next().unwrap_or_default().to_owned(),
        None => placeholder(&graph.derivation(index).path(), graph.derivation(index).name(), output.name()),
    }
}

/// A name without what tells versions apart, wherever it stands.
fn without_digits(name: &str) -> String {
    name.chars().filter(|character| !(character.is_ascii_digit() || *character == '.')).collect()
}
