//! Blocks in, packs out: the hot path of an export.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use rayon::prelude::*;

use crate::block::{self, UNREADABLE, ZERO};
use crate::bytes::Id;
use crate::codec::{Codec, Encoder};
use crate::error::{Error, Result};
use crate::index::{Index, IndexedPack, NewSegment, build, row, seal_plain, seal_rows};
use crate::keys::Keyring;
use crate::manifest::{Found, ManifestWriter, Stored};
use crate::pack::{
    Entry, FIXED, FinishedPack, MAX_PACK, NewRecord, OVERHEAD, PackBuilder, PackKind, RecordKind,
};
use crate::stretches::Stretches;
use crate::workers::{Workers, lock};

/// How much of what is built is decoded and compared before it leaves memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// Every record.
    Full,
    /// One record in sixteen.
    Sample,
}

impl Check {
    const SAMPLE: u64 = 16;

    /// As a configuration names it.
    pub fn from_name(name: &str) -> Result<Self> {
        match name {
            "full" => Ok(Self::Full),
            "sample" => Ok(Self::Sample),
            other => Err(Error::Usage(format!("check_built is full or sample, not {other:?}"))),
        }
    }
}

/// What one block turned out to be.
enum Verdict {
    Zeros,
    /// It lies somewhere already, or this session stores it elsewhere.
    Known(Found),
    New {
        id: Id,
        codec: Codec,
        stored: Vec<u8>,
    },
}

struct OpenPack {
    number: u32,
    group: usize,
    builder: PackBuilder,
    entries: Vec<Entry>,
}

#[derive(Default)]
struct State {
    spare: VecDeque<usize>,
    open: Option<OpenPack>,
    next: u32,
    /// With the group of their blocks.
    finished: HashMap<Id, (usize, IndexedPack)>,
}

/// Seals as many segments as it takes for any number of packs, so that each can be read back whole.
pub fn seal_segments(keys: &Keyring, packs: &[IndexedPack]) -> Result<Vec<NewSegment>> {
    seal_rows(keys, &packs.iter().map(row).collect::<Vec<_>>(), &[])
}

/// Takes the blocks of one export.
pub struct Packer {
    keys: Arc<Keyring>,
    workers: Arc<Workers>,
    index: Arc<Index>,
    manifest: Arc<ManifestWriter>,
    session: [u8; 16],
    encoder: Encoder,
    check: Check,
    dry_run: bool,
    state: Mutex<State>,
    bytes_new: AtomicU64,
    blocks_new: AtomicU64,
    blocks_zero: AtomicU64,
    blocks_known: AtomicU64,
}

impl Packer {
    /// See the Python stub.
    #[allow(clippy::too_many_arguments)] // One construction site; a struct of options would be built there and taken apart here.
    pub fn new(
        keys: Arc<Keyring>,
        workers: Arc<Workers>,
        index: Arc<Index>,
        manifest: Arc<ManifestWriter>,
        session: [u8; 16],
        encoder: Encoder,
        check: Check,
        dry_run: bool,
    ) -> Self {
        Self {
            keys,
            workers,
            index,
            manifest,
            session,
            encoder,
            check,
            dry_run,
            state: Mutex::default(),
            bytes_new: AtomicU64::new(0),
            blocks_new: AtomicU64::new(0),
            blocks_zero: AtomicU64::new(0),
            blocks_known: AtomicU64::new(0),
        }
    }

    /// Bytes of buffers provided and not yet filled.
    pub fn room(&self) -> usize {
        let state = lock(&self.state);
        let open = state.open.as_ref().map_or(0, |open| open.builder.free());
        state.spare.iter().map(|capacity| capacity - FIXED).sum::<usize>() + open
    }

    /// Adds room for one more pack.
    pub fn provide(&self, capacity: usize) -> Result<()> {
        if capacity < self.manifest.block_size + (64 << 10) {
            return Err(Error::Usage("a pack takes at least one block and 64 KiB".into()));
        }
        if capacity as u64 > MAX_PACK {
            return Err(Error::Usage(format!("a pack of {capacity} bytes; none above {MAX_PACK} is read")));
        }
        lock(&self.state).spare.push_back(capacity);
        Ok(())
    }

