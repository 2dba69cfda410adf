//! How to bring a window of a volume back: ranged reads by pack, and where each record's block goes.

use std::collections::{HashMap, HashSet};
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use rayon::prelude::*;

use crate::block::{self, UNREADABLE, ZERO};
use crate::bytes::Id;
use crate::error::{Error, Result, damaged};
use crate::index::Index;
use crate::keys::Keyring;
use crate::manifest::reader::coalesce;
use crate::manifest::{FANOUT, Fetch, Manifest};
use crate::outside::begin_writeback;
use crate::pack::{HEADER, Opened, Place, RecordKind, open_record};
use crate::stretches::{Stretch, Stretches};
use crate::target::{read_full, write_all};
use crate::workers::{Workers, lock};

/// Records this near to each other are read in one go.
const GAP: u32 = 256 << 10;

struct Target {
    block: u64,
    done: AtomicBool,
}

struct Record {
    id: Id,
    /// None where the page of places is lost: the index may know one.
    place: Option<Place>,
    targets: Vec<Target>,
}

impl Record {
    fn done(&self) -> bool {
        self.targets.iter().all(|target| target.done.load(Relaxed))
    }
}

#[derive(Clone)]
struct Extent {
    fetch: Fetch,
    records: Vec<(usize, Place)>,
}

/// A plan for one window.
pub struct Plan {
    keys: Arc<Keyring>,
    workers: Arc<Workers>,
    size: u64,
    block_size: usize,
    max_extent: u32,
    records: Vec<Record>,
    extents: Mutex<Vec<Extent>>,
    opened: Mutex<Opened>,
    zeros: Vec<Stretch>,
    unreadable: Vec<Stretch>,
    lost: Vec<Stretch>,
}

impl Plan {
    /// For the blocks from `first` to before `end`, whose pages are loaded or lost.
    pub fn new(
        keys: Arc<Keyring>,
        workers: Arc<Workers>,
        manifest: &Manifest,
        (first, end): (u64, u64),
        (size, block_size): (u64, usize),
        max_extent: u32,
    ) -> Result<Self> {
        let end = end.min(manifest.blocks);
        let (mut zeros, mut unreadable, mut lost) = <(Stretches, Stretches, Stretches)>::default();
        let mut records: Vec<Record> = Vec::new();
        let mut known: HashMap<(Option<Place>, Id), usize> = HashMap::new();
        let stretch = |block: u64| {
            let offset = block * block_size as u64;
            (offset, (size - offset).min(block_size as u64))
        };
        let mut at = first;
        while at < end {
            // Zeros cost nothing, so that a window may span terabytes of them.
            let data = manifest.next_data(at).min(end);
            if data > at {
                let (offset, (last, length)) = (at * block_size as u64, stretch(data - 1));
                zeros.add(offset, last + length - offset);
            }
            let until = ((data / FANOUT as u64 + 1) * FANOUT as u64).min(end).max(data);
            for (block, found) in (data..until).zip(manifest.range(data, until)?) {
                let (offset, length) = stretch(block);
                match found {
                    Some((ZERO, _)) => zeros.add(offset, length),
                    Some((UNREADABLE, _)) => unreadable.add(offset, length),
                    Some((id, place)) => {
                        let number = *known.entry((place, id)).or_insert_with(|| {
                            records.push(Record { id, place, targets: Vec::new() });
                            records.len() - 1
                        });
                        records[number].targets.push(Target { block, done: AtomicBool::new(false) });
                    }
                    None => lost.add(offset, length),
                }
            }
            at = until;
        }
        let plan = Self {
            keys,
            workers,
            size,
            block_size,
            max_extent,
            records,
            extents: Mutex::default(),
            opened: Mutex::default(),
            zeros: zeros.0,
            unreadable: unreadable.0,
            lost: lost.0,
        };
        let placed = plan.records.iter().enumerate();
        let placed = placed.filter_map(|(number, record)| Some((number, record.place?))).collect();
        *lock(&plan.extents) = plan.group(placed);
        Ok(plan)
    }

    /// Ranged reads for those records, in the order of the volume.
    fn group(&self, records: Vec<(usize, Place)>) -> Vec<Extent> {
        let mut by_pack: HashMap<Id, Vec<(usize, Place)>> = HashMap::new();
        for (number, place) in records {
            by_pack.entry(place.pack).or_default().push((number, place));
        }
        let mut extents = Vec::new();
        for (pack, mut records) in by_pack {
            records.sort_by_key(|(_, place)| place.offset);
            let mut rest = records.as_slice();
            let ranges = records.iter().map(|(_, place)| (place.offset, place.length));
            for fetch in coalesce(pack, ranges, GAP, self.max_extent) {
                let end = fetch.1 + fetch.2;
                let (inside, after) = rest.split_at(rest.partition_point(|(_, place)| place.offset < end));
                extents.push(Extent { fetch, records: inside.to_vec() });
                rest = after;
            }
        }
        let first_block = |extent: &Extent| {
            extent
                .records
                .iter()
                .flat_map(|(number, _)| self.records[*number].targets.first())
                .map(|it| it.block)
                .min()
        };
        extents.sort_by_cached_key(first_block);
        extents
    }

