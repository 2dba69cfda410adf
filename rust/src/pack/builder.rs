//! Fills one buffer with sealed records and closes it with the footer. A builder that failed stays unusable.

use rayon::prelude::*;

use super::{
    ENTRY, FIXED, FOOTER_FIXED, HEADER, OVERHEAD, PackKey, PackKind, RECORD, RecordHeader, RecordKind,
    SECRET_PART, TRAILER, commitment, draw_base_key, header_magic, pack_secret, trailer_magic,
};
use crate::bytes::{Id, hex};
use crate::cipher::{Suite, TAG};
use crate::codec::Codec;
use crate::error::{Error, Result};
use crate::keys::{Keyring, random, subkey};

/// A record to be sealed: its stored bytes, and the plain ones if it is to be decoded and compared at once.
pub struct NewRecord<'a> {
    /// What it holds.
    pub kind: RecordKind,
    /// Of the block or page.
    pub id: Id,
    /// How `stored` is encoded.
    pub codec: Codec,
    /// Bytes when decompressed; may be more than `plain` for a last block, which is taken as padded with zeros.
    pub plain_length: usize,
    /// What goes into the pack, before encryption.
    pub stored: &'a [u8],
    /// Compared with the decoded record, where given.
    pub check: Option<&'a [u8]>,
}

/// A pack that is being filled.
pub struct PackBuilder {
    buffer: Vec<u8>,
    used: usize,
    suite: Suite,
    key: PackKey,
    table: Vec<u8>,
    count: u32,
    failed: bool,
}

/// A finished pack in its buffer.
pub struct FinishedPack {
    /// The buffer; the pack is its first `length` bytes.
    pub buffer: Vec<u8>,
    /// Of the pack.
    pub length: usize,
    /// BLAKE3 of those bytes.
    pub id: Id,
}

impl PackBuilder {
    /// Starts a pack in `buffer`, whose whole length it may use.
    pub fn new(
        keys: &Keyring,
        kind: PackKind,
        session: &[u8; 16],
        block_size: u32,
        mut buffer: Vec<u8>,
    ) -> Result<Self> {
        if buffer.len() < FIXED + OVERHEAD + ENTRY {
            return Err(Error::Usage("a pack buffer too small for one record".into()));
        }
        let suite = Suite::preferred();
        let header = &mut buffer[..HEADER];
        header.fill(0);
        header[..8].copy_from_slice(&header_magic());
        header[10..12].copy_from_slice(&(suite as u16).to_le_bytes());
        header[12] = kind as u8;
        header[16..32].copy_from_slice(&keys.repository);
        header[32..48].copy_from_slice(session);
        header[48..80].copy_from_slice(&random::<32>()?);
        header[84..88].copy_from_slice(&block_size.to_le_bytes());
        let secret = pack_secret(&draw_base_key(keys, suite, kind, header)?, header);
        header[SECRET_PART..].copy_from_slice(&*commitment(&secret));
        let key = PackKey::new(suite, kind, &secret, header);
        Ok(Self { buffer, used: HEADER, suite, key, table: Vec::new(), count: 0, failed: false })
    }

    /// How many of the records fit, taken in order.
    pub fn fitting(&self, stored_lengths: impl Iterator<Item = usize>) -> usize {
        let mut free = self.free();
        stored_lengths
            .take_while(|length| match free.checked_sub(length + OVERHEAD + ENTRY) {
                Some(rest) => {
                    free = rest;
                    true
                }
                None => false,
            })
            .count()
    }

    /// Bytes left for records and their table entries.
    pub fn free(&self) -> usize {
        (self.buffer.len() - self.used).saturating_sub(self.table.len() + FOOTER_FIXED + TRAILER)
    }

