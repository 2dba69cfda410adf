//! The nodes of a tree while they are being filled, and the packs that they name.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::page::{Child, Places};
use super::{FANOUT, Root, span};
use crate::block::ZERO;
use crate::bytes::Id;
use crate::pack::Place;

pub(super) struct Leaf {
    pub(super) ids: Box<[Id; FANOUT]>,
    pub(super) places: Box<[Option<Place>; FANOUT]>,
}

impl Leaf {
    pub(super) fn zeros() -> Self {
        Self { ids: Box::new([ZERO; FANOUT]), places: Box::new([None; FANOUT]) }
    }
}

pub(super) struct Open {
    pub(super) ids: Box<[Id; FANOUT]>,
    pub(super) children: Box<[Option<Child>; FANOUT]>,
}

impl Open {
    pub(super) fn zeros() -> Self {
        Self { ids: Box::new([ZERO; FANOUT]), children: Box::new([None; FANOUT]) }
    }

    /// Enters a child's two pages; None: it is zeros.
    pub(super) fn set(&mut self, number: usize, pages: Option<(Root, Root)>) {
        self.ids[number] = pages.map_or(ZERO, |(ids, _)| ids.0);
        self.children[number] =
            pages.map(|(ids, places)| Child { ids: ids.1, places_id: places.0, places: places.1 });
    }

    pub(super) fn get(&self, number: usize) -> Option<(Root, Root)> {
        let child = self.children[number]?;
        Some(((self.ids[number], child.ids), (child.places_id, child.places)))
    }
}

/// The packs of a leaf's blocks; those of an inner node's pages are noted when they are entered.
pub(super) fn note_packs(packs: &mut HashSet<Id>, places: &Places) {
    let Places::Leaf(places) = places else { return };
    let mut last = None;
    for place in places.iter().flatten() {
        // Neighbours mostly lie in the same pack.
        if last != Some(place.pack) {
            packs.insert(place.pack);
            last = Some(place.pack);
        }
    }
}

/// Whether a leaf of that node is still in memory.
pub(super) fn waits(leaves: &BTreeMap<u64, Leaf>, level: u8, index: u64) -> bool {
    let width = span(level) / FANOUT as u64;
    leaves.range(index * width..(index + 1) * width).next().is_some()
}

pub(super) fn rename(place: &Place, names: &HashMap<Id, Id>) -> Place {
    Place { pack: names.get(&place.pack).copied().unwrap_or(place.pack), ..*place }
}

/// Puts the ids of finished manifest packs where their tokens stood.
pub(super) fn renamed(places: &Places, names: &HashMap<Id, Id>) -> Places {
    let mut places = places.clone();
    if let Places::Inner(all) = &mut places {
        for child in all.iter_mut().flatten() {
            child.ids = rename(&child.ids, names);
            child.places = rename(&child.places, names);
        }
    }
    places
}
