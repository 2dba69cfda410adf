//! What no table finds yet: segments in memory, and bundles of such as were before; with a table of hashes in memory over them all.

use std::sync::Arc;

use super::ids::IdSet;
use super::layers::Laid;
use super::segment::{Prefix, Segment};
use crate::bytes::Id;
use crate::error::{Error, Result};
use crate::outside::prefer_large_pages;
use crate::pack::Place;

/// A plain segment in memory.
pub struct Loose {
    /// Its name at the destinations.
    pub id: Id,
    /// Where its parts are.
    pub segment: Segment,
    plain: Vec<u8>,
}

impl Loose {
    /// Checks all of it.
    pub fn new(id: Id, plain: Vec<u8>) -> Result<Self> {
        Ok(Self { id, segment: Segment::parse(&plain)?, plain })
    }

    /// The plain segment.
    pub fn bytes(&self) -> &[u8] {
        &self.plain
    }

    /// The packs it names, with their sizes.
    pub fn packs(&self) -> impl Iterator<Item = (Id, u64)> + '_ {
        self.segment.packs(&self.plain)
    }
}

/// A loose segment, and which of its packs count.
struct Kept {
    loose: Arc<Loose>,
    usable: Vec<bool>,
}

/// Bundles, then loose segments, in the order they came, and where their entries are.
#[derive(Default)]
pub struct Recent {
    bundles: Vec<Laid>,
    kept: Vec<Kept>,
    /// The number of the first entry of each bundle and then of each segment, and one past the last.
    firsts: Vec<usize>,
    /// Open addressing by the first bits of a prefix: 32 others of its bits, and the entry's number and one; 0 where free.
    slots: Vec<u64>,
}

const FIRST_SLOTS: usize = 1 << 10;

impl Recent {
    /// How many entries there are.
    pub fn entries(&self) -> usize {
        self.firsts.last().copied().unwrap_or(0)
    }

    /// How many of them are in loose segments.
    pub fn loose_entries(&self) -> usize {
        self.entries() - self.firsts.get(self.bundles.len()).copied().unwrap_or(0)
    }

    /// The loose segments.
    pub fn loose(&self) -> impl ExactSizeIterator<Item = &Arc<Loose>> {
        self.kept.iter().map(|kept| &kept.loose)
    }

    /// The bundles.
    pub fn bundles(&self) -> &[Laid] {
        &self.bundles
    }

    /// Adds a segment, unless it is there.
    pub fn add(&mut self, loose: Loose, usable: &IdSet) -> Result<()> {
        if self.kept.iter().any(|it| it.loose.id == loose.id) {
            return Ok(());
        }
        let end = self.entries() + loose.segment.entries;
        if end >= u32::MAX as usize {
            return Err(Error::Usage(
                "more index entries than there are numbers for; they were to be folded".into(),
            ));
        }
        if self.firsts.is_empty() {
            self.firsts.push(0);
        }
        self.firsts.push(end);
        let marks = loose.packs().map(|(id, _)| usable.contains(&id)).collect();
        self.kept.push(Kept { loose: Arc::new(loose), usable: marks });
        if end * 3 > self.slots.len() * 2 {
            self.enter_all();
        } else {
            self.enter(self.bundles.len() + self.kept.len() - 1);
        }
        Ok(())
    }

    fn enter_all(&mut self) {
        self.slots = Vec::new(); // The old ones go before there are new ones.
        self.slots = vec![0; (self.entries() * 3 / 2).next_power_of_two().max(FIRST_SLOTS)];
        prefer_large_pages(&mut self.slots);
        (0..self.bundles.len() + self.kept.len()).for_each(|member| self.enter(member));
    }

    /// Enters the entries of a bundle or segment.
    fn enter(&mut self, member: usize) {
        let numbers = self.firsts[member]..;
        let slots = self.slots.as_mut_slice();
        match member.checked_sub(self.bundles.len()) {
            None => enter(slots, self.bundles[member].bundle.prefixes().zip(numbers)),
            Some(at) => {
                let loose = &self.kept[at].loose;
                enter(slots, loose.segment.prefixes(loose.bytes()).zip(numbers));
            }
        }
    }

