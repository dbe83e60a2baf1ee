//! Many short lists in two flat arrays.

use std::ops::Range;

/// List `i` stands in `items[starts[i]..starts[i + 1]]`. The last start is the end of the last list.
#[derive(Clone, Debug)]
pub(super) struct Lists<T> {
    starts: Vec<u32>,
    items: Vec<T>,
}

impl<T> Default for Lists<T> {
    fn default() -> Self {
        Self { starts: vec![0], items: Vec::new() }
    }
}

impl<T> Lists<T> {
    /// No lists, with room for some.
    pub(super) fn with_capacity(lists: usize, items: usize) -> Self {
        let mut starts = Vec::with_capacity(lists + 1);
        starts.push(0);
        Self { starts, items: Vec::with_capacity(items) }
    }

    /// Adds to the list that is not yet ended.
    pub(super) fn push(&mut self, item: T) {
        self.items.push(item);
    }

    /// Ends the list to which was added since the last end.
    ///
    /// # Panics
    ///
    /// With 2^32 items, which no store has.
    pub(super) fn end_list(&mut self) {
        self.starts.push(u32::try_from(self.items.len()).expect("a store holds fewer than 2^32 references"));
    }

    /// Adds a whole list.
    pub(super) fn push_list(&mut self, items: impl IntoIterator<Item = T>) {
        self.items.extend(items);
        self.end_list();
    }

    /// Forgets all but the first so many lists, and the one that is not yet ended.
    pub(super) fn truncate(&mut self, lists: usize) {
        self.starts.truncate(lists + 1);
        let end = self.starts.last().copied().unwrap_or_default();
        self.items.truncate(end as usize);
    }

    /// How many lists there are.
    pub(super) fn len(&self) -> usize {
        self.starts.len() - 1
    }

    /// Where a list's items stand in [`Self::items`].
    pub(super) fn range(&self, list: usize) -> Range<usize> {
        self.starts[list] as usize..self.starts[list + 1] as usize
    }

    /// A list.
    pub(super) fn get(&self, list: usize) -> &[T] {
        &self.items[self.range(list)]
    }

    /// All items of all lists, in order.
    pub(super) fn items(&self) -> &[T] {
        &self.items
    }

    /// Gives back the room that is not used.
    pub(super) fn shrink(&mut self) {
        self.starts.shrink_to_fit();
        self.items.shrink_to_fit();
    }
}
