//! A sorted table: 48 bits of an id's prefix, and the number of an entry in the bundles that the table is of, oldest first.
//!
//! ```text
//!  0  8 magic
//!  8  8 entries n
//! 16  4 bits b of the fan-out, 16 to 26
//! 20  4 bundles k
//! 24  8 zeros
//! 32    k × 24: name of a bundle 16, entries in it 8
//!       n × 8, sorted: number of the entry 4, bits 16 to 47 of its prefix 4
//!       (2ᵇ + 1) × 4 how many entries come before each value of the first b bits
//! ```
//!
//! Eight bytes an entry, so that a table of a thousand million stays in memory where their 28 GB do not. Its pages are not
//! checked when it is asked: a wrong number leads to an entry with another prefix, which is not taken.

use std::path::Path;

use super::pages::{LARGE, Pages};
use super::segment::Prefix;
use crate::bytes::{Reader, hex, magic};
use crate::error::{Error, Result};
use crate::outside::Mapped;

/// Bytes before the names of bundles.
const HEAD: usize = 32;
const BUNDLE: usize = 24;
const ENTRY: usize = 8;
/// The bits of a key that an entry does not hold, and how many values they have.
pub(super) const MIN_BITS: u32 = 16;
pub(super) const GROUPS: usize = 1 << MIN_BITS;
pub(super) const MAX_BITS: u32 = 26;

/// The first 48 bits of a prefix, as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(u64);

impl Key {
    /// Of that prefix.
    pub fn of(prefix: &Prefix) -> Self {
        let first = [prefix[0], prefix[1], prefix[2], prefix[3], prefix[4], prefix[5], prefix[6], prefix[7]];
        Self(u64::from_be_bytes(first) >> 16)
    }

    /// Its first 16 bits, which an entry does not hold.
    pub(super) fn group(self) -> usize {
        (self.0 >> 32) as usize
    }

    /// As an entry with that number.
    pub(super) fn entry(self, number: u32) -> u64 {
        self.0 << 32 | u64::from(number)
    }

    fn low(self) -> u32 {
        self.0 as u32
    }

    fn leading(self, bits: u32) -> usize {
        (self.0 >> (48 - bits)) as usize
    }
}

/// What a table begins with.
pub(super) fn table_magic() -> [u8; 8] {
    magic("snapferry index table, format 1")
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut out = [0; 4];
    out.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(out)
}

/// A bundle as its table names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named {
    /// Random, as 32 digits part of the file's name.
    pub name: [u8; 16],
    /// How many numbers are its.
    pub entries: u32,
}

/// A mapped table.
pub struct Table {
    pages: Pages,
    bits: u32,
    entries_at: usize,
    fanout_at: usize,
    /// How many entries there are.
    pub entries: usize,
    /// What the numbers count through.
    pub bundles: Vec<Named>,
    /// Of its file, without the directory.
    pub name: String,
}

impl Table {
    /// Maps the table of that name; costs the same whatever its size.
    pub fn open(directory: &Path, name: &str) -> Result<Self> {
        let pages = Pages::open(&directory.join(name), LARGE)?;
        pages.expect(Mapped::read_hot);
        let bad = || Error::Damaged(format!("{name}: not an index table that this program knows"));
        let mut head = Reader::new(pages.get(0, HEAD).ok_or_else(bad)?);
        if head.array::<8>()? != table_magic() {
            return Err(bad());
        }
        let entries = usize::try_from(head.u64()?).unwrap_or(usize::MAX);
        let (bits, count) = (head.u32()?, head.u32()? as usize);
        if !(MIN_BITS..=MAX_BITS).contains(&bits) || entries > u32::MAX as usize {
            return Err(bad());
        }
        let entries_at = HEAD + count * BUNDLE;
        let fanout_at = entries_at + entries * ENTRY;
        if fanout_at + ((1 << bits) + 1) * 4 != pages.unchecked().len() {
            return Err(bad());
        }
        let mut names = Reader::new(pages.get(HEAD, count * BUNDLE).ok_or_else(bad)?);
        let mut bundles = Vec::new();
        for _ in 0..count {
            let name = names.array()?;
            bundles.push(Named { name, entries: u32::try_from(names.u64()?).map_err(|_| bad())? });
        }
        Ok(Self { name: name.to_owned(), entries, bundles, pages, bits, entries_at, fanout_at })
    }

