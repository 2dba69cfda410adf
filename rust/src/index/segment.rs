//! A plain index segment: sorted entries with a fan-out table, searched where they lie.
//!
//! ```text
//!  0  8 magic
//!  8  4 count of packs p
//! 12  4 count of replaced segments r
//! 16  8 count of entries e
//! 24  4 bits b of the fan-out, 0 to 20
//! 28  4 zeros
//! 32    r × 32 ids of segments that this one replaces
//!       p × 40 packs: id 32, size 8
//!       (2ᵇ + 1) × 8 fan-out: how many entries come before each value of the first b bits
//!       e × 28 entries, sorted: id prefix 16, pack 4, offset 4, length 4
//!       32 BLAKE3 of all before
//! ```

use super::IndexedPack;
use crate::bytes::{Id, Reader, magic};
use crate::error::{Result, damaged};
use crate::pack::{Place, RecordKind};

/// The first half of a block id; 10⁹ of them collide with 2⁻⁶⁹.
pub type Prefix = [u8; 16];

const HEAD: usize = 32;
/// Bytes of a pack.
pub(super) const PACK: usize = 40;
/// Bytes of an entry.
pub(super) const ENTRY: usize = 28;
const HASH: usize = 32;
const MAX_BITS: u32 = 20;
/// The fan-out is chosen so that so many entries share a value of it.
const SHARING: usize = 32;

fn segment_magic() -> [u8; 8] {
    magic("snapferry index segment, format 0")
}

/// The first 16 bytes of an id.
pub fn prefix(id: &Id) -> Prefix {
    let mut out = [0; 16];
    out.copy_from_slice(&id[..16]);
    out
}

/// A pack as a segment names it, and where its blocks lie.
pub struct Row {
    /// The pack's id.
    pub pack: Id,
    /// Its size in bytes.
    pub size: u64,
    /// (prefix, offset, length) of its blocks' records.
    pub entries: Vec<(Prefix, u32, u32)>,
}

/// What a segment says of that pack: where its blocks lie.
pub fn row(pack: &IndexedPack) -> Row {
    let blocks = pack.entries.iter().filter(|entry| entry.kind == RecordKind::Block);
    let entries = blocks.map(|entry| (prefix(&entry.id), entry.offset, entry.length)).collect();
    Row { pack: pack.id, size: pack.size, entries }
}

/// Builds the plain bytes of a segment of those packs.
pub fn build(packs: &[IndexedPack], replaces: &[Id]) -> Vec<u8> {
    build_rows(&packs.iter().map(row).collect::<Vec<Row>>(), replaces)
}

