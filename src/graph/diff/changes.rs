//! What of a derivation is its own and has changed.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use nix_derivation::StorePath;
use serde_json::Value;

use super::pairing::{self, DerivationSources, Matching, Partners, Use, keys_of_use};
use super::rewrite::Rewriting;
use super::{Comparison, Pair};
use crate::graph::aterm::Scan;
use crate::graph::build_graph::{BuildGraph, DerivationIndex};
use crate::graph::contents::Contents;
use crate::graph::derivation::{DerivationKind, without_version};

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
    /// Its name, where no variable tells it.
    Name {
        /// Before.
        old: String,
        /// Now.
        new: String,
    },
    /// How its outputs are addressed.
    Kind {
        /// Before.
        old: DerivationKind,
        /// Now.
        new: DerivationKind,
    },
    /// The content of a download, where nothing else tells that it is another.
    Content {
        /// Where it was.
        old: StorePath,
        /// Where it is.
        new: StorePath,
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
    let mut changes = Vec::new();
    let sources = paired_sources(comparison, pair, &partners.pairs, Some((old, new)));
    let replaced = sources.iter().filter_map(|(_, old, new)| old.as_ref().zip(new.as_ref()));
    let rewriting = Rewriting::new(comparison, pair, &partners.pairs, replaced);
    if old.system != new.system {
        changes.push(Change::System { old: old.system.clone(), new: new.system.clone() });
    }
    let is_other = |before: &str, now: &str| !rewriting.is_same(before.as_bytes(), now.as_bytes());
    let builder = rewriting.of(&old.builder);
    if is_other(&builder, &new.builder) {
        changes.push(Change::Builder { old: builder, new: new.builder.clone() });
    }
    let args: Vec<String> = old.args.iter().map(|argument| rewriting.of(argument)).collect();
    if args.len() != new.args.len() || args.iter().zip(&new.args).any(|(before, now)| is_other(before, now)) {
        changes.push(Change::Arguments { old: args, new: new.args.clone() });
    }
    let old_outputs = output_names(comparison.old.graph, pair.old);
    let new_outputs = output_names(comparison.new.graph, pair.new);
    let (before, now) = (variables(old, &old_outputs), variables(new, &new_outputs));
    add_variables(&rewriting, &before, &now, &mut changes);
    if old_outputs != new_outputs {
        changes.push(Change::Outputs { old: old_outputs, new: new_outputs });
    }
    changes.extend(sources.into_iter().map(|(name, old, new)| Change::Source { name, old, new }));
    add_inputs(comparison, pair, partners, &mut changes);
    add_untold(comparison, pair, &mut changes);
    changes
}

/// What Nix writes into a variable too, and others do not: GNU Guix says the name and the content of a download nowhere else than in
/// the paths.
fn add_untold(comparison: &Comparison<'_>, pair: Pair, changes: &mut Vec<Change>) {
    let (old, new) = (comparison.old.graph.derivation(pair.old), comparison.new.graph.derivation(pair.new));
    let tells_name = |change: &Change| matches!(change, Change::Variable { name, .. } if name == "name");
    if old.name() != new.name() && !changes.iter().any(tells_name) {
        changes.push(Change::Name { old: old.name().to_owned(), new: new.name().to_owned() });
    }
    if is_of_other_kind(old.kind(), new.kind()) {
        changes.push(Change::Kind { old: old.kind(), new: new.kind() });
    }
    if changes.is_empty()
        && (old.kind(), new.kind()) == (DerivationKind::FixedOutput, DerivationKind::FixedOutput)
    {
        let paths = old.outputs().zip(new.outputs()).filter_map(|(old, new)| old.path().zip(new.path()));
        let mut others = paths.filter(|(old, new)| old != new);
        changes.extend(others.next().map(|(old, new)| Change::Content { old, new }));
    }
}

