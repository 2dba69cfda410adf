//! Reads a snapshot's trees page by page. It says what it lacks and is fed; it knows nothing of where bytes come from.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use super::page::{Child, Places, parse_ids, parse_places};
use super::{FANOUT, Fetch, Root, Roots, block_count, check_block_size, height_for, span};
use crate::block::ZERO;
use crate::bytes::Id;
use crate::error::{Error, Result, damaged};
use crate::keys::Keyring;
use crate::pack::{HEADER, PackKey, Place, RecordKind, in_pack, open_record};
use crate::workers::lock;

/// Pages this near to each other are fetched in one read.
const GAP: u32 = 32 << 10;
/// The longest read of pages.
const LONGEST: u32 = 4 << 20;

/// A node of either tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Page {
    level: u8,
    index: u64,
    kind: PageKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum PageKind {
    Ids,
    Places,
}

#[derive(Default)]
struct State {
    ids: HashMap<(u8, u64), Box<[Id; FANOUT]>>,
    places: HashMap<(u8, u64), Places>,
    lost: HashSet<Page>,
    /// What was asked for and has not come, by pack and offset.
    wanted: HashMap<Id, Vec<Wanted>>,
    headers: HashSet<Id>,
}

#[derive(Clone, Copy)]
struct Wanted {
    page: Page,
    id: Id,
    place: Place,
}

/// One snapshot's trees.
pub struct Manifest {
    keys: Arc<Keyring>,
    /// What the commit says.
    pub roots: Roots,
    /// How many blocks the volume has.
    pub blocks: u64,
    state: Mutex<State>,
}

impl Manifest {
    /// The trees with those roots, nothing read yet.
    pub fn new(keys: Arc<Keyring>, roots: Roots, size: u64, block_size: usize) -> Result<Self> {
        check_block_size(block_size)?;
        let blocks = block_count(size, block_size as u64);
        if roots.height != height_for(blocks) || roots.ids.is_some() != roots.places.is_some() {
            return damaged("a commit whose trees do not fit its size");
        }
        Ok(Self { keys, roots, blocks, state: Mutex::default() })
    }

    /// What must be fetched next to know the blocks from `first` to before `end`; empty when all is known or lost.
    pub fn missing(&self, first: u64, end: u64, places: bool) -> Vec<Fetch> {
        let mut state = lock(&self.state);
        let mut wanted = Vec::new();
        if let Some(top) = self.roots.height.checked_sub(1) {
            self.visit(&state, top, 0, (first, end.min(self.blocks)), places, &mut wanted);
        }
        self.fetches(&mut state, wanted)
    }

    /// What must be fetched for those nodes: pages of ids, and of places where they lead on.
    pub fn request(&self, nodes: &[(u8, u64)]) -> Vec<Fetch> {
        let mut state = lock(&self.state);
        let mut wanted = Vec::new();
        for (level, index) in nodes {
            let Some((ids, places)) = self.wants(&state, *level, *index) else { continue };
            if !state.ids.contains_key(&(*level, *index)) && !state.lost.contains(&ids.page) {
                wanted.push(ids);
            }
            if *level > 0
                && !state.places.contains_key(&(*level, *index))
                && !state.lost.contains(&places.page)
            {
                wanted.push(places);
            }
        }
        self.fetches(&mut state, wanted)
    }

    fn visit(
        &self,
        state: &State,
        level: u8,
        index: u64,
        range: (u64, u64),
        places: bool,
        out: &mut Vec<Wanted>,
    ) {
        let start = index * span(level);
        if start >= range.1 || start + span(level) <= range.0 {
            return;
        }
        let Some(want) = self.wants(state, level, index) else { return };
        let (ids, their_places) = want;
        let known = state.ids.get(&(level, index));
        if known.is_none() && !state.lost.contains(&ids.page) {
            out.push(ids);
        }
        let have_places = state.places.contains_key(&(level, index));
        let lost_places = state.lost.contains(&their_places.page);
        if (places || level > 0) && !have_places && !lost_places {
            out.push(their_places);
        }
        if let (Some(children), true) = (known, level > 0 && have_places) {
            let width = span(level - 1);
            let from = range.0.saturating_sub(start) / width;
            let until = (range.1 - start).div_ceil(width).min(FANOUT as u64);
            for number in from..until {
                if children[number as usize] != ZERO {
                    self.visit(state, level - 1, index * FANOUT as u64 + number, range, places, out);
                }
            }
        }
    }

