//! Who needs whom, directly or not.

use super::super::build_graph::{BuildGraph, DerivationIndex};

impl BuildGraph {
    /// The derivations `of`, and all that they need, directly or not. Inputs come first.
    pub fn all_dependencies(&self, of: &[DerivationIndex]) -> Vec<DerivationIndex> {
        let mut is_needed = self.marks(of);
        for index in self.indices().rev() {
            if is_needed[index.position()] {
                for input in self.dependencies(index) {
                    is_needed[input.position()] = true;
                }
            }
        }
        self.marked(&is_needed)
    }

    /// The derivations `of`, and all that need them, directly or not. Inputs come first.
    pub fn all_dependents(&self, of: &[DerivationIndex]) -> Vec<DerivationIndex> {
        let mut needs = self.marks(of);
        for index in self.indices() {
            if needs[index.position()] {
                for dependent in self.dependents(index) {
                    needs[dependent.position()] = true;
                }
            }
        }
        self.marked(&needs)
    }

    /// What cannot be built as long as the derivations `missing` are not there: all that need one of them, without those that are
    /// missing themselves.
    pub fn blocked_by(&self, missing: &[DerivationIndex]) -> Vec<DerivationIndex> {
        let is_missing = self.marks(missing);
        let mut blocked = self.all_dependents(missing);
        blocked.retain(|index| !is_missing[index.position()]);
        blocked
    }

    /// The members of a set that no other member needs, directly or not: the smallest set of derivations of which building each
    /// with all that it needs builds the whole set.
    pub fn tops(&self, of: &[DerivationIndex]) -> Vec<DerivationIndex> {
        let is_member = self.marks(of);
        let mut is_needed = vec![false; self.len()];
        for index in self.indices().rev() {
            if is_member[index.position()] || is_needed[index.position()] {
                for input in self.dependencies(index) {
                    is_needed[input.position()] = true;
                }
            }
        }
        self.indices().filter(|index| is_member[index.position()] && !is_needed[index.position()]).collect()
    }

    /// The members of a set that need no other member, directly or not: of things that miss, those that do so by themselves, and
    /// not only because of others.
    pub fn bottoms(&self, of: &[DerivationIndex]) -> Vec<DerivationIndex> {
        let is_member = self.marks(of);
        let mut needs_one = vec![false; self.len()];
        for index in self.indices() {
            if is_member[index.position()] || needs_one[index.position()] {
                for dependent in self.dependents(index) {
                    needs_one[dependent.position()] = true;
                }
            }
        }
        self.indices().filter(|index| is_member[index.position()] && !needs_one[index.position()]).collect()
    }

    fn marks(&self, of: &[DerivationIndex]) -> Vec<bool> {
        let mut marks = vec![false; self.len()];
        for index in of {
            marks[index.position()] = true;
        }
        marks
    }

    fn marked(&self, marks: &[bool]) -> Vec<DerivationIndex> {
        self.indices().filter(|index| marks[index.position()]).collect()
    }
}
