//! The ways from a derivation to one that it needs.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::super::build_graph::{BuildGraph, DerivationIndex};
use super::super::edges::Index as _;

/// The ways from one derivation to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// How many there are; `u64::MAX` stands for that many or more.
    pub number: u64,
    /// The shortest of them, the shortest first. Each begins with the derivation that needs, and ends with what it needs.
    pub shortest: Vec<Vec<DerivationIndex>>,
}

/// Far away.
const NEVER: u32 = u32::MAX;

/// A way that is begun: where it has come to, and the way to there.
struct Begun {
    at: DerivationIndex,
    /// The number of the way that this one prolongs.
    before: Option<usize>,
    /// How many steps it has.
    steps: u32,
}

impl BuildGraph {
    /// The ways by which `from` needs `to`, the shortest `most` of them in full. A derivation leads to itself in one way, without a
    /// step.
    pub fn paths(&self, from: DerivationIndex, to: DerivationIndex, most: usize) -> Paths {
        if from < to {
            // What is needed comes first.
            return Paths { number: 0, shortest: Vec::new() };
        }
        let range = Range { first: to.position(), last: from.position() };
        let mut numbers: Vec<u64> = vec![0; range.len()];
        let mut distances: Vec<u32> = vec![NEVER; range.len()];
        (numbers[0], distances[0]) = (1, 0);
        for position in range.first + 1..=range.last {
            let (mut number, mut distance): (u64, u32) = (0, NEVER);
            for input in self.dependencies(DerivationIndex::at(position)) {
                if let Some(place) = range.place(*input) {
                    number = number.saturating_add(numbers[place]);
                    distance = distance.min(distances[place].saturating_add(1));
                }
            }
            (numbers[position - range.first], distances[position - range.first]) = (number, distance);
        }
        let shortest = self.shortest(from, to, most, &range, &distances);
        Paths { number: numbers[range.len() - 1], shortest }
    }

    /// The ways by which `roots` need any of `to`: how many there are, and one of the shortest to each of the `most` that are nearest.
    pub fn paths_to_any(&self, roots: &[DerivationIndex], to: &[DerivationIndex], most: usize) -> Paths {
        let mut numbers: Vec<u64> = vec![0; self.len()];
        let mut nearest: Vec<(u32, Option<DerivationIndex>)> = vec![(NEVER, None); self.len()];
        for root in roots {
            (numbers[root.position()], nearest[root.position()]) = (1, (0, None));
        }
        for index in self.indices().rev() {
            let (number, (distance, _)) = (numbers[index.position()], nearest[index.position()]);
            for input in self.dependencies(index).iter().filter(|_| distance != NEVER) {
                let place = input.position();
                numbers[place] = numbers[place].saturating_add(number);
                if distance + 1 < nearest[place].0 {
                    nearest[place] = (distance + 1, Some(index));
                }
            }
        }
        let number = to.iter().fold(0, |all: u64, index| all.saturating_add(numbers[index.position()]));
        let mut ends: Vec<DerivationIndex> = to.to_vec();
        ends.retain(|index| nearest[index.position()].0 != NEVER);
        ends.sort_by_key(|index| nearest[index.position()].0);
        ends.truncate(most);
        let way = |end: DerivationIndex| {
            let mut way: Vec<DerivationIndex> =
                std::iter::successors(Some(end), |index| nearest[index.position()].1).collect();
            way.reverse();
            way
        };
        Paths { number, shortest: ends.into_iter().map(way).collect() }
    }

    /// Prolongs the way that will be the shortest, again and again. Because it is known how far it is from everywhere, no step is in
    /// vain; among equals the one that has come farthest goes on, so that few are begun at a time.
    fn shortest(
        &self,
        from: DerivationIndex,
        to: DerivationIndex,
        most: usize,
        range: &Range,
        distances: &[u32],
    ) -> Vec<Vec<DerivationIndex>> {
        let mut found = Vec::new();
        let mut begun: Vec<Begun> = vec![Begun { at: from, before: None, steps: 0 }];
        let mut open = BinaryHeap::new();
        if distances[range.len() - 1] != NEVER {
            open.push((Reverse(distances[range.len() - 1]), 0, Reverse(0)));
        }
        while found.len() < most
            && let Some((_, steps, Reverse(number))) = open.pop()
        {
            if begun[number].at == to {
                found.push(whole(&begun, number));
                continue;
            }
            for input in self.dependencies(begun[number].at) {
                let distance = range.place(*input).map_or(NEVER, |place| distances[place]);
                if distance != NEVER {
                    let steps = steps + 1;
                    open.push((Reverse(steps + distance), steps, Reverse(begun.len())));
                    begun.push(Begun { at: *input, before: Some(number), steps });
                }
            }
        }
        found
    }

    /// All that stands on a way from `from` to `to`, both included; nothing where there is none. Inputs come first.
    pub fn between(&self, from: DerivationIndex, to: DerivationIndex) -> Vec<DerivationIndex> {
        if from < to {
            return Vec::new();
        }
        let below = self.all_dependencies(&[from]);
        let above = self.all_dependents(&[to]);
        let mut above = above.into_iter().peekable();
        let mut both = below;
        both.retain(|index| {
            while above.next_if(|other| other < index).is_some() {}
            above.peek() == Some(index)
        });
        both
    }
}

/// A way from its beginning, given its end.
fn whole(begun: &[Begun], end: usize) -> Vec<DerivationIndex> {
    let mut way = Vec::with_capacity(begun[end].steps as usize + 1);
    let mut next = Some(end);
    while let Some(number) = next {
        way.push(begun[number].at);
        next = begun[number].before;
    }
    way.reverse();
    way
}

/// The part of the graph in which all ways are: nothing before the end or after the beginning is on one.
struct Range {
    first: usize,
    last: usize,
}

impl Range {
    fn len(&self) -> usize {
        self.last - self.first + 1
    }

    fn place(&self, index: DerivationIndex) -> Option<usize> {
        index.position().checked_sub(self.first)
    }
}
