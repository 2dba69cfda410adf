//! Makes sorted tables: from keys in memory, and from tables there were.

use std::path::Path;

use super::pages::{LARGE, PageWriter, random_name};
use super::table::{GROUPS, Key, MAX_BITS, MIN_BITS, Named, table_magic};
use crate::error::{Error, Result, damaged};

/// So many entries share a value of the fan-out, or up to twice as many: few enough that a guess is off by less than two lines of
/// cache, many enough that the fan-out of 10⁹ entries, 8 MB, stays in it.
const SHARING: usize = 256;

/// Keys in memory by their first 16 bits: eight bytes each.
pub struct Grouped {
    starts: Vec<u32>,
    entries: Vec<u64>,
}

impl Grouped {
    /// Of keys that are numbered from `first` on.
    pub fn new(keys: &[Key], first: u32) -> Self {
        let mut starts = vec![0u32; GROUPS + 1];
        keys.iter().for_each(|key| starts[key.group() + 1] += 1);
        for value in 1..starts.len() {
            starts[value] += starts[value - 1];
        }
        let mut next = starts.clone();
        let mut entries = vec![0; keys.len()];
        for (key, number) in keys.iter().zip(first..) {
            let at = &mut next[key.group()];
            entries[*at as usize] = key.entry(number);
            *at += 1;
        }
        Self { starts, entries }
    }

    /// The entries of a group, in no order.
    pub fn group(&self, group: usize) -> &[u64] {
        &self.entries[self.starts[group] as usize..self.starts[group + 1] as usize]
    }
}

/// Writes a table, group by group.
pub struct TableWriter {
    pages: PageWriter,
    name: String,
    entries: usize,
    announced: usize,
    bits: u32,
    fanout: Vec<u32>,
    groups: usize,
}

impl TableWriter {
    /// Begins a table of so many entries.
    pub fn create(directory: &Path, bundles: &[Named], entries: usize) -> Result<Self> {
        if entries > u32::MAX as usize {
            return Err(Error::Usage("more entries than a table has numbers for".into()));
        }
        let bits = (entries / SHARING).checked_ilog2().unwrap_or(0).clamp(MIN_BITS, MAX_BITS);
        let mut pages = PageWriter::create(directory, LARGE)?;
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
        Ok(Self { pages, name, entries: 0, announced: entries, bits, fanout, groups: 0 })
    }

    /// The next group; None after the last.
    pub fn next_group(&self) -> Option<usize> {
        Some(self.groups).filter(|group| *group < GROUPS)
    }

    /// How many entries were written.
    pub fn entries(&self) -> usize {
        self.entries
    }

    /// Appends the next group: its entries in order.
    pub fn write_group(&mut self, entries: &[u64]) -> Result<()> {
        let before = (self.groups as u64) << 32;
        for entry in entries {
            let value = ((before | entry >> 32) >> (48 - self.bits)) as usize;
            while self.fanout.len() <= value {
                self.fanout.push(self.entries as u32);
            }
            self.entries += 1;
            self.pages.write(&entry.to_le_bytes())?;
        }
        self.groups += 1;
        Ok(())
    }

    /// Syncs the table and gives it its name, which is returned.
    pub fn finish(mut self, directory: &Path) -> Result<String> {
        if self.entries != self.announced || self.groups != GROUPS {
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
    use super::super::table::Table;
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
        fn says_what_a_sorted_list_says(seeds in prop::collection::vec(0u32..4000, 0..900)) {
            let directory = tempfile::tempdir().unwrap();
            let keys: Vec<Key> = seeds.iter().copied().map(key).collect();
            let mut entries: Vec<(Key, u32)> = keys.iter().copied().zip(0..).collect();
            entries.sort_unstable();
            let named = [Named { name: [3; 16], entries: entries.len() as u32 }];
            let grouped = Grouped::new(&keys, 0);
            let mut writer = TableWriter::create(directory.path(), &named, entries.len()).unwrap();
            while let Some(group) = writer.next_group() {
                let mut of_group = grouped.group(group).to_vec();
                of_group.sort_unstable();
                writer.write_group(&of_group).unwrap();
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
            for group in 0..GROUPS {
                let mut of_group = grouped.group(group).to_vec();
                of_group.sort_unstable();
                prop_assert_eq!(table.group(group).unwrap().collect::<Vec<_>>(), of_group);
            }
        }
    }

    #[test]
    fn refuses_what_is_not_all_there() {
        let directory = tempfile::tempdir().unwrap();
        let mut short = TableWriter::create(directory.path(), &[], 1).unwrap();
        short.write_group(&[5]).unwrap();
        assert!(short.finish(directory.path()).is_err());
        let mut other = TableWriter::create(directory.path(), &[], 2).unwrap();
        while other.next_group().is_some() {
            other.write_group(&[]).unwrap();
        }
        assert!(other.finish(directory.path()).is_err());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