/// Whether kinds differ, other than by what inputs bring about. Of one that was not read, it is not known.
fn is_of_other_kind(old: DerivationKind, new: DerivationKind) -> bool {
    let own = |kind| if kind == DerivationKind::Deferred { DerivationKind::InputAddressed } else { kind };
    own(old) != own(new) && ![old, new].contains(&DerivationKind::Unread)
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
    let (old_wanted, new_wanted) = (wanted(old_graph, pair.old), wanted(new_graph, pair.new));
    let is_wanted_alike = |partner: &Pair| old_wanted.get(&partner.old) == new_wanted.get(&partner.new);
    let (before, now) = (old_graph.derivation(pair.old), new_graph.derivation(pair.new));
    if before.name() != now.name()
        || before.kind() == DerivationKind::FixedOutput
        || is_of_other_kind(before.kind(), now.kind())
        || !paired_sources(comparison, pair, partners.pairs(), None).is_empty()
        || output_names(old_graph, pair.old) != output_names(new_graph, pair.new)
        || !partners.pairs().iter().all(is_wanted_alike)
    {
        return false;
    }
    let (mut old_scan, mut new_scan) = (Scan::default(), Scan::default());
    if old_scan.read(old).is_err() || new_scan.read(new).is_err() {
        return false;
    }
    let rewriting = Rewriting::new(comparison, pair, partners.pairs(), std::iter::empty());
    rewriting.is_same(&rewriting.of_bytes(&old[old_scan.own as usize..]), &new[new_scan.own as usize..])
}

fn output_names(graph: &BuildGraph, index: DerivationIndex) -> Vec<String> {
    graph.derivation(index).outputs().map(|output| output.name().to_owned()).collect()
}

fn add_variables(
    rewriting: &Rewriting<'_>,
    old: &BTreeMap<String, Shown>,
    new: &BTreeMap<String, Shown>,
    changes: &mut Vec<Change>,
) {
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    for name in names {
        let (before, now) = (old.get(name), new.get(name));
        // Most are equal as they stand.
        if before == now {
            continue;
        }
        let change = match (before, now) {
            (Some(Shown::Text(before)), Some(Shown::Text(now))) => {
                let before = rewriting.of(before);
                let is_same = rewriting.is_same(before.as_bytes(), now.as_bytes());
                (!is_same).then(|| (Some(before), Some(now.clone())))
            }
            // What is of different kinds differs, also where both would be written alike.
            (Some(before), Some(now)) => {
                let (before, now) = (rewriting.of(&before.as_json()), now.as_json());
                let is_same = rewriting.is_same(before.as_bytes(), now.as_bytes());
                (!is_same).then_some((Some(before), Some(now)))
            }
            (before, now) => {
                let before = before.map(|before| rewriting.of(before.as_text()));
                Some((before, now.map(|now| now.as_text().to_owned())))
            }
        };
        if let Some((old, new)) = change {
            changes.push(Change::Variable { name: name.clone(), old, new });
        }
    }
}

/// A value as it is shown.
#[derive(Debug, PartialEq, Eq)]
enum Shown {
    /// A text.
    Text(String),
    /// Anything else, as JSON.
    Json(String),
}

impl Shown {
    fn as_text(&self) -> &str {
        match self {
            Self::Text(text) | Self::Json(text) => text,
        }
    }

    fn as_json(&self) -> String {
        match self {
            Self::Text(text) => Value::from(text.as_str()).to_string(),
            Self::Json(json) => json.clone(),
        }
    }
}

