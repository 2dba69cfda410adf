//! The blocks of one session: who stores them, and where they came to lie.

use std::collections::HashMap;

use crate::bytes::Id;
use crate::pack::Place;

/// Where a block that was stored in this session lies; the pack is known by a number until it has a name.
#[derive(Clone, Copy, Debug)]
pub struct Stored {
    /// Number of the data pack in this session.
    pub pack: u32,
    /// Of the record.
    pub offset: u32,
    /// Of the record.
    pub length: u32,
}

/// A pack that holds blocks which are still here.
#[derive(Default)]
struct Pack {
    name: Option<Id>,
    blocks: usize,
}

/// The blocks of this session: claimed by whoever met them first, stored a little later.
#[derive(Default)]
pub struct Claims {
    blocks: HashMap<Id, Option<Stored>>,
    packs: HashMap<u32, Pack>,
    /// How many packs have got a name.
    named: usize,
    /// Manifest packs (id, size) that no index segment names yet.
    pub manifest_packs: Vec<(Id, u64)>,
}

impl Claims {
    /// True for the first who asks for that block: it is theirs to store.
    pub fn claim(&mut self, id: &Id) -> bool {
        match self.blocks.entry(*id) {
            std::collections::hash_map::Entry::Occupied(_) => false,
            std::collections::hash_map::Entry::Vacant(slot) => {
                slot.insert(None);
                true
            }
        }
    }

    /// The block lies there.
    pub fn store(&mut self, id: Id, stored: Stored) {
        self.blocks.insert(id, Some(stored));
        self.packs.entry(stored.pack).or_default().blocks += 1;
    }

    /// The pack of that number is finished.
    pub fn name(&mut self, pack: u32, id: Id) {
        self.packs.entry(pack).or_default().name = Some(id);
        self.named += 1;
    }

    /// Forgets blocks that an index segment holds now, and packs with the last of theirs.
    pub fn forget(&mut self, ids: impl Iterator<Item = Id>) {
        for id in ids {
            let Some(Some(stored)) = self.blocks.remove(&id) else { continue };
            if let Some(pack) = self.packs.get_mut(&stored.pack) {
                pack.blocks = pack.blocks.saturating_sub(1);
                if pack.blocks == 0 && pack.name.is_some() {
                    self.packs.remove(&stored.pack);
                }
            }
        }
    }

    /// How many packs have got a name so far.
    pub(super) fn named(&self) -> usize {
        self.named
    }

    /// Where a block of a pack that has a name lies.
    pub(super) fn place(&self, id: &Id) -> Option<Place> {
        let stored = (*self.blocks.get(id)?)?;
        let pack = self.packs.get(&stored.pack)?.name?;
        Some(Place { pack, offset: stored.offset, length: stored.length })
    }

    /// Whether the block lies, or will lie, in a pack without a name.
    pub(super) fn waits(&self, id: &Id) -> bool {
        self.blocks.contains_key(id) && self.place(id).is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_forgotten_leaves_nothing() {
        let mut claims = Claims::default();
        let stored = |pack| Stored { pack, offset: 200, length: 100 };
        for block in 1..=4 {
            assert!(claims.claim(&[block; 32]) && !claims.claim(&[block; 32]));
            assert!(claims.waits(&[block; 32]));
            claims.store([block; 32], stored(u32::from(block) / 3));
        }
        claims.name(0, [90; 32]);
        assert!(claims.place(&[1; 32]).is_some_and(|place| place.pack == [90; 32]));
        assert!(!claims.waits(&[2; 32]) && claims.waits(&[3; 32]));
        claims.forget([[1; 32], [9; 32]].into_iter());
        assert!(claims.place(&[1; 32]).is_none() && claims.place(&[2; 32]).is_some());
        claims.forget([[2; 32]].into_iter());
        claims.name(1, [91; 32]);
        claims.forget([[3; 32], [4; 32]].into_iter());
        assert!(claims.blocks.is_empty() && claims.packs.is_empty());
        assert_eq!(claims.named(), 2);
    }
}
