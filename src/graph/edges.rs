//! Adjacency in flat arrays: what every graph of this crate is made of.

use std::ops::Range;

/// A node's place in the arrays of its graph.
pub(super) trait Index: Copy {
    /// The index of the node at a position.
    fn at(position: usize) -> Self;

    /// The position of the node.
    fn position(self) -> usize;
}

/// Adjacency as one flat array: the targets of node `i` stand in `targets[starts[i]..starts[i + 1]]`.
#[derive(Debug)]
pub(super) struct Edges<I> {
    starts: Vec<u32>,
    targets: Vec<I>,
}

impl<I> Default for Edges<I> {
    fn default() -> Self {
        Self { starts: Vec::new(), targets: Vec::new() }
    }
}

impl<I: Index> Edges<I> {
    /// Takes the targets of each node in turn, and stops at the first that cannot be told.
    pub(super) fn try_collect<E, T>(nodes: impl Iterator<Item = T>) -> Result<Self, E>
    where
        T: IntoIterator<Item = Result<I, E>>,
    {
        let mut edges = Self::default();
        for targets in nodes {
            edges.start_node();
            for target in targets {
                edges.targets.push(target?);
            }
        }
        edges.start_node();
        Ok(edges)
    }

    fn start_node(&mut self) {
        self.starts
            .push(u32::try_from(self.targets.len()).expect("a store holds fewer than 2^32 references"));
    }

    /// How many nodes there are.
    pub(super) fn len(&self) -> usize {
        self.starts.len().saturating_sub(1)
    }

    fn range(&self, node: I) -> Range<usize> {
        self.starts[node.position()] as usize..self.starts[node.position() + 1] as usize
    }

    /// The targets of a node.
    pub(super) fn of(&self, node: I) -> &[I] {
        &self.targets[self.range(node)]
    }

    /// The same edges the other way.
    pub(super) fn reversed(&self) -> Self {
        let mut starts = vec![0u32; self.starts.len()];
        for target in &self.targets {
            starts[target.position() + 1] += 1;
        }
        for position in 1..starts.len() {
            starts[position] += starts[position - 1];
        }
        let mut next = starts.clone();
        let mut targets = vec![I::at(0); self.targets.len()];
        for source in (0..self.len()).map(I::at) {
            for target in self.of(source) {
                let slot = &mut next[target.position()];
                targets[*slot as usize] = source;
                *slot += 1;
            }
        }
        Self { starts, targets }
    }

    /// Nodes with their targets first (Kahn's algorithm); on a circle, a node that could not be placed.
    pub(super) fn topological_order(&self) -> Result<Vec<I>, I> {
        let sources = self.reversed();
        let mut waiting: Vec<usize> = (0..self.len()).map(|node| self.of(I::at(node)).len()).collect();
        let mut order: Vec<I> =
            (0..self.len()).map(I::at).filter(|node| waiting[node.position()] == 0).collect();
        let mut done = 0;
        while done < order.len() {
            for source in sources.of(order[done]) {
                let left = &mut waiting[source.position()];
                *left -= 1;
                if *left == 0 {
                    order.push(*source);
                }
            }
            done += 1;
        }
        match waiting.iter().position(|left| *left > 0) {
            None => Ok(order),
            Some(stuck) => Err(I::at(stuck)),
        }
    }

    /// Where each node of an order goes when the nodes are numbered by it.
    pub(super) fn places(order: &[I]) -> Vec<I> {
        let mut place = vec![I::at(0); order.len()];
        for (position, old) in order.iter().enumerate() {
            place[old.position()] = I::at(position);
        }
        place
    }

    /// The same edges with the nodes numbered by an order, of which `place` is the inverse.
    pub(super) fn renumbered(&self, order: &[I], place: &[I]) -> Self {
        let mut edges = Self {
            starts: Vec::with_capacity(self.starts.len()),
            targets: Vec::with_capacity(self.targets.len()),
        };
        for old in order {
            edges.start_node();
            edges.targets.extend(self.of(*old).iter().map(|target| place[target.position()]));
        }
        edges.start_node();
        edges
    }
}
