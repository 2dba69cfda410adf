//! Where a block lies, by the first 16 bytes of its keyed id.
//!
//! Segments that were made or fetched lately are *loose*, in memory. Some thousand of them become a *bundle*, a file of the local
//! cache; and when there are some bundles, a sorted *table* of them is made, another file, which says which entry it may be. Until
//! then a table of hashes in memory does. A look-up asks that one, then the sorted ones, newest first: there are always few. What counts is decided here, not in the files: which segments
//! some destination lists, and which packs were declared usable.

mod bundle;
mod fold;
mod ids;
mod layers;
mod merge;
mod named;
mod pages;
mod plan;
mod recent;
pub mod segment;
mod table;
mod table_writer;

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

pub use fold::Fold;
pub use ids::{IdSet, Numbered};
pub use merge::{NewSegment, merge_segments, seal_plain, seal_rows};
pub use plan::Shape;
pub use segment::{Prefix, Row, Segment, SegmentEntries, View, build, prefix, row};

use self::layers::{Laid, Layers, Level};
use self::recent::{Loose, Recent};
use self::table::bundle_file;
use crate::bytes::Id;
use crate::error::{Result, damaged};
use crate::keys::Keyring;
use crate::pack::{Entry, Place};

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

/// From so many entries or segments on, the loose ones should be folded: some 30 MB.
const MANY_ENTRIES: usize = 1 << 20;
const MANY_SEGMENTS: usize = 1 << 10;
const DAMAGED: &str = "the local index is damaged; what is bad in it was removed, so load it again";

#[derive(Default)]
struct Inner {
    layers: Layers,
    recent: Recent,
    /// The segments that count.
    wanted: IdSet,
    /// The packs that count.
    usable: IdSet,
    /// Where not all of them count for every block: those that do, by the group of the block; else empty.
    groups: Vec<IdSet>,
    /// Segments in memory, made of packs that none names.
    added: Vec<Id>,
    /// Whether segments that counted went with a damaged file: what is not found may be in them.
    lost: bool,
    /// Whether what is wanted is all that any destination lists.
    whole: bool,
}

impl Inner {
    /// All bundles.
    fn laid(&self) -> impl Iterator<Item = &Laid> {
        self.layers.laid().chain(self.recent.bundles())
    }

    /// Whether a pack counts for blocks of that group.
    fn counts(&self, group: usize, pack: &Id) -> bool {
        match self.groups.is_empty() {
            true => self.usable.contains(pack),
            false => self.groups.get(group).is_some_and(|packs| packs.contains(pack)),
        }
    }

