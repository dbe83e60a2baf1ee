//! Texts of an old derivation as they would be with what the new one has in place of its inputs.

use std::borrow::Cow;
use std::collections::HashMap;

use memchr::memchr;
use nix_derivation::{HashAlgorithm, StoreDir, StorePath, hash_bytes};

use super::{Comparison, Pair};
use crate::graph::build_graph::{BuildGraph, DerivationIndex, OutputView};
use crate::graph::derivation::DerivationKind;

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
            if let Some(hash) = rest.get(..HASH_LENGTH).filter(|hash| is_base_32(hash.as_bytes())) {
                return Some(hash);
            }
        }
    })
}

fn is_base_32(text: &[u8]) -> bool {
    text.iter().all(|byte| byte.is_ascii_digit() || (byte.is_ascii_lowercase() && !b"eotu".contains(byte)))
}

/// What stands in the new text where something stands in the old.
#[derive(Debug)]
pub(super) struct Rewriting<'a> {
    store_dir: &'a StoreDir,
    /// By the hash part of a path: the rest of its base name, and the base name in its place.
    paths: HashMap<[u8; HASH_LENGTH], Vec<(String, String)>>,
    /// Placeholders of outputs whose path is not known before building.
    placeholders: HashMap<[u8; PLACEHOLDER_LENGTH], String>,
    /// What follows the hash part of outputs of partners of which one could not be read, so that one of the paths is not known.
    /// They count as the same by that.
    unread: Vec<String>,
}

