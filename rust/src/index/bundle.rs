//! A bundle: what some hundreds of segments say, segment after segment, in one file of checked pages.
//!
//! ```text
//!  0  8 magic
//!  8  4 segments s
//! 12  4 packs p
//! 16  4 entries e
//! 20 12 zeros
//! 32    s × 40: id 32, its first pack 4, its first entry 4
//!       p × 40 packs: id 32, size 8
//!       e × 28 entries: id prefix 16, pack 4, offset 4, length 4
//! ```
//!
//! Entries of a segment stand together: what a volume holds in a row was written in a row, so one page that was read answers for
//! hundreds of blocks that follow. Where an entry is, a table says.

use std::path::Path;

use super::pages::{PageWriter, Pages, SMALL};
use super::segment::{self, ENTRY, PACK, Prefix, View, prefix_of};
use super::table::{Key, Named, bundle_file};
use crate::bytes::{Id, Reader, magic};
use crate::error::{Error, Result};
use crate::outside::Mapped;
use crate::pack::Place;

const HEAD: usize = 32;
const SEGMENT: usize = 40;

fn bundle_magic() -> [u8; 8] {
    magic("snapferry index bundle, format 1")
}

/// A segment of a bundle: where its packs and entries are.
#[derive(Clone, Debug)]
pub struct Part {
    /// Of the segment.
    pub id: Id,
    /// Numbers of its packs in the bundle.
    pub packs: std::ops::Range<usize>,
    /// Numbers of its entries in the bundle.
    pub entries: std::ops::Range<usize>,
}

/// A mapped bundle.
pub struct Bundle {
    /// Random.
    pub name: [u8; 16],
    /// How many entries there are.
    pub entries: usize,
    /// Its segments, in order.
    pub parts: Vec<Part>,
    pages: Pages,
    packs: usize,
    packs_at: usize,
    entries_at: usize,
}

impl Bundle {
    /// Maps a bundle and reads the list of its segments.
    pub fn open(directory: &Path, name: [u8; 16]) -> Result<Self> {
        let file = bundle_file(&name);
        let pages = Pages::open(&directory.join(&file), SMALL)?;
        pages.expect(Mapped::read_scattered);
        let bad = || Error::Damaged(format!("{file}: not an index bundle that this program knows"));
        let mut head = Reader::new(pages.get(0, HEAD).ok_or_else(bad)?);
        if head.array::<8>()? != bundle_magic() {
            return Err(bad());
        }
        let (count, packs, entries) = (head.u32()? as usize, head.u32()? as usize, head.u32()? as usize);
        let packs_at = HEAD + count * SEGMENT;
        let entries_at = packs_at + packs * PACK;
        if entries_at + entries * ENTRY != pages.unchecked().len() {
            return Err(bad());
        }
        let mut list = Reader::new(pages.get(HEAD, count * SEGMENT).ok_or_else(bad)?);
        let mut parts: Vec<Part> = Vec::new();
        for _ in 0..count {
            let (id, first_pack, first_entry) = (list.array()?, list.u32()? as usize, list.u32()? as usize);
            if let Some(last) = parts.last_mut() {
                (last.packs.end, last.entries.end) = (first_pack, first_entry);
            }
            parts.push(Part { id, packs: first_pack..packs, entries: first_entry..entries });
        }
        let ordered =
            |part: &Part| part.packs.start <= part.packs.end && part.entries.start <= part.entries.end;
        if !parts.iter().all(ordered) {
            return Err(bad());
        }
        Ok(Self { name, entries, parts, pages, packs, packs_at, entries_at })
    }

    /// How many packs there are.
    pub fn packs(&self) -> usize {
        self.packs
    }

    /// Id and size of packs; none where they are damaged.
    pub fn pack_rows(&self, range: std::ops::Range<usize>) -> impl Iterator<Item = (Id, u64)> + '_ {
        segment::pack_rows(self.pack_bytes(range).unwrap_or_default())
    }

    fn pack_bytes(&self, range: std::ops::Range<usize>) -> Option<&[u8]> {
        let count = range.end.checked_sub(range.start).filter(|_| range.end <= self.packs)?;
        self.pages.get(self.packs_at + range.start * PACK, count * PACK)
    }

    fn entry_bytes(&self, range: std::ops::Range<usize>) -> Option<&[u8]> {
        let count = range.end.checked_sub(range.start).filter(|_| range.end <= self.entries)?;
        self.pages.get(self.entries_at + range.start * ENTRY, count * ENTRY)
    }

    /// The prefixes of all entries, in order; none where some are damaged.
    pub fn prefixes(&self) -> impl Iterator<Item = Prefix> + '_ {
        self.entry_bytes(0..self.entries).unwrap_or_default().chunks_exact(ENTRY).map(prefix_of)
    }

    /// The place of an entry if it is of that prefix and `usable` takes its pack's number.
    pub fn place(&self, number: usize, wanted: &Prefix, usable: impl Fn(usize) -> bool) -> Option<Place> {
        let entry = self.entry_bytes(number..number + 1)?;
        if prefix_of(entry) != *wanted {
            return None;
        }
        let (pack, offset, length) = segment::fields(entry);
        if !usable(pack) {
            return None;
        }
        let (id, _) = self.pack_rows(pack..pack + 1).next()?;
        Place::checked(id, offset, length).ok()
    }

    /// A segment of it, to be walked; None where it is damaged.
    pub fn view(&self, part: &Part) -> Option<View<'_>> {
        let (packs, entries) =
            (self.pack_bytes(part.packs.clone())?, self.entry_bytes(part.entries.clone())?);
        Some(View::new(packs, entries, part.packs.start))
    }

    /// Whether something in it was found damaged; it is no longer asked then.
    pub fn is_bad(&self) -> bool {
        self.pages.is_bad()
    }

    /// Checks every page.
    pub fn verify(&self) -> bool {
        self.pages.verify()
    }
}

