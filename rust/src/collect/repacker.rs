//! Copies live records out of packs that are mostly dead into new packs: opened, proven, sealed anew, never compressed again.

use std::sync::{Arc, Mutex};

use rayon::prelude::*;

use crate::codec::Codec;
use crate::error::{Error, Result, damaged};
use crate::index::{IndexedPack, NewSegment};
use crate::keys::Keyring;
use crate::pack::{
    Entry, FinishedPack, NewRecord, PackBuilder, PackKey, PackKind, RecordHeader, RecordKind, proven_block,
};
use crate::packer::seal_segments;
use crate::workers::{Workers, lock};

struct Open {
    builder: PackBuilder,
    entries: Vec<Entry>,
}

#[derive(Default)]
struct State {
    open: Option<Open>,
    finished: Vec<IndexedPack>,
}

/// Makes new packs of records that lie in others.
pub struct Repacker {
    keys: Arc<Keyring>,
    workers: Arc<Workers>,
    session: [u8; 16],
    capacity: usize,
    state: Mutex<State>,
}

/// A record taken out of its pack.
struct Taken {
    header: RecordHeader,
    stored: Vec<u8>,
    plain: Vec<u8>,
}

impl Repacker {
    /// New packs of `capacity` bytes at most, of that session.
    pub fn new(keys: Arc<Keyring>, workers: Arc<Workers>, session: [u8; 16], capacity: usize) -> Self {
        Self { keys, workers, session, capacity, state: Mutex::default() }
    }

    /// Copies the records (offset, length) of a pack, whose header is given, out of `data`, which begins at `start` of the
    /// pack. Returns packs that became full. `Damaged` if a record is not what its id promises: nothing was copied then.
    pub fn take(
        &self,
        header: &[u8],
        (start, data): (u32, &[u8]),
        records: &[(u32, u32)],
    ) -> Result<Vec<FinishedPack>> {
        let key = PackKey::from_header(&self.keys, header)?;
        let taken: Vec<Taken> = self.workers.run(|| {
            records
                .par_iter()
                .with_max_len(1)
                .map(|record| self.open(&key, start, data, *record))
                .collect::<Result<_>>()
        })?;
        // Only threads outside of the pool wait for this lock, so sealing in the pool under it cannot lock up.
        let mut state = lock(&self.state);
        let mut full = Vec::new();
        let mut rest = taken.as_slice();
        while !rest.is_empty() {
            let open = match state.open.take() {
                Some(open) => open,
                None => self.begin(rest[0].plain.len())?,
            };
            let open = state.open.insert(open);
            let fits = open.builder.fitting(rest.iter().map(|record| record.stored.len()));
            let (now, later) = rest.split_at(fits);
            self.append(open, now)?;
            if !later.is_empty() {
                full.extend(self.close(&mut state)?);
            }
            rest = later;
        }
        Ok(full)
    }

    fn open(&self, key: &PackKey, start: u32, data: &[u8], (offset, length): (u32, u32)) -> Result<Taken> {
        let from = offset.checked_sub(start).map(|from| from as usize);
        let bytes = from.and_then(|from| data.get(from..from.checked_add(length as usize)?));
        let Some(bytes) = bytes else { return damaged("the read was short") };
        proven_block(&self.keys, key, bytes, |header, stored, plain| Taken {
            header: *header,
            stored: stored.to_vec(),
            plain: plain.to_vec(),
        })
    }

    fn begin(&self, block_size: usize) -> Result<Open> {
        let buffer = self.workers.buffer(self.capacity);
        let builder = PackBuilder::new(&self.keys, PackKind::Data, &self.session, block_size as u32, buffer)?;
        Ok(Open { builder, entries: Vec::new() })
    }

    fn append(&self, open: &mut Open, taken: &[Taken]) -> Result<()> {
        let records = taken.iter().map(|record| {
            Ok(NewRecord {
                kind: RecordKind::Block,
                id: record.header.id,
                codec: Codec::from_number(record.header.codec)?,
                plain_length: record.plain.len(),
                stored: &record.stored,
                check: Some(&record.plain),
            })
        });
        let records: Vec<NewRecord<'_>> = records.collect::<Result<_>>()?;
        let places = self.workers.run(|| open.builder.append(&records))?;
        let entries = records.iter().zip(places).map(|(record, (offset, length))| Entry {
            id: record.id,
            offset,
            length,
            kind: RecordKind::Block,
        });
        open.entries.extend(entries);
        Ok(())
    }

    fn close(&self, state: &mut State) -> Result<Option<FinishedPack>> {
        let Some(open) = state.open.take() else { return Ok(None) };
        if open.builder.is_empty() {
            return Err(Error::Usage("a block that fits no pack".into()));
        }
        let finished = self.workers.run(|| open.builder.finish(&self.keys))?;
        state.finished.push(IndexedPack {
            id: finished.id,
            size: finished.length as u64,
            entries: open.entries,
        });
        Ok(Some(finished))
    }

    /// The last pack, if anything is in it.
    pub fn finish(&self) -> Result<Option<FinishedPack>> {
        self.close(&mut lock(&self.state))
    }

    /// Index segments of all packs finished so far.
    pub fn segments(&self) -> Result<Vec<NewSegment>> {
        seal_segments(&self.keys, &lock(&self.state).finished)
    }
}