    /// Headers to be read before the extents of their packs.
    pub fn headers(&self) -> Vec<Fetch> {
        let extents = lock(&self.extents);
        let mut packs: Vec<Id> =
            extents.iter().filter(|it| self.open(it)).map(|extent| extent.fetch.0).collect();
        packs.sort_unstable();
        packs.dedup();
        let mut opened = lock(&self.opened);
        packs.retain(|pack| opened.key(&self.keys, pack).is_none());
        packs.into_iter().map(|pack| (pack, 0, HEADER as u32)).collect()
    }

    /// Takes a pack's header; false if it is not good.
    pub fn learn(&self, pack: &Id, header: &[u8]) -> bool {
        lock(&self.opened).learn(&self.keys, pack, header)
    }

    fn open(&self, extent: &Extent) -> bool {
        extent.records.iter().any(|(number, _)| !self.records[*number].done())
    }

    /// (number, fetch) of the ranged reads whose blocks are not all done.
    pub fn extents(&self) -> Vec<(usize, Fetch)> {
        let extents = lock(&self.extents);
        extents
            .iter()
            .enumerate()
            .filter(|(_, it)| self.open(it))
            .map(|(number, it)| (number, it.fetch))
            .collect()
    }

    /// What is zeros.
    pub fn zeros(&self) -> &[Stretch] {
        &self.zeros
    }

    /// What was recorded as unreadable.
    pub fn unreadable(&self) -> &[Stretch] {
        &self.unreadable
    }

    /// What cannot be had, or was not delivered.
    pub fn lost(&self) -> Vec<Stretch> {
        let open = self.records.iter().flat_map(|record| &record.targets).filter(|it| !it.done.load(Relaxed));
        self.joined(open, &self.lost)
    }

    /// The stretches whose records lie in one of those packs.
    pub fn extents_in(&self, packs: &HashSet<Id>) -> Vec<Stretch> {
        let inside =
            self.records.iter().filter(|it| it.place.is_some_and(|place| packs.contains(&place.pack)));
        self.joined(inside.flat_map(|record| &record.targets), &[])
    }

