//! The bytes of pages.
//!
//! ```text
//! page of ids                      page of places
//! 0    1 kind (2)                  0    1 kind (3)
//! 1    1 level                     1    1 level
//! 2    2 zeros                     2    2 count of packs p
//! 4 8192 256 ids                   4    p × 32 pack ids
//!                                       32 bitmap: which children have an entry, lowest bit first
//!                                       entries: a leaf's are one place of 10 bytes; above, 52 bytes:
//!                                       place of the child's page of ids, id and place of its page of places
//! ```
//!
//! A place is: number of the pack in the page's own list (2), offset (4), length (4). The number 0xFFFF is the pack that
//! the page itself lies in, whose id nobody knew when the page was made.

use std::collections::HashMap;

use super::FANOUT;
use crate::block::ZERO;
use crate::bytes::{Id, Reader};
use crate::error::{Error, Result, damaged};
use crate::pack::{Place, RecordKind};

const SELF: u16 = u16::MAX;
/// The longest page there can be: an inner page of places, all in packs of their own.
pub const MAX_PAGE: usize = 4 + 2 * FANOUT * 32 + 32 + FANOUT * 52;
const IDS_PAGE: usize = 4 + FANOUT * 32;

/// Where the two pages of a child lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Child {
    /// Its page of ids.
    pub ids: Place,
    /// Its page of places: id.
    pub places_id: Id,
    /// Its page of places: where.
    pub places: Place,
}

/// Makes a page of ids.
pub fn ids_page(level: u8, ids: &[Id; FANOUT]) -> Vec<u8> {
    let mut out = Vec::with_capacity(IDS_PAGE);
    out.extend_from_slice(&[RecordKind::Ids as u8, level, 0, 0]);
    out.extend(ids.iter().flatten());
    out
}

/// Reads a page of ids.
pub fn parse_ids(level: u8, page: &[u8]) -> Result<Box<[Id; FANOUT]>> {
    if page.len() != IDS_PAGE || page[..4] != [RecordKind::Ids as u8, level, 0, 0] {
        return damaged("not a page of ids of that level");
    }
    let mut out = Box::new([ZERO; FANOUT]);
    for (id, bytes) in out.iter_mut().zip(page[4..].chunks_exact(32)) {
        id.copy_from_slice(bytes);
    }
    Ok(out)
}

/// What a page of places holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Places {
    /// Of a leaf: where each block lies.
    Leaf(Box<[Option<Place>; FANOUT]>),
    /// Of an inner page: where each child's pages lie.
    Inner(Box<[Option<Child>; FANOUT]>),
}

struct PackList {
    own: Option<Id>,
    numbers: HashMap<Id, u16>,
    ids: Vec<u8>,
}

impl PackList {
    fn put(&mut self, place: &Place, out: &mut Vec<u8>) {
        let number = if self.own == Some(place.pack) {
            SELF
        } else {
            let next = self.numbers.len() as u16;
            *self.numbers.entry(place.pack).or_insert_with(|| {
                self.ids.extend_from_slice(&place.pack);
                next
            })
        };
        out.extend_from_slice(&number.to_le_bytes());
        out.extend_from_slice(&place.offset.to_le_bytes());
        out.extend_from_slice(&place.length.to_le_bytes());
    }
}

/// Makes a page of places; `own` stands for the pack that the page will lie in.
pub fn places_page(level: u8, places: &Places, own: Option<Id>) -> Vec<u8> {
    let mut packs = PackList { own, numbers: HashMap::new(), ids: Vec::new() };
    let mut bitmap = [0u8; FANOUT / 8];
    let mut entries = Vec::new();
    for number in 0..FANOUT {
        match places {
            Places::Leaf(all) => match &all[number] {
                Some(place) => packs.put(place, &mut entries),
                None => continue,
            },
            Places::Inner(all) => match &all[number] {
                Some(child) => {
                    packs.put(&child.ids, &mut entries);
                    entries.extend_from_slice(&child.places_id);
                    packs.put(&child.places, &mut entries);
                }
                None => continue,
            },
        }
        bitmap[number / 8] |= 1 << (number % 8);
    }
    let mut out = vec![RecordKind::Places as u8, level];
    out.extend_from_slice(&(packs.numbers.len() as u16).to_le_bytes());
    out.extend_from_slice(&packs.ids);
    out.extend_from_slice(&bitmap);
    out.extend_from_slice(&entries);
    out
}

