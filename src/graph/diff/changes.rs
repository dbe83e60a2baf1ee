//! What of a derivation is its own and has changed.

use std::collections::{BTreeMap, BTreeSet};

use nix_derivation::StorePath;
use serde_json::Value;

use super::pairing::{Matching, Partners, without_version};
use super::rewrite::Rewriting;
use super::{Comparison, Pair};
use crate::graph::aterm::Scan;
use crate::graph::build_graph::{BuildGraph, DerivationIndex};
use crate::graph::contents::Contents;

/// Something of a derivation that has changed, and not only because an input has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The system that it is built on.
    System {
        /// Before.
        old: String,
        /// Now.
        new: String,
    },
    /// The program that builds it.
    Builder {
        /// Before, with the new inputs in place of the old.
        old: String,
        /// Now.
        new: String,
    },
    /// The program's arguments.
    Arguments {
        /// Before, with the new inputs in place of the old.
        old: Vec<String>,
        /// Now.
        new: Vec<String>,
    },
    /// A variable, or a structured attribute (`a.b[0]`).
    Variable {
        /// Its name.
        name: String,
        /// Before, with the new inputs in place of the old; nothing where there was none.
        old: Option<String>,
        /// Now.
        new: Option<String>,
    },
    /// The names of its outputs.
    Outputs {
        /// Before.
        old: Vec<String>,
        /// Now.
        new: Vec<String>,
    },
    /// A source that has another content, is gone, or is new.
    Source {
        /// Its name.
        name: String,
        /// Before.
        old: Option<StorePath>,
        /// Now.
        new: Option<StorePath>,
    },
    /// An input that it has got.
    InputAdded {
        /// In the new graph.
        input: DerivationIndex,
        /// The outputs that are needed.
        outputs: Vec<String>,
    },
    /// An input that it has lost.
    InputRemoved {
        /// In the old graph.
        input: DerivationIndex,
        /// The outputs that were needed.
        outputs: Vec<String>,
    },
    /// Other outputs of an input are needed.
    InputOutputs {
        /// The input.
        pair: Pair,
        /// The outputs that were needed.
        old: Vec<String>,
        /// Those that are.
        new: Vec<String>,
    },
}

/// What of a pair has changed, and not only because an input has.
pub(super) fn own_changes(
    comparison: &Comparison<'_>,
    pair: Pair,
    (old, new): (&Contents, &Contents),
    partners: &Partners,
) -> Vec<Change> {
    let (old_graph, new_graph) = (comparison.old.graph, comparison.new.graph);
    let mut changes = Vec::new();
    let sources = paired_sources(comparison, pair);
    let replaced = sources.iter().filter_map(|(_, old, new)| old.as_ref().zip(new.as_ref()));
    let rewriting = Rewriting::new(comparison, pair, &partners.pairs, replaced);
    if old.system != new.system {
        changes.push(Change::System { old: old.system.clone(), new: new.system.clone() });
    }
    let is_other = |before: &str, now: &str| before.as_bytes() != &*rewriting.of_new(now.as_bytes());
    let builder = rewriting.of(&old.builder);
    if is_other(&builder, &new.builder) {
        changes.push(Change::Builder { old: builder, new: new.builder.clone() });
    }
    let args: Vec<String> = old.args.iter().map(|argument| rewriting.of(argument)).collect();
    if args.len() != new.args.len() || args.iter().zip(&new.args).any(|(before, now)| is_other(before, now)) {
        changes.push(Change::Arguments { old: args, new: new.args.clone() });
    }
    let outputs = |graph: &BuildGraph, index| -> Vec<String> {
        graph.derivation(index).outputs().map(|output| output.name().to_owned()).collect()
    };
    let (old_outputs, new_outputs) = (outputs(old_graph, pair.old), outputs(new_graph, pair.new));
    // A variable that has the name of an output has its path, which says nothing more.
    let without = |contents, outputs: &[String]| {
        let mut variables = variables(contents);
        variables.retain(|name, _| !outputs.contains(name));
        variables
    };
    let (before, now) = (without(old, &old_outputs), without(new, &new_outputs));
    add_variables(&rewriting, &before, &now, &mut changes);
    if old_outputs != new_outputs {
        changes.push(Change::Outputs { old: old_outputs, new: new_outputs });
    }
    changes.extend(sources.into_iter().map(|(name, old, new)| Change::Source { name, old, new }));
    add_inputs(comparison, pair, partners, &mut changes);
    changes
}