    /// Takes the blocks from number `first` on; returns the packs that became full.
    pub fn process(&self, first: u64, data: &[u8]) -> Result<Vec<FinishedPack>> {
        let size = self.manifest.block_size;
        let blocks = data.len().div_ceil(size) as u64;
        let torn = data.len() % size != 0;
        if first.checked_add(blocks).is_none_or(|end| end > self.manifest.blocks())
            || (torn && Some(first * size as u64 + data.len() as u64) != self.manifest.size())
        {
            return Err(Error::Usage("blocks past the volume's end, or a torn block before it".into()));
        }
        // The volume's last block is hashed and stored padded with zeros.
        let tail = torn.then(|| {
            let mut tail = data[data.len() - data.len() % size..].to_vec();
            tail.resize(size, 0);
            tail
        });
        let whole: Vec<&[u8]> = data.chunks_exact(size).chain(tail.as_deref()).collect();
        let theirs = match &self.manifest.parent {
            Some(parent) => parent.range(first, first + blocks)?,
            None => vec![None; whole.len()],
        };
        let verdicts: Vec<Verdict> = self.workers.run(|| {
            let judged = whole.par_iter().zip(theirs).enumerate().with_max_len(1);
            judged
                .map(|(number, (block, theirs))| self.judge(self.group(first, number), block, theirs))
                .collect::<Result<_>>()
        })?;
        let full = self.store(first, &whole, &verdicts)?;
        let recorded: Vec<Found> = verdicts
            .into_iter()
            .map(|verdict| match verdict {
                Verdict::Zeros => (ZERO, None),
                Verdict::Known(recorded) => recorded,
                Verdict::New { id, stored, .. } => {
                    self.workers.return_scratch(stored);
                    (id, None)
                }
            })
            .collect();
        if !self.dry_run {
            // Where nothing is stored no page is built: its leaves would wait for packs that never come.
            self.manifest.record(first, &recorded)?;
        }
        Ok(full)
    }

    /// Records the parent's blocks from `first` on as this snapshot's, without their bytes. Returns the (first, count) runs of
    /// those that must be read after all: unreadable then, their page lost, or in no usable pack any more.
    pub fn take_over(&self, first: u64, count: u64) -> Result<Vec<(u64, u64)>> {
        let Some(parent) = &self.manifest.parent else {
            return Err(Error::Usage("there is no parent to take blocks over from".into()));
        };
        let found = parent.range(first, first.saturating_add(count).min(self.manifest.blocks()))?;
        let (mut taken, mut wanted) = (Vec::with_capacity(found.len()), Stretches::default());
        for (block, found) in (first..).zip(found) {
            let known = match found {
                Some((ZERO, _)) => Some((ZERO, None)),
                Some((UNREADABLE, _)) | None => None,
                Some((id, place)) => {
                    let group = self.manifest.group_of(block);
                    let usable = place.filter(|place| self.index.is_usable(group, &place.pack));
                    usable.or_else(|| self.index.find_in(group, &id)).map(|place| (id, Some(place)))
                }
            };
            if known.is_none() {
                wanted.add(block, 1);
            }
            taken.push(known.unwrap_or((ZERO, None)));
        }
        if !self.dry_run {
            self.manifest.record(first, &taken)?;
        }
        Ok(wanted.0)
    }

    /// Of the block of that number in a batch.
    fn group(&self, first: u64, number: usize) -> usize {
        self.manifest.group_of(first + number as u64)
    }

    fn judge(&self, group: usize, block: &[u8], theirs: Option<Found>) -> Result<Verdict> {
        if block::is_zero(block) {
            self.blocks_zero.fetch_add(1, Relaxed);
            return Ok(Verdict::Zeros);
        }
        let id = block::id(&self.keys.block_id, block, block.len());
        let unchanged = theirs.and_then(|(their_id, place)| place.filter(|_| their_id == id));
        let usable = unchanged.filter(|place| self.index.is_usable(group, &place.pack));
        if let Some(place) = usable.or_else(|| self.index.find_in(group, &id)) {
            self.blocks_known.fetch_add(1, Relaxed);
            return Ok(Verdict::Known((id, Some(place))));
        }
        if !lock(&self.manifest.claims).claim((group, id)) {
            self.blocks_known.fetch_add(1, Relaxed);
            return Ok(Verdict::Known((id, None)));
        }
        self.blocks_new.fetch_add(1, Relaxed);
        self.bytes_new.fetch_add(block.len() as u64, Relaxed);
        let mut stored = self.workers.scratch();
        let codec = if self.dry_run { Codec::Raw } else { self.encoder.encode(block, &mut stored)? };
        Ok(Verdict::New { id, codec, stored })
    }

