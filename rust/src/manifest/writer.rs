//! Builds a snapshot's trees while its blocks are recorded, sharing every page that the parent has already.
//!
//! The volume's size may become known at the end only: the trees grow as they must, and what stands as child 0 one level
//! above the least height that covers the volume is the root.
//!
//! Memory is bounded: leaves below the watermark become pages at once, and an inner page as soon as its last child is
//! past. A leaf waits only for the packs that its new blocks went to, because places name packs and a pack has no name
//! before it is full. No leaf waits for another one: where few blocks are new a pack may stay open for the whole volume.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, OnceLock};

use super::claims::Claims;
use super::filling::{Leaf, Open, note_packs, rename, renamed, waits};
use super::page::{MAX_PAGE, Places, ids_page, page_id, places_page};
use super::reader::Manifest;
use super::{FANOUT, Found, MAX_HEIGHT, Root, Roots, block_count, check_block_size, height_for, span};
use crate::block::{UNREADABLE, ZERO};
use crate::bytes::Id;
use crate::codec::{Codec, Encoder};
use crate::error::{Error, Result};
use crate::index::Index;
use crate::keys::Keyring;
use crate::pack::{FIXED, FinishedPack, NewRecord, PackBuilder, PackKind, Place, RecordKind};
use crate::workers::{Workers, lock};

/// Capacity of a manifest pack.
pub const CAPACITY: usize = 8 << 20;

pub(super) struct State {
    pub(super) leaves: BTreeMap<u64, Leaf>,
    /// Leaves below this one are written, or wait for a pack's name.
    pub(super) complete: u64,
    /// One above the greatest block that was recorded.
    end: u64,
    /// How many packs had a name when the waiting leaves were last tried.
    named: usize,
    /// Inner nodes that are being filled, by level and index; the root stands as child 0 of the node above it.
    pub(super) open: BTreeMap<(u8, u64), Open>,
    /// What is not recorded is as in the parent, instead of zeros.
    pub(super) inherits: bool,
    pack: Option<PackBuilder>,
    /// Stands for the id of the pack being filled, in places that lie in it.
    pack_token: Id,
    done: Vec<FinishedPack>,
    names: HashMap<Id, Id>,
    /// Packs that pages written or shared here lie in or name.
    packs: HashSet<Id>,
}

/// Writes one snapshot's trees.
pub struct ManifestWriter {
    keys: Arc<Keyring>,
    workers: Arc<Workers>,
    index: Arc<Index>,
    /// Volume's block size in bytes.
    pub block_size: usize,
    /// The volume's size in bytes, once it is known.
    size: OnceLock<u64>,
    session: [u8; 16],
    /// The snapshot whose pages may be shared.
    pub parent: Option<Arc<Manifest>>,
    /// First block and group of each stretch of the volume, in order; none where all blocks go to the same places.
    areas: Vec<(u64, usize)>,
    encoder: Encoder,
    /// Shared with the packer.
    pub claims: Arc<Mutex<Claims>>,
    pub(super) state: Mutex<State>,
}

impl ManifestWriter {
    /// For a volume of that size, or of one that `set_size` tells later; see the Python stub.
    pub fn new(
        keys: Arc<Keyring>,
        workers: Arc<Workers>,
        index: Arc<Index>,
        session: [u8; 16],
        size: Option<u64>,
        block_size: usize,
        parent: Option<Arc<Manifest>>,
    ) -> Result<Self> {
        check_block_size(block_size)?;
        Ok(Self {
            keys,
            workers,
            index,
            block_size,
            size: size.map_or_else(OnceLock::new, OnceLock::from),
            session,
            parent,
            areas: Vec::new(),
            encoder: Encoder::new(Codec::Zstd, 1),
            claims: Arc::default(),
            state: Mutex::new(State {
                leaves: BTreeMap::new(),
                complete: 0,
                end: 0,
                named: 0,
                open: BTreeMap::new(),
                inherits: false,
                pack: None,
                pack_token: [0; 32],
                done: Vec::new(),
                names: HashMap::new(),
                packs: HashSet::new(),
            }),
        })
    }