/// Where a segment that goes into a bundle is taken from: bytes of packs and of entries, and the number that the first of its
/// packs has there.
pub struct Source<'a> {
    packs: &'a [u8],
    entries: &'a [u8],
    first_pack: usize,
}

impl<'a> Source<'a> {
    /// From a plain segment.
    pub fn plain(segment: &segment::Segment, bytes: &'a [u8]) -> Self {
        let (packs, entries) = segment.parts(bytes);
        Self { packs, entries, first_pack: 0 }
    }

    /// From another bundle; None where it is damaged.
    pub fn bundled(bundle: &'a Bundle, part: &Part) -> Option<Self> {
        let (packs, entries) =
            (bundle.pack_bytes(part.packs.clone())?, bundle.entry_bytes(part.entries.clone())?);
        Some(Self { packs, entries, first_pack: part.packs.start })
    }
}

/// Writes a bundle: first `announce` of every segment, then `packs` of each, then `entries` of each, in one order.
pub struct BundleWriter {
    pages: PageWriter,
    name: [u8; 16],
    count: usize,
    packs: usize,
    entries: usize,
}

impl BundleWriter {
    /// Begins a bundle of segments with so many (packs, entries), in order.
    pub fn create(directory: &Path, segments: &[(Id, usize, usize)]) -> Result<Self> {
        let too_many = |_| Error::Usage("more packs or entries than a bundle has numbers for".into());
        let sum = |of: fn(&(Id, usize, usize)) -> usize| {
            u32::try_from(segments.iter().map(of).sum::<usize>()).map_err(too_many)
        };
        let (packs, entries) = (sum(|it| it.1)?, sum(|it| it.2)?);
        let mut pages = PageWriter::create(directory, SMALL)?;
        pages.write(&bundle_magic())?;
        pages.write(&(segments.len() as u32).to_le_bytes())?;
        pages.write(&packs.to_le_bytes())?;
        pages.write(&entries.to_le_bytes())?;
        pages.write(&[0; 12])?;
        let (mut first_pack, mut first_entry) = (0, 0);
        for (id, packs, entries) in segments {
            pages.write(id)?;
            pages.write(&(first_pack as u32).to_le_bytes())?;
            pages.write(&(first_entry as u32).to_le_bytes())?;
            (first_pack, first_entry) = (first_pack + packs, first_entry + entries);
        }
        Ok(Self { pages, name: crate::keys::random()?, count: entries as usize, packs: 0, entries: 0 })
    }

    /// Appends a segment's packs.
    pub fn packs(&mut self, source: &Source<'_>) -> Result<()> {
        self.pages.write(source.packs)
    }

    /// Appends a segment's entries; tells each one's key.
    pub fn entries(&mut self, source: &Source<'_>, mut told: impl FnMut(Key)) -> Result<()> {
        for entry in source.entries.chunks_exact(ENTRY) {
            let mut out = [0; ENTRY];
            out.copy_from_slice(entry);
            let pack = segment::fields(entry).0.wrapping_sub(source.first_pack).wrapping_add(self.packs);
            out[16..20].copy_from_slice(&(pack as u32).to_le_bytes());
            self.pages.write(&out)?;
            told(Key::of(&prefix_of(entry)));
        }
        self.packs += source.packs.len() / PACK;
        self.entries += source.entries.len() / ENTRY;
        Ok(())
    }

    /// Syncs the bundle and gives it its name.
    pub fn finish(self, directory: &Path) -> Result<Named> {
        if self.entries != self.count {
            return Err(Error::Usage("a bundle with other entries than were announced".into()));
        }
        self.pages.finish(&directory.join(bundle_file(&self.name)))?;
        Ok(Named { name: self.name, entries: self.entries as u32 })
    }
}