    /// The two pages of a node, if it has any and its parent is known.
    fn wants(&self, state: &State, level: u8, index: u64) -> Option<(Wanted, Wanted)> {
        let (ids, places) = self.child(state, level, index)?;
        let of = |kind, (id, place)| Wanted { page: Page { level, index, kind }, id, place };
        Some((of(PageKind::Ids, ids), of(PageKind::Places, places)))
    }

    /// Ids and places of a node's two pages.
    fn child(&self, state: &State, level: u8, index: u64) -> Option<(Root, Root)> {
        if level + 1 == self.roots.height {
            return Some((self.roots.ids?, self.roots.places?)).filter(|_| index == 0);
        }
        let parent = (level + 1, index / FANOUT as u64);
        let number = (index % FANOUT as u64) as usize;
        let id = state.ids.get(&parent)?[number];
        let Some(Places::Inner(children)) = state.places.get(&parent) else { return None };
        let child: Child = children[number]?;
        (id != ZERO).then_some(((id, child.ids), (child.places_id, child.places)))
    }

    fn fetches(&self, state: &mut State, wanted: Vec<Wanted>) -> Vec<Fetch> {
        let mut by_pack: HashMap<Id, Vec<Wanted>> = HashMap::new();
        for want in wanted {
            by_pack.entry(want.place.pack).or_default().push(want);
        }
        let mut out = Vec::new();
        state.wanted.clear();
        state.headers.clear();
        for (pack, mut pages) in by_pack {
            if self.keys.pack_key(&pack).is_none() {
                state.headers.insert(pack);
                out.push((pack, 0, HEADER as u32));
            } else {
                pages.sort_by_key(|want| want.place.offset);
                out.extend(coalesce(
                    pack,
                    pages.iter().map(|want| (want.place.offset, want.place.length)),
                    GAP,
                    LONGEST,
                ));
            }
            state.wanted.insert(pack, pages);
        }
        out
    }

    /// Takes the asked-for pages in `data`, which begins at `offset` of `pack`; returns how many failed.
    pub fn feed(&self, pack: &Id, offset: u32, data: &[u8]) -> usize {
        let mut state = lock(&self.state);
        if offset == 0 && state.headers.contains(pack) {
            return match PackKey::from_header(&self.keys, data) {
                Ok(key) => {
                    self.keys.remember_pack(*pack, key);
                    0
                }
                Err(_) => 1,
            };
        }
        let Some(key) = self.keys.pack_key(pack) else { return 1 };
        let wanted = within(&state, pack, offset, data.len() as u64);
        let mut failed = 0;
        for want in wanted {
            let from = (want.place.offset - offset) as usize;
            let bytes = &data[from..from + want.place.length as usize];
            if self.take(&mut state, &key, want, bytes).is_err() {
                failed += 1;
            }
        }
        failed
    }

    fn take(&self, state: &mut State, key: &PackKey, want: Wanted, bytes: &[u8]) -> Result<()> {
        let Page { level, index, kind } = want.page;
        match kind {
            PageKind::Ids => {
                let page = open_record(&self.keys, key, RecordKind::Ids, &want.id, bytes, |page| {
                    parse_ids(level, page)
                });
                state.ids.insert((level, index), page.map_err(|error| in_pack(&want.place.pack, error))??);
            }
            PageKind::Places => {
                let page = open_record(&self.keys, key, RecordKind::Places, &want.id, bytes, |page| {
                    parse_places(level, page, &want.place.pack)
                });
                state.places.insert((level, index), page.map_err(|error| in_pack(&want.place.pack, error))??);
            }
        }
        Ok(())
    }

    /// Nobody has that range in good order: what was asked for in it is lost.
    pub fn give_up(&self, pack: &Id, offset: u32, length: u32) {
        let mut state = lock(&self.state);
        let whole_pack = offset == 0 && state.headers.contains(pack);
        let (offset, length) = if whole_pack { (0, u64::MAX) } else { (offset, u64::from(length)) };
        for want in within(&state, pack, offset, length) {
            let known = match want.page.kind {
                PageKind::Ids => state.ids.contains_key(&(want.page.level, want.page.index)),
                PageKind::Places => state.places.contains_key(&(want.page.level, want.page.index)),
            };
            if !known {
                state.lost.insert(want.page);
            }
        }
    }

