//! Reads a snapshot's trees page by page. It says what it lacks and is fed; it knows nothing of where bytes come from.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex};

use super::page::{Child, Places, parse_ids, parse_places};
use super::{FANOUT, Fetch, Root, Roots, block_count, check_block_size, height_for, span};
use crate::block::ZERO;
use crate::bytes::Id;
use crate::collect::Marker;
use crate::error::{Result, damaged};
use crate::keys::Keyring;
use crate::pack::{HEADER, Opened, PackKey, Place, RecordKind, in_pack, open_record};
use crate::workers::lock;

/// Pages this near to each other are fetched in one read.
const GAP: u32 = 32 << 10;
/// The longest read of pages.
const LONGEST: u32 = 4 << 20;

/// A node of either tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Page {
    pub(super) level: u8,
    pub(super) index: u64,
    pub(super) kind: PageKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum PageKind {
    Ids,
    Places,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) ids: HashMap<(u8, u64), Box<[Id; FANOUT]>>,
    pub(super) places: HashMap<(u8, u64), Places>,
    pub(super) lost: BTreeSet<Page>,
    /// What was asked for and has not come, by pack and offset.
    wanted: HashMap<Id, Asked>,
    headers: HashSet<Id>,
    opened: Opened,
}

impl State {
    fn holds(&self, page: &Page) -> bool {
        let node = (page.level, page.index);
        match page.kind {
            PageKind::Ids => self.ids.contains_key(&node),
            PageKind::Places => self.places.contains_key(&node),
        }
    }
}

#[derive(Clone, Copy)]
struct Wanted {
    page: Page,
    id: Id,
    place: Place,
}

/// What was asked of one pack, and the key that it is opened with.
struct Asked {
    key: Option<PackKey>,
    pages: Vec<Wanted>,
}

/// One snapshot's trees.
pub struct Manifest {
    keys: Arc<Keyring>,
    /// What the commit says.
    pub roots: Roots,
    /// How many blocks the volume has.
    pub blocks: u64,
    /// Is told what is reached, and knows what need not be walked again.
    marker: Option<Arc<Marker>>,
    pub(super) state: Mutex<State>,
}

impl Manifest {
    /// The trees with those roots, nothing read yet.
    pub fn new(keys: Arc<Keyring>, roots: Roots, size: u64, block_size: usize) -> Result<Self> {
        check_block_size(block_size)?;
        let blocks = block_count(size, block_size as u64);
        if roots.height != height_for(blocks) || roots.ids.is_some() != roots.places.is_some() {
            return damaged("a commit whose trees do not fit its size");
        }
        Ok(Self { keys, roots, blocks, marker: None, state: Mutex::default() })
    }

    /// The trees, to be walked once from end to end for what they reach; what `marker` has met already counts as zeros.
    pub fn marking(
        keys: Arc<Keyring>,
        roots: Roots,
        size: u64,
        block_size: usize,
        marker: Arc<Marker>,
    ) -> Result<Self> {
        let mut manifest = Self::new(keys, roots, size, block_size)?;
        if let (Some((_, ids)), Some((_, places))) = (&roots.ids, &roots.places) {
            if !marker.visit(ids, places) {
                (manifest.roots.ids, manifest.roots.places) = (None, None);
            }
        }
        manifest.marker = Some(marker);
        Ok(manifest)
    }

    /// What must be fetched next to know the blocks from `first` to before `end`; empty when all is known or lost.
    pub fn missing(&self, first: u64, end: u64, places: bool) -> Vec<Fetch> {
        self.missing_in(std::iter::once((first, end)), places)
    }

    /// As `missing`, for several ranges.
    pub(super) fn missing_in(&self, ranges: impl Iterator<Item = (u64, u64)>, places: bool) -> Vec<Fetch> {
        let mut state = lock(&self.state);
        let mut wanted = Vec::new();
        if let Some(top) = self.roots.height.checked_sub(1) {
            for (first, end) in ranges {
                self.visit(&state, top, 0, (first, end.min(self.blocks)), places, &mut wanted);
            }
        }
        wanted.sort_unstable_by_key(|want| want.page);
        wanted.dedup_by_key(|want| want.page);
        self.fetches(&mut state, wanted)
    }