    /// The newest place of that prefix, in a usable pack, that `accept` takes.
    pub fn find(&self, wanted: &Prefix, accept: &impl Fn(&Place) -> bool) -> Option<Place> {
        let mut below = u32::MAX;
        loop {
            below = self.newest(wanted, below)?;
            let number = below as usize - 1;
            let member = self.firsts.partition_point(|first| *first <= number) - 1;
            let at = number - self.firsts[member];
            let place = match member.checked_sub(self.bundles.len()) {
                None => self.bundles[member].place(at, wanted),
                Some(member) => {
                    let Kept { loose, usable } = &self.kept[member];
                    let usable = |pack: usize| usable.get(pack).copied().unwrap_or(false);
                    loose.segment.place_at(loose.bytes(), at, wanted, usable)
                }
            };
            if let Some(place) = place.filter(accept) {
                return Some(place);
            }
        }
    }

    /// The greatest number (and one) below that one whose entry may be of that prefix.
    fn newest(&self, wanted: &Prefix, below: u32) -> Option<u32> {
        if self.slots.is_empty() {
            return None;
        }
        let (mut at, tag) = slot(wanted, self.slots.len());
        let mut newest = None;
        while self.slots[at] != 0 {
            let (held, number) = ((self.slots[at] >> 32) as u32, self.slots[at] as u32);
            if held == tag && number < below {
                newest = newest.max(Some(number));
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
        newest
    }

    /// Marks which packs count.
    pub fn mark(&mut self, usable: &IdSet) {
        self.bundles.iter_mut().for_each(|laid| laid.mark(usable));
        for kept in &mut self.kept {
            kept.usable = kept.loose.packs().map(|(id, _)| usable.contains(&id)).collect();
        }
    }

    /// Puts bundles in the place of those there are, and forgets loose segments.
    pub fn reset(&mut self, bundles: Vec<Laid>, gone: impl Fn(&Id) -> bool) {
        self.bundles = bundles;
        self.kept.retain(|it| !gone(&it.loose.id));
        self.count();
        self.enter_all();
    }

    /// Puts bundles in the place of the first loose segments, which they hold in the same order: each entry keeps its number.
    pub fn bind(&mut self, folded: &[Arc<Loose>], bundles: Vec<Laid>) {
        let before = self.firsts.get(self.bundles.len() + folded.len()).copied();
        let same = folded.len() <= self.kept.len()
            && folded.iter().zip(&self.kept).all(|(folded, kept)| folded.id == kept.loose.id);
        self.bundles.extend(bundles);
        if same {
            self.kept.drain(..folded.len());
            self.count();
        }
        if !same || self.firsts.get(self.bundles.len()).copied() != before {
            let ids: IdSet = folded.iter().map(|loose| loose.id).collect();
            let bundles = std::mem::take(&mut self.bundles);
            self.reset(bundles, |id| ids.contains(id));
        }
    }

    fn count(&mut self) {
        let of_bundles = self.bundles.iter().map(|laid| laid.bundle.entries);
        let of_segments = self.kept.iter().map(|kept| kept.loose.segment.entries);
        let mut next = 0;
        self.firsts = vec![0];
        for entries in of_bundles.chain(of_segments) {
            next += entries;
            self.firsts.push(next);
        }
    }
}

/// Where to look for a prefix, and what to look for there.
fn slot(prefix: &Prefix, slots: usize) -> (usize, u32) {
    let field = |at: usize| u32::from_be_bytes([prefix[at], prefix[at + 1], prefix[at + 2], prefix[at + 3]]);
    (((u64::from(field(0)) * slots as u64) >> 32) as usize, field(4))
}

fn enter(slots: &mut [u64], entries: impl Iterator<Item = (Prefix, usize)>) {
    for (prefix, number) in entries {
        let (mut at, tag) = slot(&prefix, slots.len());
        while slots[at] != 0 {
            at = (at + 1) & (slots.len() - 1);
        }
        slots[at] = u64::from(tag) << 32 | (number as u64 + 1);
    }
}