impl<'a> Rewriting<'a> {
    /// For a pair with its partners, and sources that are in each other's place.
    pub(super) fn new<'s>(
        comparison: &Comparison<'a>,
        pair: Pair,
        partners: &[Pair],
        sources: impl Iterator<Item = (&'s StorePath, &'s StorePath)>,
    ) -> Self {
        let (old, new) = (comparison.old.graph, comparison.new.graph);
        let (paths, placeholders) = (HashMap::new(), HashMap::new());
        let mut rewriting = Self { store_dir: comparison.store_dir, paths, placeholders, unread: Vec::new() };
        for (old, new) in sources {
            rewriting.add_path(&old.to_basename(), new.to_basename());
        }
        for partner in partners.iter().chain([&pair]) {
            let (before, now) = (old.derivation(partner.old), new.derivation(partner.new));
            // One and the same has nothing to be replaced.
            if before.path() == now.path() {
                continue;
            }
            if [before.kind(), now.kind()].contains(&DerivationKind::Unread) {
                let known = before.outputs().chain(now.outputs()).filter_map(OutputView::path);
                rewriting.unread.extend(known.map(|path| format!("-{}", path.name())));
                continue;
            }
            for output in old.derivation(partner.old).outputs() {
                let now = new.derivation(partner.new).outputs().find(|now| now.name() == output.name());
                if let Some(now) = now {
                    rewriting.add_output((old, partner.old, output), (new, partner.new, now));
                }
            }
        }
        rewriting
    }

    fn add_path(&mut self, old: &str, new: String) {
        if let Some((hash, rest)) = old.as_bytes().split_first_chunk::<HASH_LENGTH>()
            && old != new
        {
            let rest = String::from_utf8_lossy(rest).into_owned();
            self.paths.entry(*hash).or_default().push((rest, new));
        }
    }

    fn add_output(
        &mut self,
        (old_graph, old, before): (&BuildGraph, DerivationIndex, OutputView<'_>),
        (new_graph, new, now): (&BuildGraph, DerivationIndex, OutputView<'_>),
    ) {
        let in_place = |graph: &BuildGraph, index, output: OutputView<'_>| {
            placeholder(&graph.derivation(index).path(), graph.derivation(index).name(), output.name())
        };
        match (before.path(), now.path()) {
            (Some(before), Some(now)) => self.add_path(&before.to_basename(), now.to_basename()),
            (None, None) => {
                let before = in_place(old_graph, old, before);
                if let Ok(before) = before.as_bytes().try_into() {
                    self.placeholders.insert(before, in_place(new_graph, new, now));
                }
            }
            // How it is addressed has changed, and what it stands for in a text with it.
            _ => {}
        }
    }

    /// A text with everything of the old in it replaced.
    pub(super) fn of(&self, text: &str) -> String {
        // Only base names and placeholders are replaced, which are ASCII.
        String::from_utf8(self.of_bytes(text.as_bytes())).unwrap_or_default()
    }

    /// The same for a text that need not be UTF-8.
    pub(super) fn of_bytes(&self, text: &[u8]) -> Vec<u8> {
        let mut rewritten = Vec::with_capacity(text.len());
        let mut rest = text;
        let directory = self.store_dir.as_str().as_bytes();
        // Everything to be replaced begins at a slash.
        while let Some(slash) = memchr(b'/', rest) {
            rewritten.extend_from_slice(&rest[..slash]);
            rest = &rest[slash..];
            let path = rest.strip_prefix(directory).and_then(|below| below.strip_prefix(b"/"));
            let (kept, length, new) = match path {
                Some(below) => match self.path_at(below) {
                    Some((length, new)) => (directory.len() + 1, length, new),
                    None => (directory.len() + 1, 0, ""),
                },
                None => match self.placeholder_at(&rest[1..]) {
                    Some(new) => (1, PLACEHOLDER_LENGTH, new),
                    None => (1, 0, ""),
                },
            };
            rewritten.extend_from_slice(&rest[..kept]);
            rewritten.extend_from_slice(new.as_bytes());
            rest = &rest[kept + length..];
        }
        rewritten.extend_from_slice(rest);
        rewritten
    }

    /// A text of the new derivation, with those paths in it replaced that are not known on the other side.
    pub(super) fn of_new<'t>(&self, text: &'t [u8]) -> Cow<'t, [u8]> {
        if self.unread.is_empty() {
            return Cow::Borrowed(text);
        }
        let (paths, placeholders) = (HashMap::new(), HashMap::new());
        let only_unread =
            Self { store_dir: self.store_dir, paths, placeholders, unread: self.unread.clone() };
        Cow::Owned(only_unread.of_bytes(text))
    }

    /// The length of the base name that a text begins with, and what is in its place, if something is.
    fn path_at(&self, text: &[u8]) -> Option<(usize, &str)> {
        let (hash, rest) = text.split_first_chunk::<HASH_LENGTH>()?;
        if let Some(known) = self.paths.get(hash) {
            let found = known.iter().filter(|(name, _)| rest.starts_with(name.as_bytes()));
            let (name, new) = found.max_by_key(|(name, _)| name.len())?;
            return Some((HASH_LENGTH + name.len(), new));
        }
        if self.unread.is_empty() || !is_base_32(hash) {
            return None;
        }
        let found = self.unread.iter().filter(|name| rest.starts_with(name.as_bytes()));
        let name = found.max_by_key(|name| name.len())?;
        Some((HASH_LENGTH + name.len(), name.trim_start_matches('-')))
    }

    fn placeholder_at(&self, text: &[u8]) -> Option<&str> {
        if self.placeholders.is_empty() {
            return None;
        }
        self.placeholders.get(text.first_chunk::<PLACEHOLDER_LENGTH>()?).map(String::as_str)
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "00000000000000000000000000000001";
    const NEW: &str = "00000000000000000000000000000002";

    #[test]
    fn base_names_are_replaced_wherever_they_stand_and_nothing_else() {
        let store_dir = StoreDir::default();
        let mut rewriting = Rewriting {
            store_dir: &store_dir,
            paths: HashMap::new(),
            placeholders: HashMap::new(),
            unread: Vec::new(),
        };
        rewriting.add_path(&format!("{OLD}-a-1.0"), format!("{NEW}-a-1.1"));
        rewriting.add_path(&format!("{OLD}-a"), format!("{NEW}-other"));
        let before = "1rz4g4znpzjwh1xymhjpm42vipw92pr73vdgl6xs1hycac8kf2n9";
        let now = "0000000000000000000000000000000000000000000000000000";
        rewriting.placeholders.insert(before.as_bytes().try_into().expect("52 characters"), now.to_owned());
        for (text, expected) in [
            (
                format!("x=/nix/store/{OLD}-a-1.0/bin:/nix/store/{OLD}-a"),
                format!("x=/nix/store/{NEW}-a-1.1/bin:/nix/store/{NEW}-other"),
            ),
            (format!("/{before}/lib /{now}"), format!("/{now}/lib /{now}")),
            (format!("/gnu/store/{OLD}-a {OLD}-a"), format!("/gnu/store/{OLD}-a {OLD}-a")),
            (format!("/nix/store/{}", &OLD[..20]), format!("/nix/store/{}", &OLD[..20])),
            ("//nix/store/ünï/".to_owned(), "//nix/store/ünï/".to_owned()),
        ] {
            assert_eq!(rewriting.of(&text), expected);
        }
    }

    #[test]
    fn hash_parts_are_found() {
        let text = format!("/nix/store/{OLD}-a:/nix/store/short /nix/store/{NEW}");
        assert_eq!(hashes_in(&text, &StoreDir::default()).collect::<Vec<_>>(), [OLD, NEW]);
    }
}
