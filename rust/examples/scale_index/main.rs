//! An index of synthetic blocks that grows as exports grow it: what a look-up, an insertion and an opening cost at each size.
//!
//! `benches/scale/index.py` runs it and says what the columns mean. One line of JSON for each size.

#[path = "../synthetic/mod.rs"]
mod synthetic;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use snapferry_core::bytes::Id;
use snapferry_core::error::Result;
use snapferry_core::index::{Fold, IdSet, Index, IndexedPack, Shape, build, seal_plain};
use snapferry_core::keys::Keyring;
use snapferry_core::outside::Mapped;
use snapferry_core::pack::{Entry, HEADER, Place, RecordKind};
use synthetic::{Memory, PACK_BLOCKS, RECORD, drawn, id, processor};

/// Packs in a segment, as an export makes them.
const SEGMENT_PACKS: u64 = 8;
const SEGMENT_BLOCKS: u64 = PACK_BLOCKS * SEGMENT_PACKS;
/// What passes through the caches between two look-ups of an export at the least: a block of 256 KiB is copied, hashed, compressed,
/// sealed, checked and written.
const BETWEEN: usize = 1 << 20;
/// So many blocks in a row are looked up in the order of the volume.
const ROW: u64 = 8192;

fn block(number: u64) -> Id {
    id(1, number)
}

fn pack(number: u64) -> Id {
    id(2, number)
}

fn place(block: u64) -> Place {
    let offset = HEADER as u32 + (block % PACK_BLOCKS) as u32 * RECORD;
    Place { pack: pack(block / PACK_BLOCKS), offset, length: RECORD }
}

/// The packs of the segment that begins with that block.
fn packs(first: u64) -> Vec<IndexedPack> {
    let entry = |number| {
        let Place { offset, length, .. } = place(number);
        Entry { id: block(number), offset, length, kind: RecordKind::Block }
    };
    let one = |number: u64| IndexedPack {
        id: pack(number),
        size: 32 << 20,
        entries: (number * PACK_BLOCKS..(number + 1) * PACK_BLOCKS).map(entry).collect(),
    };
    (first / PACK_BLOCKS..first / PACK_BLOCKS + SEGMENT_PACKS).map(one).collect()
}

struct Growing {
    keys: Keyring,
    directory: PathBuf,
    index: Arc<Index>,
    segments: Vec<Id>,
    blocks: u64,
    folding: Duration,
    memory: Memory,
}

impl Growing {
    /// As an export does for every eight packs.
    fn insert(&mut self) -> Result<()> {
        let packs = packs(self.blocks);
        let ids: Vec<Id> = packs.iter().map(|pack| pack.id).collect();
        let segment = seal_plain(&self.keys, build(&packs, &[]))?;
        self.index.add_usable(segment.id, segment.plain, &ids)?;
        self.segments.push(segment.id);
        self.blocks += SEGMENT_BLOCKS;
        if self.index.is_crowded() { self.fold(false) } else { Ok(()) }
    }

    fn fold(&mut self, last: bool) -> Result<()> {
        let begun = Instant::now();
        if let Some(mut fold) = Fold::begin(&self.index, &self.directory, Shape::default(), last)? {
            while fold.step()? {
                self.memory.look();
            }
        }
        self.folding += begun.elapsed();
        Ok(())
    }

    /// As another process opens what is there: (opening, marking which packs count).
    fn reopen(&mut self) -> Result<(Duration, Duration)> {
        self.index = Arc::default();
        let wanted: IdSet = self.segments.iter().copied().collect();
        let begun = Instant::now();
        let missing = self.index.open(&self.directory, wanted, true);
        let opening = begun.elapsed();
        assert!(missing.is_empty());
        let usable: IdSet = (0..self.blocks / PACK_BLOCKS).map(pack).collect();
        let begun = Instant::now();
        self.index.declare_usable(usable);
        Ok((opening, begun.elapsed()))
    }
}

/// Touches all of the tables, mapped as the index maps them: on a machine that exports every hour they are in memory.
fn warm(directory: &Path) -> Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("table-") {
            let table = Mapped::open(&entry.path())?;
            table.read_hot();
            std::hint::black_box(
                table.bytes().iter().step_by(4096).map(|byte| u64::from(*byte)).sum::<u64>(),
            );
        }
    }
    Ok(())
}

/// Nanoseconds of one look-up.
struct Cost {
    /// Back to back.
    row: f64,
    /// With a block's bytes through the caches before each, as in an export.
    between: f64,
    /// Back to back, everything counted that came in between: disks, and other programs.
    mean: f64,
}

