//! The manifest of a volume that is fully allocated, of synthetic blocks: built, opened, compared with a successor, committed.
//!
//! `benches/scale/manifest.py` runs it and says what the figures mean. One line of JSON for each size and count of changes.

#[path = "../synthetic/mod.rs"]
mod synthetic;

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use snapferry_core::bytes::{Id, hex};
use snapferry_core::error::{Error, Result};
use snapferry_core::index::Index;
use snapferry_core::keys::{Keyring, random};
use snapferry_core::manifest::{Fetch, Manifest, ManifestWriter, Roots, Stored, diff, missing_for_diff};
use snapferry_core::pack::{FinishedPack, HEADER};
use snapferry_core::workers::{Workers, lock};
use synthetic::{BLOCK, Memory, PACK_BLOCKS, RECORD, drawn, id};

/// Blocks between two calls of `advance`, as in an export.
const ADVANCE: u64 = 4096;
/// Blocks that are compared at once, at most.
const WINDOW: u64 = 1 << 20;
const OPEN_FILES: usize = 500;
/// How often a manifest is opened.
const TURNS: u64 = 9;

/// Manifest packs in a directory, and what was moved, in bytes.
struct Store {
    keys: Arc<Keyring>,
    workers: Arc<Workers>,
    directory: PathBuf,
    open: HashMap<Id, File>,
    written: u64,
    fetched: u64,
    memory: Memory,
}

impl Store {
    fn new(directory: &Path) -> Result<Self> {
        Ok(Self {
            keys: Arc::new(Keyring::generate()?),
            workers: Arc::new(Workers::new(2)?),
            directory: directory.to_owned(),
            open: HashMap::new(),
            written: 0,
            fetched: 0,
            memory: Memory::default(),
        })
    }

    fn begin(&mut self) {
        (self.written, self.fetched, self.memory) = (0, 0, Memory::default());
        self.open.clear();
    }

    fn keep(&mut self, packs: Vec<FinishedPack>) -> Result<()> {
        self.memory.look();
        for pack in packs {
            let mut file = File::create(self.directory.join(hex(&pack.id)))?;
            file.write_all(&pack.buffer[..pack.length])?;
            self.written += pack.length as u64;
            self.workers.recycle(pack.buffer);
        }
        Ok(())
    }

    fn feed(&mut self, manifest: &Manifest, fetches: Vec<Fetch>) -> Result<()> {
        for (pack, offset, length) in fetches {
            if self.open.len() > OPEN_FILES {
                self.open.clear();
            }
            if !self.open.contains_key(&pack) {
                self.open.insert(pack, File::open(self.directory.join(hex(&pack)))?);
            }
            let mut bytes = vec![0; length as usize];
            self.open[&pack].read_exact_at(&mut bytes, u64::from(offset))?;
            self.fetched += bytes.len() as u64;
            if manifest.feed(&pack, offset, &bytes) > 0 {
                return Err(Error::Damaged("a page that was just written".into()));
            }
        }
        Ok(())
    }

    fn load(&mut self, manifest: &Manifest, runs: &[(u64, u64)]) -> Result<()> {
        loop {
            let fetches = manifest.missing_of(runs, true);
            if fetches.is_empty() {
                return Ok(());
            }
            self.feed(manifest, fetches)?;
        }
    }

    fn manifest(&self, roots: Roots, size: u64) -> Result<Arc<Manifest>> {
        Ok(Arc::new(Manifest::new(self.keys.clone(), roots, size, BLOCK)?))
    }

    fn writer(&self, size: u64, parent: Option<Arc<Manifest>>) -> Result<ManifestWriter> {
        let index = Arc::new(Index::default());
        let files =
            std::fs::read_dir(&self.directory)?.filter_map(|it| it.ok()?.file_name().into_string().ok());
        index.declare_usable(
            files.filter_map(|name| blake3::Hash::from_hex(name).ok()).map(|hash| *hash.as_bytes()).collect(),
        );
        let (keys, workers) = (self.keys.clone(), self.workers.clone());
        ManifestWriter::new(keys, workers, index, random()?, Some(size), BLOCK, parent)
    }

    /// What a packer does with a pack of new blocks: claims and records them, stores them, and names the pack when it is full.
    fn pack(&self, writer: &ManifestWriter, number: u64, blocks: &[(u64, Id)]) -> Result<()> {
        for (block, id) in blocks {
            lock(&writer.claims).claim((0, *id));
            writer.record(*block, &[(*id, None)])?;
        }
        let mut claims = lock(&writer.claims);
        for ((_, id), at) in blocks.iter().zip(0u32..) {
            let stored = Stored { pack: number as u32, offset: HEADER as u32 + at * RECORD, length: RECORD };
            claims.store((0, *id), stored);
        }
        claims.name(number as u32, id(2, number));
        Ok(())
    }