/// As `build`.
pub fn build_rows(rows: &[Row], replaces: &[Id]) -> Vec<u8> {
    let mut entries: Vec<[u8; ENTRY]> = rows
        .iter()
        .zip(0u32..)
        .flat_map(|(row, ordinal)| {
            row.entries.iter().map(move |(prefix, offset, length)| {
                let mut out = [0; ENTRY];
                out[..16].copy_from_slice(prefix);
                out[16..20].copy_from_slice(&ordinal.to_le_bytes());
                out[20..24].copy_from_slice(&offset.to_le_bytes());
                out[24..].copy_from_slice(&length.to_le_bytes());
                out
            })
        })
        .collect();
    entries.sort_unstable();
    let bits = (entries.len() / SHARING).checked_ilog2().unwrap_or(0).min(MAX_BITS);
    let mut out = Vec::new();
    out.extend_from_slice(&segment_magic());
    out.extend_from_slice(&(rows.len() as u32).to_le_bytes());
    out.extend_from_slice(&(replaces.len() as u32).to_le_bytes());
    out.extend_from_slice(&(entries.len() as u64).to_le_bytes());
    out.extend_from_slice(&bits.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend(replaces.iter().flatten());
    for row in rows {
        out.extend_from_slice(&row.pack);
        out.extend_from_slice(&row.size.to_le_bytes());
    }
    for value in 0..=(1u32 << bits) {
        let before = entries.partition_point(|entry| u64::from(leading(entry, bits)) < u64::from(value));
        out.extend_from_slice(&(before as u64).to_le_bytes());
    }
    out.extend(entries.iter().flatten());
    let hash = blake3::hash(&out);
    out.extend_from_slice(hash.as_bytes());
    out
}

pub(super) fn prefix_of(entry: &[u8]) -> Prefix {
    let mut out = [0; 16];
    out.copy_from_slice(&entry[..16]);
    out
}

fn leading(prefix: &[u8], bits: u32) -> u32 {
    let first = u32::from_be_bytes([prefix[0], prefix[1], prefix[2], prefix[3]]);
    first.checked_shr(32 - bits).unwrap_or(0)
}

/// Where the parts of a segment lie in its bytes, all checked.
pub struct Segment {
    /// How many entries it has.
    pub entries: usize,
    bits: u32,
    packs: usize,
    packs_at: usize,
    fanout_at: usize,
    entries_at: usize,
}

impl Segment {
    /// Checks hash, lengths and order of what may be hostile; nothing is reserved for it.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        if bytes.len() < HEAD + HASH {
            return damaged("an index segment shorter than its header");
        }
        let (body, hash) = bytes.split_at(bytes.len() - HASH);
        if blake3::hash(body).as_bytes() != hash {
            return damaged("an index segment that fails its checksum");
        }
        let mut reader = Reader::new(body);
        if reader.array::<8>()? != segment_magic() {
            return damaged("not an index segment of a format that this program knows (it knows 0)");
        }
        let packs = reader.u32()? as usize;
        let replaced = reader.u32()? as usize;
        let entries = usize::try_from(reader.u64()?).unwrap_or(usize::MAX);
        let bits = reader.u32()?;
        if reader.u32()? != 0 || bits > MAX_BITS {
            return damaged("an index segment with an odd header");
        }
        let fanout = ((1usize << bits) + 1) * 8;
        let packs_at = HEAD + replaced * 32;
        let fanout_at = packs_at + packs * PACK;
        let entries_at = fanout_at + fanout;
        if entries.checked_mul(ENTRY).and_then(|size| size.checked_add(entries_at)) != Some(body.len()) {
            return damaged("an index segment whose counts do not fit its length");
        }
        let segment = Self { entries, bits, packs, packs_at, fanout_at, entries_at };
        let mut last = 0;
        for value in 0..=(1usize << bits) {
            let before = segment.before(bytes, value);
            if before < last || before > entries {
                return damaged("an index segment whose fan-out is out of order");
            }
            last = before;
        }
        if last != entries {
            return damaged("an index segment whose fan-out leaves entries out");
        }
        Ok(segment)
    }

    /// The packs it names, in order, with their sizes.
    pub fn packs<'a>(&self, bytes: &'a [u8]) -> impl Iterator<Item = (Id, u64)> + use<'a> {
        pack_rows(self.parts(bytes).0)
    }

    /// The bytes of its packs and of its entries.
    pub(super) fn parts<'a>(&self, bytes: &'a [u8]) -> (&'a [u8], &'a [u8]) {
        (
            &bytes[self.packs_at..self.packs_at + self.packs * PACK],
            &bytes[self.entries_at..self.entries_at + self.entries * ENTRY],
        )
    }

    /// How many packs it names.
    pub fn pack_count(&self) -> usize {
        self.packs
    }

    /// The prefixes of its entries.
    pub fn prefixes<'a>(&self, bytes: &'a [u8]) -> impl Iterator<Item = Prefix> + use<'a> {
        self.parts(bytes).1.chunks_exact(ENTRY).map(prefix_of)
    }

    /// The ids of the segments that this one replaces.
    pub fn replaces<'a>(&self, bytes: &'a [u8]) -> impl Iterator<Item = Id> + use<'a> {
        bytes[HEAD..self.packs_at].chunks_exact(32).map(|chunk| {
            let mut id = [0; 32];
            id.copy_from_slice(chunk);
            id
        })
    }

    /// To be walked.
    pub fn view<'a>(&self, bytes: &'a [u8]) -> View<'a> {
        let (packs, entries) = self.parts(bytes);
        View::new(packs, entries, 0)
    }

    /// The packs that `keep` takes, with their entries; an entry that no pack can have is an error.
    pub fn rows(&self, bytes: &[u8], mut keep: impl FnMut(&Id) -> bool) -> Result<Vec<Row>> {
        let mut rows: Vec<Option<Row>> = self
            .packs(bytes)
            .map(|(pack, size)| keep(&pack).then(|| Row { pack, size, entries: Vec::new() }))
            .collect();
        for (prefix, pack, offset, length) in self.view(bytes).entries() {
            let Some(row) = rows.get_mut(pack as usize) else {
                return damaged("an index segment with an entry of no pack");
            };
            if let Some(row) = row {
                Place::checked(row.pack, offset, length)?;
                row.entries.push((prefix, offset, length));
            }
        }
        Ok(rows.into_iter().flatten().collect())
    }

    /// The place of an entry if it is of that prefix and `usable` takes its pack's number.
    pub fn place_at(
        &self,
        bytes: &[u8],
        number: usize,
        wanted: &Prefix,
        usable: impl Fn(usize) -> bool,
    ) -> Option<Place> {
        let entry = self.entry(bytes, number);
        let (ordinal, place) = (prefix_of(entry) == *wanted).then(|| self.place(bytes, entry)).flatten()?;
        usable(ordinal).then_some(place)
    }

    /// How many entries come before that value of the leading bits.
    fn before(&self, bytes: &[u8], value: usize) -> usize {
        let at = self.fanout_at + value * 8;
        let mut count = [0; 8];
        count.copy_from_slice(&bytes[at..at + 8]);
        usize::try_from(u64::from_le_bytes(count)).unwrap_or(usize::MAX)
    }

    fn entry<'a>(&self, bytes: &'a [u8], number: usize) -> &'a [u8] {
        let at = self.entries_at + number * ENTRY;
        &bytes[at..at + ENTRY]
    }

    /// The first place of that prefix whose pack number and place `accept` takes.
    pub fn find(
        &self,
        bytes: &[u8],
        wanted: &Prefix,
        accept: impl Fn(usize, &Place) -> bool,
    ) -> Option<Place> {
        let value = leading(wanted, self.bits) as usize;
        let (mut low, end) = (self.before(bytes, value), self.before(bytes, value + 1));
        let mut high = end;
        while low < high {
            let middle = low + (high - low) / 2;
            if &self.entry(bytes, middle)[..16] < wanted.as_slice() {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        (low..end)
            .map(|number| self.entry(bytes, number))
            .take_while(|entry| entry[..16] == *wanted)
            .find_map(|entry| self.place(bytes, entry).filter(|(ordinal, place)| accept(*ordinal, place)))
            .map(|(_, place)| place)
    }

    fn place(&self, bytes: &[u8], entry: &[u8]) -> Option<(usize, Place)> {
        let (ordinal, offset, length) = fields(entry);
        // Straight to it: a segment of a whole repository names millions.
        let at = (ordinal < self.packs).then(|| self.packs_at + ordinal * PACK)?;
        let pack = Reader::new(bytes.get(at..)?).array().ok()?;
        Some((ordinal, Place::checked(pack, offset, length).ok()?))
    }
}

/// Id and size of the packs whose bytes these are.
pub(super) fn pack_rows(bytes: &[u8]) -> impl Iterator<Item = (Id, u64)> + use<'_> {
    bytes.chunks_exact(PACK).map(|pack| {
        let mut id = [0; 32];
        id.copy_from_slice(&pack[..32]);
        let mut size = [0; 8];
        size.copy_from_slice(&pack[32..]);
        (id, u64::from_le_bytes(size))
    })
}