/// Medians, because other programs run too; of rows short enough that most are not interrupted.
fn look_up(index: &Index, numbers: &[u64], found: bool, bytes: &[u8]) -> Cost {
    let mut rows = Vec::new();
    for row in numbers.chunks(SEGMENT_BLOCKS as usize) {
        let begun = Instant::now();
        for number in row {
            assert_eq!(index.find(&block(*number)), found.then(|| place(*number)));
        }
        rows.push(begun.elapsed().as_nanos() as f64 / row.len() as f64);
    }
    let mean = rows.iter().sum::<f64>() / rows.len() as f64;
    let (mut spent, mut sum) = (Vec::new(), 0u64);
    for (turn, number) in numbers.iter().take(ROW as usize).enumerate() {
        let at = turn * BETWEEN % (bytes.len() - BETWEEN);
        sum = sum.wrapping_add(bytes[at..at + BETWEEN].iter().map(|it| u64::from(*it)).sum());
        let wanted = block(*number);
        let (begun, middle) = (Instant::now(), Instant::now());
        assert_eq!(index.find(&wanted).is_some(), found);
        spent.push(middle.elapsed().saturating_sub(middle - begun).as_nanos() as f64);
    }
    std::hint::black_box(sum);
    Cost { row: median(rows), between: median(spent), mean }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn disk(directory: &Path) -> Result<(u64, u64)> {
    let (mut tables, mut all) = (0, 0);
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let size = entry.metadata()?.len();
        all += size;
        if entry.file_name().to_string_lossy().starts_with("table-") {
            tables += size;
        }
    }
    Ok((tables, all))
}

/// What was looked for at one size: blocks that are not there, blocks in the order of the volume, and any blocks.
fn look_ups(index: &Index, blocks: u64, bytes: &[u8]) -> [(&'static str, Cost); 3] {
    let mut state = 0;
    let mut random = || {
        state += 1;
        drawn(3, state)
    };
    let misses: Vec<u64> = (0..ROW * 16).map(|_| (1 << 40) + random() % (1 << 40)).collect();
    let firsts: Vec<u64> = (0..16).map(|_| random() % (blocks - ROW)).collect();
    let in_order: Vec<u64> = firsts.into_iter().flat_map(|first| first..first + ROW).collect();
    let scattered: Vec<u64> = (0..ROW * 4).map(|_| random() % blocks).collect();
    look_up(index, &misses[..ROW as usize], false, bytes);
    [("miss", misses, false), ("hit", in_order, true), ("scattered", scattered, true)]
        .map(|(name, numbers, found)| (name, look_up(index, &numbers, found, bytes)))
}

/// Arguments: directory, counts of entries from small to large.
fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let directory = PathBuf::from(arguments.next().unwrap_or_default());
    let sizes: Vec<u64> = arguments.filter_map(|it| it.parse().ok()).collect();
    let between: Vec<u8> = vec![1; 64 << 20];
    let mut growing = Growing {
        keys: Keyring::generate()?,
        directory,
        index: Arc::default(),
        segments: Vec::new(),
        blocks: 0,
        folding: Duration::ZERO,
        memory: Memory::default(),
    };
    let (mut inserting, mut processing) = (Duration::ZERO, 0.0);
    for size in sizes {
        let (begun, before) = (Instant::now(), processor());
        while growing.blocks < size {
            growing.insert()?;
        }
        growing.fold(true)?; // As at the end of an export.
        inserting += begun.elapsed();
        processing += processor() - before;
        let (cold, _) = growing.reopen()?;
        warm(&growing.directory)?;
        let (opening, marking) = growing.reopen()?;
        let blocks = growing.blocks;
        let costs = look_ups(&growing.index, blocks, &between);
        growing.memory.look();
        let (tables, all) = disk(&growing.directory)?;
        let mut line = format!(
            "{{\"entries\":{blocks},\"insert\":{:.1},\"insert_cpu\":{:.1},\"folding\":{:.1},\"first_open_ms\":{:.1},\"open_ms\":{:.1},\"mark_ms\":{:.1},\"anonymous\":{},\"tables\":{tables},\"table_count\":{},\"disk\":{all}",
            inserting.as_nanos() as f64 / blocks as f64,
            processing * 1e9 / blocks as f64,
            growing.folding.as_nanos() as f64 / blocks as f64,
            cold.as_secs_f64() * 1e3,
            opening.as_secs_f64() * 1e3,
            marking.as_secs_f64() * 1e3,
            growing.memory.0,
            growing.index.files().iter().filter(|file| file.starts_with("table-")).count(),
        );
        for (name, Cost { row, between, mean }) in costs {
            line += &format!(",\"{name}\":{between:.1},\"{name}_row\":{row:.1},\"{name}_mean\":{mean:.1}");
        }
        println!("{line}}}");
    }
    Ok(())
}