    /// (first, count) runs of blocks whose pages were given up.
    pub fn lost(&self, first: u64, end: u64) -> Vec<(u64, u64)> {
        let state = lock(&self.state);
        let mut covered: Vec<(u64, u64)> = state
            .lost
            .iter()
            .map(|page| (page.index * span(page.level), (page.index + 1) * span(page.level)))
            .map(|(from, until)| (from.max(first), until.min(end).min(self.blocks)))
            .filter(|(from, until)| from < until)
            .collect();
        covered.sort_unstable();
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for (from, until) in covered {
            match runs.last_mut() {
                Some((start, count)) if from <= *start + *count => *count = (*count).max(until - *start),
                _ => runs.push((from, until - from)),
            }
        }
        runs
    }

    /// Forgets the pages that only blocks below `until` need.
    pub fn evict(&self, until: u64) {
        let mut state = lock(&self.state);
        let needed = |(level, index): &(u8, u64)| (index + 1).saturating_mul(span(*level)) > until;
        state.ids.retain(|node, _| needed(node));
        state.places.retain(|node, _| needed(node));
    }

    /// The first block from `first` on that is not below a page known to hold only zeros; `blocks` if there is none.
    pub fn next_data(&self, first: u64) -> u64 {
        let state = lock(&self.state);
        match self.roots.height.checked_sub(1) {
            Some(top) if self.roots.ids.is_some() => {
                self.data_below(&state, top, 0, first).unwrap_or(self.blocks).min(self.blocks)
            }
            _ => self.blocks,
        }
    }

    /// As `next_data`, below a node that has a page of ids.
    fn data_below(&self, state: &State, level: u8, index: u64, first: u64) -> Option<u64> {
        let start = index * span(level);
        if start + span(level) <= first {
            return None;
        }
        let from = first.max(start);
        let Some(ids) = state.ids.get(&(level, index)) else { return Some(from) };
        let width = if level == 0 { 1 } else { span(level - 1) };
        let skipped = ((from - start) / width) as usize;
        ids.iter().enumerate().skip(skipped).filter(|(_, id)| **id != ZERO).find_map(
            |(number, _)| match level {
                0 => Some(start + number as u64),
                _ => self.data_below(state, level - 1, index * FANOUT as u64 + number as u64, first),
            },
        )
    }

    /// The ids of the blocks from `first` to before `end`; all their pages must be there.
    pub fn ids(&self, first: u64, end: u64) -> Result<Vec<Id>> {
        let state = lock(&self.state);
        (first..end)
            .map(|block| match self.leaf(&state, block)? {
                Known::Page(leaf) => Ok(state.ids[&(0, leaf)][(block % FANOUT as u64) as usize]),
                Known::Zeros => Ok(ZERO),
                Known::Lost => damaged("a page of the manifest is lost"),
            })
            .collect()
    }

    /// What is known of one block: its id, and where it lies. None where a page is lost.
    pub fn block(&self, block: u64) -> Result<Option<(Id, Option<Place>)>> {
        Ok(self.range(block, block + 1)?.pop().flatten())
    }

    /// As `block`, for several under one lock.
    pub fn range(&self, first: u64, end: u64) -> Result<Vec<Option<(Id, Option<Place>)>>> {
        let state = lock(&self.state);
        (first..end)
            .map(|block| {
                let number = (block % FANOUT as u64) as usize;
                Ok(match self.leaf(&state, block)? {
                    Known::Page(leaf) => {
                        let place = match state.places.get(&(0, leaf)) {
                            Some(Places::Leaf(all)) => all[number],
                            _ => None,
                        };
                        Some((state.ids[&(0, leaf)][number], place))
                    }
                    Known::Zeros => Some((ZERO, None)),
                    Known::Lost => None,
                })
            })
            .collect()
    }