    pub(super) fn keys(&self) -> &Keyring {
        &self.keys
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
    pub(super) fn child(&self, state: &State, level: u8, index: u64) -> Option<(Root, Root)> {
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
            let key = state.opened.key(&self.keys, &pack);
            if key.is_none() {
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
            state.wanted.insert(pack, Asked { key, pages });
        }
        out
    }

    /// Takes the asked-for pages in `data`, which begins at `offset` of `pack`; returns how many failed.
    pub fn feed(&self, pack: &Id, offset: u32, data: &[u8]) -> usize {
        let mut state = lock(&self.state);
        if offset == 0 && state.headers.contains(pack) {
            return usize::from(!state.opened.learn(&self.keys, pack, data));
        }
        let Some(key) = state.wanted.get(pack).and_then(|asked| asked.key.clone()) else { return 1 };
        let wanted = within(&state, pack, offset, data.len() as u64);
        let mut failed = 0;
        for want in wanted {
            if state.holds(&want.page) {
                continue; // It came in an earlier try, in which another page failed.
            }
            let from = (want.place.offset - offset) as usize;
            let bytes = &data[from..from + want.place.length as usize];
            match self.take(&mut state, &key, want, bytes) {
                Ok(()) => {
                    state.opened.prove(pack, &key);
                    self.mark(&mut state, want.page);
                }
                Err(_) => failed += 1,
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

    /// Tells the marker of a page that came. An inner node is walked on to those children alone that nobody has met yet.
    fn mark(&self, state: &mut State, Page { level, index, .. }: Page) {
        let Some(marker) = &self.marker else { return };
        let node = (level, index);
        if level == 0 {
            if let Some(ids) = state.ids.get(&node) {
                marker.need(&ids[..]);
            }
            return;
        }
        let (Some(ids), Some(Places::Inner(children))) =
            (state.ids.get_mut(&node), state.places.get_mut(&node))
        else {
            return;
        };
        for (id, child) in ids.iter_mut().zip(children.iter_mut()).filter(|(id, _)| **id != ZERO) {
            match child {
                Some(pages) if marker.visit(&pages.ids, &pages.places) => {}
                Some(_) => (*id, *child) = (ZERO, None),
                None => marker.fail("a page of places does not say where a page of ids lies"),
            }
        }
    }

    /// Whether a page was given up, anywhere.
    pub fn any_lost(&self) -> bool {
        !lock(&self.state).lost.is_empty()
    }

    /// Nobody has that range in good order: what was asked for in it is lost, unless the pack's header may be to blame.
    pub fn give_up(&self, pack: &Id, offset: u32, length: u32) {
        let mut state = lock(&self.state);
        let whole_pack = offset == 0 && state.headers.contains(pack);
        let key = state.wanted.get(pack).and_then(|asked| asked.key.clone());
        match key {
            Some(key) if state.opened.refute(&self.keys, pack, &key) => return,
            Some(_) => {}
            None => state.opened.reinstate(pack),
        }
        let (offset, length) = if whole_pack { (0, u64::MAX) } else { (offset, u64::from(length)) };
        for want in within(&state, pack, offset, length) {
            if !state.holds(&want.page) {
                state.lost.insert(want.page);
            }
        }
    }

    /// Forgets the pages that only blocks below `until` need.
    pub fn evict(&self, until: u64) {
        self.evict_but(until, |_, _| false);
    }

    /// As `evict`, but for the pages of nodes (level, index) that are to be kept.
    pub fn evict_but(&self, until: u64, keep: impl Fn(u8, u64) -> bool) {
        let mut state = lock(&self.state);
        let needed = |(level, index): &(u8, u64)| {
            (index + 1).saturating_mul(span(*level)) > until || keep(*level, *index)
        };
        state.ids.retain(|node, _| needed(node));
        state.places.retain(|node, _| needed(node));
    }
}

/// What is wanted from that range of the pack.
fn within(state: &State, pack: &Id, offset: u32, length: u64) -> Vec<Wanted> {
    let end = u64::from(offset).saturating_add(length);
    let inside = |want: &&Wanted| {
        want.place.offset >= offset && u64::from(want.place.offset) + u64::from(want.place.length) <= end
    };
    state.wanted.get(pack).into_iter().flat_map(|asked| &asked.pages).filter(inside).copied().collect()
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
