//! Which members of a closure leave this machine only when that is meant: derivations, the flakes' own sources, inputs that not
//! everybody can fetch, and copies of these that evaluation has made.
//!
//! A copy is known by what is in it: its hash where it is whole, and else its files, if all of them stand in the original at the
//! same place below one directory. A single file is none: a script or a setting that an output was made to refer to is part of it.

use std::collections::HashMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use nix_derivation::{NixHash, StorePath};

use crate::event::{Event, Reporter};
use crate::graph::{Closure, PathIndex, PathInfo};
use crate::nix::{FlakeSource, SourceKind, Store};
use crate::plan::{Item, Tree};
use crate::text::size;

/// The most files that a tree may have to be compared. nixpkgs has about half as many; an index of them takes some 30 MiB.
const MOST_FILES: usize = 200_000;

/// How much is read to compare one candidate with everything, in bytes.
const MOST_READ: u64 = 1 << 30;

/// What a member of a closure is, if it is pushed only with `--include-sources`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SourceMember {
    kind: SourceKind,
    extent: Extent,
}

/// How much of a source it is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Extent {
    Itself,
    Copy,
    Files,
    /// It may have files of it. The reason is a sentence.
    Perhaps(String),
}

impl fmt::Display for SourceMember {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = &self.kind;
        match &self.extent {
            Extent::Itself => write!(formatter, "{kind}"),
            Extent::Copy => write!(formatter, "a copy of {kind}"),
            Extent::Files => write!(formatter, "a copy of files of {kind}"),
            Extent::Perhaps(reason) => write!(formatter, "perhaps a copy of files of {kind} ({reason})"),
        }
    }
}

/// A source, and what is in it.
#[derive(Debug)]
struct Original {
    kind: SourceKind,
    nar_hash: Option<NixHash>,
    directory: PathBuf,
    tree: OnceLock<Result<Tree, String>>,
}

impl Original {
    /// What is in it, looked at once; the error is why that is not known, in words.
    fn tree(&self) -> Result<&Tree, &str> {
        let look = || match list(&self.directory, MOST_FILES) {
            Ok(Some(tree)) => Ok(tree),
            Ok(None) => Err(format!("it has more than {MOST_FILES} files, which are not compared")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err("it is not in the store to compare with; `nix flake archive` fetches it".to_owned())
            }
            Err(error) => Err(format!("it cannot be read: {error}")),
        };
        self.tree.get_or_init(look).as_ref().map_err(String::as_str)
    }
}

/// What is known of the members of a closure.
#[derive(Debug, Default)]
pub(super) struct Sources {
    /// What some paths are, whatever is in them.
    known: HashMap<StorePath, SourceKind>,
    /// What not everybody may have, the most our own first.
    private: Arc<Vec<Original>>,
    /// What everybody can fetch.
    public: Arc<Vec<Original>>,
    /// What was found out of members, for as long as none of the above changes.
    found: HashMap<PathIndex, Option<SourceMember>>,
}

impl Sources {
    /// Takes what is known of the flakes' sources. A path that is several things is the most private of them.
    pub(super) fn new(sources: &[FlakeSource], store: &Store) -> Self {
        let mut known = HashMap::new();
        for source in sources {
            note(&mut known, &source.path, &source.kind);
        }
        let mut originals: Vec<Original> = Vec::new();
        for (path, kind) in &known {
            let nar_hash = sources
                .iter()
                .filter(|source| source.path == *path)
                .find_map(|source| source.nar_hash.clone());
            let (kind, directory) = (kind.clone(), store.real_path(path));
            originals.push(Original { kind, nar_hash, directory, tree: OnceLock::new() });
        }
        // One order for every run.
        originals.sort_by(|one, other| (&other.kind, &one.directory).cmp(&(&one.kind, &other.directory)));
        let (public, private) =
            originals.into_iter().partition(|original| original.kind == SourceKind::PublicInput);
        Self { known, private: Arc::new(private), public: Arc::new(public), found: HashMap::new() }
    }

    /// What a member is, if it is one of these. Those that may move must have been looked at before.
    pub(super) fn of(&self, index: PathIndex) -> Option<&SourceMember> {
        self.found.get(&index)?.as_ref()
    }