/// Variables and structured attributes by name, without those that say again what is told otherwise: the paths of outputs, the
/// system, the builder.
fn variables(contents: &Contents, outputs: &[String]) -> BTreeMap<String, Shown> {
    let is_told = |name: &String, value: &String| match name.as_str() {
        "system" => *value == contents.system,
        "builder" => *value == contents.builder,
        "outputs" => value.split(' ').all(|name| outputs.iter().any(|output| output == name)),
        name => outputs.iter().any(|output| output == name),
    };
    let mut all: BTreeMap<String, Shown> = contents
        .env
        .iter()
        .filter(|(name, value)| !is_told(name, value))
        .map(|(name, value)| (name.clone(), Shown::Text(value.clone())))
        .collect();
    let Some(attributes) = &contents.structured_attributes else { return all };
    all.insert("__structuredAttrs".to_owned(), Shown::Json("true".to_owned()));
    // Nix writes no variables beside them. What else does it may give both one name.
    let mut add = |name: String, shown| {
        let name = if all.contains_key(&name) { format!("__json.{name}") } else { name };
        all.insert(name, shown);
    };
    // Depth is bounded by what the parser takes.
    let mut open: Vec<(String, &Value)> =
        attributes.iter().map(|(name, value)| (member_name(name), value)).collect();
    while let Some((name, value)) = open.pop() {
        match value {
            Value::Object(members) if !members.is_empty() => {
                let members = members.iter();
                open.extend(
                    members.map(|(member, value)| (format!("{name}.{}", member_name(member)), value)),
                );
            }
            Value::Array(items) if items.iter().any(|item| item.is_object() || item.is_array()) => {
                let items = items.iter().enumerate();
                open.extend(items.map(|(place, value)| (format!("{name}[{place}]"), value)));
            }
            // Item by item, a list in which one came first would differ everywhere.
            Value::Array(items) => {
                let items: Vec<String> = items.iter().map(Value::to_string).collect();
                add(name, Shown::Json(format!("[ {} ]", items.join(" "))));
            }
            Value::String(text) => add(name, Shown::Text(text.clone())),
            other => add(name, Shown::Json(other.to_string())),
        }
    }
    all
}

/// The name of a member, quoted where it could be taken for a way to one.
fn member_name(name: &str) -> String {
    let is_plain = !name.is_empty() && !name.contains(['.', '[', '"']);
    if is_plain { name.to_owned() } else { Value::from(name).to_string() }
}

/// A source that differs: its name, what was before, and what is now.
type SourcePair = (String, Option<StorePath>, Option<StorePath>);

/// Sources that differ, with those in each other's place together: of one name and used alike, of one name, or of one name but
/// for the version.
fn paired_sources(
    comparison: &Comparison<'_>,
    pair: Pair,
    partners: &[Pair],
    contents: Option<(&Contents, &Contents)>,
) -> Vec<SourcePair> {
    let sources = |graph: &BuildGraph, index| graph.derivation(index).sources().collect::<BTreeSet<_>>();
    let old = sources(comparison.old.graph, pair.old);
    let new = sources(comparison.new.graph, pair.new);
    if old == new {
        return Vec::new();
    }
    let (followed_old, followed_new) = followed_sources(comparison, pair, partners);
    let mut removed: BTreeSet<&StorePath> =
        old.difference(&new).filter(|path| !followed_old.contains(*path)).collect();
    let mut added: Vec<&StorePath> =
        new.difference(&old).filter(|path| !followed_new.contains(*path)).collect();
    let uses = contents.map(|(old, new)| {
        (pairing::uses(old, comparison.store_dir), pairing::uses(new, comparison.store_dir))
    });
    let key_of = |uses: Option<&HashMap<String, Vec<Use>>>, path: &StorePath, rule: usize| {
        let hash = path.to_basename().split('-').next().unwrap_or_default().to_owned();
        keys_of_use(uses?.get(&hash)).into_iter().nth(rule).flatten()
    };
    let mut found = Vec::new();
    for (rule, by_version) in [(0, false), (1, false), (2, false), (3, false), (3, true)] {
        let name = |path: &StorePath| {
            let name = path.name();
            if by_version { without_version(name).to_owned() } else { name.to_owned() }
        };
        // By use, where that is known; the last two rules are by the name alone.
        let key = |uses: Option<&HashMap<String, Vec<Use>>>, path: &StorePath| match rule {
            3 => Some((name(path), None)),
            rule => key_of(uses, path, rule).map(|place| (name(path), Some(place))),
        };
        let mut waiting: HashMap<(String, Option<Vec<Use>>), Vec<&StorePath>> = HashMap::new();
        for path in removed.iter().rev() {
            if let Some(key) = key(uses.as_ref().map(|(old, _)| old), path) {
                waiting.entry(key).or_default().push(path);
            }
        }
        added.retain(|now| {
            let key = key(uses.as_ref().map(|(_, new)| new), now);
            let Some(before) = key.and_then(|key| waiting.get_mut(&key)).and_then(Vec::pop) else {
                return true;
            };
            removed.remove(before);
            found.push((now.name().to_owned(), Some(before.clone()), Some((*now).clone())));
            false
        });
    }
    found.extend(removed.into_iter().map(|old| (old.name().to_owned(), Some(old.clone()), None)));
    found.extend(added.into_iter().map(|new| (new.name().to_owned(), None, Some(new.clone()))));
    found.sort();
    found
}

