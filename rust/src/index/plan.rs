//! What a fold will make: which tables it takes in, which bundles stay and which are written anew, and how numbers change.

use std::ops::Range;
use std::sync::Arc;

use super::bundle::{Bundle, Part, Source};
use super::layers::{Laid, Level};
use super::recent::Loose;
use super::table::{Named, Table};
use crate::bytes::Id;
use crate::error::{Error, Result, damaged};

/// How large what is folded becomes.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// So many entries of bundles without a table get one.
    pub unsorted: usize,
    /// A table takes in the one before it unless that is so many times as large.
    pub ratio: usize,
    /// Tables of fewer entries than that times the ratio are always taken in.
    pub small: usize,
    /// A bundle is not made larger than this, unless one segment is; one of less than a quarter is written anew with the next.
    pub bundle: usize,
}

impl Default for Shape {
    /// Of 10⁹ entries each was written into seven tables then, and there are two on average.
    fn default() -> Self {
        Self { unsorted: 1 << 23, ratio: 4, small: 1 << 17, bundle: 1 << 20 }
    }
}

/// A segment that goes into a new bundle. What is fresh is in no table yet.
pub enum From {
    /// From memory.
    Loose(Arc<Loose>),
    /// From another bundle.
    Bundled { bundle: Arc<Bundle>, part: Part, live: bool, fresh: bool },
}

impl From {
    /// Where it is read.
    pub fn source(&self) -> Result<Source<'_>> {
        let damaged = || Error::Damaged("a bundle of the index cache is damaged".into());
        match self {
            Self::Loose(loose) => Ok(Source::plain(&loose.segment, loose.bytes())),
            Self::Bundled { bundle, part, .. } => Source::bundled(bundle, part).ok_or_else(damaged),
        }
    }

    /// Id, packs and entries of the segment.
    pub fn size(&self) -> (Id, usize, usize) {
        match self {
            Self::Loose(loose) => (loose.id, loose.segment.pack_count(), loose.segment.entries),
            Self::Bundled { part, .. } => (part.id, part.packs.len(), part.entries.len()),
        }
    }

    /// Whether it counts, and does not only go along.
    pub fn is_live(&self) -> bool {
        matches!(self, Self::Loose(_) | Self::Bundled { live: true, .. })
    }

    /// Whether no table finds it yet.
    pub fn is_fresh(&self) -> bool {
        matches!(self, Self::Loose(_) | Self::Bundled { fresh: true, .. })
    }
}

/// A bundle of the new table.
pub enum Output {
    /// One that there was.
    Kept { laid: Laid, fresh: bool },
    /// One that is to be made; named once it is.
    Made { from: Vec<From>, entries: usize, named: Option<Named> },
}

impl Output {
    /// As the new table names it, once it is made.
    pub fn named(&self) -> Option<Named> {
        match self {
            Self::Kept { laid, .. } => {
                Some(Named { name: laid.bundle.name, entries: laid.bundle.entries as u32 })
            }
            Self::Made { named, .. } => *named,
        }
    }

    /// How many entries it has.
    pub fn entries(&self) -> usize {
        match self {
            Self::Kept { laid, .. } => laid.bundle.entries,
            Self::Made { entries, .. } => *entries,
        }
    }
}

/// Numbers `from` to before `until` of an old table begin at `to` in the new one.
pub struct Piece {
    from: usize,
    until: usize,
    to: usize,
}

/// An old table, and how its numbers change.
pub struct Merged {
    /// As the index has it.
    pub table: Arc<Table>,
    /// In the order of the old numbers; those in none are dropped.
    pub pieces: Vec<Piece>,
    /// Its files belong to whoever has left it out.
    pub left_out: bool,
}

impl Merged {
    /// An entry as it will be in the new table; None if it is dropped.
    pub fn renumbered(&self, entry: u64) -> Option<u64> {
        let number = (entry & u64::from(u32::MAX)) as usize;
        let at = match self.pieces.as_slice() {
            [_] => 0,
            pieces => pieces.partition_point(|piece| piece.from <= number).checked_sub(1)?,
        };
        let piece = self.pieces.get(at).filter(|piece| (piece.from..piece.until).contains(&number))?;
        Some(entry & !u64::from(u32::MAX) | (piece.to + (number - piece.from)) as u64)
    }
}

