//! Store paths, each once: a number stands for the path.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use nix_derivation::StorePath;

/// Length of the hash part of a path, in bytes.
type Digest = [u8; 20];

/// The number of a path in its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct PathNumber(u32);

impl PathNumber {
    /// The number as a position in arrays of the table's length.
    pub(super) fn position(self) -> usize {
        self.0 as usize
    }
}

/// Paths by number and by hash part. Names stand in one text, one after the other.
#[derive(Clone, Debug, Default)]
pub(super) struct PathTable {
    digests: Vec<Digest>,
    /// Where each name ends.
    ends: Vec<u32>,
    names: String,
    numbers: HashMap<Digest, PathNumber>,
}

impl PathTable {
    /// The number of a path, which is added if need be. Nothing where another path has the same hash part, which no store allows.
    ///
    /// # Panics
    ///
    /// With 2^32 paths, or bytes of names, which no store has.
    pub(super) fn add(&mut self, digest: &Digest, name: &str) -> Option<PathNumber> {
        match self.numbers.entry(*digest) {
            Entry::Occupied(entry) => {
                let number = *entry.get();
                (self.name(number) == name).then_some(number)
            }
            Entry::Vacant(entry) => {
                let number = PathNumber(u32::try_from(self.digests.len()).expect("fewer than 2^32 paths"));
                entry.insert(number);
                self.digests.push(*digest);
                self.names.push_str(name);
                self.ends.push(u32::try_from(self.names.len()).expect("less than 4 GiB of names"));
                Some(number)
            }
        }
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
        self.numbers.get(path.digest()).copied().filter(|number| self.name(*number) == path.name())
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
