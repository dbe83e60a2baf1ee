//! A closed set of store paths, with its references as flat arrays.

use std::collections::HashMap;

use nix_derivation::StorePath;

use super::PathInfo;
use super::edges::{Edges, Index};

/// A path's place in a [`Closure`]: every reference stands before what refers to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PathIndex(u32);

impl PathIndex {
    /// The index as a position in arrays of the closure's length.
    pub fn position(self) -> usize {
        self.0 as usize
    }
}

/// Why a set of path infos is no closure.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClosureError {
    /// A path refers to one that is not in the set.
    #[error("{} refers to {}, which the store does not have", .path.to_basename(), .reference.to_basename())]
    MissingReference {
        /// The path that refers.
        path: StorePath,
        /// What it refers to.
        reference: StorePath,
    },
    /// References form a circle, which no store can hold.
    #[error("the references of {} form a circle", .path.to_basename())]
    Circle {
        /// One path on the circle.
        path: StorePath,
    },
    /// A root is not in the set.
    #[error("{} is not valid in the store", .path.to_basename())]
    MissingRoot {
        /// The root.
        path: StorePath,
    },
}

/// A set of store paths in which every reference is a member.
///
/// Members are held in topological order (references first), their references and referrers as flat arrays of indices
/// without self-references, so that a walk costs no hashing.
#[derive(Debug, Default)]
pub struct Closure {
    paths: Vec<PathInfo>,
    roots: Vec<PathIndex>,
    references: Edges<PathIndex>,
    referrers: Edges<PathIndex>,
}

impl Closure {
    /// Orders `infos` and links their references. Duplicates of a path count once.
    ///
    /// # Errors
    ///
    /// When a reference or a root is missing, or references form a circle.
    pub fn new(infos: Vec<PathInfo>, roots: &[StorePath]) -> Result<Self, ClosureError> {
        let mut by_path = HashMap::with_capacity(infos.len());
        let mut unique = Vec::with_capacity(infos.len());
        for info in infos {
            let next = PathIndex::at(unique.len());
            if let std::collections::hash_map::Entry::Vacant(entry) = by_path.entry(info.path.clone()) {
                entry.insert(next);
                unique.push(info);
            }
        }
        let references = link(&unique, &by_path)?;
        let order = references
            .topological_order()
            .map_err(|circle| ClosureError::Circle { path: unique[circle[0].position()].path.clone() })?;

        // Renumber so that the order of the arrays is the topological one.
        let place = Edges::places(&order);
        let references = references.renumbered(&order, &place);
        let referrers = references.reversed();
        let mut slots: Vec<Option<PathInfo>> = unique.into_iter().map(Some).collect();
        let paths = order.iter().filter_map(|old| slots[old.position()].take()).collect();
        let mut root_indices = Vec::with_capacity(roots.len());
        for root in roots {
            let old = by_path.get(root).ok_or_else(|| ClosureError::MissingRoot { path: root.clone() })?;
            let root = place[old.position()];
            if !root_indices.contains(&root) {
                root_indices.push(root);
            }
        }
        Ok(Self { paths, roots: root_indices, references, referrers })
    }

    /// How many paths there are.
    pub fn len(&self) -> usize {
        self.paths.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    /// All members, references before what refers to them.
    pub fn indices(&self) -> impl DoubleEndedIterator<Item = PathIndex> + use<> {
        (0..self.paths.len()).map(PathIndex::at)
    }

    /// The member at a position of the order.
    pub fn member(&self, position: usize) -> Option<PathIndex> {
        (position < self.paths.len()).then(|| PathIndex::at(position))
    }

    /// The registration of a member.
    pub fn info(&self, index: PathIndex) -> &PathInfo {
        &self.paths[index.position()]
    }

    /// The paths that the closure was asked for.
    pub fn roots(&self) -> &[PathIndex] {
        &self.roots
    }

    /// What a member refers to, other than itself.
    pub fn references(&self, index: PathIndex) -> &[PathIndex] {
        self.references.of(index)
    }

    /// The members that refer to a member, other than itself.
    pub fn referrers(&self, index: PathIndex) -> &[PathIndex] {
        self.referrers.of(index)
    }

    /// The sum of the members' NAR sizes in bytes.
    pub fn nar_bytes(&self) -> u64 {
        self.paths.iter().map(|info| info.nar_size).sum()
    }
}

impl Index for PathIndex {
    fn at(position: usize) -> Self {
        Self(u32::try_from(position).expect("a store holds fewer than 2^32 paths"))
    }