    /// Whether nothing was appended.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Seals the records into the pack, in order, each on any thread of the current pool; they must fit.
    ///
    /// Returns (offset, length) of each. A record with `check` is opened and decoded again from the pack's own bytes.
    pub fn append(&mut self, records: &[NewRecord<'_>]) -> Result<Vec<(u32, u32)>> {
        if self.failed || self.fitting(records.iter().map(|it| it.stored.len())) < records.len() {
            return Err(Error::Usage("records that do not fit, or a builder that failed".into()));
        }
        self.failed = true;
        let mut places = Vec::with_capacity(records.len());
        let mut slots = Vec::with_capacity(records.len());
        let mut rest = &mut self.buffer[self.used..];
        let mut at = self.used;
        for record in records {
            let length = record.stored.len() + OVERHEAD;
            let (slot, tail) = rest.split_at_mut(length);
            let header = RecordHeader {
                sequence: self.count,
                codec: record.codec as u8,
                kind: record.kind as u8,
                plain: record.plain_length as u32,
                stored: record.stored.len() as u32,
                id: record.id,
            };
            slots.push((slot, header, record));
            places.push((at as u32, length as u32));
            self.table.extend_from_slice(&record.id);
            for field in [at as u32, header.stored, header.plain] {
                self.table.extend_from_slice(&field.to_le_bytes());
            }
            self.table.extend_from_slice(&[header.codec, header.kind]);
            rest = tail;
            at += length;
            self.count += 1;
        }
        let (suite, key) = (self.suite, &self.key);
        slots
            .into_par_iter()
            .with_max_len(1)
            .try_for_each(|(slot, header, record)| seal_record(suite, key, slot, header, record))?;
        self.used = at;
        self.failed = false;
        Ok(places)
    }

    /// Writes footer and trailer and names the pack.
    pub fn finish(mut self, keys: &Keyring) -> Result<FinishedPack> {
        if self.failed {
            return Err(Error::Usage("a pack that failed cannot be finished".into()));
        }
        let position = self.used;
        let (front, back) = self.buffer.split_at_mut(position);
        let header = &front[..HEADER];
        let length = FOOTER_FIXED + self.table.len();
        let footer = &mut back[..length + TRAILER];
        footer[..HEADER].copy_from_slice(header);
        let bound = subkey(&keys.footer, &[b"binding", header, &self.table]);
        footer[HEADER..HEADER + 32].copy_from_slice(&*bound);
        let key = subkey(&keys.footer, &[b"encryption", &footer[..HEADER + 32]]);
        let (clear, sealed) = footer.split_at_mut(HEADER + 32);
        sealed[..self.table.len()].copy_from_slice(&self.table);
        let tag = self.suite.seal(&key, clear, &mut sealed[..self.table.len()])?;
        sealed[self.table.len()..self.table.len() + TAG].copy_from_slice(&tag);
        footer[length..length + 8].copy_from_slice(&(position as u64).to_le_bytes());
        footer[length + 8..length + 12].copy_from_slice(&self.count.to_le_bytes());
        footer[length + 12..length + 16].fill(0);
        let sum = blake3::hash(&footer[..length + 16]);
        footer[length + 16..length + 24].copy_from_slice(&sum.as_bytes()[..8]);
        footer[length + 24..].copy_from_slice(&trailer_magic());
        let total = position + length + TRAILER;
        let id = *blake3::Hasher::new().update_rayon(&self.buffer[..total]).finalize().as_bytes();
        Ok(FinishedPack { buffer: self.buffer, length: total, id })
    }
}

fn seal_record(
    suite: Suite,
    key: &PackKey,
    slot: &mut [u8],
    header: RecordHeader,
    record: &NewRecord<'_>,
) -> Result<()> {
    let bytes = header.to_bytes();
    let record_key = key.record_key(&bytes);
    slot[..RECORD].copy_from_slice(&bytes);
    let end = RECORD + record.stored.len();
    slot[RECORD..end].copy_from_slice(record.stored);
    let tag = suite.seal(&record_key, &bytes, &mut slot[RECORD..end])?;
    slot[end..].copy_from_slice(&tag);
    let Some(plain) = record.check else { return Ok(()) };
    let same = super::reader::with_record(key, slot, |_, decoded| {
        decoded.len() == record.plain_length
            && decoded[..plain.len()] == *plain
            && crate::block::is_zero(&decoded[plain.len()..])
    });
    match same {
        Ok(true) => Ok(()),
        _ => Err(Error::BuiltWrong(format!(
            "the record just built for {} does not decode to what went in; do not trust this machine's memory",
            hex(&record.id[..8])
        ))),
    }
}
