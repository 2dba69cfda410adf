//! Where a block lies, by the first 16 bytes of its keyed id: mapped sorted segments, and what was added in memory.

mod filter;
mod merge;
pub mod segment;

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

pub use merge::{NewSegment, fitting, merge_segments, seal_plain};
pub use segment::{Prefix, Segment, SegmentEntries, build, prefix};

use self::filter::Filter;
use crate::bytes::Id;
use crate::error::Result;
use crate::outside::Mapped;
use crate::pack::{Entry, Place, RecordKind};

/// A pack whose records are to be indexed.
#[derive(Clone)]
pub struct IndexedPack {
    /// Of the pack.
    pub id: Id,
    /// In bytes.
    pub size: u64,
    /// Its records.
    pub entries: Vec<Entry>,
}

enum Bytes {
    Mapped(Mapped),
    Held(Vec<u8>),
}

impl Bytes {
    fn get(&self) -> &[u8] {
        match self {
            Bytes::Mapped(map) => map.bytes(),
            Bytes::Held(bytes) => bytes,
        }
    }
}

struct Loaded {
    bytes: Bytes,
    segment: Segment,
    usable: Vec<bool>,
}

/// One segment, to be walked.
#[derive(Clone)]
pub struct View<'a> {
    bytes: &'a [u8],
    segment: &'a Segment,
}

impl<'a> View<'a> {
    /// The packs it names, in the order of their numbers.
    pub fn packs(&self) -> impl Iterator<Item = Id> + use<'a> {
        self.segment.packs(self.bytes).map(|(id, _)| id)
    }

    /// Its entries in ascending order of their prefixes.
    pub fn entries(&self) -> SegmentEntries<'a> {
        self.segment.walk(self.bytes)
    }
}

#[derive(Default)]
struct Inner {
    segments: Vec<Loaded>,
    /// Where each segment stands, by its checksum.
    numbers: HashMap<Id, usize>,
    filter: Filter,
    usable: HashSet<Id>,
    added: Vec<IndexedPack>,
    found: HashMap<Prefix, Place>,
}

impl Inner {
    /// Takes the newest segment into the filter; all of them anew where it has no room, which is seldom.
    fn sift(&mut self) {
        let Some(newest) = self.segments.last() else { return };
        let fresh = !self.filter.has_room(newest.segment.entries);
        if fresh {
            let all = self.segments.iter().map(|it| it.segment.entries).sum();
            self.filter = Filter::with_room(all);
        }
        let from = if fresh { 0 } else { self.segments.len() - 1 };
        for loaded in &self.segments[from..] {
            for prefix in loaded.segment.prefixes(loaded.bytes.get()) {
                self.filter.add(&prefix);
            }
        }
    }
}

/// The index of a repository, as far as this machine knows it.
#[derive(Default)]
pub struct Index {
    inner: RwLock<Inner>,
}

impl Index {
    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Maps a plain segment of the cache, in place of the one held in memory if that is the same.
    pub fn map_segment(&self, path: &Path) -> Result<()> {
        self.load(Bytes::Mapped(Mapped::open(path)?))
    }

    /// Adds a plain segment from memory; its packs are usable from now on.
    pub fn hold_segment(&self, plain: Vec<u8>, packs: &[Id]) -> Result<()> {
        self.write().usable.extend(packs);
        self.load(Bytes::Held(plain))
    }

    fn load(&self, bytes: Bytes) -> Result<()> {
        let segment = Segment::parse(bytes.get())?;
        let mut inner = self.write();
        let usable = segment.packs(bytes.get()).map(|(id, _)| inner.usable.contains(&id)).collect();
        let loaded = Loaded { bytes, segment, usable };
        let inner = &mut *inner;
        if let Some(at) = inner.numbers.get(&loaded.segment.checksum) {
            inner.segments[*at] = loaded;
            return Ok(());
        }
        inner.numbers.insert(loaded.segment.checksum, inner.segments.len());
        inner.segments.push(loaded);
        inner.sift();
        Ok(())
    }

    /// Adds a pack that no segment names.
    pub fn add_pack(&self, pack: IndexedPack) {
        let mut inner = self.write();
        for entry in pack.entries.iter().filter(|entry| entry.kind == RecordKind::Block) {
            let place = Place { pack: pack.id, offset: entry.offset, length: entry.length };
            inner.found.insert(prefix(&entry.id), place);
        }
        inner.added.push(pack);
    }

    /// What `add_pack` added.
    pub fn added(&self) -> Vec<IndexedPack> {
        self.read().added.clone()
    }

    /// Every pack that is named, with its size.
    pub fn packs(&self) -> Vec<(Id, u64)> {
        let inner = self.read();
        let held = inner.segments.iter().flat_map(|it| it.segment.packs(it.bytes.get()));
        let all: HashMap<Id, u64> = held.chain(inner.added.iter().map(|it| (it.id, it.size))).collect();
        all.into_iter().collect()
    }

