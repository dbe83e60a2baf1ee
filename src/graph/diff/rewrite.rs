//! Texts of an old derivation as they would be with what the new one has in place of its inputs.

use std::borrow::Cow;
use std::collections::HashMap;

use memchr::memchr;
use nix_derivation::{HashAlgorithm, NixHash, StoreDir, StorePath, hash_bytes};

use super::{Comparison, Pair, pairing};
use crate::graph::build_graph::{BuildGraph, DerivationIndex, OutputView};
use crate::graph::derivation::DerivationKind;
use crate::graph::path_table::HASH_LENGTH;

/// Characters of a placeholder after its slash.
const PLACEHOLDER_LENGTH: usize = 52;

/// The store paths and placeholders in a text, in order: the hash part or the placeholder, and the whole as it stands there.
pub(super) fn paths_in<'a>(text: &'a str, store_dir: &StoreDir) -> Vec<(&'a str, &'a str)> {
    let directory = store_dir.as_str();
    let mut found = Vec::new();
    for (slash, _) in text.match_indices('/') {
        let rest = &text[slash..];
        let below = rest.strip_prefix(directory).and_then(|below| below.strip_prefix('/'));
        let (key, length) = match below {
            Some(below) => {
                let Some(hash) = below.get(..HASH_LENGTH) else { continue };
                let name = below[HASH_LENGTH..].bytes().take_while(|byte| is_of_name(*byte)).count();
                (hash, directory.len() + 1 + HASH_LENGTH + name)
            }
            None => match rest.get(1..=PLACEHOLDER_LENGTH) {
                Some(placeholder) => (placeholder, PLACEHOLDER_LENGTH + 1),
                None => continue,
            },
        };
        if is_base_32(key.as_bytes()) {
            found.push((key, &rest[..length]));
        }
    }
    found
}

/// Whether a byte can stand in a path's name.
fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"+-._?=".contains(&byte)
}

fn is_base_32(text: &[u8]) -> bool {
    text.iter().all(|byte| byte.is_ascii_digit() || (byte.is_ascii_lowercase() && !b"eotu".contains(byte)))
}