    /// The same writer, of a volume whose stretches (first block, group) go to different places. Group 0 is that of pages.
    pub fn with_areas(mut self, areas: Vec<(u64, usize)>) -> Result<Self> {
        if areas.first().is_some_and(|(first, _)| *first != 0) || !areas.is_sorted_by(|a, b| a.0 < b.0) {
            return Err(Error::Usage("areas begin at block 0, and come in order".into()));
        }
        self.areas = areas;
        Ok(self)
    }

    /// Where that block goes: packs hold blocks of one group.
    pub fn group_of(&self, block: u64) -> usize {
        let after = self.areas.partition_point(|(first, _)| *first <= block);
        after.checked_sub(1).map_or(0, |at| self.areas[at].1)
    }

    /// The volume's size in bytes, if it is known by now.
    pub fn size(&self) -> Option<u64> {
        self.size.get().copied()
    }

    /// How many blocks the volume has; as many as any could have while that is not known.
    pub fn blocks(&self) -> u64 {
        self.size().map_or(u64::MAX, |size| block_count(size, self.block_size as u64))
    }

    /// The size of a volume whose end has been met. Only once, and not below what is recorded.
    pub fn set_size(&self, size: u64) -> Result<()> {
        let end = lock(&self.state).end;
        if block_count(size, self.block_size as u64) < end || self.size.set(size).is_err() {
            return Err(Error::Usage(format!(
                "a volume of {size} bytes: another size was given or filled before"
            )));
        }
        Ok(())
    }

    /// Notes what was found for the blocks from `first` on. Refused once their page may be written: it would be made anew
    /// from these blocks alone.
    pub fn record(&self, first: u64, found: &[Found]) -> Result<()> {
        let mut state = lock(&self.state);
        let end = first.saturating_add(found.len() as u64);
        if first / (FANOUT as u64) < state.complete || end > self.blocks() {
            return Err(Error::Usage(format!(
                "block {first} is recorded after the writer has passed it, or past the volume's end"
            )));
        }
        state.end = state.end.max(end);
        for (block, (id, place)) in (first..).zip(found) {
            let index = block / FANOUT as u64;
            if *id == ZERO && !state.inherits && !state.leaves.contains_key(&index) {
                continue;
            }
            let leaf = self.leaf(&mut state, index)?;
            let number = (block % FANOUT as u64) as usize;
            leaf.ids[number] = *id;
            leaf.places[number] = *place;
        }
        Ok(())
    }