    fn before(&self, value: usize) -> usize {
        (u32_at(self.pages.unchecked(), self.fanout_at + value * 4) as usize).min(self.entries)
    }

    fn entry(&self, at: usize) -> (u32, u32) {
        let at = self.entries_at + at * ENTRY;
        (u32_at(self.pages.unchecked(), at), u32_at(self.pages.unchecked(), at + 4))
    }

    /// Where entries of that key are, if any. To be followed by `guess` and then by `equal`, each after the same was done with all
    /// other tables, so that the processor waits for their memory at once.
    pub fn span(&self, key: Key) -> (usize, usize) {
        let value = key.leading(self.bits);
        (self.before(value), self.before(value + 1))
    }

    /// The likeliest position of that key in its span, and what stands there. Keys are spread evenly: it is off by a few entries,
    /// in the same line of cache or the next.
    pub fn guess(&self, key: Key, (from, until): (usize, usize)) -> (usize, u32) {
        let within = u128::from(key.0 & ((1 << (48 - self.bits)) - 1));
        let count = until.saturating_sub(from) as u128;
        let at = from + ((within * count) >> (48 - self.bits)) as usize;
        (at, if at < self.entries { self.entry(at).1 } else { 0 })
    }

    /// Of a span, the part that is of this key.
    pub fn equal(
        &self,
        key: Key,
        (from, until): (usize, usize),
        (guess, low): (usize, u32),
    ) -> std::ops::Range<usize> {
        let mut at = guess;
        if low < key.low() {
            while at < until && self.entry(at).1 < key.low() {
                at += 1;
            }
        } else {
            while at > from && self.entry(at - 1).1 >= key.low() {
                at -= 1;
            }
        }
        let mut end = at;
        while end < until && self.entry(end).1 == key.low() {
            end += 1;
        }
        at..end
    }

    /// The number that the table has at that position.
    pub fn number(&self, at: usize) -> u32 {
        self.entry(at).0
    }

    /// The entries of the keys with the same first 16 bits, in order: the other bits that are held, and the number. What is read here goes
    /// into another table: it is checked.
    pub fn group(&self, group: usize) -> Result<impl Iterator<Item = u64> + '_> {
        let bad = || Error::Damaged(format!("{} of the index cache is damaged", self.name));
        let value = |group: usize| {
            let at = self.fanout_at + (group << (self.bits - MIN_BITS)) * 4;
            self.pages.get(at, 4).map(|bytes| (u32_at(bytes, 0) as usize).min(self.entries))
        };
        let (from, until) = (value(group).ok_or_else(bad)?, value(group + 1).ok_or_else(bad)?);
        let length = until.saturating_sub(from) * ENTRY;
        let bytes = self.pages.get(self.entries_at + from * ENTRY, length).ok_or_else(bad)?;
        Ok(bytes.chunks_exact(ENTRY).map(|entry| {
            let mut out = [0; ENTRY];
            out.copy_from_slice(entry);
            u64::from_le_bytes(out)
        }))
    }

    /// Whether a page was found damaged.
    pub fn is_bad(&self) -> bool {
        self.pages.is_bad()
    }

    /// Checks every page.
    pub fn verify(&self) -> bool {
        self.pages.verify()
    }
}

/// What the file of a bundle is called.
pub fn bundle_file(name: &[u8; 16]) -> String {
    format!("bundle-{}", hex(name))
}

/// The name of the bundle that a file is called by.
pub fn bundle_name(file: &str) -> Option<[u8; 16]> {
    let number = u128::from_str_radix(file.strip_prefix("bundle-")?, 16).ok()?;
    Some(number.to_be_bytes()).filter(|name| bundle_file(name) == file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_is_known_by_its_file() {
        assert_eq!(bundle_name(&bundle_file(&[7; 16])), Some([7; 16]));
        for file in
            ["bundle-7", "table-07070707070707070707070707070707", "bundle-+7070707070707070707070707070707"]
        {
            assert_eq!(bundle_name(file), None);
        }
    }
}
