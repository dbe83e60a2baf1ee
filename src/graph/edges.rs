//! Adjacency in flat arrays: what every graph of this crate is made of.

use super::lists::Lists;

/// A node's place in the arrays of its graph.
pub(super) trait Index: Copy {
    /// The index of the node at a position.
    fn at(position: usize) -> Self;

    /// The position of the node.
    fn position(self) -> usize;
}

/// Adjacency: the targets of each node, as one list a node.
#[derive(Debug)]
pub(super) struct Edges<I>(Lists<I>);

impl<I> Default for Edges<I> {
    fn default() -> Self {
        Self(Lists::default())
    }
}

impl<I: Index> Edges<I> {
    /// Takes the targets of each node in turn, and stops at the first that cannot be told.
    pub(super) fn try_collect<E, T>(nodes: impl Iterator<Item = T>) -> Result<Self, E>
    where
        T: IntoIterator<Item = Result<I, E>>,
    {
        let mut lists = Lists::default();
        for targets in nodes {
            for target in targets {
                lists.push(target?);
            }
            lists.end_list();
        }
        Ok(Self(lists))
    }

    /// How many nodes there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The targets of a node.
    pub(super) fn of(&self, node: I) -> &[I] {
        self.0.get(node.position())
    }

    /// The places of a node's edges among all edges.
    pub(super) fn numbers_of(&self, node: I) -> std::ops::Range<usize> {
        self.0.range(node.position())
    }

    /// The same edges the other way.
    pub(super) fn reversed(&self) -> Self {
        let mut counts = vec![0usize; self.len()];
        for target in self.0.items() {
            counts[target.position()] += 1;
        }
        let mut next = Vec::with_capacity(self.len());
        let mut total = 0;
        for count in &counts {
            next.push(total);
            total += count;
        }
        let mut targets = vec![I::at(0); total];
        for source in (0..self.len()).map(I::at) {
            for target in self.of(source) {
                let slot = &mut next[target.position()];
                targets[*slot] = source;
                *slot += 1;
            }
        }
        let mut lists = Lists::with_capacity(self.len(), total);
        let mut targets = targets.into_iter();
        for count in counts {
            lists.push_list(targets.by_ref().take(count));
        }
        Self(lists)
    }

    /// Nodes with their targets first (Kahn's algorithm). Where that cannot be, a circle: each of its nodes has the next as a target,
    /// and the last has the first.
    pub(super) fn topological_order(&self) -> Result<Vec<I>, Vec<I>> {
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
            Some(stuck) => Err(self.circle(I::at(stuck), &waiting)),
        }
    }

    /// A circle below a node that waits. What waits has a target that waits, so that going on leads back to where one was.
    fn circle(&self, stuck: I, waiting: &[usize]) -> Vec<I> {
        let mut place: Vec<Option<usize>> = vec![None; self.len()];
        let mut way = Vec::new();
        let mut next = Some(stuck);
        while let Some(node) = next {
            if let Some(start) = place[node.position()] {
                return way.split_off(start);
            }
            place[node.position()] = Some(way.len());
            way.push(node);
            next = self.of(node).iter().copied().find(|target| waiting[target.position()] > 0);
        }
        way
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
        let mut lists = Lists::with_capacity(self.len(), self.0.items().len());
        for old in order {
            lists.push_list(self.of(*old).iter().map(|target| place[target.position()]));
        }
        Self(lists)
    }
}