/// Reads a page of places that lies in the pack `own`.
pub fn parse_places(level: u8, page: &[u8], own: &Id) -> Result<Places> {
    let mut reader = Reader::new(page);
    if reader.u8()? != RecordKind::Places as u8 || reader.u8()? != level {
        return damaged("not a page of places of that level");
    }
    let count = usize::from(reader.u16()?);
    let packs = reader.take(count * 32)?;
    let bitmap: [u8; FANOUT / 8] = reader.array()?;
    let place = |reader: &mut Reader<'_>| -> Result<Place> {
        let number = reader.u16()?;
        let (offset, length) = (reader.u32()?, reader.u32()?);
        let pack = match packs.chunks_exact(32).nth(usize::from(number)) {
            _ if number == SELF => *own,
            Some(bytes) => Reader::new(bytes).array()?,
            None => return damaged("a place in a pack that its page does not list"),
        };
        Place::checked(pack, offset, length)
    };
    let listed = (0..FANOUT).filter(|number| bitmap[number / 8] & (1 << (number % 8)) != 0);
    let places = if level == 0 {
        let mut all = Box::new([None; FANOUT]);
        for number in listed {
            all[number] = Some(place(&mut reader)?);
        }
        Places::Leaf(all)
    } else {
        let mut all = Box::new([None; FANOUT]);
        for number in listed {
            let ids = place(&mut reader)?;
            let places_id = reader.array()?;
            all[number] = Some(Child { ids, places_id, places: place(&mut reader)? });
        }
        Places::Inner(all)
    };
    reader.end()?;
    Ok(places)
}

/// The keyed id of a page.
pub fn page_id(keys: &crate::keys::Keyring, page: &[u8]) -> Result<Id> {
    if page.len() > MAX_PAGE {
        return Err(Error::Usage("a page longer than any".into()));
    }
    Ok(*blake3::keyed_hash(&keys.page_id, page).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pack::{HEADER, OVERHEAD};
    use proptest::prelude::*;

    fn place(seed: u8) -> Place {
        Place { pack: [seed % 7; 32], offset: HEADER as u32 + u32::from(seed), length: OVERHEAD as u32 + 5 }
    }

    proptest! {
        #[test]
        fn places_come_back(level in 0u8..3, own in prop::option::of(0u8..7), children in prop::collection::vec(prop::option::of(any::<u8>()), FANOUT)) {
            let places = if level == 0 {
                let mut all = Box::new([None; FANOUT]);
                for (slot, seed) in all.iter_mut().zip(&children) { *slot = seed.map(place); }
                Places::Leaf(all)
            } else {
                let mut all = Box::new([None; FANOUT]);
                for (slot, seed) in all.iter_mut().zip(&children) {
                    *slot = seed.map(|seed| Child { ids: place(seed), places_id: [seed; 32], places: place(seed.wrapping_add(1)) });
                }
                Places::Inner(all)
            };
            let own = own.map(|seed| [seed; 32]);
            let page = places_page(level, &places, own);
            prop_assert!(page.len() <= MAX_PAGE);
            prop_assert_eq!(parse_places(level, &page, &own.unwrap_or([9; 32])).unwrap(), places);
        }

        #[test]
        fn hostile_pages_never_panic(level in 0u8..3, count in 0u8..4, mut page in prop::collection::vec(any::<u8>(), 4..3000)) {
            page[..4].copy_from_slice(&[3, level, count, 0]);
            let _ = parse_places(level, &page, &[1; 32]);
            let _ = parse_ids(level, &page);
        }
    }
}
