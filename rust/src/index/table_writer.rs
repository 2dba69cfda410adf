//! Makes sorted tables: from keys in memory, and from tables there were.

use std::path::Path;

use super::pages::{PageWriter, random_name};
use super::table::{Key, MAX_BITS, MIN_BITS, Named, table_magic};
use crate::error::{Error, Result, damaged};

/// So many entries share a value of the fan-out, or up to twice as many: few enough that a guess is off by less than two lines of
/// cache, many enough that the fan-out of 10⁹ entries, 8 MB, stays in it.
const SHARING: usize = 256;

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
        Some((Key::joined(self.top, (entry >> 32) as u32), entry as u32))
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
        Ok(Self { pages, name, entries: 0, announced: entries, bits, fanout, last: Key::joined(0, 0) })
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

#[cfg(test)]
mod tests {
    use super::super::table::{Cursor, Table};
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
        writer.push(Key::joined(0, 5), 0).unwrap();
        assert!(writer.push(Key::joined(0, 4), 1).is_err());
        assert!(writer.finish(directory.path()).is_err());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