/// How many of the newest tables are taken in: until an older one is much larger than all that would be merged; and, seen as a
/// `whole`, one half of whose entries no longer count. What others left out is always taken in.
pub fn taken_in(levels: &[Level], fresh: usize, shape: Shape, whole: bool) -> usize {
    let mut all = fresh;
    let mut count = 0;
    for level in levels.iter().rev() {
        let entries = level.table.entries;
        let counts = || level.laid().map(Laid::live_entries).sum::<usize>() * 2 >= entries;
        let large = entries >= shape.ratio * all.max(shape.small) && (!whole || counts()) && !level.left_out;
        if large || all + entries > u32::MAX as usize {
            break;
        }
        all += entries;
        count += 1;
    }
    count
}

/// What the new table will be of, and how the old ones' numbers change.
pub struct Plan {
    /// Its bundles, in order.
    pub outputs: Vec<Output>,
    /// The tables it takes in.
    pub merged: Vec<Merged>,
    entries: usize,
    most: usize,
    whole: bool,
}

impl Plan {
    /// Nothing yet; no bundle is to be made of more than so many entries. What does not count is dropped only if all are `whole`: who has
    /// asked a part of the destinations does not know what the others list.
    pub fn new(most: usize, whole: bool) -> Self {
        Self { outputs: Vec::new(), merged: Vec::new(), entries: 0, most, whole }
    }

    /// Takes in a table; `is_there` says which of its bundles still have their file.
    pub fn level(&mut self, level: &Level, is_there: impl Fn(&Laid) -> bool) -> Result<()> {
        let mut pieces: Vec<Piece> = Vec::new();
        for (laid, first) in level.bundles.iter().zip(&level.firsts) {
            let Some(laid) = laid else { continue };
            self.bundle(laid, false, !level.left_out || is_there(laid), |range, to| {
                let (from, until) = (first + range.start, first + range.end);
                match pieces.last_mut() {
                    Some(last) if last.until == from && last.to + (last.until - last.from) == to => {
                        last.until = until;
                    }
                    _ => pieces.push(Piece { from, until, to }),
                }
            })?;
        }
        self.merged.push(Merged { table: level.table.clone(), pieces, left_out: level.left_out });
        Ok(())
    }

    /// A bundle that may stays, unless it is small or a quarter of it no longer counts: it is written anew then, with what comes after it.
    /// `Damaged` where that would forget what counts.
    pub fn bundle(
        &mut self,
        laid: &Laid,
        fresh: bool,
        may_stay: bool,
        mut numbered: impl FnMut(Range<usize>, usize),
    ) -> Result<()> {
        if laid.bundle.is_bad() {
            return if laid.is_lost() { damaged("a bundle of the index cache is damaged") } else { Ok(()) };
        }
        let entries = laid.bundle.entries;
        let staying = if self.whole { laid.live_entries() } else { entries };
        if may_stay && staying * 4 >= entries * 3 && entries * 4 >= self.most {
            numbered(0..entries, self.entries);
            self.entries += entries;
            self.outputs.push(Output::Kept { laid: laid.clone(), fresh });
            return Ok(());
        }
        let whole = self.whole;
        for (part, live) in laid.parts().filter(|(_, live)| *live || !whole) {
            numbered(part.entries.clone(), self.entries);
            self.put(From::Bundled { bundle: laid.bundle.clone(), part: part.clone(), live, fresh });
        }
        Ok(())
    }

    /// Puts a segment into the last bundle that is being made, if there is room.
    pub fn put(&mut self, it: From) {
        let more = it.size().2;
        self.entries += more;
        match self.outputs.last_mut() {
            Some(Output::Made { from, entries, .. }) if *entries + more <= self.most => {
                from.push(it);
                *entries += more;
            }
            _ => self.outputs.push(Output::Made { from: vec![it], entries: more, named: None }),
        }
    }
}
