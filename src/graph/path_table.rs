//! Store paths, each once: a number stands for the path.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use foldhash::fast::RandomState;
use nix_derivation::StorePath;

/// How many characters the hash part of a path has.
pub(super) const HASH_LENGTH: usize = 32;

/// What these characters say.
type Digest = [u8; 20];

/// The number of a path in its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct PathNumber(u32);

impl PathNumber {
    /// The number as a position in arrays of the table's length.
    pub(super) fn position(self) -> usize {
        self.0 as usize
    }

    /// The bare number.
    pub(super) fn number(self) -> u32 {
        self.0
    }
}

/// Paths by number and by hash part. Names stand in one text, one after the other.
#[derive(Clone, Debug, Default)]
pub(super) struct PathTable {
    digests: Vec<Digest>,
    /// Where each name ends.
    ends: Vec<u32>,
    names: String,
    numbers: HashMap<Digest, PathNumber, RandomState>,
    /// Paths that have the hash part of another, which no store allows: a forged file may name them all the same.
    twins: HashMap<(Digest, Box<str>), PathNumber, RandomState>,
}

impl PathTable {
    /// The number of a path, which is added if need be.
    ///
    /// # Panics
    ///
    /// With 2^32 paths, or bytes of names, which no store has.
    pub(super) fn add(&mut self, digest: &Digest, name: &str) -> PathNumber {
        match self.numbers.entry(*digest) {
            Entry::Vacant(entry) => {
                let number = PathNumber(u32::try_from(self.digests.len()).expect("fewer than 2^32 paths"));
                entry.insert(number);
                self.push(digest, name);
                number
            }
            Entry::Occupied(entry) => {
                let number = *entry.get();
                if self.name(number) == name { number } else { self.add_twin(digest, name) }
            }
        }
    }

    fn add_twin(&mut self, digest: &Digest, name: &str) -> PathNumber {
        let next = PathNumber(u32::try_from(self.digests.len()).expect("fewer than 2^32 paths"));
        let number = *self.twins.entry((*digest, name.into())).or_insert(next);
        if number == next {
            self.push(digest, name);
        }
        number
    }

    fn push(&mut self, digest: &Digest, name: &str) {
        self.digests.push(*digest);
        self.names.push_str(name);
        self.ends.push(u32::try_from(self.names.len()).expect("less than 4 GiB of names"));
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.digests.len()
    }

    /// All numbers.
    pub(super) fn numbers(&self) -> impl ExactSizeIterator<Item = PathNumber> + use<> {
        (0..u32::try_from(self.len()).expect("fewer than 2^32 paths")).map(PathNumber)
    }

    /// The number of a path, if it is there.
    pub(super) fn find(&self, path: &StorePath) -> Option<PathNumber> {
        let number = *self.numbers.get(path.digest())?;
        if self.name(number) == path.name() {
            return Some(number);
        }
        if self.twins.is_empty() {
            return None;
        }
        self.twins.get(&(*path.digest(), path.name().into())).copied()
    }

    /// The hash part of a path.
    pub(super) fn digest(&self, number: PathNumber) -> &Digest {
        &self.digests[number.position()]
    }

    /// The name of a path.
    pub(super) fn name(&self, number: PathNumber) -> &str {
        let start = number.position().checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.names[start as usize..self.ends[number.position()] as usize]
    }

    /// A path.
    ///
    /// # Panics
    ///
    /// When what was added is no name of a path; whoever adds has to know.
    pub(super) fn path(&self, number: PathNumber) -> StorePath {
        StorePath::from_parts(*self.digest(number), self.name(number)).expect("checked when it was added")
    }

    /// Gives back the room that is not used.
    pub(super) fn shrink(&mut self) {
        self.digests.shrink_to_fit();
        self.ends.shrink_to_fit();
        self.names.shrink_to_fit();
        self.numbers.shrink_to_fit();
    }
}