    fn position(self) -> usize {
        self.0 as usize
    }
}

/// The references of each path, by index and without those to itself.
fn link(
    infos: &[PathInfo],
    by_path: &HashMap<StorePath, PathIndex>,
) -> Result<Edges<PathIndex>, ClosureError> {
    Edges::try_collect(infos.iter().map(|info| {
        let others = info.references.iter().filter(|reference| **reference != info.path);
        others.map(|reference| {
            by_path.get(reference).copied().ok_or_else(|| ClosureError::MissingReference {
                path: info.path.clone(),
                reference: reference.clone(),
            })
        })
    }))
}

#[cfg(test)]
pub(crate) mod tests {
    use nix_derivation::NixHash;
    use proptest::prelude::*;

    use super::*;

    /// A path whose hash part is made of `number`.
    pub(crate) fn store_path(number: usize) -> StorePath {
        let mut digest = [0u8; 20];
        digest[..8].copy_from_slice(&(number as u64).to_le_bytes());
        StorePath::from_parts(digest, &format!("p{number}")).expect("a valid name")
    }

    pub(crate) fn info(number: usize, references: &[usize]) -> PathInfo {
        PathInfo {
            path: store_path(number),
            nar_hash: NixHash::Sha256([0; 32]),
            nar_size: 100 + number as u64,
            references: references.iter().map(|n| store_path(*n)).collect(),
            deriver: None,
            signatures: Vec::new(),
            content_address: None,
        }
    }

    /// Acyclic graphs of up to 40 paths: node `i` refers to some of those below it, and sometimes to itself.
    pub(crate) fn graphs() -> impl Strategy<Value = Vec<Vec<usize>>> {
        prop::collection::vec(prop::collection::vec(any::<prop::sample::Index>(), 0..5), 1..40).prop_map(
            |nodes| {
                nodes
                    .iter()
                    .enumerate()
                    .map(|(node, picks)| picks.iter().map(|pick| pick.index(node + 1)).collect())
                    .collect()
            },
        )
    }

    pub(crate) fn closure(graph: &[Vec<usize>]) -> Closure {
        let infos = graph.iter().enumerate().rev().map(|(n, refs)| info(n, refs)).collect();
        Closure::new(infos, &[store_path(graph.len() - 1)]).expect("an acyclic graph")
    }

    #[test]
    fn a_missing_reference_is_named() {
        let error = Closure::new(vec![info(1, &[2])], &[]).expect_err("2 is missing");
        assert_eq!(error, ClosureError::MissingReference { path: store_path(1), reference: store_path(2) });
    }

    #[test]
    fn a_circle_is_an_error() {
        let error = Closure::new(vec![info(1, &[2]), info(2, &[1])], &[]).expect_err("a circle");
        assert!(matches!(error, ClosureError::Circle { .. }));
    }

    #[test]
    fn a_root_that_is_not_there_is_named() {
        let error = Closure::new(vec![info(1, &[])], &[store_path(9)]).expect_err("no root");
        assert_eq!(error, ClosureError::MissingRoot { path: store_path(9) });
    }

    #[test]
    fn a_long_chain_does_not_overflow_the_stack() {
        let infos = (0..50_000)
            .map(|n| info(n, if n == 0 { &[] } else { std::slice::from_ref(&n) }))
            .collect::<Vec<_>>();
        assert_eq!(Closure::new(infos, &[]).expect("self-references only").len(), 50_000);
        let chain: Vec<_> = (0..50_000usize)
            .map(|n| info(n, &n.checked_sub(1).map_or_else(Vec::new, |below| vec![below])))
            .collect();
        assert_eq!(Closure::new(chain, &[]).expect("a chain").len(), 50_000);
    }

    proptest! {
        #[test]
        fn references_stand_before_referrers_and_nothing_is_lost(graph in graphs()) {
            let closure = closure(&graph);
            prop_assert_eq!(closure.len(), graph.len());
            for index in closure.indices() {
                let mut expected: Vec<StorePath> = closure.info(index).references.iter()
                    .filter(|path| **path != closure.info(index).path).cloned().collect();
                let mut found: Vec<StorePath> = closure.references(index).iter()
                    .map(|i| closure.info(*i).path.clone()).collect();
                expected.sort();
                found.sort();
                prop_assert_eq!(found, expected);
                for reference in closure.references(index) {
                    prop_assert!(*reference < index);
                    prop_assert!(closure.referrers(*reference).contains(&index));
                }
                for referrer in closure.referrers(index) {
                    prop_assert!(closure.references(*referrer).contains(&index));
                }
            }
        }
    }
}
