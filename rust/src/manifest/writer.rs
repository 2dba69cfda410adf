//! Builds a snapshot's trees while its blocks are recorded, sharing every page that the parent has already.
//!
//! Memory is bounded: leaves below the watermark become pages at once, and an inner page as soon as its last child is
//! past. A leaf waits only for the packs that its new blocks went to, because places name packs and a pack has no name
//! before it is full. No leaf waits for another one: where few blocks are new a pack may stay open for the whole volume.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use super::claims::Claims;
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

struct Leaf {
    ids: Box<[Id; FANOUT]>,
    places: Box<[Option<Place>; FANOUT]>,
}

struct Open {
    ids: Box<[Id; FANOUT]>,
    children: Box<[Option<Child>; FANOUT]>,
}

struct State {
    leaves: BTreeMap<u64, Leaf>,
    /// Leaves below this one are written, or wait for a pack's name.
    complete: u64,
    /// How many packs had a name when the waiting leaves were last tried.
    named: usize,
    /// Inner nodes that are being filled, by level and index.
    open: BTreeMap<(u8, u64), Open>,
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
    /// The volume's size in bytes.
    pub size: u64,
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
        Ok(Self {
            keys,
            workers,
            index,
            block_size,
            size,
            blocks,
            session,
            parent,
            encoder: Encoder::new(Codec::Zstd, 1),
            claims: Arc::default(),
            state: Mutex::new(State {
                leaves: BTreeMap::new(),
                complete: 0,
                named: 0,
                open: BTreeMap::new(),
                root: None,
                pack: None,
                pack_token: [0; 32],
                done: Vec::new(),
                names: HashMap::new(),
                height,
            }),
        })
    }

    /// Notes what was found for the blocks from `first` on. Refused once their page may be written: it would be made anew
    /// from these blocks alone.
    pub fn record(&self, first: u64, found: &[Found]) -> Result<()> {
        let mut state = lock(&self.state);
        if first / (FANOUT as u64) < state.complete {
            return Err(Error::Usage(format!("block {first} is recorded after the writer has passed it")));
        }
        for (block, (id, place)) in (first..).zip(found) {
            let number = (block % FANOUT as u64) as usize;
            let leaf = match state.leaves.entry(block / FANOUT as u64) {
                Entry::Vacant(_) if *id == ZERO => continue,
                entry => entry.or_insert_with(|| Leaf {
                    ids: Box::new([ZERO; FANOUT]),
                    places: Box::new([None; FANOUT]),
                }),
            };
            leaf.ids[number] = *id;
            leaf.places[number] = *place;
        }
        Ok(())
    }

    /// Notes blocks that could not be read.
    pub fn mark_unreadable(&self, first: u64, count: u64) -> Result<()> {
        let end = first.saturating_add(count).min(self.blocks);
        (first..end).try_for_each(|block| self.record(block, &[(UNREADABLE, None)]))
    }

    /// Every block below `until` is recorded or zeros: writes the pages that are complete, and returns full packs.
    ///
    /// The parent's pages that nothing will ask for again are evicted here.
    pub fn advance(&self, until: u64) -> Result<Vec<FinishedPack>> {
        let mut state = lock(&self.state);
        let until = if until >= self.blocks { u64::MAX } else { until };
        let complete = state.complete.max(until / FANOUT as u64);
        // Those that wait can only be resolved when one more pack has its name.
        let named = lock(&self.claims).named();
        let from = if named == state.named { state.complete } else { 0 };
        let ready: Vec<u64> = state.leaves.range(from..complete).map(|(index, _)| *index).collect();
        (state.complete, state.named) = (complete, named);
        for index in ready {
            let Some(places) = state.leaves.get(&index).map(|leaf| self.resolve(leaf)).transpose()?.flatten()
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
    fn resolve(&self, leaf: &Leaf) -> Result<Option<Box<[Option<Place>; FANOUT]>>> {
        let claims = lock(&self.claims);
        let sought = |id: &Id, place: &Option<Place>| *id != ZERO && *id != UNREADABLE && place.is_none();
        let mut found = leaf.ids.iter().zip(leaf.places.iter());
        if found.any(|(id, place)| sought(id, place) && claims.waits(id)) {
            return Ok(None);
        }
        let mut places = leaf.places.clone();
        for (id, place) in leaf.ids.iter().zip(places.iter_mut()) {
            if sought(id, place) {
                let known = claims.place(id).or_else(|| self.index.find(id));
                *place =
                    Some(known.ok_or_else(|| Error::Usage("a recorded block that nobody stored".into()))?);
            }
        }
        Ok(Some(places))
    }

    /// Writes every open inner node that ends at or before that block and below which no leaf waits.
    fn close_until(&self, state: &mut State, block: u64) -> Result<()> {
        // From the bottom up: what a node still lacks is then a leaf that waits, or lies past `block`.
        for level in 1..state.height {
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
        let open = state
            .open
            .entry((level + 1, index / FANOUT as u64))
            .or_insert_with(|| Open { ids: Box::new([ZERO; FANOUT]), children: Box::new([None; FANOUT]) });
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
        self.finish_pack(&mut state)?;
        done.append(&mut state.done);
        let name = |root: Root| (root.0, rename(&root.1, &state.names));
        let roots = state.root.map(|(ids, places)| (name(ids), name(places)));
        Ok((Roots { height: state.height, ids: roots.map(|it| it.0), places: roots.map(|it| it.1) }, done))
    }
}

/// Whether a leaf of that node is still in memory.
fn waits(leaves: &BTreeMap<u64, Leaf>, level: u8, index: u64) -> bool {
    let width = span(level) / FANOUT as u64;
    leaves.range(index * width..(index + 1) * width).next().is_some()
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
