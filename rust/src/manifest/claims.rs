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

/// The blocks of this session: claimed by whoever met them first, stored a little later.
#[derive(Default)]
pub struct Claims {
    blocks: HashMap<Id, Option<Stored>>,
    names: HashMap<u32, Id>,
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
    }

    /// The pack of that number is finished.
    pub fn name(&mut self, pack: u32, id: Id) {
        self.names.insert(pack, id);
    }

    /// Forgets blocks that an index segment holds now.
    pub fn forget(&mut self, ids: impl Iterator<Item = Id>) {
        for id in ids {
            self.blocks.remove(&id);
        }
    }

    /// How many packs have a name.
    pub(super) fn named(&self) -> usize {
        self.names.len()
    }

    /// Where a block of a pack that has a name lies.
    pub(super) fn place(&self, id: &Id) -> Option<Place> {
        let stored = (*self.blocks.get(id)?)?;
        let pack = *self.names.get(&stored.pack)?;
        Some(Place { pack, offset: stored.offset, length: stored.length })
    }

    /// Whether the block lies, or will lie, in a pack without a name.
    pub(super) fn waits(&self, id: &Id) -> bool {
        self.blocks.contains_key(id) && self.place(id).is_none()
    }
}
