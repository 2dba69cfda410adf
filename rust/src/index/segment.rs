//! A plain index segment: sorted entries, and the packs they lie in.
//!
//! ```text
//!  0  8 magic
//!  8  4 count of packs p
//! 12  4 count of replaced segments r
//! 16  8 count of entries e
//! 24  8 zeros
//! 32    r × 32 ids of segments that this one replaces
//!       p × 40 packs: id 32, size 8
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

fn segment_magic() -> [u8; 8] {
    magic("snapferry index segment, format 1")
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
    let mut out = Vec::new();
    out.extend_from_slice(&segment_magic());
    out.extend_from_slice(&(rows.len() as u32).to_le_bytes());
    out.extend_from_slice(&(replaces.len() as u32).to_le_bytes());
    out.extend_from_slice(&(entries.len() as u64).to_le_bytes());
    out.extend_from_slice(&[0; 8]);
    out.extend(replaces.iter().flatten());
    for row in rows {
        out.extend_from_slice(&row.pack);
        out.extend_from_slice(&row.size.to_le_bytes());
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

/// Where the parts of a segment lie in its bytes, all checked.
pub struct Segment {
    /// How many entries it has.
    pub entries: usize,
    packs: usize,
    packs_at: usize,
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
        if reader.array::<8>()? != [0; 8] {
            return damaged("an index segment with an odd header");
        }
        let packs_at = HEAD + replaced * 32;
        let entries_at = packs_at + packs * PACK;
        if entries.checked_mul(ENTRY).and_then(|size| size.checked_add(entries_at)) != Some(body.len()) {
            return damaged("an index segment whose counts do not fit its length");
        }
        let mut last: &[u8] = &[];
        for entry in body[entries_at..].chunks_exact(ENTRY) {
            if &entry[..16] < last || fields(entry).0 >= packs {
                return damaged("an index segment whose entries are out of order, or of no pack");
            }
            last = &entry[..16];
        }
        Ok(Self { entries, packs, packs_at, entries_at })
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

    fn entry<'a>(&self, bytes: &'a [u8], number: usize) -> &'a [u8] {
        let at = self.entries_at + number * ENTRY;
        &bytes[at..at + ENTRY]
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

    /// Whoever walks several at once relies on it.
    #[test]
    fn entries_out_of_order_or_of_no_pack_are_refused() {
        let row = |entries| [Row { pack: [1; 32], size: 1, entries }];
        let good = build_rows(&row(vec![([1; 16], 200, 80), ([2; 16], 300, 80)]), &[]);
        assert!(Segment::parse(&good).is_ok());
        let entries = HEAD + PACK;
        for (at, value) in [(entries, 3), (entries + 16, 1)] {
            let mut bad = good.clone();
            bad[at] = value;
            let body = bad.len() - HASH;
            let hash = blake3::hash(&bad[..body]);
            bad[body..].copy_from_slice(hash.as_bytes());
            assert!(matches!(Segment::parse(&bad), Err(crate::error::Error::Damaged(_))), "byte {at}");
        }
    }

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
                for number in 0..segment.entries {
                    segment.place_at(&bytes, number, &wanted, |_| true);
                }
                let _ = segment.rows(&bytes, |_| true);
            }
        }
    }
}
