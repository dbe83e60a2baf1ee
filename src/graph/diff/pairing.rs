//! Which input of an old derivation is in the place of which input of the new.

use std::collections::{HashMap, HashSet};

use nix_derivation::StoreDir;

use super::rewrite::hashes_in;
use super::{Pair, Side};
use crate::graph::build_graph::{BuildGraph, DerivationIndex};
use crate::graph::contents::Contents;

/// Partners, and those that have none.
#[derive(Debug, Default)]
pub(super) struct Partners {
    pub(super) pairs: Vec<Pair>,
    pub(super) removed: Vec<DerivationIndex>,
    pub(super) added: Vec<DerivationIndex>,
}

/// Partners by their places in two lists of one length.
pub(super) fn in_order(old: &[DerivationIndex], new: &[DerivationIndex]) -> Partners {
    let pairs = old.iter().zip(new).map(|(old, new)| Pair { old: *old, new: *new }).collect();
    Partners { pairs, ..Partners::default() }
}

/// Roots that are partners by their names.
pub(super) fn by_name(old: Side<'_>, new: Side<'_>) -> Partners {
    let mut matching = Matching::new(old.graph, new.graph, old.roots, new.roots);
    matching.match_names();
    matching.done()
}

/// The inputs of a pair. Those are partners that
///
/// 1. are one derivation, or make the same,
/// 2. have the same name, if no other has it,
/// 3. have the same name without the version, if no other has it,
/// 4. have the same name, with or without the version, and are used in the same place of the pair's own variables: one of
///    several `source`s is known by the variable that it stands in,
/// 5. have the same name and stand in the same place among those that are left.
///
/// Here by the first three, which need nothing but the graphs; [`Matching::settle_by_use`] goes on.
pub(super) fn by_graph<'a>(old_graph: &'a BuildGraph, new_graph: &'a BuildGraph, pair: Pair) -> Matching<'a> {
    let (old, new) = (old_graph.dependencies(pair.old), new_graph.dependencies(pair.new));
    let mut matching = Matching::new(old_graph, new_graph, old, new);
    matching.match_equal();
    matching.match_names();
    matching
}

/// Where each path stands in what a derivation says: the variable, and the place in it. By the hash part of the path.
fn uses(contents: &Contents, store_dir: &StoreDir) -> HashMap<String, (String, usize)> {
    let mut uses = HashMap::new();
    let arguments = contents.args.iter().map(|argument| ("", argument.as_str()));
    let variables = contents.env.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    for (name, value) in arguments.chain(variables) {
        for (place, hash) in hashes_in(value, store_dir).enumerate() {
            uses.entry(hash.to_owned()).or_insert_with(|| (name.to_owned(), place));
        }
    }
    if let Some(attributes) = &contents.structured_attributes {
        for (name, value) in attributes {
            for (place, hash) in hashes_in(&value.to_string(), store_dir).enumerate() {
                uses.entry(hash.to_owned()).or_insert_with(|| (name.clone(), place));
            }
        }
    }
    uses
}

/// Two lists whose members find partners, rule by rule.
pub(super) struct Matching<'a> {
    old_graph: &'a BuildGraph,
    new_graph: &'a BuildGraph,
    old: Vec<DerivationIndex>,
    new: Vec<DerivationIndex>,
    pairs: Vec<Pair>,
}

impl<'a> Matching<'a> {
    fn new(
        old_graph: &'a BuildGraph,
        new_graph: &'a BuildGraph,
        old: &[DerivationIndex],
        new: &[DerivationIndex],
    ) -> Self {
        Self { old_graph, new_graph, old: old.to_vec(), new: new.to_vec(), pairs: Vec::new() }
    }

    /// Whether every member has a partner.
    pub(super) fn is_settled(&self) -> bool {
        self.old.is_empty() && self.new.is_empty()
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
        Partners { pairs: self.pairs, removed: self.old, added: self.new }
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

    fn settle(&mut self, found: Vec<Pair>) {
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
    }

    fn match_uses(
        &mut self,
        old_uses: &HashMap<String, (String, usize)>,
        new_uses: &HashMap<String, (String, usize)>,
    ) {
        let key = |graph: &'a BuildGraph, index, uses: &HashMap<String, (String, usize)>, whole: bool| {
            let derivation = graph.derivation(index);
            let place = derivation.outputs().find_map(|output| {
                let base = output.path()?.to_basename();
                uses.get(base.split('-').next()?).cloned()
            });
            let name = if whole { derivation.name() } else { stem(graph, index) };
            place.map(|place| (name, place))
        };
        let (old_graph, new_graph) = (self.old_graph, self.new_graph);
        for whole in [true, false] {
            self.match_by(
                |index| key(old_graph, index, old_uses, whole),
                |index| key(new_graph, index, new_uses, whole),
            );
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

/// A name without its version, which begins at the first dash that no letter follows. (`DrvName` in Nix's
/// `src/libstore/names.cc`.)
pub(super) fn without_version(name: &str) -> &str {
    let bytes = name.as_bytes();
    let dash = (0..bytes.len())
        .find(|at| bytes[*at] == b'-' && bytes.get(at + 1).is_some_and(|next| !next.is_ascii_alphabetic()));
    &name[..dash.unwrap_or(name.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_begins_at_the_first_dash_that_no_letter_follows() {
        for (name, expected) in [
            ("bash-5.3p9", "bash"),
            ("python3-3.11.15-env", "python3"),
            ("gcc-wrapper-15.2.0", "gcc-wrapper"),
            ("source", "source"),
            ("x-y", "x-y"),
            ("x-", "x-"),
            ("ünï-1", "ünï"),
        ] {
            assert_eq!(without_version(name), expected);
        }
    }
}