    /// The leaf that is being filled: it begins with zeros, or as the parent's.
    pub(super) fn leaf<'a>(&self, state: &'a mut State, index: u64) -> Result<&'a mut Leaf> {
        Ok(match state.leaves.entry(index) {
            Entry::Occupied(leaf) => leaf.into_mut(),
            Entry::Vacant(slot) if state.inherits => slot.insert(self.inherited_leaf(index)?),
            Entry::Vacant(slot) => slot.insert(Leaf::zeros()),
        })
    }

    /// The inner node that is being filled: it begins with zeros, or as the parent's.
    pub(super) fn open<'a>(&self, state: &'a mut State, level: u8, index: u64) -> Result<&'a mut Open> {
        Ok(match state.open.entry((level, index)) {
            Entry::Occupied(open) => open.into_mut(),
            Entry::Vacant(slot) if state.inherits => slot.insert(self.inherited_node(level, index)?),
            Entry::Vacant(slot) => slot.insert(Open::zeros()),
        })
    }

    /// Notes blocks that could not be read.
    pub fn mark_unreadable(&self, first: u64, count: u64) -> Result<()> {
        let end = first.saturating_add(count).min(self.blocks());
        (first..end).try_for_each(|block| self.record(block, &[(UNREADABLE, None)]))
    }

    /// Every block below `until` is recorded or zeros: writes the pages that are complete, and returns full packs.
    ///
    /// The parent's pages that nothing will ask for again are evicted here.
    pub fn advance(&self, until: u64) -> Result<Vec<FinishedPack>> {
        let mut state = lock(&self.state);
        let until = if until >= self.blocks() { u64::MAX } else { until };
        let complete = state.complete.max(until / FANOUT as u64);
        // Those that wait can only be resolved when one more pack has its name.
        let named = lock(&self.claims).named();
        let from = if named == state.named { state.complete } else { 0 };
        let ready: Vec<u64> = state.leaves.range(from..complete).map(|(index, _)| *index).collect();
        (state.complete, state.named) = (complete, named);
        for index in ready {
            let Some(places) =
                state.leaves.get(&index).map(|leaf| self.resolve(index, leaf)).transpose()?.flatten()
            else {
                continue;
            };
            let Some(leaf) = state.leaves.remove(&index) else { continue };
            self.write_node(&mut state, 0, index, &leaf.ids, Places::Leaf(places))?;
        }
        self.close_until(&mut state, until)?;
        if let Some(parent) = &self.parent {
            parent.evict_but(until, |level, index| waits(&state.leaves, level, index));
        }
        Ok(std::mem::take(&mut state.done))
    }

    /// How many leaves are in memory.
    pub fn leaves_held(&self) -> usize {
        lock(&self.state).leaves.len()
    }

    /// The places of a leaf's blocks, or None while one lies in a pack without a name.
    fn resolve(&self, index: u64, leaf: &Leaf) -> Result<Option<Box<[Option<Place>; FANOUT]>>> {
        let claims = lock(&self.claims);
        let sought = |id: &Id, place: &Option<Place>| *id != ZERO && *id != UNREADABLE && place.is_none();
        let blocks = || (index * FANOUT as u64..).zip(leaf.ids.iter());
        let grouped = |(block, id): (u64, &Id)| (self.group_of(block), *id);
        let mut found = blocks().zip(leaf.places.iter());
        if found.any(|(block, place)| sought(block.1, place) && claims.waits(grouped(block))) {
            return Ok(None);
        }
        let mut places = leaf.places.clone();
        for (block, place) in blocks().zip(places.iter_mut()) {
            if sought(block.1, place) {
                let (group, id) = grouped(block);
                let known = claims.place((group, id)).or_else(|| self.index.find_in(group, &id));
                *place =
                    Some(known.ok_or_else(|| Error::Usage("a recorded block that nobody stored".into()))?);
            }
        }
        Ok(Some(places))
    }

    /// Writes every open inner node that ends at or before that block and below which no leaf waits.
    fn close_until(&self, state: &mut State, block: u64) -> Result<()> {
        // From the bottom up: what a node still lacks is then a leaf that waits, or lies past `block`.
        let height = self.size().map_or(MAX_HEIGHT, |_| height_for(self.blocks()));
        for level in 1..height {
            let ended = |index: u64| {
                (index + 1).saturating_mul(span(level)) <= block && !waits(&state.leaves, level, index)
            };
            let open = state.open.range((level, 0)..(level + 1, 0)).map(|((_, index), _)| *index);
            let done: Vec<u64> = open.filter(|index| ended(*index)).collect();
            for index in done {
                let Some(open) = state.open.remove(&(level, index)) else { continue };
                self.write_node(state, level, index, &open.ids, Places::Inner(open.children))?;
            }
        }
        Ok(())
    }

    /// Writes a node's two pages, or takes the parent's where they say the same, and enters them one level up.
    fn write_node(
        &self,
        state: &mut State,
        level: u8,
        index: u64,
        ids: &[Id; FANOUT],
        places: Places,
    ) -> Result<()> {
        if ids.iter().all(|id| *id == ZERO) {
            return if state.inherits { self.enter(state, level, index, None) } else { Ok(()) };
        }
        let shared = self.parent.as_ref().and_then(|parent| parent.node(level, index));
        let page = ids_page(level, ids);
        let id = page_id(&self.keys, &page)?;
        let ids_root = match &shared {
            Some((_, (their_id, place), _)) if *their_id == id && self.usable(place) => (id, *place),
            _ => (id, self.store_page(state, RecordKind::Ids, id, &page)?),
        };
        note_packs(&mut state.packs, &places);
        // Compared as resolved places: the bytes may name the same pack in two ways.
        let places_root = match shared {
            Some((theirs, _, root)) if theirs == renamed(&places, &state.names) && self.usable(&root.1) => {
                root
            }
            _ => self.store_places(state, level, &places)?,
        };
        self.enter(state, level, index, Some((ids_root, places_root)))
    }

    /// Enters a node's pages one level up.
    fn enter(&self, state: &mut State, level: u8, index: u64, pages: Option<(Root, Root)>) -> Result<()> {
        if let Some((ids, places)) = &pages {
            state.packs.extend([ids.1.pack, places.1.pack]);
        }
        let open = self.open(state, level + 1, index / FANOUT as u64)?;
        open.set((index % FANOUT as u64) as usize, pages);
        Ok(())
    }

    /// Whether the parent's page may be shared: its pack must be where this snapshot goes.
    fn usable(&self, place: &Place) -> bool {
        self.index.is_usable(0, &place.pack)
    }

    fn store_places(&self, state: &mut State, level: u8, places: &Places) -> Result<Root> {
        self.make_room(state, MAX_PAGE)?;
        let page = places_page(level, &renamed(places, &state.names), Some(state.pack_token));
        let id = page_id(&self.keys, &page)?;
        Ok((id, self.store_page(state, RecordKind::Places, id, &page)?))
    }

    /// Makes sure that the next page goes into the pack that is open when this returns.
    fn make_room(&self, state: &mut State, length: usize) -> Result<()> {
        if let Some(pack) = &state.pack {
            if pack.fitting([length].into_iter()) == 1 {
                return Ok(());
            }
            self.finish_pack(state)?;
        }
        let buffer = self.workers.buffer(CAPACITY);
        let pack =
            PackBuilder::new(&self.keys, PackKind::Manifest, &self.session, self.block_size as u32, buffer)?;
        state.pack = Some(pack);
        state.pack_token = crate::keys::random()?;
        Ok(())
    }

    fn store_page(&self, state: &mut State, kind: RecordKind, id: Id, page: &[u8]) -> Result<Place> {
        self.make_room(state, page.len().max(MAX_PAGE))?;
        let mut out = self.workers.scratch();
        let codec = self.encoder.encode(page, &mut out)?;
        let stored = if codec == Codec::Raw { page } else { &out };
        let record = NewRecord { kind, id, codec, plain_length: page.len(), stored, check: Some(page) };
        let Some(pack) = state.pack.as_mut() else {
            return Err(Error::Usage("no manifest pack is open".into()));
        };
        let places = self.workers.run(|| pack.append(&[record]))?;
        self.workers.return_scratch(out);
        let (offset, length) = places[0];
        Ok(Place { pack: state.pack_token, offset, length })
    }

    fn finish_pack(&self, state: &mut State) -> Result<()> {
        let Some(pack) = state.pack.take() else { return Ok(()) };
        let keys = &self.keys;
        let finished = self.workers.run(|| pack.finish(keys))?;
        state.names.insert(state.pack_token, finished.id);
        lock(&self.claims).manifest_packs.push((finished.id, finished.length as u64));
        state.done.push(finished);
        Ok(())
    }

    /// Writes what is left; every data pack has a name by now. Returns the roots and the last packs.
    pub fn finish(&self) -> Result<(Roots, Vec<FinishedPack>)> {
        if self.size().is_none() {
            return Err(Error::Usage("the end of the volume was not met".into()));
        }
        let mut done = self.advance(self.blocks())?;
        let mut state = lock(&self.state);
        if !state.leaves.is_empty() {
            return Err(Error::Usage("blocks are recorded whose pack is not finished".into()));
        }
        self.finish_pack(&mut state)?;
        done.append(&mut state.done);
        let height = height_for(self.blocks());
        let name = |root: Root| (root.0, rename(&root.1, &state.names));
        let roots = state.open.get(&(height, 0)).and_then(|above| above.get(0));
        let roots = roots.map(|(ids, places)| (name(ids), name(places)));
        Ok((Roots { height, ids: roots.map(|it| it.0), places: roots.map(|it| it.1) }, done))
    }

    /// Every pack that pages written or shared by this writer lie in or name, each once. What was inherited without being
    /// looked at is not among them.
    pub fn packs(&self) -> Vec<Id> {
        let state = lock(&self.state);
        let named = state.packs.iter().map(|pack| state.names.get(pack).copied().unwrap_or(*pack));
        named.collect::<HashSet<_>>().into_iter().collect()
    }
}

const _: () = assert!(CAPACITY > 4 * MAX_PAGE + FIXED);
