//! Sets of millions of ids at 32 bytes each: a few sorted lists, and what came last.

use std::collections::HashSet;

use crate::bytes::Id;

const VALUES: usize = 1 << 16;
/// So many that came one by one become a sorted list.
const LATER: usize = 1 << 16;
/// A list takes in the one before it unless that is so many times as long.
const RATIO: usize = 4;

/// A set of hashes, which are spread evenly.
#[derive(Default)]
pub struct IdSet {
    lists: Vec<Sorted>,
    later: HashSet<Id>,
}

#[derive(Default)]
struct Sorted {
    ids: Vec<Id>,
    /// How many come before each value of the first two bytes.
    before: Vec<u32>,
}

impl Sorted {
    fn new(mut ids: Vec<Id>) -> Self {
        ids.sort_unstable();
        ids.dedup();
        let mut before = Vec::with_capacity(VALUES + 1);
        let mut at = 0;
        for value in 0..VALUES {
            at += ids[at..].iter().take_while(|id| leading(id) < value).count();
            before.push(at as u32);
        }
        before.push(ids.len() as u32);
        Self { ids, before }
    }

    fn position(&self, id: &Id) -> Option<usize> {
        let value = leading(id);
        let (from, until) = (*self.before.get(value)? as usize, *self.before.get(value + 1)? as usize);
        self.ids[from..until].binary_search(id).ok().map(|at| from + at)
    }
}

impl FromIterator<Id> for IdSet {
    fn from_iter<T: IntoIterator<Item = Id>>(ids: T) -> Self {
        let ids: Vec<Id> = ids.into_iter().collect();
        // Few need no list of values.
        if ids.len() < 64 {
            return Self { lists: Vec::new(), later: ids.into_iter().collect() };
        }
        Self { lists: vec![Sorted::new(ids)], later: HashSet::new() }
    }
}

impl IdSet {
    /// Whether it is in.
    pub fn contains(&self, id: &Id) -> bool {
        self.lists.iter().any(|list| list.position(id).is_some()) || self.later.contains(id)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.lists.is_empty() && self.later.is_empty()
    }

    /// Adds some.
    pub fn extend(&mut self, ids: impl IntoIterator<Item = Id>) {
        self.later.extend(ids);
        if self.later.len() < LATER {
            return;
        }
        let mut ids: Vec<Id> = std::mem::take(&mut self.later).into_iter().collect();
        while self.lists.last().is_some_and(|before| before.ids.len() < RATIO * ids.len()) {
            let mut longer = self.lists.pop().unwrap_or_default().ids;
            longer.reserve_exact(ids.len());
            longer.append(&mut ids);
            ids = longer;
        }
        self.lists.push(Sorted::new(ids));
    }

    /// All of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Id> {
        self.lists.iter().flat_map(|list| &list.ids).chain(&self.later)
    }
}

/// Ids in order, to be found by their position.
pub struct Numbered(Sorted);

impl Numbered {
    /// Of these ids; what is given twice counts once.
    pub fn new(ids: Vec<Id>) -> Self {
        Self(Sorted::new(ids))
    }

    /// In order.
    pub fn ids(&self) -> &[Id] {
        &self.0.ids
    }

    /// Where it stands, if it is one of them.
    pub fn position(&self, id: &Id) -> Option<usize> {
        self.0.position(id)
    }
}

fn leading(id: &Id) -> usize {
    usize::from(u16::from_be_bytes([id[0], id[1]]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(seed: u32) -> Id {
        *blake3::hash(&seed.to_le_bytes()).as_bytes()
    }

    proptest! {
        #[test]
        fn holds_what_a_plain_set_holds(first in prop::collection::vec(0u32..200, 0..150), later in prop::collection::vec(0u32..200, 0..9)) {
            let mut set: IdSet = first.iter().copied().map(id).collect();
            set.extend(later.iter().copied().map(id));
            let numbered = Numbered::new(first.iter().copied().map(id).collect());
            prop_assert!(numbered.ids().is_sorted());
            for seed in 0..200 {
                prop_assert_eq!(set.contains(&id(seed)), first.contains(&seed) || later.contains(&seed));
                prop_assert_eq!(numbered.position(&id(seed)).map(|at| numbered.ids()[at]), first.contains(&seed).then(|| id(seed)));
            }
            let all: HashSet<Id> = first.iter().chain(&later).copied().map(id).collect();
            prop_assert_eq!(set.iter().copied().collect::<HashSet<_>>(), all);
        }
    }

    #[test]
    fn what_comes_later_goes_into_few_lists() {
        let mut set = IdSet::from_iter((0..1000).map(id));
        for part in 0..40 {
            let from = 1000 + part * LATER as u32 / 4;
            set.extend((from..from + LATER as u32 / 4).map(id));
        }
        assert!(set.lists.len() <= 3 && set.later.len() < LATER);
        let end = 1000 + 10 * LATER as u32;
        assert_eq!(set.iter().count(), end as usize);
        assert!((0..end).step_by(97).all(|seed| set.contains(&id(seed))));
        assert!((end..end + 1000).all(|seed| !set.contains(&id(seed))));
    }
}