    fn leaf(&self, state: &State, block: u64) -> Result<Known> {
        if block >= self.blocks || self.roots.ids.is_none() {
            return Ok(Known::Zeros);
        }
        for level in (0..self.roots.height).rev() {
            let index = block / span(level);
            if state.lost.iter().any(|page| {
                page.level == level && page.index == index && (level > 0 || page.kind == PageKind::Ids)
            }) {
                return Ok(Known::Lost);
            }
            let Some(ids) = state.ids.get(&(level, index)) else {
                return Err(Error::Usage(format!("the manifest's page for block {block} was not fetched")));
            };
            if level == 0 {
                return Ok(Known::Page(index));
            }
            if ids[((block / span(level - 1)) % FANOUT as u64) as usize] == ZERO {
                return Ok(Known::Zeros);
            }
        }
        Ok(Known::Zeros)
    }

    /// What stands at a node whose parent is loaded.
    pub fn look(&self, level: u8, index: u64) -> Node {
        if level >= self.roots.height {
            return if index == 0 { Node::Above } else { Node::Zeros };
        }
        let state = lock(&self.state);
        let id = if level + 1 == self.roots.height {
            self.roots.ids.filter(|_| index == 0).map(|(id, _)| id)
        } else {
            let parent = state.ids.get(&(level + 1, index / FANOUT as u64));
            parent.map(|ids| ids[(index % FANOUT as u64) as usize])
        };
        match id.filter(|id| *id != ZERO) {
            Some(id) => {
                let ids = state.ids.contains_key(&(level, index));
                let loaded = ids && (level == 0 || state.places.contains_key(&(level, index)));
                let lost = |kind| state.lost.contains(&Page { level, index, kind });
                // A lost page is as loaded as it will be; reading its ids then fails.
                let lost = lost(PageKind::Ids) || (level > 0 && lost(PageKind::Places));
                Node::Page { id, loaded: loaded || lost }
            }
            None => Node::Zeros,
        }
    }

    /// A node's places and where its two pages lie, if loaded.
    pub fn node(&self, level: u8, index: u64) -> Option<(Places, Root, Root)> {
        if level >= self.roots.height {
            return None;
        }
        let state = lock(&self.state);
        let (ids, places) = self.child(&state, level, index)?;
        Some((state.places.get(&(level, index))?.clone(), ids, places))
    }

    /// Every pack that loaded pages of the range name, each once.
    pub fn packs(&self, first: u64, end: u64) -> Vec<Id> {
        let state = lock(&self.state);
        let mut out: HashSet<Id> = HashSet::new();
        out.extend(self.roots.ids.iter().chain(&self.roots.places).map(|(_, place)| place.pack));
        for ((level, index), places) in &state.places {
            let start = index * span(*level);
            if start >= end || start + span(*level) <= first {
                continue;
            }
            match places {
                Places::Leaf(all) => out.extend(all.iter().flatten().map(|place| place.pack)),
                Places::Inner(all) => {
                    out.extend(all.iter().flatten().flat_map(|child| [child.ids.pack, child.places.pack]))
                }
            }
        }
        out.into_iter().collect()
    }
}

/// What stands at a place in the tree.
#[derive(Clone, Copy, Debug)]
pub enum Node {
    /// Nothing but zeros.
    Zeros,
    /// A page of that id.
    Page {
        /// Of the page of ids.
        id: Id,
        /// Whether its children are known.
        loaded: bool,
    },
    /// The tree is shorter: it is child 0 of this one.
    Above,
}

enum Known {
    Page(u64),
    Zeros,
    Lost,
}

/// What is wanted from that range of the pack.
fn within(state: &State, pack: &Id, offset: u32, length: u64) -> Vec<Wanted> {
    let end = u64::from(offset).saturating_add(length);
    let inside = |want: &&Wanted| {
        want.place.offset >= offset && u64::from(want.place.offset) + u64::from(want.place.length) <= end
    };
    state.wanted.get(pack).into_iter().flatten().filter(inside).copied().collect()
}

/// Joins sorted (offset, length) ranges that lie near each other.
pub fn coalesce(pack: Id, ranges: impl Iterator<Item = (u32, u32)>, gap: u32, longest: u32) -> Vec<Fetch> {
    let mut out: Vec<Fetch> = Vec::new();
    for (offset, length) in ranges {
        if let Some((_, start, total)) = out.last_mut() {
            let end = *start + *total;
            let joined = (offset + length).saturating_sub(*start);
            if offset <= end.saturating_add(gap) && joined <= longest {
                *total = (*total).max(joined);
                continue;
            }
        }
        out.push((pack, offset, length));
    }
    out
}