    /// Replaces the set of packs whose blocks count as known.
    pub fn declare_usable(&self, packs: HashSet<Id>) {
        let mut inner = self.write();
        for loaded in &mut inner.segments {
            loaded.usable =
                loaded.segment.packs(loaded.bytes.get()).map(|(id, _)| packs.contains(&id)).collect();
        }
        inner.usable = packs;
    }

    /// Whether that pack counts.
    pub fn is_usable(&self, pack: &Id) -> bool {
        self.read().usable.contains(pack)
    }

    /// Whether all of those packs count.
    pub fn all_usable(&self, mut packs: impl Iterator<Item = Id>) -> bool {
        let inner = self.read();
        packs.all(|pack| inner.usable.contains(&pack))
    }

    /// A usable place of that block.
    pub fn find(&self, id: &Id) -> Option<Place> {
        self.find_where(id, |_| true)
    }

    /// A usable place of that block that `accept` takes.
    pub fn find_where(&self, id: &Id, accept: impl Fn(&Place) -> bool) -> Option<Place> {
        let wanted = prefix(id);
        let inner = self.read();
        // The newest segments first: what was stored last is likeliest to be there still.
        let segments = if inner.filter.may_hold(&wanted) { inner.segments.as_slice() } else { &[] };
        let in_segments = segments.iter().rev().find_map(|loaded| {
            loaded.segment.find(loaded.bytes.get(), &wanted, |ordinal, place| {
                loaded.usable.get(ordinal).copied().unwrap_or(false) && accept(place)
            })
        });
        in_segments.or_else(|| {
            inner
                .found
                .get(&wanted)
                .copied()
                .filter(|place| inner.usable.contains(&place.pack) && accept(place))
        })
    }

    /// Hands all segments to `look`, mapped and held, but not what `add_pack` added; none is added meanwhile.
    pub fn look<T>(&self, look: impl FnOnce(&[View<'_>]) -> T) -> T {
        let inner = self.read();
        let views: Vec<View<'_>> =
            inner.segments.iter().map(|it| View { bytes: it.bytes.get(), segment: &it.segment }).collect();
        look(&views)
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        let inner = self.read();
        inner.segments.iter().map(|loaded| loaded.segment.entries).sum::<usize>() + inner.found.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pack::{HEADER, OVERHEAD};
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::io::Write;

    fn id(seed: u16) -> Id {
        *blake3::hash(&seed.to_le_bytes()).as_bytes()
    }

    fn pack(number: u16, blocks: &[u16]) -> IndexedPack {
        let entries = blocks.iter().enumerate().map(|(at, block)| Entry {
            id: id(*block),
            offset: (HEADER + at * 1000) as u32,
            length: (OVERHEAD + 900) as u32,
            kind: RecordKind::Block,
        });
        IndexedPack { id: id(number), size: 1 << 20, entries: entries.collect() }
    }

    proptest! {
        /// The naive twin of mapped segments is a map from id to all places.
        #[test]
        fn finds_what_a_map_finds(
            packs in prop::collection::vec(prop::collection::vec(0u16..600, 0..80), 1..8),
            unusable in prop::collection::hash_set(0usize..8, 0..4),
            split in 0usize..8,
        ) {
            let packs: Vec<_> = packs.iter().enumerate().map(|(n, blocks)| pack(10_000 + n as u16, blocks)).collect();
            let mut naive: BTreeMap<Id, Vec<Place>> = BTreeMap::new();
            for (number, pack) in packs.iter().enumerate() {
                for entry in &pack.entries {
                    if !unusable.contains(&number) {
                        naive.entry(entry.id).or_default().push(Place { pack: pack.id, offset: entry.offset, length: entry.length });
                    }
                }
            }
            let index = Index::default();
            let directory = tempfile::tempdir().unwrap();
            let (mapped, added) = packs.split_at(split.min(packs.len()));
            for (number, group) in mapped.chunks(2).enumerate() {
                let path = directory.path().join(number.to_string());
                std::fs::File::create(&path).unwrap().write_all(&build(group, &[])).unwrap();
                index.map_segment(&path).unwrap();
            }
            for pack in added {
                index.add_pack(pack.clone());
            }
            index.declare_usable(packs.iter().enumerate().filter(|(n, _)| !unusable.contains(n)).map(|(_, p)| p.id).collect());
            for block in 0..600 {
                let places = naive.get(&id(block)).cloned().unwrap_or_default();
                match index.find(&id(block)) {
                    Some(place) => prop_assert!(places.contains(&place)),
                    // In memory only the last place of a block is kept, which may lie in an unusable pack.
                    None => prop_assert!(places.is_empty() || !added.is_empty()),
                }
            }
            prop_assert_eq!(index.packs().len(), packs.len());
        }
    }
}
