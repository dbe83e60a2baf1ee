//! Texts of an old derivation as they would be with what the new one has in place of its inputs.

use nix_derivation::{HashAlgorithm, StoreDir, StorePath, hash_bytes};

use super::{Comparison, Pair, Places};
use crate::graph::build_graph::{BuildGraph, DerivationIndex, OutputView};

/// Characters of the hash part of a path.
const HASH_LENGTH: usize = 32;

/// Characters of a placeholder after its slash.
const PLACEHOLDER_LENGTH: usize = 52;

/// The hash parts of the store paths in a text, in order.
pub(super) fn hashes_in<'a>(text: &'a str, store_dir: &StoreDir) -> impl Iterator<Item = &'a str> {
    let prefix = format!("{store_dir}/");
    let mut rest = text;
    std::iter::from_fn(move || {
        loop {
            let at = rest.find(&prefix)? + prefix.len();
            rest = &rest[at..];
            if let Some(hash) = hash_at(rest) {
                return Some(hash);
            }
        }
    })
}

/// The hash part that a text begins with.
fn hash_at(text: &str) -> Option<&str> {
    let hash = text.get(..HASH_LENGTH)?;
    is_base_32(hash).then_some(hash)
}

fn is_base_32(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit() || (byte.is_ascii_lowercase() && !b"eotu".contains(&byte)))
}

/// What stands in the new text where something stands in the old: paths of outputs, by their hash part, and placeholders of
/// outputs whose path is not known before building.
#[derive(Debug)]
pub(super) struct Rewriting<'a> {
    places: Places,
    store_dir: &'a StoreDir,
}

impl<'a> Rewriting<'a> {
    /// For a pair with its partners, and sources that are in each other's place.
    pub(super) fn new(
        comparison: &Comparison<'a>,
        pair: Pair,
        partners: &[Pair],
        sources: impl Iterator<Item = (String, String)>,
    ) -> Self {
        let (old, new) = (comparison.old.graph, comparison.new.graph);
        let mut places: Places = sources.collect();
        for partner in partners.iter().chain([&pair]) {
            let names = old.derivation(partner.old).outputs().map(OutputView::name);
            for name in names {
                let texts = text_of(old, partner.old, name).zip(text_of(new, partner.new, name));
                if let Some((old, new)) = texts.filter(|(old, new)| old != new) {
                    places.insert(old, new);
                }
            }
        }
        Self { places, store_dir: comparison.store_dir }
    }

    /// A text with everything of the old in it replaced.
    pub(super) fn of(&self, text: &str) -> String {
        let mut rewritten = String::with_capacity(text.len());
        let mut rest = text;
        let directory = self.store_dir.as_str();
        // Everything to be replaced begins at a slash.
        while let Some(slash) = rest.find('/') {
            rewritten.push_str(&rest[..slash]);
            rest = &rest[slash..];
            let path = rest.strip_prefix(directory).and_then(|below| below.strip_prefix('/'));
            let known = match path {
                Some(below) => hash_at(below)
                    .and_then(|_| self.longest(below))
                    .map(|(old, new)| (directory.len() + 1 + old.len(), format!("{directory}/{new}"))),
                None => rest
                    .get(1..=PLACEHOLDER_LENGTH)
                    .filter(|text| is_base_32(text))
                    .and_then(|text| Some((PLACEHOLDER_LENGTH + 1, format!("/{}", self.places.get(text)?)))),
            };
            let (length, new) = known.unwrap_or_else(|| (1, "/".to_owned()));
            rewritten.push_str(&new);
            rest = &rest[length..];
        }
        rewritten.push_str(rest);
        rewritten
    }

    /// The base name in the map that a text begins with, and what is in its place. A name may go on with characters of
    /// other names, so that the whole of it has to be looked for.
    fn longest(&self, text: &str) -> Option<(&str, &str)> {
        let end = text.bytes().take_while(|byte| is_of_name(*byte)).count();
        (HASH_LENGTH..=end).rev().find_map(|end| {
            let (old, new) = self.places.get_key_value(text.get(..end)?)?;
            Some((old.as_str(), new.as_str()))
        })
    }
}

/// Whether a byte can stand in a path's name.
fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"+-._?=".contains(&byte)
}

/// What stands for an output whose path is not known before building, without its slash. (`DownstreamPlaceholder` in Nix's
/// `src/libstore/downstream-placeholder.cc`.)
fn placeholder(derivation: &StorePath, name: &str, output: &str) -> String {
    let base = derivation.to_basename();
    let hash = base.get(..HASH_LENGTH).unwrap_or_default();
    let output = if output == "out" { name.to_owned() } else { format!("{name}-{output}") };
    let text = format!("nix-upstream-output:{hash}:{output}");
    let encoded = hash_bytes(HashAlgorithm::Sha256, text.as_bytes()).to_nix_nixbase32_string();
    encoded.rsplit(':').next().unwrap_or_default().to_owned()
}

/// How an output is written where it is used, without what every path begins with: its base name, or its placeholder.
fn text_of(graph: &BuildGraph, index: DerivationIndex, output: &str) -> Option<String> {
    let derivation = graph.derivation(index);
    let known = derivation.outputs().find(|known| known.name() == output)?;
    match known.path() {
        Some(path) => Some(path.to_basename()),
        None => Some(placeholder(&derivation.path(), derivation.name(), output)),
    }
}
