//! Builds a snapshot's trees while its blocks are recorded, sharing every page that the parent has already.
//!
//! Memory is bounded: leaves below the watermark become pages at once, and an inner page as soon as its last child is
//! past. A leaf waits only for the packs that its new blocks went to, because places name packs and a pack has no name
//! before it is full.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use super::page::{Child, MAX_PAGE, Places, ids_page, page_id, places_page};
use super::reader::Manifest;
use super::{FANOUT, Found, Root, Roots, block_count, check_block_size, height_for, span};
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

    fn place(&self, id: &Id) -> Option<Place> {
        let stored = (*self.blocks.get(id)?)?;
        let pack = *self.names.get(&stored.pack)?;
        Some(Place { pack, offset: stored.offset, length: stored.length })
    }

    fn knows(&self, id: &Id) -> bool {
        self.blocks.contains_key(id)
    }
}

struct Leaf {
    ids: Box<[Id; FANOUT]>,
    places: Box<[Option<Place>; FANOUT]>,
}

struct Open {
    index: u64,
    ids: Box<[Id; FANOUT]>,
    children: Box<[Option<Child>; FANOUT]>,
}

struct State {
    leaves: BTreeMap<u64, Leaf>,
    /// One inner node a level that is being filled; `open[0]` is level 1.
    open: Vec<Option<Open>>,
    root: Option<(Root, Root)>,
    pack: Option<PackBuilder>,
    /// Stands for the id of the pack being filled, in places that lie in it.
    pack_token: Id,
    done: Vec<FinishedPack>,
    names: HashMap<Id, Id>,
    height: u8,
}

/// Writes one snapshot's trees.
pub struct ManifestWriter {
    keys: Arc<Keyring>,
    workers: Arc<Workers>,
    index: Arc<Index>,
    /// Volume's block size in bytes.
    pub block_size: usize,
    /// How many blocks the volume has.
    pub blocks: u64,
    session: [u8; 16],
    /// The snapshot whose pages may be shared.
    pub parent: Option<Arc<Manifest>>,
    encoder: Encoder,
    /// Shared with the packer.
    pub claims: Arc<Mutex<Claims>>,
    state: Mutex<State>,
}

impl ManifestWriter {
    /// For a volume of that size; see the Python stub.
    pub fn new(
        keys: Arc<Keyring>,
        workers: Arc<Workers>,
        index: Arc<Index>,
        session: [u8; 16],
        size: u64,
        block_size: usize,
        parent: Option<Arc<Manifest>>,
    ) -> Result<Self> {
        check_block_size(block_size)?;
        let blocks = block_count(size, block_size as u64);
        let height = height_for(blocks);
        let open = (1..height).map(|_| None).collect();
        Ok(Self {
            keys,
            workers,
            index,
            block_size,
            blocks,
            session,
            parent,
            encoder: Encoder::new(Codec::Zstd, 1),
            claims: Arc::default(),
            state: Mutex::new(State {
                leaves: BTreeMap::new(),
                open,
                root: None,
                pack: None,
                pack_token: [0; 32],
                done: Vec::new(),
                names: HashMap::new(),
                height,
            }),
        })
    }

    /// Notes what was found for the blocks from `first` on.
    pub fn record(&self, first: u64, found: &[Found]) {
        let mut state = lock(&self.state);
        for (block, (id, place)) in (first..).zip(found) {
            let number = (block % FANOUT as u64) as usize;
            if *id == ZERO {
                continue;
            }
            let leaf = state
                .leaves
                .entry(block / FANOUT as u64)
                .or_insert_with(|| Leaf { ids: Box::new([ZERO; FANOUT]), places: Box::new([None; FANOUT]) });
            leaf.ids[number] = *id;
            leaf.places[number] = *place;
        }
    }

    /// Notes blocks that could not be read.
    pub fn mark_unreadable(&self, first: u64, count: u64) {
        for block in first..first.saturating_add(count).min(self.blocks) {
            self.record(block, &[(UNREADABLE, None)]);
        }
    }

    /// Every block below `until` is recorded or zeros: writes the pages that are complete, and returns full packs.
    ///
    /// The parent's pages that nothing will ask for again are evicted here.
    pub fn advance(&self, until: u64) -> Result<Vec<FinishedPack>> {
        let mut state = lock(&self.state);
        let complete = if until >= self.blocks { u64::MAX } else { until / FANOUT as u64 };
        let mut reached = until;
        while let Some((index, leaf)) = state.leaves.first_key_value().filter(|(index, _)| **index < complete)
        {
            let index = *index;
            let Some(places) = self.resolve(leaf)? else {
                reached = index * FANOUT as u64;
                break;
            };
            let Some(leaf) = state.leaves.remove(&index) else { break };
            self.close_until(&mut state, index * FANOUT as u64)?;
            self.write_node(&mut state, 0, index, &leaf.ids, Places::Leaf(places))?;
        }
        self.close_until(&mut state, reached)?;
        if let Some(parent) = &self.parent {
            parent.evict(reached);
        }
        Ok(std::mem::take(&mut state.done))
    }

