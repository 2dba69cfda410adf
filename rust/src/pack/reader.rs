//! Reads packs that nobody vouches for: a record, a tail, a whole pack.

use std::cell::RefCell;

use rayon::prelude::*;

use super::{
    ENTRY, FOOTER_FIXED, HEADER, Header, MAX_PACK, OVERHEAD, PackKey, PackKind, Place, RECORD, RecordHeader,
    RecordKind, TRAILER, trailer_magic,
};
use crate::bytes::{Id, Reader, hex};
use crate::cipher::TAG;
use crate::codec::{self, Codec};
use crate::error::{Error, Result, damaged};
use crate::keys::{Keyring, subkey};

/// One line of a pack's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Of the block or page.
    pub id: Id,
    /// Of the record in the pack.
    pub offset: u32,
    /// Of the record, header and tag included.
    pub length: u32,
    /// What it holds.
    pub kind: RecordKind,
}

/// What the end of a pack says.
#[derive(Debug)]
pub enum Tail {
    /// Its table of records.
    Table(Vec<Entry>),
    /// The footer is longer than the bytes given; so many from the end are needed.
    Longer(usize),
}

thread_local! {
    static STORED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static PLAIN: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Opens the record that fills `bytes` and hands its header and plain bytes to `use_of`.
pub fn with_record<T>(
    key: &PackKey,
    bytes: &[u8],
    use_of: impl FnOnce(&RecordHeader, &[u8]) -> T,
) -> Result<T> {
    with_stored(key, bytes, |header, _, plain| use_of(header, plain))
}

/// As `with_record`, and hands over the stored bytes too, before the plain ones.
fn with_stored<T>(
    key: &PackKey,
    bytes: &[u8],
    use_of: impl FnOnce(&RecordHeader, &[u8], &[u8]) -> T,
) -> Result<T> {
    let header = RecordHeader::parse(bytes)?;
    let stored = header.stored as usize;
    if bytes.len() != stored + OVERHEAD {
        return damaged("a record whose length is not what its place says");
    }
    let codec = Codec::from_number(header.codec)?;
    let kind = RecordKind::from_number(header.kind)?;
    if (key.kind == PackKind::Data) != (kind == RecordKind::Block) {
        return damaged("a record of a kind that its pack does not hold");
    }
    let record_key = key.record_key(&bytes[..RECORD]);
    let (ciphertext, tag) = bytes[RECORD..].split_at(stored);
    let open = |out: &mut [u8]| match key.suite.open(&record_key, &bytes[..RECORD], ciphertext, tag, out)? {
        true => Ok(()),
        false => damaged("a record whose tag does not fit: altered"),
    };
    PLAIN.with_borrow_mut(|plain| {
        // Both lengths were checked against the largest block before anything is reserved.
        let plain = sized(plain, header.plain as usize);
        if codec == Codec::Raw {
            if stored != plain.len() {
                return damaged("a raw record whose two lengths differ");
            }
            open(plain)?;
            return Ok(use_of(&header, plain, plain));
        }
        STORED.with_borrow_mut(|buffer| {
            let buffer = sized(buffer, stored);
            open(buffer)?;
            codec::decode(codec, buffer, plain)?;
            Ok(use_of(&header, buffer, plain))
        })
    })
}

/// Opens a record of a block and proves that it is the one its header names; hands over header, stored and plain bytes.
pub fn proven_block<T>(
    keys: &Keyring,
    key: &PackKey,
    bytes: &[u8],
    use_of: impl FnOnce(&RecordHeader, &[u8], &[u8]) -> T,
) -> Result<T> {
    with_stored(key, bytes, |header, stored, plain| {
        if header.kind != RecordKind::Block as u8 || record_id(keys, RecordKind::Block, plain) != header.id {
            return damaged("a record whose contents are not what its id promises");
        }
        Ok(use_of(header, stored, plain))
    })?
}

fn sized(buffer: &mut Vec<u8>, length: usize) -> &mut [u8] {
    if buffer.len() < length {
        buffer.resize(length, 0);
    }
    &mut buffer[..length]
}

/// Opens the record at a place and proves that it is the block or page of that id, then hands over its plain bytes.
pub fn open_record<T>(
    keys: &Keyring,
    key: &PackKey,
    kind: RecordKind,
    id: &Id,
    bytes: &[u8],
    use_of: impl FnOnce(&[u8]) -> T,
) -> Result<T> {
    with_record(key, bytes, |header, plain| {
        if header.kind != kind as u8 || header.id != *id {
            return damaged("another record lies there");
        }
        if record_id(keys, kind, plain) != *id {
            return damaged("a record whose contents are not what its id promises");
        }
        Ok(use_of(plain))
    })?
}

fn record_id(keys: &Keyring, kind: RecordKind, plain: &[u8]) -> Id {
    let key = if kind == RecordKind::Block { &keys.block_id } else { &keys.page_id };
    *blake3::keyed_hash(key, plain).as_bytes()
}

/// Reads the table of records from the last bytes of a pack of `size` bytes.
pub fn read_tail(keys: &Keyring, size: u64, tail: &[u8]) -> Result<Tail> {
    if tail.len() < TRAILER || (tail.len() as u64) > size || size > MAX_PACK {
        return damaged(format!("{} bytes of a pack of {size}", tail.len()));
    }
    let mut trailer = Reader::new(&tail[tail.len() - TRAILER..]);
    let position = trailer.u64()?;
    let count = trailer.u32()? as usize;
    let zeros = trailer.u32()?;
    let sum = trailer.array::<8>()?;
    if trailer.array::<8>()? != trailer_magic() || zeros != 0 {
        return damaged("no pack trailer: the pack is torn");
    }
    // `count` is below 2³², so this cannot overflow; it is then held against the pack's real size.
    let footer = FOOTER_FIXED + count * ENTRY;
    if position.checked_add((footer + TRAILER) as u64) != Some(size) || position < HEADER as u64 {
        return damaged("a pack trailer that does not fit the pack's size: torn");
    }
    if footer + TRAILER > tail.len() {
        return Ok(Tail::Longer(footer + TRAILER));
    }
    let footer = &tail[tail.len() - TRAILER - footer..tail.len() - TRAILER];
    let summed = &tail[tail.len() - TRAILER - footer.len()..tail.len() - TRAILER + 16];
    if blake3::hash(summed).as_bytes()[..8] != sum {
        return damaged("a pack footer that fails its checksum");
    }
    let header = &footer[..HEADER];
    // The footer's own key is every key holder's, and binds the header: who may only write reads tables all the same.
    let suite = Header::parse(keys, header)?.suite;
    let (clear, sealed) = footer.split_at(HEADER + 32);
    let (ciphertext, tag) = sealed.split_at(sealed.len() - TAG);
    let mut table = vec![0; ciphertext.len()];
    let key = subkey(&keys.footer, &[b"encryption", clear]);
    if !suite.open(&key, clear, ciphertext, tag, &mut table)? {
        return damaged("a pack footer whose tag does not fit: altered");
    }
    let bound = subkey(&keys.footer, &[b"binding", header, &table]);
    let claimed: Id = Reader::new(&clear[HEADER..]).array()?;
    if blake3::Hash::from_bytes(*bound) != claimed {
        return damaged("a pack footer bound to another pack");
    }
    parse_table(&table, position).map(Tail::Table)
}

fn parse_table(table: &[u8], position: u64) -> Result<Vec<Entry>> {
    let mut reader = Reader::new(table);
    let mut entries = Vec::with_capacity(table.len() / ENTRY);
    let mut expected = HEADER as u64;
    while reader.left() > 0 {
        let id = reader.array()?;
        let (offset, stored, plain) = (reader.u32()?, reader.u32()?, reader.u32()?);
        Codec::from_number(reader.u8()?)?;
        let kind = RecordKind::from_number(reader.u8()?)?;
        if u64::from(offset) != expected || stored > plain {
            return damaged("a pack table with gaps");
        }
        expected += u64::from(stored) + OVERHEAD as u64;
        if expected > position {
            return damaged("a pack table that reaches past its records");
        }
        let length = stored + OVERHEAD as u32;
        Place::checked(id, offset, length)?;
        entries.push(Entry { id, offset, length, kind });
    }
    if expected != position {
        return damaged("a pack table that leaves records out");
    }
    Ok(entries)
}

/// Every way in which `data` is not the pack of that id.
pub fn check_pack(keys: &Keyring, pack: &Id, data: &[u8]) -> Vec<String> {
    let mut faults = Vec::new();
    if blake3::Hasher::new().update_rayon(data).finalize() != *pack {
        faults.push("its bytes are not what its name promises".to_string());
    }
    match check_contents(keys, data) {
        Ok(more) => faults.extend(more),
        Err(error) => faults.push(error.to_string()),
    }
    faults
}

fn check_contents(keys: &Keyring, data: &[u8]) -> Result<Vec<String>> {
    let header = Header::parse(keys, data)?;
    // A key that may only write sees that all is in its place, and leaves what is in the records to its name's promise.
    let key = match header.kind == PackKind::Manifest || keys.reads_data() {
        true => Some(PackKey::from_header(keys, data)?),
        false => None,
    };
    let Tail::Table(entries) = read_tail(keys, data.len() as u64, data)? else {
        return Err(Error::Damaged("a pack shorter than its footer".into()));
    };
    let footer = entries.last().map_or(HEADER, |last| (last.offset + last.length) as usize);
    let mut faults = Vec::new();
    if data[footer..footer + HEADER] != data[..HEADER] {
        faults.push("its footer repeats another header".to_string());
    }
    faults.par_extend(entries.par_iter().enumerate().filter_map(|(number, entry)| {
        let bytes = &data[entry.offset as usize..(entry.offset + entry.length) as usize];
        let opened = match &key {
            Some(key) => open_record(keys, key, entry.kind, &entry.id, bytes, |_| ()),
            None => Ok(()),
        };
        let outcome = opened.and_then(|()| RecordHeader::parse(bytes)).and_then(|header| {
            let named = header.id == entry.id
                && header.kind == entry.kind as u8
                && header.stored as usize + OVERHEAD == bytes.len();
            match named && header.sequence as usize == number {
                true => Ok(()),
                false => damaged("out of sequence, or not what the table says"),
            }
        });
        outcome.err().map(|error| format!("record {number} ({}): {error}", hex(&entry.id[..8])))
    }));
    Ok(faults)
}
