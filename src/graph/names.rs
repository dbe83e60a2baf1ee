//! Names of outputs, each once: there are a few dozen among a hundred thousand derivations.

use std::collections::HashMap;

use foldhash::fast::RandomState;

/// Names by number.
#[derive(Clone, Debug, Default)]
pub(super) struct NameTable {
    names: Vec<Box<str>>,
    numbers: HashMap<Box<str>, u32, RandomState>,
}

impl NameTable {
    /// The number of a name, if it is there.
    pub(super) fn find(&self, name: &str) -> Option<u32> {
        self.numbers.get(name).copied()
    }

    /// The number of a name, which is added if need be.
    pub(super) fn add(&mut self, name: &str) -> u32 {
        if let Some(number) = self.find(name) {
            return number;
        }
        let number = u32::try_from(self.names.len()).expect("fewer than 2^32 names");
        self.names.push(name.into());
        self.numbers.insert(name.into(), number);
        number
    }

    /// A name.
    pub(super) fn get(&self, number: u32) -> &str {
        &self.names[number as usize]
    }

    /// All names, in the order of their numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|name| &**name)
    }
}