/// Sources that are derivations of which it is told elsewhere how they differ: partners that are sources on both sides, and what is
/// below. Of those that make the same it is not told, and as sources they differ all the same.
fn followed_sources(
    comparison: &Comparison<'_>,
    pair: Pair,
    partners: &[Pair],
) -> (HashSet<StorePath>, HashSet<StorePath>) {
    let (old_graph, new_graph) = (comparison.old.graph, comparison.new.graph);
    let below = |graph: &BuildGraph, index| {
        let below = DerivationSources::new(graph, index).below;
        below.into_iter().map(|source| graph.derivation(source).path()).collect::<HashSet<_>>()
    };
    let (mut old, mut new) = (below(old_graph, pair.old), below(new_graph, pair.new));
    for partner in partners.iter().filter(|partner| !comparison.makes_the_same(**partner)) {
        let (before, now) =
            (old_graph.derivation(partner.old).path(), new_graph.derivation(partner.new).path());
        let has = |graph: &BuildGraph, index, path: &StorePath| {
            graph.derivation(index).sources().any(|source| source == *path)
        };
        if has(old_graph, pair.old, &before) && has(new_graph, pair.new, &now) {
            old.insert(before);
            new.insert(now);
        }
    }
    (old, new)
}

/// The names of the outputs that a derivation needs of each input, and ways to outputs of outputs.
fn wanted(graph: &BuildGraph, of: DerivationIndex) -> HashMap<DerivationIndex, Vec<String>> {
    let mut all: HashMap<DerivationIndex, Vec<String>> = HashMap::new();
    for input in graph.inputs(of) {
        let view = graph.derivation(input.derivation);
        let names = input.outputs.iter().map(|output| view.output(*output).name().to_owned());
        all.entry(input.derivation).or_default().extend(names);
    }
    for (input, way) in graph.dynamic_inputs(of) {
        all.entry(input).or_default().push(way.to_owned());
    }
    for names in all.values_mut() {
        names.sort();
    }
    all
}

fn add_inputs(comparison: &Comparison<'_>, pair: Pair, partners: &Partners, changes: &mut Vec<Change>) {
    let old = wanted(comparison.old.graph, pair.old);
    let new = wanted(comparison.new.graph, pair.new);
    let of =
        |all: &HashMap<_, Vec<String>>, input: &DerivationIndex| all.get(input).cloned().unwrap_or_default();
    // What is a source as a derivation is told as a source.
    let removed = partners.removed.iter().filter(|input| old.contains_key(input));
    changes.extend(removed.map(|input| Change::InputRemoved { input: *input, outputs: of(&old, input) }));
    let added = partners.added.iter().filter(|input| new.contains_key(input));
    changes.extend(added.map(|input| Change::InputAdded { input: *input, outputs: of(&new, input) }));
    for partner in &partners.pairs {
        let (before, now) = (of(&old, &partner.old), of(&new, &partner.new));
        if before != now {
            changes.push(Change::InputOutputs { pair: *partner, old: before, new: now });
        }
    }
}
