//! Sets of millions of ids at 32 bytes each: sorted once, and a few that came later.

use std::collections::HashSet;

use crate::bytes::Id;

const VALUES: usize = 1 << 16;

/// A set of hashes, which are spread evenly. To add one by one is meant for few.
#[derive(Default)]
pub struct IdSet {
    sorted: Vec<Id>,
    /// How many come before each value of the first two bytes.
    before: Vec<u32>,
    later: HashSet<Id>,
}

impl FromIterator<Id> for IdSet {
    fn from_iter<T: IntoIterator<Item = Id>>(ids: T) -> Self {
        let mut sorted: Vec<Id> = ids.into_iter().collect();
        sorted.sort_unstable();
        sorted.dedup();
        let mut before = Vec::new();
        if !sorted.is_empty() {
            before.reserve_exact(VALUES + 1);
            let mut at = 0;
            for value in 0..VALUES {
                at += sorted[at..].partition_point(|id| leading(id) < value);
                before.push(at as u32);
            }
            before.push(sorted.len() as u32);
        }
        Self { sorted, before, later: HashSet::new() }
    }
}

impl IdSet {
    /// Where it stands in the order of those that were there at first.
    pub fn position(&self, id: &Id) -> Option<usize> {
        let value = leading(id);
        let (from, until) = (*self.before.get(value)? as usize, *self.before.get(value + 1)? as usize);
        self.sorted[from..until].binary_search(id).ok().map(|at| from + at)
    }

    /// Whether it is in.
    pub fn contains(&self, id: &Id) -> bool {
        self.position(id).is_some() || self.later.contains(id)
    }

    /// Adds some.
    pub fn extend(&mut self, ids: impl IntoIterator<Item = Id>) {
        self.later.extend(ids);
    }

    /// Those that were there at first, in order.
    pub fn sorted(&self) -> &[Id] {
        &self.sorted
    }
}

fn leading(id: &Id) -> usize {
    usize::from(u16::from_be_bytes([id[0], id[1]]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn holds_what_a_plain_set_holds(first in prop::collection::vec(0u16..99, 0..80), later in prop::collection::vec(0u16..99, 0..9)) {
            let id = |seed: u16| *blake3::hash(&seed.to_le_bytes()).as_bytes();
            let mut set: IdSet = first.iter().copied().map(id).collect();
            set.extend(later.iter().copied().map(id));
            for seed in 0..99 {
                prop_assert_eq!(set.contains(&id(seed)), first.contains(&seed) || later.contains(&seed));
                let at = set.position(&id(seed));
                prop_assert_eq!(at.is_some(), first.contains(&seed));
                prop_assert!(at.is_none_or(|at| set.sorted()[at] == id(seed)));
            }
        }
    }
}