    /// Seals the new blocks in their order; several packs may become full. A pack ends where a block of another group comes.
    fn store(&self, first: u64, blocks: &[&[u8]], verdicts: &[Verdict]) -> Result<Vec<FinishedPack>> {
        let sampled = |number: u64| self.check == Check::Full || number % Check::SAMPLE == 0;
        let (groups, records): (Vec<usize>, Vec<NewRecord<'_>>) = blocks
            .iter()
            .zip(verdicts)
            .enumerate()
            .filter_map(|(number, (block, verdict))| match verdict {
                Verdict::New { id, codec, stored } => {
                    let record = NewRecord {
                        kind: RecordKind::Block,
                        id: *id,
                        codec: *codec,
                        plain_length: block.len(),
                        stored: if *codec == Codec::Raw { block } else { stored },
                        check: sampled(number as u64).then_some(*block),
                    };
                    Some((self.group(first, number), record))
                }
                _ => None,
            })
            .unzip();
        let mut full = Vec::new();
        if self.dry_run || records.is_empty() {
            return Ok(full);
        }
        // Only threads outside of the pool wait for this lock, so sealing in the pool under it cannot lock up.
        let mut state = lock(&self.state);
        let mut rest = records.as_slice();
        while !rest.is_empty() {
            let groups = &groups[groups.len() - rest.len()..];
            let group = groups[0];
            let alike = groups.iter().take_while(|it| **it == group).count();
            if state.open.as_ref().is_some_and(|open| open.group != group) {
                full.extend(self.close_pack(&mut state)?);
            }
            self.open_pack(&mut state, group)?;
            let Some(open) = state.open.as_mut() else { break };
            let fits = open.builder.fitting(rest[..alike].iter().map(|record| record.stored.len()));
            let (now, later) = rest.split_at(fits);
            let places = self.workers.run(|| open.builder.append(now))?;
            let mut claims = lock(&self.manifest.claims);
            for (record, (offset, length)) in now.iter().zip(places) {
                claims.store((group, record.id), Stored { pack: open.number, offset, length });
                open.entries.push(Entry { id: record.id, offset, length, kind: RecordKind::Block });
            }
            drop(claims);
            if fits < alike {
                full.extend(self.close_pack(&mut state)?);
            }
            rest = later;
        }
        Ok(full)
    }

    fn open_pack(&self, state: &mut State, group: usize) -> Result<()> {
        if state.open.is_some() {
            return Ok(());
        }
        let Some(capacity) = state.spare.pop_front() else {
            return Err(Error::Usage("no room was provided for these blocks".into()));
        };
        let buffer = self.workers.buffer(capacity);
        let size = self.manifest.block_size as u32;
        let builder = PackBuilder::new(&self.keys, PackKind::Data, &self.session, size, buffer)?;
        state.open = Some(OpenPack { number: state.next, group, builder, entries: Vec::new() });
        state.next += 1;
        Ok(())
    }

    fn close_pack(&self, state: &mut State) -> Result<Option<FinishedPack>> {
        let Some(open) = state.open.take() else { return Ok(None) };
        if open.builder.is_empty() {
            return Err(Error::Usage("a block that fits no pack".into()));
        }
        let keys = &self.keys;
        let finished = self.workers.run(|| open.builder.finish(keys))?;
        lock(&self.manifest.claims).name(open.number, finished.id);
        let indexed = IndexedPack { id: finished.id, size: finished.length as u64, entries: open.entries };
        state.finished.insert(finished.id, (open.group, indexed));
        Ok(Some(finished))
    }

    /// The last pack, if anything is in it.
    pub fn finish(&self) -> Result<Option<FinishedPack>> {
        self.close_pack(&mut lock(&self.state))
    }

    /// The group of the blocks in a finished pack that no segment names yet.
    pub fn group_of(&self, pack: &Id) -> Option<usize> {
        lock(&self.state).finished.get(pack).map(|(group, _)| *group)
    }

    /// A segment of these finished packs, whose blocks are found in the index from now on, and of all manifest packs
    /// finished so far, so that nobody takes them for packs that lost their segment.
    pub fn segment(&self, packs: &[Id]) -> Result<Option<NewSegment>> {
        let mut state = lock(&self.state);
        let mut grouped: Vec<(usize, IndexedPack)> =
            packs.iter().filter_map(|id| state.finished.remove(id)).collect();
        drop(state);
        let manifests = std::mem::take(&mut lock(&self.manifest.claims).manifest_packs);
        let pages = |(id, size)| (0, IndexedPack { id, size, entries: Vec::new() });
        grouped.extend(manifests.into_iter().map(pages));
        if grouped.is_empty() {
            return Ok(None);
        }
        let (groups, named): (Vec<usize>, Vec<IndexedPack>) = grouped.into_iter().unzip();
        let segment = seal_plain(&self.keys, build(&named, &[]))?;
        let packs = || groups.iter().copied().zip(&named);
        // First findable, then forgotten: a block is never unknown in between.
        let ids = packs().map(|(group, pack)| (group, pack.id));
        self.index.add_usable_in(segment.id, segment.plain.clone(), ids)?;
        lock(&self.manifest.claims).forget(
            packs().flat_map(|(group, pack)| pack.entries.iter().map(move |entry| (group, entry.id))),
        );
        Ok(Some(segment))
    }

    /// (bytes new, blocks new, blocks zero, blocks known).
    pub fn counts(&self) -> (u64, u64, u64, u64) {
        let of = |counter: &AtomicU64| counter.load(Relaxed);
        (of(&self.bytes_new), of(&self.blocks_new), of(&self.blocks_zero), of(&self.blocks_known))
    }
}

const _: () = assert!(OVERHEAD == 80);