    /// Whether a file that is open was found damaged. One that was missing then is none: what it held is fetched again.
    fn is_bad(&self) -> bool {
        self.layers.levels.iter().any(|level| level.table.is_bad())
            || self.laid().any(|laid| laid.bundle.is_bad())
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

    /// Opens what was folded in that directory; returns those of the wanted segments that are not in it, in order. If these are the
    /// `whole` of what counts anywhere, a fold may drop the others.
    pub fn open(&self, directory: &Path, wanted: IdSet, whole: bool) -> Vec<Id> {
        let (mut layers, unsorted, seen) = layers::open(directory, &wanted);
        let mut missing: Vec<Id> = wanted.iter().filter(|id| !seen.contains(*id)).copied().collect();
        missing.sort_unstable();
        let mut recent = Recent::default();
        recent.reset(unsorted, |_| true);
        let mut inner = self.write();
        layers.mark(&inner.usable);
        recent.mark(&inner.usable);
        (inner.layers, inner.recent, inner.wanted) = (layers, recent, wanted);
        (inner.lost, inner.whole) = (false, whole);
        missing
    }

    /// The files that count, whether or not they could be opened.
    pub fn files(&self) -> Vec<String> {
        let inner = self.read();
        let named = layers::all_names(&inner.layers.text).map(str::to_owned);
        let of_tables = inner.layers.levels.iter().flat_map(|level| &level.table.bundles);
        named.chain(of_tables.map(|it| bundle_file(&it.name))).collect()
    }

    /// Opens it again if somebody else has folded since, or something in it was found damaged and removed.
    ///
    /// Who folded may have left out what only this index wants. That stays, as it is mapped: a table with its bundles; of those whose table is
    /// damaged the newest, as many entries as can be found without one, which is `unsorted`. What was in other bundles, or in damaged
    /// ones, is lost until all is opened anew.
    fn adopt(&self, directory: &Path, unsorted: usize) {
        let inner = self.read();
        if !inner.is_bad() && layers::read_current(directory) == inner.layers.text {
            return;
        }
        drop(inner);
        let mut inner = self.write();
        let inner = &mut *inner;
        let (mut layers, newest, seen) = layers::open(directory, &inner.wanted);
        layers.mark(&inner.usable);
        let loose: IdSet = inner.recent.loose().map(|loose| loose.id).collect();
        let lost = &mut inner.lost;
        let mut stays = |laid: &mut Laid| {
            let wanted = laid.narrow(|id| !seen.contains(id) && !loose.contains(id));
            *lost |= laid.is_lost();
            wanted && !laid.bundle.is_bad()
        };
        let mut bundles = Vec::new();
        for mut level in std::mem::take(&mut inner.layers.levels) {
            level
                .bundles
                .iter_mut()
                .for_each(|laid| *laid = laid.take().and_then(|mut it| stays(&mut it).then_some(it)));
            match level.table.is_bad() {
                true => bundles.extend(level.bundles.into_iter().flatten()),
                false if level.laid().next().is_none() => (),
                false => layers.levels.push(Level { left_out: true, ..level }),
            }
        }
        bundles.extend(
            inner.recent.bundles().iter().cloned().filter_map(|mut laid| stays(&mut laid).then_some(laid)),
        );
        let mut entries = 0;
        let room = bundles.iter().rev().take_while(|laid| {
            entries += laid.bundle.entries;
            entries <= unsorted
        });
        let without_room = bundles.len() - room.count();
        inner.lost |= bundles.drain(..without_room).count() > 0;
        bundles.extend(newest);
        inner.layers = layers;
        inner.recent.reset(bundles, |id| seen.contains(id));
        inner.recent.mark(&inner.usable);
    }

    fn with_state<T>(&self, look: impl FnOnce(&Layers, &Recent, bool) -> T) -> T {
        let inner = self.read();
        look(&inner.layers, &inner.recent, inner.whole)
    }

    /// Puts bundles, which no table finds, in the place of the loose segments that are in them.
    fn bind(&self, text: String, mut bundles: Vec<Laid>, folded: &[Arc<Loose>]) {
        let mut inner = self.write();
        let inner = &mut *inner;
        bundles.iter_mut().for_each(|laid| laid.mark(&inner.usable));
        inner.recent.bind(folded, bundles);
        inner.layers.text = text;
    }

    /// Puts a new table in the place of those after the first `kept`, of the bundles without one, and of the loose segments that
    /// are in it.
    fn install(&self, text: String, kept: usize, mut level: Level, folded: &[Arc<Loose>]) {
        let mut inner = self.write();
        let inner = &mut *inner;
        level.bundles.iter_mut().flatten().for_each(|laid| laid.mark(&inner.usable));
        inner.layers.levels.truncate(kept);
        inner.layers.levels.push(level);
        inner.layers.text = text;
        let ids: IdSet = folded.iter().map(|loose| loose.id).collect();
        inner.recent.reset(Vec::new(), |id| ids.contains(id));
    }

    /// Adds a plain segment.
    pub fn add_segment(&self, id: Id, plain: Vec<u8>) -> Result<()> {
        let loose = Loose::new(id, plain)?;
        let mut inner = self.write();
        let inner = &mut *inner;
        inner.wanted.extend([id]);
        inner.recent.add(loose, &inner.usable)
    }

    /// Adds a plain segment whose packs are usable from now on.
    pub fn add_usable(&self, id: Id, plain: Vec<u8>, packs: &[Id]) -> Result<()> {
        self.add_usable_in(id, plain, packs.iter().map(|pack| (0, *pack)))
    }

    /// The same, each pack for blocks of one group.
    pub fn add_usable_in(
        &self,
        id: Id,
        plain: Vec<u8>,
        packs: impl Iterator<Item = (usize, Id)> + Clone,
    ) -> Result<()> {
        let mut inner = self.write();
        inner.usable.extend(packs.clone().map(|(_, pack)| pack));
        for (number, group) in inner.groups.iter_mut().enumerate() {
            group.extend(packs.clone().filter(|(of, _)| *of == number).map(|(_, pack)| pack));
        }
        drop(inner);
        self.add_segment(id, plain)
    }

    /// Adds a pack that no segment names.
    pub fn add_pack(&self, pack: &IndexedPack) -> Result<()> {
        let plain = build(std::slice::from_ref(pack), &[]);
        let id = *blake3::hash(&plain).as_bytes();
        self.add_segment(id, plain)?;
        self.write().added.push(id);
        Ok(())
    }

    /// Segments of all that `add_pack` added since this was asked last; they stand in its place.
    pub fn take_added(&self, keys: &Keyring) -> Result<Vec<NewSegment>> {
        let added: IdSet = std::mem::take(&mut self.write().added).into_iter().collect();
        let mut rows = Vec::new();
        for loose in self.read().recent.loose().filter(|it| added.contains(&it.id)) {
            rows.extend(loose.segment.rows(loose.bytes(), |_| true)?);
        }
        // In whatever order they were read: who reads the same packs makes the same segment.
        rows.sort_unstable_by_key(|row| row.pack);
        let sealed = seal_rows(keys, &rows, &[])?;
        self.forget(&added);
        sealed.iter().try_for_each(|segment| self.add_segment(segment.id, segment.plain.clone()))?;
        Ok(sealed)
    }

    fn forget(&self, segments: &IdSet) {
        let mut inner = self.write();
        let bundles = inner.recent.bundles().to_vec();
        inner.recent.reset(bundles, |id| segments.contains(id));
    }

    /// How many packs `add_pack` added since `take_added`.
    pub fn added(&self) -> usize {
        self.read().added.len()
    }

    /// Whether the loose segments should be folded.
    pub fn is_crowded(&self) -> bool {
        let inner = self.read();
        inner.recent.loose_entries() >= MANY_ENTRIES || inner.recent.loose().len() >= MANY_SEGMENTS
    }

    /// Replaces the set of packs whose blocks count as known.
    pub fn declare_usable(&self, packs: IdSet) {
        self.declare(packs, Vec::new());
    }

    /// Replaces the sets of packs that count, by group: those of group 0 for pages, the others for the blocks of each. A look-up that names no
    /// group finds what is in any.
    pub fn declare_groups(&self, groups: Vec<IdSet>) {
        self.declare(groups.iter().flat_map(IdSet::iter).copied().collect(), groups);
    }

    fn declare(&self, packs: IdSet, groups: Vec<IdSet>) {
        let mut inner = self.write();
        let inner = &mut *inner;
        (inner.usable, inner.groups) = (packs, groups);
        inner.recent.mark(&inner.usable);
        inner.layers.mark(&inner.usable);
    }

    /// Whether that pack counts for blocks of that group.
    pub fn is_usable(&self, group: usize, pack: &Id) -> bool {
        self.read().counts(group, pack)
    }

    /// Whether all of those packs count, for every group.
    pub fn all_usable(&self, mut packs: impl Iterator<Item = Id>) -> bool {
        let inner = self.read();
        packs.all(|pack| (0..inner.groups.len().max(1)).all(|group| inner.counts(group, &pack)))
    }

    /// A place of that block that counts for its group.
    pub fn find_in(&self, group: usize, id: &Id) -> Option<Place> {
        let wanted = prefix(id);
        let inner = self.read();
        let accept = |place: &Place| inner.groups.is_empty() || inner.counts(group, &place.pack);
        inner.recent.find(&wanted, &accept).or_else(|| inner.layers.find(&wanted, &accept))
    }

    /// A usable place of that block.
    pub fn find(&self, id: &Id) -> Option<Place> {
        self.find_where(id, |_| true)
    }

    /// A usable place of that block that `accept` takes. The newest first: what was stored last is likeliest to be there still.
    pub fn find_where(&self, id: &Id, accept: impl Fn(&Place) -> bool) -> Option<Place> {
        let wanted = prefix(id);
        let inner = self.read();
        inner.recent.find(&wanted, &accept).or_else(|| inner.layers.find(&wanted, &accept))
    }

    /// Checks every page of one file of what was folded, from 0 on; false past the last. A look-up checks only what it takes: what it
    /// says is there, is there; but what it says is not there may be, in a damaged part. Whoever concludes something from that
    /// asks for this first.
    pub fn verify(&self, number: usize) -> Result<bool> {
        let inner = self.read();
        let levels = &inner.layers.levels;
        let good = match number.checked_sub(levels.len()) {
            None => Some(levels[number].table.verify()),
            Some(number) => inner.laid().nth(number).map(|laid| laid.bundle.verify()),
        };
        match good {
            Some(false) => damaged(DAMAGED),
            _ if inner.is_bad() || inner.lost => damaged(DAMAGED),
            good => Ok(good.is_some()),
        }
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        let inner = self.read();
        inner.recent.entries() + inner.layers.levels.iter().map(|level| level.table.entries).sum::<usize>()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod sharing_tests;
#[cfg(test)]
mod tests;
