//! A writer that begins as its parent: only what is recorded is looked at, and all else keeps the parent's pages, unread.
//!
//! So the work grows with what changed, not with the volume. The caller vouches for the pages and blocks that nobody looks
//! at: every pack that the parent names must be where this snapshot goes.

use super::filling::{Leaf, Open};
use super::page::Places;
use super::reader::Manifest;
use super::writer::{ManifestWriter, State};
use super::{FANOUT, Root, height_for, span};
use crate::block::ZERO;
use crate::error::{Error, Result, damaged};
use crate::workers::lock;

impl ManifestWriter {
    /// From now on what is not recorded is as in the parent, but for what lies past this volume's end; blocks past the
    /// parent's end are zeros. Comes before anything is recorded.
    ///
    /// Where the two have not the same number of blocks, the parent's pages of this volume's last block must be loaded.
    pub fn inherit(&self) -> Result<()> {
        let (Some(parent), Some(_)) = (&self.parent, self.size()) else {
            return Err(Error::Usage("what is inherited needs a parent and a known size".into()));
        };
        let mut state = lock(&self.state);
        state.inherits = true;
        let blocks = self.blocks();
        let height = height_for(blocks);
        // The lower of the two trees is the first child of a node in the other, or both have one root.
        let shared = height.min(parent.roots.height);
        if shared == 0 {
            return Ok(());
        }
        let mut above = Open::zeros();
        above.set(0, parent.place_of(shared - 1, 0)?);
        state.open.insert((shared, 0), above);
        if blocks < parent.blocks {
            self.cut(&mut state, blocks, shared)?;
        }
        Ok(())
    }

    /// Opens the nodes in the middle of which the volume ends now.
    fn cut(&self, state: &mut State, blocks: u64, height: u8) -> Result<()> {
        for level in (0..height).filter(|level| blocks % span(*level) != 0) {
            match level {
                0 => drop(self.leaf(state, blocks / span(0))?),
                _ => drop(self.open(state, level, blocks / span(level))?),
            }
        }
        Ok(())
    }

    pub(super) fn inherited_leaf(&self, index: u64) -> Result<Leaf> {
        let mut leaf = Leaf::zeros();
        let theirs = self.parent.as_ref().map(|parent| parent.contents(0, index)).transpose()?.flatten();
        if let Some((ids, Places::Leaf(places))) = theirs {
            let kept = self.kept(0, index);
            leaf.ids[..kept].copy_from_slice(&ids[..kept]);
            leaf.places[..kept].copy_from_slice(&places[..kept]);
        }
        Ok(leaf)
    }

    pub(super) fn inherited_node(&self, level: u8, index: u64) -> Result<Open> {
        let mut open = Open::zeros();
        let theirs = self.parent.as_ref().map(|parent| parent.contents(level, index)).transpose()?.flatten();
        if let Some((ids, Places::Inner(children))) = theirs {
            let kept = self.kept(level, index);
            open.ids[..kept].copy_from_slice(&ids[..kept]);
            open.children[..kept].copy_from_slice(&children[..kept]);
        }
        Ok(open)
    }

    /// How many of a node's children begin before the volume's end.
    fn kept(&self, level: u8, index: u64) -> usize {
        let width = span(level) / FANOUT as u64;
        let inside = self.blocks().saturating_sub(index.saturating_mul(span(level)));
        inside.div_ceil(width).min(FANOUT as u64) as usize
    }

    /// Notes zeros, whole subtrees at a time. The parent's pages of the first and the last block must be loaded.
    pub fn clear(&self, first: u64, count: u64) -> Result<()> {
        let end = first.saturating_add(count).min(self.blocks());
        let mut state = lock(&self.state);
        if first / (FANOUT as u64) < state.complete {
            return Err(Error::Usage(format!("block {first} is cleared after the writer has passed it")));
        }
        if first >= end || !state.inherits {
            return Ok(());
        }
        self.clear_below(&mut state, height_for(self.blocks()), 0, first, end)
    }

    fn clear_below(&self, state: &mut State, level: u8, index: u64, first: u64, end: u64) -> Result<()> {
        let start = index * span(level);
        if level == 0 {
            let leaf = self.leaf(state, index)?;
            let inside = first.saturating_sub(start) as usize..(end - start).min(FANOUT as u64) as usize;
            leaf.ids[inside.clone()].fill(ZERO);
            leaf.places[inside].fill(None);
            return Ok(());
        }
        let width = span(level - 1);
        let until = (end - start).div_ceil(width).min(FANOUT as u64);
        for number in first.saturating_sub(start) / width..until {
            let (low, high) = (start + number * width, start + (number + 1) * width);
            let child = index * FANOUT as u64 + number;
            if first <= low && end >= high.min(self.blocks()) {
                forget_below(state, level - 1, child);
                self.open(state, level, index)?.set(number as usize, None);
            } else {
                self.clear_below(state, level - 1, child, first, end)?;
            }
        }
        Ok(())
    }
}

/// Drops a node, and all below it, of what is being filled.
fn forget_below(state: &mut State, level: u8, index: u64) {
    for below in 1..=level {
        let width = 1u64 << (8 * u32::from(level - below));
        state.open.retain(|(at, number), _| *at != below || number / width != index);
    }
    let width = 1u64 << (8 * u32::from(level));
    state.leaves.retain(|number, _| number / width != index);
}

impl Manifest {
    /// Where the two pages of a node lie; None if it is zeros. Every page above it must be there.
    fn place_of(&self, level: u8, index: u64) -> Result<Option<(Root, Root)>> {
        let outside = level >= self.roots.height || index.saturating_mul(span(level)) >= self.blocks;
        if outside || self.roots.ids.is_none() {
            return Ok(None);
        }
        let state = lock(&self.state);
        for above in (level + 1..self.roots.height).rev() {
            let node = (above, index >> (8 * u32::from(above - level)));
            let number = ((index >> (8 * u32::from(above - level - 1))) % FANOUT as u64) as usize;
            let (Some(ids), Some(Places::Inner(children))) = (state.ids.get(&node), state.places.get(&node))
            else {
                return damaged(format!("the parent's page {} of level {above} is not there", node.1));
            };
            match (ids[number] == ZERO, children[number]) {
                (true, _) => return Ok(None),
                (false, None) => return damaged("a page of places that lacks a child"),
                (false, Some(_)) => {}
            }
        }
        Ok(self.child(&state, level, index))
    }

    /// A node's two pages; None if it is zeros. It and every page above it must be there.
    fn contents(&self, level: u8, index: u64) -> Result<Option<(Box<[crate::bytes::Id; FANOUT]>, Places)>> {
        if self.place_of(level, index)?.is_none() {
            return Ok(None);
        }
        let state = lock(&self.state);
        match (state.ids.get(&(level, index)), state.places.get(&(level, index))) {
            (Some(ids), Some(places)) => Ok(Some((ids.clone(), places.clone()))),
            _ => damaged(format!("the parent's page {index} of level {level} is not there")),
        }
    }
}