    fn joined<'a>(&self, targets: impl Iterator<Item = &'a Target>, more: &[Stretch]) -> Vec<Stretch> {
        let mut all: Vec<Stretch> =
            targets.map(|target| self.stretch(target.block)).chain(more.iter().copied()).collect();
        all.sort_unstable();
        let mut out = Stretches::default();
        for (offset, length) in all {
            out.add(offset, length);
        }
        out.0
    }

    fn stretch(&self, block: u64) -> Stretch {
        let offset = block * self.block_size as u64;
        (offset, (self.size - offset).min(self.block_size as u64))
    }

    /// Marks done what the target holds already; returns those bytes.
    pub fn compare(&self, fd: BorrowedFd<'_>) -> Result<u64> {
        let right = AtomicU64::new(0);
        self.workers.run(|| {
            let targets = self
                .records
                .par_iter()
                .flat_map_iter(|record| record.targets.iter().map(|target| (record.id, target)));
            targets.try_for_each_init(
                || vec![0; self.block_size],
                |buffer, (id, target)| -> Result<()> {
                    let (offset, length) = self.stretch(target.block);
                    let wanted = &mut buffer[..length as usize];
                    if read_full(fd, wanted, offset)? == wanted.len()
                        && block::id(&self.keys.block_id, wanted, self.block_size) == id
                    {
                        target.done.store(true, Relaxed);
                        right.fetch_add(length, Relaxed);
                    }
                    Ok(())
                },
            )
        })?;
        Ok(right.into_inner())
    }

    /// Verifies an extent's records in `data` and hands each block that is not done to `put` (offset, bytes).
    ///
    /// Returns how many records failed. A block is done when `put` returned; its error ends the call.
    fn deliver(
        &self,
        extent: usize,
        data: &[u8],
        put: impl Fn(u64, &[u8]) -> Result<()> + Sync,
    ) -> Result<usize> {
        let Some(Extent { fetch: (pack, start, _), records }) = lock(&self.extents).get(extent).cloned()
        else {
            return Err(Error::Usage(format!("the plan has no extent {extent}")));
        };
        let open: Vec<_> = records.into_iter().filter(|(number, _)| !self.records[*number].done()).collect();
        let Some(key) = lock(&self.opened).key(&self.keys, &pack) else { return Ok(open.len()) };
        let failed = AtomicUsize::new(0);
        self.workers.run(|| {
            open.par_iter().with_max_len(1).try_for_each(|(number, place)| -> Result<()> {
                let record = &self.records[*number];
                let from = (place.offset - start) as usize;
                let outcome = match data.get(from..from + place.length as usize) {
                    Some(bytes) => {
                        open_record(&self.keys, &key, RecordKind::Block, &record.id, bytes, |plain| {
                            self.place_block(record, plain, &put)
                        })
                    }
                    None => damaged("the read was short"),
                };
                match outcome {
                    Ok(Ok(true)) => Ok(()),
                    Ok(Err(error)) => Err(error),
                    Ok(Ok(false)) | Err(_) => {
                        failed.fetch_add(1, Relaxed);
                        Ok(())
                    }
                }
            })
        })?;
        let failed = failed.into_inner();
        if failed < open.len() {
            lock(&self.opened).prove(&pack, &key);
        }
        Ok(failed)
    }

    fn place_block(
        &self,
        record: &Record,
        plain: &[u8],
        put: impl Fn(u64, &[u8]) -> Result<()>,
    ) -> Result<bool> {
        if plain.len() != self.block_size {
            return Ok(false);
        }
        for target in record.targets.iter().filter(|target| !target.done.load(Relaxed)) {
            let (offset, length) = self.stretch(target.block);
            put(offset, &plain[..length as usize])?;
            target.done.store(true, Relaxed);
        }
        Ok(true)
    }

    /// Writes an extent's blocks to a file; returns (bytes written, records that failed).
    pub fn write(&self, extent: usize, data: &[u8], fd: BorrowedFd<'_>) -> Result<(u64, usize)> {
        let (written, low, high) = (AtomicU64::new(0), AtomicU64::new(u64::MAX), AtomicU64::new(0));
        let failed = self.deliver(extent, data, |offset, plain| {
            let length = plain.len() as u64;
            write_all(fd, plain, offset)?;
            written.fetch_add(length, Relaxed);
            low.fetch_min(offset, Relaxed);
            high.fetch_max(offset + length, Relaxed);
            Ok(())
        })?;
        let (written, low, high) = (written.into_inner(), low.into_inner(), high.into_inner());
        // The disk works while the processors decode: the sync at the end then finds little left. Not where the blocks lie
        // scattered, because the range would take in what others are still writing.
        if written > 0 && high - low <= 2 * written {
            begin_writeback(fd, low, high - low);
        }
        Ok((written, failed))
    }

    /// Copies an extent's blocks into `out`, which begins at byte `out_offset`; returns how many records failed.
    pub fn copy(&self, extent: usize, data: &[u8], out: &mut [u8], out_offset: u64) -> Result<usize> {
        let length = out.len();
        let out = Mutex::new(out);
        self.copy_to(extent, data, (out_offset, length), |at, bytes| {
            lock(&out)[at..at + bytes.len()].copy_from_slice(bytes);
        })
    }

    /// As `copy`, for memory that begins at byte `start` of the volume and is `length` bytes long: `put` is handed where in
    /// it, and what, never past its end.
    pub fn copy_to(
        &self,
        extent: usize,
        data: &[u8],
        (start, length): (u64, usize),
        put: impl Fn(usize, &[u8]) + Sync,
    ) -> Result<usize> {
        let end = start.saturating_add(length as u64);
        self.deliver(extent, data, |offset, plain| {
            let from = offset.max(start);
            let until = (offset + plain.len() as u64).min(end);
            if from < until {
                put((from - start) as usize, &plain[(from - offset) as usize..(until - offset) as usize]);
            }
            Ok(())
        })
    }

    /// New extents, after the others, for what is not done and lies elsewhere too, or whose pack's header may be to blame.
    pub fn relocate(&self, index: &Index) -> Vec<(usize, Fetch)> {
        let open: Vec<_> = self.records.iter().enumerate().filter(|(_, record)| !record.done()).collect();
        let packs: HashSet<Id> = open.iter().filter_map(|(_, record)| Some(record.place?.pack)).collect();
        let mut opened = lock(&self.opened);
        let blamed: HashSet<Id> = packs
            .into_iter()
            .filter(|pack| {
                let key = opened.key(&self.keys, pack);
                key.is_some_and(|key| opened.refute(&self.keys, pack, &key))
            })
            .collect();
        drop(opened);
        let again = |record: &Record| record.place.filter(|place| blamed.contains(&place.pack));
        let elsewhere = |record: &Record| index.find_where(&record.id, |place| Some(*place) != record.place);
        let found = open.into_iter();
        let found = found
            .filter_map(|(number, record)| Some((number, elsewhere(record).or_else(|| again(record))?)))
            .collect();
        let mut extents = lock(&self.extents);
        let first = extents.len();
        extents.extend(self.group(found));
        extents.iter().enumerate().skip(first).map(|(number, extent)| (number, extent.fetch)).collect()
    }
}
