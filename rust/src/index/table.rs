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

use super::pages::{PageWriter, Pages, random_name};
use super::segment::Prefix;
use crate::bytes::{Reader, hex, magic};
use crate::error::{Error, Result, damaged};

const HEAD: usize = 32;
const BUNDLE: usize = 24;
const ENTRY: usize = 8;
const MIN_BITS: u32 = 16;
const MAX_BITS: u32 = 26;
/// So many entries share a value of the fan-out, or up to twice as many.
const SHARING: usize = 16;

/// The first 48 bits of a prefix, as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(u64);

impl Key {
    /// Of that prefix.
    pub fn of(prefix: &Prefix) -> Self {
        let first = [prefix[0], prefix[1], prefix[2], prefix[3], prefix[4], prefix[5], prefix[6], prefix[7]];
        Self(u64::from_be_bytes(first) >> 16)
    }

    fn low(self) -> u32 {
        self.0 as u32
    }

    fn leading(self, bits: u32) -> usize {
        (self.0 >> (48 - bits)) as usize
    }
}

fn table_magic() -> [u8; 8] {
    magic("snapferry index table, format 0")
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
        let pages = Pages::open(&directory.join(name))?;
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

    /// Whether a page was found damaged.
    pub fn is_bad(&self) -> bool {
        self.pages.is_bad()
    }

    /// Checks every page.
    pub fn verify(&self) -> bool {
        self.pages.verify()
    }
}

/// Position in a table that is being read through.
pub struct Cursor<'a> {
    table: &'a Table,
    at: usize,
    /// The first 16 bits of the keys before `top_end`.
    top: usize,
    top_end: usize,
    checked: usize,
}

/// How many entries are checked at once, ahead of being read.
const AHEAD: usize = 1 << 13;

impl<'a> Cursor<'a> {
    /// From a position that `position` gave; the first is (0, 0).
    pub fn resume(table: &'a Table, (at, top): (usize, usize)) -> Self {
        Self { table, at, top, top_end: table.before((top + 1) << (table.bits - MIN_BITS)), checked: at }
    }

    /// To resume from.
    pub fn position(&self) -> (usize, usize) {
        (self.at, self.top)
    }

    /// The entry it stands at; None after the last. What is read here goes into another table: it is checked.
    pub fn peek(&mut self) -> Result<Option<(Key, u32)>> {
        let table = self.table;
        if self.at >= table.entries {
            return Ok(None);
        }
        if self.at >= self.checked {
            let count = AHEAD.min(table.entries - self.at);
            if table.pages.get(table.entries_at + self.at * ENTRY, count * ENTRY).is_none() {
                return damaged(format!("{} of the index cache is damaged", table.name));
            }
            self.checked = self.at + count;
        }
        while self.at >= self.top_end && self.top + 1 < 1 << MIN_BITS {
            self.top += 1;
            self.top_end = table.before((self.top + 1) << (table.bits - MIN_BITS));
        }
        let (number, low) = table.entry(self.at);
        Ok(Some((Key((self.top as u64) << 32 | u64::from(low)), number)))
    }

    /// Goes to the next.
    pub fn advance(&mut self) {
        self.at += 1;
    }
}

/// Keys in memory, in order: eight bytes each, and a little.
pub struct Sorted {
    /// Where those with the same first 16 bits begin; those of the first `ready` values are in order.
    starts: Vec<u32>,
    entries: Vec<u64>,
    ready: usize,
    at: usize,
    top: usize,
}

impl Sorted {
    /// Of keys that are numbered from `first` on.
    pub fn new(keys: &[Key], first: u32) -> Self {
        let mut starts = vec![0u32; (1 << MIN_BITS) + 1];
        keys.iter().for_each(|key| starts[key.leading(MIN_BITS) + 1] += 1);
        for value in 1..starts.len() {
            starts[value] += starts[value - 1];
        }
        let mut next = starts.clone();
        let mut entries = vec![0; keys.len()];
        for (key, number) in keys.iter().zip(first..) {
            let at = &mut next[key.leading(MIN_BITS)];
            entries[*at as usize] = u64::from(key.low()) << 32 | u64::from(number);
            *at += 1;
        }
        Self { starts, entries, ready: 0, at: 0, top: 0 }
    }

    /// The entry it stands at; None after the last.
    pub fn peek(&mut self) -> Option<(Key, u32)> {
        if self.at >= self.entries.len() {
            return None;
        }
        while self.at >= self.starts[self.top + 1] as usize {
            self.top += 1;
        }
        if self.ready <= self.top {
            let (from, until) = (self.starts[self.top] as usize, self.starts[self.top + 1] as usize);
            self.entries[from..until].sort_unstable();
            self.ready = self.top + 1;
        }
        let entry = self.entries[self.at];
        Some((Key((self.top as u64) << 32 | entry >> 32), entry as u32))
    }

    /// Goes to the next.
    pub fn advance(&mut self) {
        self.at += 1;
    }
}

/// Writes a table from entries in order.
pub struct TableWriter {
    pages: PageWriter,
    name: String,
    entries: usize,
    announced: usize,
    bits: u32,
    fanout: Vec<u32>,
    last: Key,
}