/// What stands in the new text where something stands in the old.
#[derive(Debug)]
pub(super) struct Rewriting<'a> {
    store_dir: &'a StoreDir,
    /// By the hash part of a path: the rest of its base name, and what is in its place in full.
    paths: HashMap<[u8; HASH_LENGTH], Vec<(String, String)>>,
    /// Placeholders of outputs whose path is not known before building, and what is in their place in full.
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
            let new = rewriting.store_dir.render_path(new);
            rewriting.add_path(old, new);
        }
        for below in pairing::sources_below(comparison, pair) {
            rewriting.add_derivation((old, below.old), (new, below.new));
        }
        for partner in partners.iter().chain([&pair]) {
            let (before, now) = (old.derivation(partner.old), new.derivation(partner.new));
            // One and the same has nothing to be replaced.
            if before.path() == now.path() {
                continue;
            }
            rewriting.add_derivation((old, partner.old), (new, partner.new));
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
        rewriting.add_dynamic(comparison, pair, partners);
        rewriting
    }

    fn add_path(&mut self, old: &StorePath, new: String) {
        let base = old.to_basename();
        if let Some((hash, rest)) = base.as_bytes().split_first_chunk::<HASH_LENGTH>() {
            let rest = String::from_utf8_lossy(rest).into_owned();
            self.paths.entry(*hash).or_default().push((rest, new));
        }
    }

    /// The `.drv` path itself.
    fn add_derivation(
        &mut self,
        (old_graph, old): (&BuildGraph, DerivationIndex),
        (new_graph, new): (&BuildGraph, DerivationIndex),
    ) {
        let now = self.store_dir.render_path(&new_graph.derivation(new).path());
        self.add_path(&old_graph.derivation(old).path(), now);
    }

    fn add_placeholder(&mut self, old: &str, new: String) {
        if let Ok(old) = old.as_bytes().try_into() {
            self.placeholders.insert(old, new);
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
        let new_text = match now.path() {
            Some(path) => self.store_dir.render_path(&path),
            None => format!("/{}", in_place(new_graph, new, now)),
        };
        match before.path() {
            Some(path) => self.add_path(&path, new_text),
            None => self.add_placeholder(&in_place(old_graph, old, before), new_text),
        }
    }

    /// What stands for outputs of derivations that are outputs, where both need them by the same way.
    fn add_dynamic(&mut self, comparison: &Comparison<'_>, pair: Pair, partners: &[Pair]) {
        for (old, way) in comparison.old.graph.dynamic_inputs(pair.old) {
            let Some(partner) = partners.iter().find(|partner| partner.old == old) else { continue };
            let old_text = placeholder_along(comparison.old.graph, partner.old, way);
            let new_text = placeholder_along(comparison.new.graph, partner.new, way);
            self.add_placeholder(&old_text, format!("/{new_text}"));
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
            let found = match path {
                Some(below) => self.path_at(below).map(|(length, new)| (directory.len() + 1 + length, new)),
                None => {
                    self.placeholder_at(&rest[1..]).map(|new| (1 + PLACEHOLDER_LENGTH, Cow::Borrowed(new)))
                }
            };
            let (length, new) = found.unwrap_or((1, Cow::Borrowed("/")));
            rewritten.extend_from_slice(new.as_bytes());
            rest = &rest[length..];
        }
        rewritten.extend_from_slice(rest);
        rewritten
    }

    /// Whether a text of the old derivation, rewritten, is that of the new one. Paths that are not known on one side count as the
    /// same by their names; on both sides, because what is in the place of one that is known may have such a name too.
    pub(super) fn is_same(&self, before: &[u8], now: &[u8]) -> bool {
        before == now || self.without_unread(before) == self.without_unread(now)
    }

    /// A text with those paths in it replaced that are not known on one side.
    fn without_unread<'t>(&self, text: &'t [u8]) -> Cow<'t, [u8]> {
        if self.unread.is_empty() {
            return Cow::Borrowed(text);
        }
        let (paths, placeholders) = (HashMap::new(), HashMap::new());
        let only_unread =
            Self { store_dir: self.store_dir, paths, placeholders, unread: self.unread.clone() };
        Cow::Owned(only_unread.of_bytes(text))
    }

    /// The length of the base name that a text begins with, and what is in its place, if something is.
    fn path_at(&self, text: &[u8]) -> Option<(usize, Cow<'_, str>)> {
        let (hash, rest) = text.split_first_chunk::<HASH_LENGTH>()?;
        if let Some(known) = self.paths.get(hash) {
            let found = known.iter().filter(|(name, _)| rest.starts_with(name.as_bytes()));
            let (name, new) = found.max_by_key(|(name, _)| name.len())?;
            return Some((HASH_LENGTH + name.len(), Cow::Borrowed(new)));
        }
        if self.unread.is_empty() || !is_base_32(hash) {
            return None;
        }
        let found = self.unread.iter().filter(|name| rest.starts_with(name.as_bytes()));
        let name = found.max_by_key(|name| name.len())?;
        Some((HASH_LENGTH + name.len(), Cow::Owned(format!("{}/…{name}", self.store_dir))))
    }

    fn placeholder_at(&self, text: &[u8]) -> Option<&str> {
        if self.placeholders.is_empty() {
            return None;
        }
        self.placeholders.get(text.first_chunk::<PLACEHOLDER_LENGTH>()?).map(String::as_str)
    }
}

/// What stands for an output whose path is not known before building, without its slash. (`DownstreamPlaceholder` in Nix's
/// `src/libstore/downstream-placeholder.cc`, as all of these.)
pub(super) fn placeholder(derivation: &StorePath, name: &str, output: &str) -> String {
    in_base_32(&hash_of_output(derivation, name, output))
}

fn hash_of_output(derivation: &StorePath, name: &str, output: &str) -> NixHash {
    let base = derivation.to_basename();
    let hash = base.get(..HASH_LENGTH).unwrap_or_default();
    let output = if output == "out" { name.to_owned() } else { format!("{name}-{output}") };
    sha256(&format!("nix-upstream-output:{hash}:{output}"))
}

