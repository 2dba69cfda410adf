//! A set of block id prefixes that may be larger than memory: sorted runs, in files when there are many, read back merged.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::{File, OpenOptions};
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;

use crate::bytes::hex;
use crate::error::Result;
use crate::index::Prefix;
use crate::keys::random;

/// Prefixes held before they are written out: 32 MiB.
const HELD: usize = 2 << 20;
const BUFFER: usize = 256 << 10;

/// Collects prefixes in any order and gives them back in ascending order, each once.
pub struct Needed {
    directory: PathBuf,
    most: usize,
    held: Vec<Prefix>,
    runs: Vec<File>,
}

impl Needed {
    /// Runs are files without a name below `directory`, which must exist.
    pub fn new(directory: PathBuf) -> Self {
        Self { directory, most: HELD, held: Vec::new(), runs: Vec::new() }
    }

    /// Adds one.
    pub fn add(&mut self, prefix: Prefix) -> Result<()> {
        self.held.push(prefix);
        if self.held.len() >= self.most {
            self.held.sort_unstable();
            self.held.dedup();
            // Many that are the same leave room; else they make way.
            if self.held.len() > self.most / 2 {
                self.spill()?;
            }
        }
        Ok(())
    }

    fn spill(&mut self) -> Result<()> {
        let path = self.directory.join(format!(".needed-{}", hex(&random::<8>()?)));
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        // Gone with the process, however it ends.
        std::fs::remove_file(&path)?;
        let mut writer = BufWriter::with_capacity(BUFFER, file);
        for prefix in self.held.drain(..) {
            writer.write_all(&prefix)?;
        }
        self.runs.push(writer.into_inner().map_err(|error| error.into_error())?);
        Ok(())
    }

    /// All of them, ascending, each once. Can be called again.
    pub fn sorted(&mut self) -> Result<Sorted<'_>> {
        self.held.sort_unstable();
        self.held.dedup();
        let mut sorted =
            Sorted { held: &self.held, at: 0, runs: Vec::new(), next: BinaryHeap::new(), last: None };
        for run in &self.runs {
            let mut file = run.try_clone()?;
            file.seek(SeekFrom::Start(0))?;
            sorted.runs.push(BufReader::with_capacity(BUFFER, file));
        }
        for number in 0..=sorted.runs.len() {
            sorted.pull(number)?;
        }
        Ok(sorted)
    }
}

/// A merge of the runs. Two must not be read at once: they share their files' positions.
pub struct Sorted<'a> {
    held: &'a [Prefix],
    at: usize,
    runs: Vec<BufReader<File>>,
    next: BinaryHeap<Reverse<(Prefix, usize)>>,
    last: Option<Prefix>,
}

impl Sorted<'_> {
    /// The next one, or None at the end.
    pub fn pop(&mut self) -> Result<Option<Prefix>> {
        while let Some(Reverse((prefix, number))) = self.next.pop() {
            self.pull(number)?;
            if self.last != Some(prefix) {
                self.last = Some(prefix);
                return Ok(Some(prefix));
            }
        }
        Ok(None)
    }

    /// Takes one more from a run; the last run is what is held in memory.
    fn pull(&mut self, number: usize) -> Result<()> {
        let prefix = match self.runs.get_mut(number) {
            Some(run) => {
                let mut prefix = [0; 16];
                match run.read_exact(&mut prefix) {
                    Ok(()) => Some(prefix),
                    Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => None,
                    Err(error) => return Err(error.into()),
                }
            }
            None => {
                self.at += 1;
                self.held.get(self.at - 1).copied()
            }
        };
        if let Some(prefix) = prefix {
            self.next.push(Reverse((prefix, number)));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        /// The naive twin is a set in memory.
        #[test]
        fn gives_back_what_a_set_would(all in prop::collection::vec(0u16..300, 0..400), most in 2usize..40) {
            let directory = tempfile::tempdir().unwrap();
            let mut needed = Needed::new(directory.path().to_owned());
            needed.most = most;
            let mut naive = BTreeSet::new();
            for number in all {
                let mut prefix = [0; 16];
                prefix[..2].copy_from_slice(&number.to_be_bytes());
                needed.add(prefix).unwrap();
                naive.insert(prefix);
            }
            for _ in 0..2 {
                let mut sorted = needed.sorted().unwrap();
                let mut found = Vec::new();
                while let Some(prefix) = sorted.pop().unwrap() {
                    found.push(prefix);
                }
                prop_assert_eq!(found, naive.iter().copied().collect::<Vec<_>>());
            }
            prop_assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        }
    }
}