    /// The places of a leaf's blocks, or None while one lies in a pack without a name.
    fn resolve(&self, leaf: &Leaf) -> Result<Option<Box<[Option<Place>; FANOUT]>>> {
        let claims = lock(&self.claims);
        let mut places = leaf.places.clone();
        for (id, place) in leaf.ids.iter().zip(places.iter_mut()) {
            if *id == ZERO || *id == UNREADABLE || place.is_some() {
                continue;
            }
            *place = match claims.place(id) {
                Some(place) => Some(place),
                None if claims.knows(id) => return Ok(None),
                None => Some(
                    self.index
                        .find(id)
                        .ok_or_else(|| Error::Usage("a recorded block that nobody stored".into()))?,
                ),
            };
        }
        Ok(Some(places))
    }

    /// Writes every open inner node that ends at or before that block.
    fn close_until(&self, state: &mut State, block: u64) -> Result<()> {
        for level in 1..state.height {
            let slot = usize::from(level) - 1;
            let ended = state.open[slot]
                .as_ref()
                .is_some_and(|open| (open.index + 1).saturating_mul(span(level)) <= block);
            if ended {
                self.close(state, level)?;
            }
        }
        Ok(())
    }

    fn close(&self, state: &mut State, level: u8) -> Result<()> {
        match state.open[usize::from(level) - 1].take() {
            Some(open) => self.write_node(state, level, open.index, &open.ids, Places::Inner(open.children)),
            None => Ok(()),
        }
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
            return Ok(());
        }
        let shared = self.parent.as_ref().and_then(|parent| parent.node(level, index));
        let page = ids_page(level, ids);
        let id = page_id(&self.keys, &page)?;
        let ids_root = match &shared {
            Some((_, (their_id, place), _)) if *their_id == id && self.usable(place) => (id, *place),
            _ => (id, self.store_page(state, RecordKind::Ids, id, &page)?),
        };
        // Compared as resolved places: the bytes may name the same pack in two ways.
        let places_root = match shared {
            Some((theirs, _, root)) if theirs == renamed(&places, &state.names) && self.usable(&root.1) => {
                root
            }
            _ => self.store_places(state, level, &places)?,
        };
        if level + 1 == state.height {
            state.root = Some((ids_root, places_root));
            return Ok(());
        }
        let up = index / FANOUT as u64;
        if state.open[usize::from(level)].as_ref().is_some_and(|open| open.index != up) {
            self.close(state, level + 1)?;
        }
        let open = state.open[usize::from(level)].get_or_insert_with(|| Open {
            index: up,
            ids: Box::new([ZERO; FANOUT]),
            children: Box::new([None; FANOUT]),
        });
        let number = (index % FANOUT as u64) as usize;
        open.ids[number] = ids_root.0;
        open.children[number] =
            Some(Child { ids: ids_root.1, places_id: places_root.0, places: places_root.1 });
        Ok(())
    }

    /// Whether the parent's page may be shared: its pack must be where this snapshot goes.
    fn usable(&self, place: &Place) -> bool {
        self.index.is_usable(&place.pack)
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
        let mut done = self.advance(self.blocks)?;
        let mut state = lock(&self.state);
        if !state.leaves.is_empty() {
            return Err(Error::Usage("blocks are recorded whose pack is not finished".into()));
        }
        for level in 1..state.height {
            self.close(&mut state, level)?;
        }
        self.finish_pack(&mut state)?;
        done.append(&mut state.done);
        let name = |root: Root| (root.0, rename(&root.1, &state.names));
        let roots = state.root.map(|(ids, places)| (name(ids), name(places)));
        Ok((Roots { height: state.height, ids: roots.map(|it| it.0), places: roots.map(|it| it.1) }, done))
    }
}

fn rename(place: &Place, names: &HashMap<Id, Id>) -> Place {
    Place { pack: names.get(&place.pack).copied().unwrap_or(place.pack), ..*place }
}

/// Puts the ids of finished manifest packs where their tokens stood.
fn renamed(places: &Places, names: &HashMap<Id, Id>) -> Places {
    let mut places = places.clone();
    if let Places::Inner(all) = &mut places {
        for child in all.iter_mut().flatten() {
            child.ids = rename(&child.ids, names);
            child.places = rename(&child.places, names);
        }
    }
    places
}

const _: () = assert!(CAPACITY > 4 * MAX_PAGE + FIXED);
