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

/// A block, and its group: where that goes, blocks of other groups do not.
pub type Grouped = (usize, Id);

/// A pack that holds blocks which are still here.
#[derive(Default)]
struct Pack {
    name: Option<Id>,
    blocks: usize,
}

/// The blocks of this session: claimed by whoever met them first, stored a little later.
#[derive(Default)]
pub struct Claims {
    blocks: HashMap<Grouped, Option<Stored>>,
    packs: HashMap<u32, Pack>,
    /// How many packs have got a name.
    named: usize,
    /// Manifest packs (id, size) that no index segment names yet.
    pub manifest_packs: Vec<(Id, u64)>,
}

impl Claims {
    /// True for the first who asks for that block: it is theirs to store.
    pub fn claim(&mut self, block: Grouped) -> bool {
        match self.blocks.entry(block) {
            std::collections::hash_map::Entry::Occupied(_) => false,
            std::collections::hash_map::Entry::Vacant(slot) => {
                slot.insert(None);
                true
            }
        }
    }

    /// The block lies there.
    pub fn store(&mut self, block: Grouped, stored: Stored) {
        self.blocks.insert(block, Some(stored));
        self.packs.entry(stored.pack).or_default().blocks += 1;
    }

    /// The pack of that number is finished.
    pub fn name(&mut self, pack: u32, id: Id) {
        self.packs.entry(pack).or_default().name = Some(id);
        self.named += 1;
    }

    /// Forgets blocks that an index segment holds now, and packs with the last of theirs.
    pub fn forget(&mut self, blocks: impl Iterator<Item = Grouped>) {
        for block in blocks {
            let Some(Some(stored)) = self.blocks.remove(&block) else { continue };
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
    pub(super) fn place(&self, block: Grouped) -> Option<Place> {
        let stored = (*self.blocks.get(&block)?)?;
        let pack = self.packs.get(&stored.pack)?.name?;
        Some(Place { pack, offset: stored.offset, length: stored.length })
    }

    /// Whether the block lies, or will lie, in a pack without a name.
    pub(super) fn waits(&self, block: Grouped) -> bool {
        self.blocks.contains_key(&block) && self.place(block).is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(number: u8) -> Grouped {
        (usize::from(number) / 3, [number; 32])
    }

    #[test]
    fn what_is_forgotten_leaves_nothing() {
        let mut claims = Claims::default();
        let stored = |pack| Stored { pack, offset: 200, length: 100 };
        for number in 1..=4 {
            assert!(claims.claim(block(number)) && !claims.claim(block(number)));
            assert!(claims.waits(block(number)));
            claims.store(block(number), stored(u32::from(number) / 3));
        }
        claims.name(0, [90; 32]);
        assert!(claims.place(block(1)).is_some_and(|place| place.pack == [90; 32]));
        assert!(!claims.waits(block(2)) && claims.waits(block(3)));
        claims.forget([block(1), block(9)].into_iter());
        assert!(claims.place(block(1)).is_none() && claims.place(block(2)).is_some());
        claims.forget([block(2)].into_iter());
        claims.name(1, [91; 32]);
        claims.forget([block(3), block(4)].into_iter());
        assert!(claims.blocks.is_empty() && claims.packs.is_empty());
        assert_eq!(claims.named(), 2);
    }

    #[test]
    fn a_block_of_another_group_is_another_block() {
        let mut claims = Claims::default();
        assert!(claims.claim((1, [7; 32])) && claims.claim((2, [7; 32])));
        claims.store((1, [7; 32]), Stored { pack: 0, offset: 200, length: 100 });
        claims.name(0, [90; 32]);
        assert!(claims.place((1, [7; 32])).is_some() && claims.place((2, [7; 32])).is_none());
        assert!(claims.waits((2, [7; 32])) && !claims.waits((3, [7; 32])));
    }
}