/// What stands for an output of a derivation that is itself an output: along a way such as `out^dev`.
fn placeholder_along(graph: &BuildGraph, index: DerivationIndex, way: &str) -> String {
    let derivation = graph.derivation(index);
    let mut names = way.split('^');
    let mut hash = hash_of_output(&derivation.path(), derivation.name(), names.next().unwrap_or("out"));
    for name in names {
        let mut folded = [0u8; 20];
        for (place, byte) in hash.digest_as_bytes().iter().enumerate() {
            folded[place % 20] ^= byte;
        }
        let folded = nix_derivation::nixbase32::encode(&folded);
        hash = sha256(&format!("nix-computed-output:{folded}:{name}"));
    }
    in_base_32(&hash)
}

fn sha256(text: &str) -> NixHash {
    hash_bytes(HashAlgorithm::Sha256, text.as_bytes())
}

fn in_base_32(hash: &NixHash) -> String {
    nix_derivation::nixbase32::encode(hash.digest_as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "00000000000000000000000000000001";
    const NEW: &str = "00000000000000000000000000000002";
    const HERE: &str = "0000000000000000000000000000000000000000000000000000";

    #[test]
    fn base_names_are_replaced_wherever_they_stand_and_nothing_else() {
        let store_dir = StoreDir::default();
        let mut rewriting = Rewriting {
            store_dir: &store_dir,
            paths: HashMap::new(),
            placeholders: HashMap::new(),
            unread: Vec::new(),
        };
        let path = |base: String| StorePath::from_basename(base.as_bytes()).expect("a path");
        rewriting.add_path(&path(format!("{OLD}-a-1.0")), format!("/nix/store/{NEW}-a-1.1"));
        rewriting.add_path(&path(format!("{OLD}-a")), format!("/{HERE}"));
        let before = "1rz4g4znpzjwh1xymhjpm42vipw92pr73vdgl6xs1hycac8kf2n9";
        let now = HERE;
        rewriting.add_placeholder(before, format!("/{now}"));
        for (text, expected) in [
            (
                format!("x=/nix/store/{OLD}-a-1.0/bin:/nix/store/{OLD}-a"),
                format!("x=/nix/store/{NEW}-a-1.1/bin:/{HERE}"),
            ),
            (format!("/{before}/lib /{now}"), format!("/{now}/lib /{now}")),
            (format!("/gnu/store/{OLD}-a {OLD}-a"), format!("/gnu/store/{OLD}-a {OLD}-a")),
            (format!("/nix/store/{}", &OLD[..20]), format!("/nix/store/{}", &OLD[..20])),
            ("//nix/store/ünï/".to_owned(), "//nix/store/ünï/".to_owned()),
        ] {
            assert_eq!(rewriting.of(&text), expected);
        }
    }

    /// Found by fuzzing: it was a change from something to the same.
    #[test]
    fn what_is_known_may_have_the_name_of_what_is_not() {
        let store_dir = StoreDir::default();
        let (paths, placeholders) = (HashMap::new(), HashMap::new());
        let mut rewriting =
            Rewriting { store_dir: &store_dir, paths, placeholders, unread: vec!["-a".into()] };
        let old = StorePath::from_basename(format!("{OLD}-a").as_bytes()).expect("a path");
        let now = format!("/nix/store/{NEW}-a");
        rewriting.add_path(&old, now.clone());
        let before = rewriting.of(&format!("/nix/store/{OLD}-a"));
        assert_eq!(before, now);
        assert!(rewriting.is_same(before.as_bytes(), now.as_bytes()));
        let unread = rewriting.of(&format!("{now} x"));
        assert!(
            rewriting.is_same(unread.as_bytes(), format!("/nix/store/{}-a x", "1".repeat(32)).as_bytes())
        );
        assert!(!rewriting.is_same(unread.as_bytes(), format!("{now} y").as_bytes()));
    }

    #[test]
    fn paths_and_placeholders_are_found() {
        let text = format!("/nix/store/{OLD}-a-1.0/bin:/nix/store/short /nix/store/{NEW} /{HERE}/lib");
        let (first, second, third) =
            (format!("/nix/store/{OLD}-a-1.0"), format!("/nix/store/{NEW}"), format!("/{HERE}"));
        assert_eq!(
            paths_in(&text, &StoreDir::default()),
            [(OLD, first.as_str()), (NEW, second.as_str()), (HERE, third.as_str())]
        );
    }
}
