//! Where in one tree of files another has its copy, as far as names and sizes tell.
//!
//! Evaluation copies sources into the store under names of their own: whole, or only some of the files, from whatever
//! directory it likes (`lib.cleanSource`, `lib.fileset.toSource`). Only what is in such a copy tells where it comes from.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// What stands at one place of a tree. Directories count by what is in them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A file of so many bytes.
    File(u64),
    /// A link that leads there.
    Link(PathBuf),
}

/// The files and links below a directory, at every depth.
#[derive(Debug, Default)]
pub struct Tree {
    /// By relative path, sorted.
    items: Vec<(PathBuf, Item)>,
    /// Where in `items` a file name occurs.
    by_name: HashMap<OsString, Vec<usize>>,
}

impl Tree {
    /// A tree of these, by relative path.
    pub fn new(mut items: Vec<(PathBuf, Item)>) -> Self {
        items.sort_by(|(one, _), (other, _)| one.cmp(other));
        let mut by_name: HashMap<OsString, Vec<usize>> = HashMap::new();
        for (place, (path, _)) in items.iter().enumerate() {
            by_name.entry(path.file_name().unwrap_or_default().to_owned()).or_default().push(place);
        }
        Self { items, by_name }
    }

    /// How many files and links there are.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The relative paths of all files.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let files = self.items.iter().filter(|(_, item)| matches!(item, Item::File(_)));
        files.map(|(path, _)| path.as_path())
    }

    /// The directories of this tree, itself included, below which everything in `part` stands at the same place: each file
    /// with the same size, each link leading to the same. None where there is nothing in `part`.
    pub fn places_of<'a>(&'a self, part: &'a Tree) -> impl Iterator<Item = PathBuf> + 'a {
        // The file whose name is rarest here says soonest where the others would be.
        let rarest = part.items.iter().min_by_key(|(path, _)| self.named(path.file_name()).len());
        rarest.into_iter().flat_map(move |(path, _)| {
            let found = self.named(path.file_name()).iter().map(|place| self.items[*place].0.as_path());
            found.filter_map(move |found| self.place(found, path, part))
        })
    }

    /// The directory that `path` of `part` is at `found` from, if everything else is there too.
    fn place(&self, found: &Path, path: &Path, part: &Tree) -> Option<PathBuf> {
        if !found.ends_with(path) {
            return None;
        }
        let above = found.components().count() - path.components().count();
        let place: PathBuf = found.components().take(above).collect();
        part.items.iter().all(|(path, item)| self.item(&place.join(path)) == Some(item)).then_some(place)
    }

    fn named(&self, name: Option<&OsStr>) -> &[usize] {
        self.by_name.get(name.unwrap_or_default()).map(Vec::as_slice).unwrap_or_default()
    }

    fn item(&self, path: &Path) -> Option<&Item> {
        let place = self.items.binary_search_by(|(known, _)| known.as_path().cmp(path)).ok()?;
        Some(&self.items[place].1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tree(items: &[(&str, u64)]) -> Tree {
        Tree::new(items.iter().map(|(path, size)| (PathBuf::from(path), Item::File(*size))).collect())
    }

    fn places(whole: &Tree, part: &Tree) -> Vec<String> {
        whole.places_of(part).map(|place| place.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn a_part_is_found_wherever_it_was_taken_from() {
        let whole =
            tree(&[("Cargo.toml", 7), ("src/main.rs", 1), ("sub/src/main.rs", 1), ("sub/src/lib.rs", 2)]);
        assert_eq!(places(&whole, &tree(&[("src/main.rs", 1)])), ["", "sub"]);
        assert_eq!(places(&whole, &tree(&[("src/main.rs", 1), ("Cargo.toml", 7)])), [""]);
        assert_eq!(places(&whole, &tree(&[("main.rs", 1), ("lib.rs", 2)])), ["sub/src"]);
        for other in [
            &[("src/main.rs", 2)][..],
            &[("src/main.rs", 1), ("src/other.rs", 1)],
            &[("src/main.rs", 1), ("lib.rs", 2)],
            &[("rc/main.rs", 1)],
            &[],
        ] {
            assert_eq!(places(&whole, &tree(other)), Vec::<String>::new(), "{other:?}");
        }
    }

    #[test]
    fn a_link_is_the_same_where_it_leads_to_the_same() {
        let link = |target: &str| Tree::new(vec![(PathBuf::from("a"), Item::Link(PathBuf::from(target)))]);
        assert_eq!(places(&link("b"), &link("b")), [""]);
        assert_eq!(places(&link("b"), &link("c")), Vec::<String>::new());
        assert_eq!(places(&link("b"), &tree(&[("a", 1)])), Vec::<String>::new());
    }

    proptest! {
        #[test]
        fn every_part_of_every_tree_is_found(
            files in prop::collection::btree_map("[ab](/[ab]){0,3}", 0u64..3, 1..12), depth in 0usize..3, chosen in any::<u64>(),
        ) {
            let whole = Tree::new(
                files.iter().map(|(path, size)| (PathBuf::from(path), Item::File(*size))).collect(),
            );
            // Some of the files below one directory.
            let some = files.keys().nth(usize::try_from(chosen % files.len() as u64).expect("small")).expect("one");
            let base: PathBuf = Path::new(some).components().take(depth.min(some.matches('/').count())).collect();
            let part: Vec<(PathBuf, Item)> = files.iter().enumerate()
                .filter(|(number, (path, _))| *path == some || chosen >> number & 1 == 1)
                .filter_map(|(_, (path, size))| {
                    Some((Path::new(path).strip_prefix(&base).ok()?.to_owned(), Item::File(*size)))
                })
                .filter(|(path, _)| path.file_name().is_some())
                .collect();
            prop_assume!(!part.is_empty());
            let found: Vec<PathBuf> = whole.places_of(&Tree::new(part)).collect();
            prop_assert!(found.contains(&base), "{found:?}");
        }
    }
}