impl TableWriter {
    /// Begins a table of so many entries.
    pub fn create(directory: &Path, bundles: &[Named], entries: usize) -> Result<Self> {
        if entries > u32::MAX as usize {
            return Err(Error::Usage("more entries than a table has numbers for".into()));
        }
        let bits = (entries / SHARING).checked_ilog2().unwrap_or(0).clamp(MIN_BITS, MAX_BITS);
        let mut pages = PageWriter::create(directory)?;
        pages.write(&table_magic())?;
        pages.write(&(entries as u64).to_le_bytes())?;
        pages.write(&bits.to_le_bytes())?;
        pages.write(&(bundles.len() as u32).to_le_bytes())?;
        pages.write(&[0; 8])?;
        for bundle in bundles {
            pages.write(&bundle.name)?;
            pages.write(&u64::from(bundle.entries).to_le_bytes())?;
        }
        let name = format!("table-{}", random_name()?);
        let fanout = Vec::with_capacity((1 << bits) + 1);
        Ok(Self { pages, name, entries: 0, announced: entries, bits, fanout, last: Key(0) })
    }

    /// Appends an entry, whose key is not less than the one before.
    pub fn push(&mut self, key: Key, number: u32) -> Result<()> {
        if key < self.last {
            return damaged("an index table that is not sorted");
        }
        self.last = key;
        let value = key.leading(self.bits);
        while self.fanout.len() <= value {
            self.fanout.push(self.entries as u32);
        }
        self.entries += 1;
        self.pages.write(&(u64::from(key.low()) << 32 | u64::from(number)).to_le_bytes())
    }

    /// Syncs the table and gives it its name, which is returned.
    pub fn finish(mut self, directory: &Path) -> Result<String> {
        if self.entries != self.announced {
            return damaged(format!(
                "an index table of {} entries that were to be {}",
                self.entries, self.announced
            ));
        }
        self.fanout.resize((1 << self.bits) + 1, self.entries as u32);
        for values in self.fanout.chunks(4096) {
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            self.pages.write(&bytes)?;
        }
        self.pages.finish(&directory.join(&self.name))?;
        Ok(self.name)
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
    use proptest::prelude::*;

    fn key(seed: u32) -> Key {
        // Few first values, so that they collide; and some equal keys.
        let hash = blake3::hash(&(seed / 2).to_le_bytes());
        let mut prefix = [0; 16];
        prefix.copy_from_slice(&hash.as_bytes()[..16]);
        prefix[..2].copy_from_slice(&[(seed % 3) as u8 * 100, 0]);
        Key::of(&prefix)
    }

    #[test]
    fn a_bundle_is_known_by_its_file() {
        assert_eq!(bundle_name(&bundle_file(&[7; 16])), Some([7; 16]));
        for file in
            ["bundle-7", "table-07070707070707070707070707070707", "bundle-+7070707070707070707070707070707"]
        {
            assert_eq!(bundle_name(file), None);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn says_what_a_sorted_list_says(seeds in prop::collection::vec(0u32..4000, 0..900), stop in 0usize..900) {
            let directory = tempfile::tempdir().unwrap();
            let mut entries: Vec<(Key, u32)> = seeds.iter().copied().map(key).zip(0..).collect();
            entries.sort_unstable();
            let named = [Named { name: [3; 16], entries: entries.len() as u32 }];
            let keys: Vec<Key> = seeds.iter().copied().map(key).collect();
            let mut sorted = Sorted::new(&keys, 0);
            for entry in &entries {
                prop_assert_eq!(sorted.peek(), Some(*entry));
                sorted.advance();
            }
            prop_assert_eq!(sorted.peek(), None);
            let mut writer = TableWriter::create(directory.path(), &named, entries.len()).unwrap();
            for (key, number) in &entries {
                writer.push(*key, *number).unwrap();
            }
            let name = writer.finish(directory.path()).unwrap();
            let table = Table::open(directory.path(), &name).unwrap();
            prop_assert!(table.verify());
            prop_assert_eq!(&table.bundles, &named);
            for seed in 0..4000 {
                let expected: Vec<u32> =
                    entries.iter().filter(|(it, _)| *it == key(seed)).map(|(_, number)| *number).collect();
                let span = table.span(key(seed));
                let found = table.equal(key(seed), span, table.guess(key(seed), span));
                prop_assert_eq!(found.map(|at| table.number(at)).collect::<Vec<_>>(), expected);
            }
            let mut read = Vec::new();
            let mut cursor = Cursor::resume(&table, (0, 0));
            while let Some(entry) = cursor.peek().unwrap() {
                read.push(entry);
                cursor.advance();
                if read.len() == stop {
                    cursor = Cursor::resume(&table, cursor.position());
                }
            }
            prop_assert_eq!(read, entries);
        }
    }

    #[test]
    fn refuses_what_is_out_of_order_or_not_all_there() {
        let directory = tempfile::tempdir().unwrap();
        let mut writer = TableWriter::create(directory.path(), &[], 2).unwrap();
        writer.push(Key(5), 0).unwrap();
        assert!(writer.push(Key(4), 1).is_err());
        assert!(writer.finish(directory.path()).is_err());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
