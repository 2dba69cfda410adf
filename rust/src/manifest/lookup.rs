//! What the loaded pages of a manifest say: ids, places, nodes, and what is lost.

use std::collections::HashSet;

use super::page::Places;
use super::reader::{Manifest, Page, PageKind, State};
use super::{FANOUT, Found, Root, span};
use crate::block::{UNREADABLE, ZERO};
use crate::bytes::Id;
use crate::error::{Error, Result, damaged};
use crate::index::Index;
use crate::workers::lock;

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

/// Where the blocks of a range lie now.
#[derive(Default)]
pub struct Resolved {
    /// The present packs that hold them, and all packs of the pages above them.
    pub packs: HashSet<Id>,
    /// Packs that are gone, and that held blocks which no present one holds.
    pub missing: HashSet<Id>,
    /// (first, count) runs of those blocks.
    pub lost: Vec<(u64, u64)>,
}

enum Known {
    Page(u64),
    Zeros,
    Lost,
}

impl Manifest {
    /// (first, count) runs of blocks whose pages were given up.
    pub fn lost(&self, first: u64, end: u64) -> Vec<(u64, u64)> {
        let state = lock(&self.state);
        // Each level's pages stand together, in order: only those that touch the range are looked at.
        let touching = (0..self.roots.height).flat_map(|level| {
            let at = |index| Page { level, index, kind: PageKind::Ids };
            let until = end.min(self.blocks).max(first).div_ceil(span(level));
            state.lost.range(at(first / span(level))..at(until))
        });
        let mut covered: Vec<(u64, u64)> = touching
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

    /// What is known of the blocks from `first` to before `end`; None where a page is lost.
    pub fn range(&self, first: u64, end: u64) -> Result<Vec<Option<Found>>> {
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
            let lost = |kind| state.lost.contains(&Page { level, index, kind });
            if lost(PageKind::Ids) || (level > 0 && lost(PageKind::Places)) {
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

    /// Where the loaded blocks of the range lie: places are hints, and where one names a pack that is gone the index knows better.
    pub fn resolve(&self, index: &Index, present: &HashSet<Id>, first: u64, end: u64) -> Result<Resolved> {
        let mut out = Resolved { packs: self.pages(first, end), ..Resolved::default() };
        let mut at = first;
        while at < end {
            at = self.next_data(at).min(end);
            let until = ((at / FANOUT as u64 + 1) * FANOUT as u64).min(end);
            for (block, found) in (at..until).zip(self.range(at, until)?) {
                let Some((id, place)) = found.filter(|(id, _)| *id != ZERO && *id != UNREADABLE) else {
                    continue;
                };
                let here = place.filter(|place| present.contains(&place.pack));
                match here.or_else(|| index.find_where(&id, |place| present.contains(&place.pack))) {
                    Some(place) => {
                        out.packs.insert(place.pack);
                    }
                    None => {
                        out.missing.extend(place.map(|place| place.pack));
                        match out.lost.last_mut() {
                            Some((start, count)) if *start + *count == block => *count += 1,
                            _ => out.lost.push((block, 1)),
                        }
                    }
                }
            }
            at = until;
        }
        Ok(out)
    }

    /// Every pack that holds pages of the range.
    pub fn pages(&self, first: u64, end: u64) -> HashSet<Id> {
        let state = lock(&self.state);
        let mut out: HashSet<Id> =
            self.roots.ids.iter().chain(&self.roots.places).map(|(_, place)| place.pack).collect();
        for ((level, index), places) in &state.places {
            if let Places::Inner(all) = places {
                let width = span(level - 1);
                let start = index * span(*level);
                let inside = all.iter().zip(0u64..).filter(|(_, number)| {
                    let from = start + number * width;
                    from < end && from + width > first
                });
                out.extend(
                    inside.filter_map(|(child, _)| *child).flat_map(|it| [it.ids.pack, it.places.pack]),
                );
            }
        }
        out
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