    /// The whole volume, as an export that reads all of it.
    fn build(&mut self, size: u64) -> Result<Roots> {
        let writer = self.writer(size, None)?;
        let blocks = size / BLOCK as u64;
        for first in (0..blocks).step_by(PACK_BLOCKS as usize) {
            let end = (first + PACK_BLOCKS).min(blocks);
            let new: Vec<(u64, Id)> = (first..end).map(|it| (it, id(1, it))).collect();
            self.pack(&writer, first / PACK_BLOCKS, &new)?;
            if end % ADVANCE == 0 {
                self.keep(writer.advance(end)?)?;
                // An index segment holds them by now.
                lock(&writer.claims).forget((end - ADVANCE..end).map(|it| (0, id(1, it))));
            }
        }
        let (roots, last) = writer.finish()?;
        self.keep(last)?;
        Ok(roots)
    }

    /// A successor of which only the changes are read.
    fn change(&mut self, parent: &Arc<Manifest>, size: u64, changed: &[u64]) -> Result<Roots> {
        let writer = self.writer(size, Some(parent.clone()))?;
        writer.inherit()?;
        for (part, number) in changed.chunks(PACK_BLOCKS as usize).zip(0..) {
            let runs: Vec<(u64, u64)> = part.iter().map(|block| (*block, 1)).collect();
            self.load(parent, &runs)?;
            let new: Vec<(u64, Id)> = part.iter().map(|block| (*block, id(3, *block))).collect();
            self.pack(&writer, number, &new)?;
            self.keep(writer.advance(part[part.len() - 1])?)?;
        }
        let (roots, last) = writer.finish()?;
        self.keep(last)?;
        Ok(roots)
    }

    /// How many blocks differ.
    fn compare(&mut self, one: &Manifest, other: &Manifest) -> Result<u64> {
        let mut differing = 0;
        for first in (0..one.blocks).step_by(WINDOW as usize) {
            let end = (first + WINDOW).min(one.blocks);
            loop {
                let (of_one, of_other) = missing_for_diff(one, other, first, end);
                if of_one.is_empty() && of_other.is_empty() {
                    break;
                }
                self.feed(one, of_one)?;
                self.feed(other, of_other)?;
            }
            differing += diff(one, other, first, end)?.iter().map(|(_, count)| count).sum::<u64>();
            self.memory.look();
            one.evict(end);
            other.evict(end);
        }
        Ok(differing)
    }

    /// Root and one path, anew each time: seconds in order, and the bytes of one.
    fn open_each(&mut self, roots: Roots, size: u64) -> Result<(Vec<f64>, u64)> {
        let mut took = Vec::new();
        let blocks = size / BLOCK as u64;
        for turn in 0..TURNS {
            self.begin();
            let begun = Instant::now();
            let manifest = self.manifest(roots, size)?;
            self.load(&manifest, &[(blocks / TURNS * turn, 1)])?;
            took.push(begun.elapsed().as_secs_f64());
        }
        took.sort_by(f64::total_cmp);
        Ok((took, self.fetched))
    }
}

fn run(directory: &Path, size: u64, changes: &[u64]) -> Result<()> {
    let mut store = Store::new(directory)?;
    let begun = Instant::now();
    let roots = store.build(size)?;
    let (building, built, memory) = (begun.elapsed().as_secs_f64(), store.written, store.memory.0);
    let (opened, opened_bytes) = store.open_each(roots, size)?;
    println!(
        "{{\"size\":{size},\"build_s\":{building:.3},\"build_bytes\":{built},\"anonymous\":{memory},\"open_ms\":{:.3},\"open_most_ms\":{:.3},\"open_bytes\":{opened_bytes}}}",
        opened[opened.len() / 2] * 1e3,
        opened[opened.len() - 1] * 1e3,
    );
    for count in changes {
        let mut drawn_blocks = (0..).map(|number| drawn(4, number) % (size / BLOCK as u64));
        let mut changed = BTreeSet::new();
        while (changed.len() as u64) < *count {
            changed.extend(drawn_blocks.next());
        }
        let changed: Vec<u64> = changed.into_iter().collect();
        store.begin();
        let begun = Instant::now();
        let after = store.change(&store.manifest(roots, size)?, size, &changed)?;
        let committing = begun.elapsed().as_secs_f64();
        let (written, fetched) = (store.written, store.fetched);
        store.fetched = 0;
        let (one, other) = (store.manifest(roots, size)?, store.manifest(after, size)?);
        let begun = Instant::now();
        let differing = store.compare(&one, &other)?;
        let comparing = begun.elapsed().as_secs_f64();
        assert_eq!(differing, *count);
        println!(
            "{{\"size\":{size},\"changed\":{count},\"commit_s\":{committing:.3},\"commit_written\":{written},\"commit_fetched\":{fetched},\"diff_s\":{comparing:.3},\"diff_fetched\":{},\"anonymous\":{}}}",
            store.fetched, store.memory.0,
        );
    }
    Ok(())
}

/// Arguments: directory, sizes in bytes, counts of changed blocks; several with commas between them.
fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, directory, sizes, changes] = arguments.as_slice() else {
        return Err(Error::Usage("arguments: directory, sizes, changes".into()));
    };
    let numbers = |text: &str| text.split(',').filter_map(|it| it.parse().ok()).collect::<Vec<u64>>();
    for size in numbers(sizes) {
        let directory = Path::new(directory).join(size.to_string());
        std::fs::create_dir_all(&directory)?;
        run(&directory, size, &numbers(changes))?;
        std::fs::remove_dir_all(&directory)?;
    }
    Ok(())
}
