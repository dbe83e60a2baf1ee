//! From the roots of a closure along the references that caches tell of: each path once, however often and in whatever
//! circles it is named, and only so many.

use std::collections::HashMap;

use nix_derivation::StorePath;

/// How many paths a closure may have before it is taken for one without end. The largest systems have some ten thousand, and
/// all of nixpkgs a few hundred thousand.
const MOST: usize = 250_000;

/// A path of the closure, in the order in which they became known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PathId(u32);

/// The paths that are known, and which of them nobody has asked for yet.
#[derive(Debug)]
pub struct Walk {
    paths: Vec<StorePath>,
    /// What named a path first; nothing for a root.
    needed_by: Vec<Option<PathId>>,
    known: HashMap<StorePath, PathId>,
    next: usize,
    most: usize,
    has_too_many: bool,
}

impl Walk {
    /// A walk from these roots.
    pub fn new(roots: impl IntoIterator<Item = StorePath>) -> Self {
        Self::bounded(roots, MOST)
    }

    fn bounded(roots: impl IntoIterator<Item = StorePath>, most: usize) -> Self {
        let mut walk = Self {
            paths: Vec::new(),
            needed_by: Vec::new(),
            known: HashMap::new(),
            next: 0,
            most,
            has_too_many: false,
        };
        for root in roots {
            walk.add(&root, None);
        }
        walk
    }

    fn add(&mut self, path: &StorePath, needed_by: Option<PathId>) {
        if self.known.contains_key(path) {
            return;
        }
        let place = u32::try_from(self.paths.len()).ok().filter(|_| self.paths.len() < self.most);
        let Some(place) = place else {
            self.has_too_many = true;
            return;
        };
        self.known.insert(path.clone(), PathId(place));
        self.paths.push(path.clone());
        self.needed_by.push(needed_by);
    }

    /// The next path to ask for; nothing where all that are known were given out.
    pub fn ask_next(&mut self) -> Option<PathId> {
        let id = PathId(u32::try_from(self.next).ok()?);
        self.paths.get(self.next)?;
        self.next += 1;
        Some(id)
    }

    /// Takes in what a path refers to.
    pub fn refers<'a>(&mut self, id: PathId, references: impl IntoIterator<Item = &'a StorePath>) {
        for reference in references {
            self.add(reference, Some(id));
        }
    }

    /// The path.
    pub fn path(&self, id: PathId) -> &StorePath {
        &self.paths[id.0 as usize]
    }

    /// A path that refers to this one; nothing for a root.
    pub fn needed_by(&self, id: PathId) -> Option<&StorePath> {
        self.needed_by[id.0 as usize].map(|referrer| self.path(referrer))
    }

    /// How many paths are known.
    pub fn len(&self) -> usize {
        self.paths.len()
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    /// How many paths are followed at most, where more than that were named.
    pub fn limit_passed(&self) -> Option<usize> {
        self.has_too_many.then_some(self.most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::tests::store_path;

    #[test]
    fn each_path_is_asked_for_once_in_whatever_circles_it_is_named() {
        let paths: Vec<StorePath> = (0..4).map(store_path).collect();
        let mut walk = Walk::new([paths[0].clone(), paths[0].clone()]);
        let mut asked = Vec::new();
        while let Some(id) = walk.ask_next() {
            asked.push(walk.path(id).clone());
            walk.refers(id, &paths);
        }
        assert_eq!(asked, paths);
        assert_eq!(walk.limit_passed(), None);
    }

    #[test]
    fn whoever_names_paths_without_end_is_not_followed() {
        let mut walk = Walk::bounded([store_path(0)], 100);
        let mut named = 1;
        while let Some(id) = walk.ask_next() {
            let more: Vec<StorePath> = (named..named + 7).map(store_path).collect();
            named += 7;
            walk.refers(id, &more);
        }
        assert_eq!((walk.len(), walk.limit_passed()), (100, Some(100)));
    }

    #[test]
    fn it_is_known_what_needs_a_path() {
        let mut walk = Walk::new([store_path(0)]);
        let root = walk.ask_next().expect("the root");
        walk.refers(root, &[store_path(1)]);
        let below = walk.ask_next().expect("what it refers to");
        assert_eq!((walk.needed_by(root), walk.needed_by(below)), (None, Some(&store_path(0))));
    }
}