/// Number of the pack, offset and length of an entry.
pub(super) fn fields(entry: &[u8]) -> (usize, u32, u32) {
    let field = |at: usize| {
        let mut out = [0; 4];
        out.copy_from_slice(&entry[at..at + 4]);
        u32::from_le_bytes(out)
    };
    (field(16) as usize, field(20), field(24))
}

/// One segment, to be walked.
#[derive(Clone)]
pub struct View<'a> {
    packs: &'a [u8],
    entries: &'a [u8],
    first: usize,
}

impl<'a> View<'a> {
    /// Of the bytes of packs, and of entries that count packs from `first` on.
    pub(super) fn new(packs: &'a [u8], entries: &'a [u8], first: usize) -> Self {
        Self { packs, entries, first }
    }

    /// The packs it names, in the order of their numbers.
    pub fn packs(&self) -> impl Iterator<Item = Id> + use<'a> {
        pack_rows(self.packs).map(|(id, _)| id)
    }

    /// Its entries in ascending order of their prefixes.
    pub fn entries(&self) -> SegmentEntries<'a> {
        SegmentEntries { entries: self.entries.chunks_exact(ENTRY), first: self.first }
    }
}

/// Walks a segment: (prefix, number of the pack in the segment's own list, offset, length).
pub struct SegmentEntries<'a> {
    entries: std::slice::ChunksExact<'a, u8>,
    first: usize,
}

impl Iterator for SegmentEntries<'_> {
    type Item = (Prefix, u32, u32, u32);

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.entries.next()?;
        let (pack, offset, length) = fields(entry);
        Some((prefix_of(entry), pack.wrapping_sub(self.first) as u32, offset, length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..600), honest: bool, wanted: Prefix) {
            if honest && bytes.len() >= 32 {
                bytes[..8].copy_from_slice(&segment_magic());
                let body = bytes.len() - 32;
                let hash = blake3::hash(&bytes[..body]);
                bytes[body..].copy_from_slice(hash.as_bytes());
            }
            if let Ok(segment) = Segment::parse(&bytes) {
                segment.find(&bytes, &wanted, |_, _| true);
            }
        }
    }
}