    /// Looks at members, each once.
    pub(super) async fn look_at(
        &mut self,
        closure: &Closure,
        store: &Store,
        members: impl Iterator<Item = PathIndex>,
        reporter: &Reporter,
    ) {
        let mut candidates = Vec::new();
        for index in members.filter(|index| !self.found.contains_key(index)).collect::<Vec<_>>() {
            let info = closure.info(index);
            let known = self.by_path_or_hash(info);
            // A directory that comes from evaluation may be a part of something.
            let directory = store.real_path(&info.path);
            let is_public = self.known.contains_key(&info.path);
            if known.is_none() && !is_public && is_from_evaluation(info) && is_directory(&directory) {
                candidates.push((index, directory));
            }
            self.found.insert(index, known);
        }
        if candidates.is_empty() || self.private.is_empty() {
            return;
        }
        reporter.emit(Event::Step { what: "looking for copies of the flake's own files".to_owned() });
        let (private, public) = (Arc::clone(&self.private), Arc::clone(&self.public));
        let search = move || {
            let compare =
                |(index, directory): (PathIndex, PathBuf)| (index, compare(&directory, &private, &public));
            candidates.into_iter().map(compare).collect::<Vec<_>>()
        };
        match tokio::task::spawn_blocking(search).await {
            Ok(found) => self.found.extend(found),
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    fn by_path_or_hash(&self, info: &PathInfo) -> Option<SourceMember> {
        let member = |kind: &SourceKind, extent| Some(SourceMember { kind: kind.clone(), extent });
        if info.path.is_derivation() {
            return member(&SourceKind::Derivation, Extent::Itself);
        }
        match self.known.get(&info.path) {
            Some(SourceKind::PublicInput) => return None,
            Some(kind) => return member(kind, Extent::Itself),
            None => {}
        }
        if !is_from_evaluation(info) {
            return None;
        }
        let original =
            self.private.iter().find(|original| original.nar_hash.as_ref() == Some(&info.nar_hash))?;
        member(&original.kind, Extent::Copy)
    }
}

/// Notes what a path is. Of several things it is the most private.
fn note(known: &mut HashMap<StorePath, SourceKind>, path: &StorePath, kind: &SourceKind) {
    let noted = known.entry(path.clone()).or_insert_with(|| kind.clone());
    if *noted < *kind {
        noted.clone_from(kind);
    }
}

/// Whether evaluation has put a path into the store: by its content, and not as what a derivation makes.
fn is_from_evaluation(info: &PathInfo) -> bool {
    info.content_address.is_some() && info.deriver.is_none()
}

fn is_directory(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir())
}

/// Looks for the files of a directory in what not everybody may have. What is a part of something public too tells nothing.
fn compare(directory: &Path, private: &[Original], public: &[Original]) -> Option<SourceMember> {
    // Of what cannot be read there is nothing to push either.
    let part = list(directory, MOST_FILES).ok()?;
    let mut left = MOST_READ;
    let mut holds = |original: &Original| holds(original, directory, part.as_ref(), &mut left);
    let mut found = None;
    for original in private {
        let extent = match holds(original) {
            Ok(true) => Extent::Files,
            Ok(false) => continue,
            Err(reason) => Extent::Perhaps(reason),
        };
        let is_sure = extent == Extent::Files;
        if is_sure || found.is_none() {
            found = Some(SourceMember { kind: original.kind.clone(), extent });
        }
        if is_sure {
            break;
        }
    }
    found.filter(|_| !public.iter().any(|original| holds(original) == Ok(true)))
}

/// Whether all files of a directory stand in an original, at the same place below one directory and with the same content. The
/// error is why that is not known, in words.
///
/// `part` is what is in the directory; nothing where that is more than an original can have that is compared. `left` is how
/// much may be read.
fn holds(original: &Original, directory: &Path, part: Option<&Tree>, left: &mut u64) -> Result<bool, String> {
    let tree = original.tree()?;
    let Some(part) = part else { return Ok(false) };
    for place in tree.places_of(part) {
        let place = original.directory.join(place);
        let mut is_same = true;
        for file in part.files() {
            let same = same_content(&directory.join(file), &place.join(file), left);
            is_same = same.map_err(|error| format!("it cannot be compared: {error}"))?;
            if *left == 0 {
                return Err(format!("no more than {} are read to compare it", size(MOST_READ)));
            }
            if !is_same {
                break;
            }
        }
        if is_same {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether two files of one size have the same content. Takes from `left` what is read.
fn same_content(one: &Path, other: &Path, left: &mut u64) -> io::Result<bool> {
    const PIECE: usize = 64 * 1024;
    let (mut one, mut other) = (File::open(one)?, File::open(other)?);
    let (mut a, mut b) = (Vec::with_capacity(PIECE), Vec::with_capacity(PIECE));
    while *left > 0 {
        a.clear();
        b.clear();
        let read = one.by_ref().take(PIECE as u64).read_to_end(&mut a)?;
        other.by_ref().take(PIECE as u64).read_to_end(&mut b)?;
        if a != b {
            return Ok(false);
        }
        if read == 0 {
            break;
        }
        *left = left.saturating_sub(read as u64);
    }
    Ok(true)
}

/// What is below a directory; nothing where that is more than `limit` files and links.
fn list(directory: &Path, limit: usize) -> io::Result<Option<Tree>> {
    let mut items = Vec::new();
    let mut open = vec![PathBuf::new()];
    while let Some(below) = open.pop() {
        for entry in fs::read_dir(directory.join(&below))? {
            let entry = entry?;
            let path = below.join(entry.file_name());
            let kind = entry.file_type()?;
            if kind.is_dir() {
                open.push(path);
                continue;
            }
            let item = if kind.is_symlink() {
                Item::Link(fs::read_link(entry.path())?)
            } else {
                Item::File(entry.metadata()?.len())
            };
            items.push((path, item));
            if items.len() > limit {
                return Ok(None);
            }
        }
    }
    Ok(Some(Tree::new(items)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn original(kind: SourceKind, directory: &Path) -> Original {
        Original { kind, nar_hash: None, directory: directory.to_owned(), tree: OnceLock::new() }
    }

    fn files(root: &Path, files: &[(&str, &str)]) -> PathBuf {
        for (name, content) in files {
            let file = root.join(name);
            fs::create_dir_all(file.parent().expect("a directory")).expect("a directory");
            fs::write(file, content).expect("a file");
        }
        root.to_owned()
    }

    fn found(directory: &Path, private: &[Original], public: &[Original]) -> Option<String> {
        compare(directory, private, public).map(|member| member.to_string())
    }

    #[test]
    fn files_of_ours_are_known_by_their_content() {
        let scratch = tempfile::tempdir().expect("a directory");
        let at = |name: &str, all: &[(&str, &str)]| files(&scratch.path().join(name), all);
        let own = at("own", &[("a/x", "1"), ("a/y", "22"), ("b/x", "3"), ("README", "r")]);
        let own = [original(SourceKind::Flake, &own)];
        let is = Some("a copy of files of the flake's own source".to_owned());
        assert_eq!(found(&at("1", &[("a/x", "1"), ("b/x", "3")]), &own, &[]), is);
        assert_eq!(found(&at("2", &[("x", "3")]), &own, &[]), is);
        assert_eq!(found(&at("3", &[("x", "4")]), &own, &[]), None);
        assert_eq!(found(&at("4", &[("x", "3"), ("y", "22")]), &own, &[]), None);
        // What everybody has as well tells nothing.
        let nixpkgs = [original(SourceKind::PublicInput, &at("nixpkgs", &[("deep/x", "3"), ("z", "z")]))];
        assert_eq!(found(&at("5", &[("x", "3")]), &own, &nixpkgs), None);
        assert_eq!(found(&at("6", &[("a/x", "1"), ("b/x", "3")]), &own, &nixpkgs), is);
    }

    #[test]
    fn what_cannot_be_compared_may_be_a_copy() {
        let scratch = tempfile::tempdir().expect("a directory");
        let part = files(&scratch.path().join("part"), &[("x", "1")]);
        let kind =
            SourceKind::PrivateInput { name: "a".to_owned(), what: "a directory on this machine".to_owned() };
        let gone = [original(kind, &scratch.path().join("gone"))];
        let said = found(&part, &gone, &[]).expect("it may be one");
        assert!(said.starts_with(
            "perhaps a copy of files of the input a, a directory on this machine (it is not in the store"
        ));
        let public = [original(SourceKind::PublicInput, &part)];
        assert_eq!(found(&part, &gone, &public), None);
        // What is surely a copy is said to be one.
        let own = [gone, [original(SourceKind::Flake, &part)]].into_iter().flatten().collect::<Vec<_>>();
        assert_eq!(found(&part, &own, &[]).as_deref(), Some("a copy of files of the flake's own source"));
    }

    #[test]
    fn a_tree_is_looked_at_up_to_a_bound() {
        let scratch = tempfile::tempdir().expect("a directory");
        let tree = files(&scratch.path().join("tree"), &[("a/x", "1"), ("b/x", "2"), ("c", "3")]);
        std::os::unix::fs::symlink("a/x", tree.join("link")).expect("a link");
        assert_eq!(list(&tree, 4).expect("readable").map(|tree| tree.len()), Some(4));
        assert!(list(&tree, 3).expect("readable").is_none());
    }

    #[test]
    fn comparing_ends_when_enough_was_read() {
        let scratch = tempfile::tempdir().expect("a directory");
        let root = files(scratch.path(), &[("a", "12345"), ("b", "12345"), ("c", "12346")]);
        let same = |other: &str, mut left| {
            (same_content(&root.join("a"), &root.join(other), &mut left).expect("readable"), left)
        };
        assert_eq!((same("b", 100), same("c", 100).0, same("b", 5)), ((true, 95), false, (true, 0)));
    }

    #[test]
    fn of_several_things_a_path_is_the_most_private_however_they_come() {
        let store_path = crate::graph::tests::store_path(1);
        let kinds = [
            SourceKind::PublicInput,
            SourceKind::PrivateInput { name: "a".to_owned(), what: "b".to_owned() },
            SourceKind::Flake,
        ];
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
            let mut known: HashMap<StorePath, SourceKind> = HashMap::new();
            for kind in order.map(|place| kinds[place].clone()) {
                note(&mut known, &store_path, &kind);
            }
            assert_eq!(known[&store_path], SourceKind::Flake);
        }
    }
}