/// Whether two texts are the same but for inputs in each other's place, as far as that shows without understanding them.
pub(super) fn is_the_same(
    comparison: &Comparison<'_>,
    pair: Pair,
    partners: &Matching<'_>,
    old: &[u8],
    new: &[u8],
) -> bool {
    let (old_graph, new_graph) = (comparison.old.graph, comparison.new.graph);
    let names = |graph: &BuildGraph, index| -> Vec<String> {
        graph.derivation(index).outputs().map(|output| output.name().to_owned()).collect()
    };
    let is_wanted_alike =
        |partner: &Pair| wanted(old_graph, pair.old, partner.old) == wanted(new_graph, pair.new, partner.new);
    if !paired_sources(comparison, pair).is_empty()
        || names(old_graph, pair.old) != names(new_graph, pair.new)
        || !partners.pairs().iter().all(is_wanted_alike)
    {
        return false;
    }
    let (mut old_scan, mut new_scan) = (Scan::default(), Scan::default());
    if old_scan.read(old).is_err() || new_scan.read(new).is_err() {
        return false;
    }
    let rewriting = Rewriting::new(comparison, pair, partners.pairs(), std::iter::empty());
    rewriting.of_bytes(&old[old_scan.own as usize..]) == *rewriting.of_new(&new[new_scan.own as usize..])
}

fn add_variables(
    rewriting: &Rewriting<'_>,
    old: &BTreeMap<String, String>,
    new: &BTreeMap<String, String>,
    changes: &mut Vec<Change>,
) {
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    for name in names {
        let (before, now) = (old.get(name), new.get(name));
        // Most are equal as they stand.
        if before == now {
            continue;
        }
        let before = before.map(|value| rewriting.of(value));
        let is_same = match (&before, now) {
            (Some(before), Some(now)) => before.as_bytes() == &*rewriting.of_new(now.as_bytes()),
            _ => false,
        };
        if !is_same {
            changes.push(Change::Variable { name: name.clone(), old: before, new: now.cloned() });
        }
    }
}

/// Variables and structured attributes by name.
fn variables(contents: &Contents) -> BTreeMap<String, String> {
    let mut all = contents.env.clone();
    // Depth is bounded by what the parser takes.
    let mut open: Vec<(String, &Value)> =
        contents.structured_attributes.iter().flatten().map(|(name, value)| (name.clone(), value)).collect();
    while let Some((name, value)) = open.pop() {
        match value {
            Value::Object(members) if !members.is_empty() => {
                open.extend(members.iter().map(|(member, value)| (format!("{name}.{member}"), value)));
            }
            Value::Array(items) if !items.is_empty() => {
                open.extend(
                    items.iter().enumerate().map(|(place, value)| (format!("{name}[{place}]"), value)),
                );
            }
            Value::String(text) => drop(all.insert(name, text.clone())),
            other => drop(all.insert(name, other.to_string())),
        }
    }
    all
}

/// Sources that differ, with those in each other's place together: of one name, or of one name but for the version.
fn paired_sources(
    comparison: &Comparison<'_>,
    pair: Pair,
) -> Vec<(String, Option<StorePath>, Option<StorePath>)> {
    let sources = |graph: &BuildGraph, index| graph.derivation(index).sources().collect::<BTreeSet<_>>();
    let old = sources(comparison.old.graph, pair.old);
    let new = sources(comparison.new.graph, pair.new);
    let mut removed: Vec<&StorePath> = old.difference(&new).collect();
    let mut added: Vec<&StorePath> = new.difference(&old).collect();
    let mut found = Vec::new();
    let keys: [fn(&StorePath) -> &str; 2] = [StorePath::name, |path| without_version(path.name())];
    for key in keys {
        added.retain(|new| {
            let Some(place) = removed.iter().position(|old| key(old) == key(new)) else { return true };
            let old = removed.remove(place);
            found.push((new.name().to_owned(), Some(old.clone()), Some((*new).clone())));
            false
        });
    }
    found.extend(removed.into_iter().map(|old| (old.name().to_owned(), Some(old.clone()), None)));
    found.extend(added.into_iter().map(|new| (new.name().to_owned(), None, Some(new.clone()))));
    found.sort();
    found
}

/// The names of the outputs that a derivation needs of an input.
fn wanted(graph: &BuildGraph, of: DerivationIndex, input: DerivationIndex) -> Vec<String> {
    let found = graph.inputs(of).find(|known| known.derivation == input);
    let names = found.map(|known| {
        let outputs = known.outputs.iter();
        outputs.map(|output| graph.derivation(input).output(*output).name().to_owned()).collect()
    });
    let mut names: Vec<String> = names.unwrap_or_default();
    names.sort();
    names
}

fn add_inputs(comparison: &Comparison<'_>, pair: Pair, partners: &Partners, changes: &mut Vec<Change>) {
    let (old, new) = (comparison.old.graph, comparison.new.graph);
    let removed = partners
        .removed
        .iter()
        .map(|input| Change::InputRemoved { input: *input, outputs: wanted(old, pair.old, *input) });
    changes.extend(removed);
    let added = partners
        .added
        .iter()
        .map(|input| Change::InputAdded { input: *input, outputs: wanted(new, pair.new, *input) });
    changes.extend(added);
    for partner in &partners.pairs {
        let before = wanted(old, pair.old, partner.old);
        let now = wanted(new, pair.new, partner.new);
        if before != now {
            changes.push(Change::InputOutputs { pair: *partner, old: before, new: now });
        }
    }
}
