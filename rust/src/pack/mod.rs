//! A pack: many sealed records in one immutable object, named by the BLAKE3 of its bytes.
//!
//! ```text
//! header, 200 bytes          record                      footer
//!   0  8 magic                 0  4 magic                  0 200 the header again
//!   8  2 format version        4  4 sequence             200  32 keyed hash of header and table
//!  10  2 cipher suite          8  1 codec                232  46 a record, encrypted:
//!  12  1 kind: data, manifest  9  1 kind                           id 32, offset 4, stored 4, plain 4,
//!  13  1 key: epoch            10  2 zeros                         codec 1, kind 1
//!  14  2 zeros                12  4 plain length          …  16 tag
//!  16 16 repository id        16  4 stored length
//!  32 16 session              20 12 zeros               trailer, 32 bytes
//!  48 32 salt                 32 32 id                     0   8 position of the footer
//!  80  4 key epoch            64  n ciphertext             8   4 count of records
//!  84  4 block size            …  16 tag                  12   4 zeros
//!  88 80 zeros (a sealed key)                             16   8 BLAKE3 of footer and 16 bytes before
//! 168 32 key commitment                                   24   8 magic
//! ```
//!
//! secret = keyed hash of the first 168 bytes under the epoch's key; commitment = keyed hash under the secret; pack key =
//! keyed hash of the whole header under the secret; record key = keyed hash of the record's header under the pack key.

mod builder;
mod opened;
mod reader;

pub use builder::{FinishedPack, NewRecord, PackBuilder};
pub use opened::Opened;
pub use reader::{Entry, Tail, check_pack, open_record, proven_block, read_tail};

use crate::bytes::{Id, Reader, hex, magic};
use crate::cipher::{Suite, TAG};
use crate::error::{Error, Result, damaged};
use crate::keys::{Key, Keyring, subkey};
pub use crate::keys::{PackKey, PackKind};

/// Bytes of a pack's header.
pub const HEADER: usize = 200;
/// Bytes of a record's header.
pub const RECORD: usize = 64;
/// What a record takes beside its stored bytes.
pub const OVERHEAD: usize = RECORD + TAG;
const ENTRY: usize = 46;
const FOOTER_FIXED: usize = HEADER + 32 + TAG;
const TRAILER: usize = 32;
const SECRET_PART: usize = 168;
/// What a pack takes beside its records and their table.
pub const FIXED: usize = HEADER + FOOTER_FIXED + TRAILER;
/// The largest pack that is read: a 32 MiB one with one block of 4 MiB too many, doubled.
pub const MAX_PACK: u64 = 128 << 20;

/// What a record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RecordKind {
    /// A block of a volume.
    Block = 1,
    /// A page of ids.
    Ids = 2,
    /// A page of places.
    Places = 3,
}

impl RecordKind {
    fn from_number(number: u8) -> Result<Self> {
        match number {
            1 => Ok(Self::Block),
            2 => Ok(Self::Ids),
            3 => Ok(Self::Places),
            other => damaged(format!("a record of kind {other}")),
        }
    }
}

/// Where a record lies: `length` bytes, its header and tag included, from `offset` of a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// The pack's id.
    pub pack: Id,
    /// Of the record's header, in bytes.
    pub offset: u32,
    /// Of header, stored bytes and tag.
    pub length: u32,
}

impl Place {
    /// Refuses a place that no pack can have.
    pub fn checked(pack: Id, offset: u32, length: u32) -> Result<Self> {
        let end = u64::from(offset) + u64::from(length);
        if (offset as usize) < HEADER || (length as usize) < OVERHEAD || end > MAX_PACK {
            return damaged(format!("a place at {offset}, {length} bytes long, that no pack has"));
        }
        Ok(Self { pack, offset, length })
    }
}

fn header_magic() -> [u8; 8] {
    magic("snapferry pack, format 0")
}

fn record_magic() -> [u8; 4] {
    let mut out = [0; 4];
    out.copy_from_slice(&magic("snapferry record, format 0")[..4]);
    out
}

fn trailer_magic() -> [u8; 8] {
    magic("snapferry pack trailer, format 0")
}

fn secret(keys: &Keyring, kind: PackKind, header: &[u8]) -> Key {
    let epoch = match kind {
        PackKind::Data => &keys.data,
        PackKind::Manifest => &keys.manifest,
    };
    subkey(epoch, &[b"pack", &header[..SECRET_PART]])
}

impl PackKey {
    /// Derives the key from the first bytes of a pack and proves it by the commitment.
    pub fn from_header(keys: &Keyring, header: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(header);
        let header = &header[..HEADER.min(header.len())];
        if header.len() != HEADER || reader.array::<8>()? != header_magic() {
            return damaged("no pack header of a format that this program knows (it knows 0)");
        }
        let version = reader.u16()?;
        if version != 0 {
            return Err(Error::Unsupported(format!("pack of format {version}; this program knows 0")));
        }
        let suite = Suite::from_number(reader.u16()?)?;
        let kind = match reader.u8()? {
            1 => PackKind::Data,
            2 => PackKind::Manifest,
            other => return damaged(format!("a pack of kind {other}")),
        };
        if reader.array::<3>()? != [0; 3] {
            return Err(Error::Unsupported("a pack whose key is held in another way".into()));
        }
        if reader.array::<16>()? != keys.repository {
            return Err(Error::KeyMismatch("the pack belongs to another repository".into()));
        }
        let secret = secret(keys, kind, header);
        let commitment: Id = Reader::new(&header[SECRET_PART..]).array()?;
        if blake3::Hash::from_bytes(*subkey(&secret, &[b"commitment"])) != commitment {
            return damaged("the pack's header was altered, or made with another key");
        }
        Ok(Self { suite, key: subkey(&secret, &[b"records", header]), kind })
    }

    /// Whether it is the key of the same pack.
    pub fn same(&self, other: &PackKey) -> bool {
        blake3::Hash::from_bytes(*self.key) == *other.key
    }

    fn record_key(&self, header: &[u8]) -> Key {
        subkey(&self.key, &[header])
    }
}

/// A record's header, parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// Position among the pack's records.
    pub sequence: u32,
    /// Number of the codec.
    pub codec: u8,
    /// Number of the record kind.
    pub kind: u8,
    /// Bytes when decompressed.
    pub plain: u32,
    /// Bytes as stored, without header and tag.
    pub stored: u32,
    /// Of the block or page.
    pub id: Id,
}

impl RecordHeader {
    /// As it stands in the pack.
    pub fn to_bytes(self) -> [u8; RECORD] {
        let mut out = [0; RECORD];
        out[..4].copy_from_slice(&record_magic());
        out[4..8].copy_from_slice(&self.sequence.to_le_bytes());
        out[8] = self.codec;
        out[9] = self.kind;
        out[12..16].copy_from_slice(&self.plain.to_le_bytes());
        out[16..20].copy_from_slice(&self.stored.to_le_bytes());
        out[32..].copy_from_slice(&self.id);
        out
    }

    /// Reads it, and refuses what no writer makes.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes);
        if reader.array::<4>()? != record_magic() {
            return damaged("no record begins there");
        }
        let sequence = reader.u32()?;
        let codec = reader.u8()?;
        let kind = reader.u8()?;
        let zeros = reader.u16()?;
        let plain = reader.u32()?;
        let stored = reader.u32()?;
        if zeros != 0 || reader.array::<12>()? != [0; 12] {
            return damaged("reserved bytes of a record are not zero");
        }
        let id = reader.array()?;
        if plain as usize > crate::block::MAX_SIZE || stored > plain {
            return damaged(format!("a record of {stored} bytes that would be {plain}"));
        }
        Ok(Self { sequence, codec, kind, plain, stored, id })
    }
}

/// Says which pack an error is about.
pub fn in_pack(pack: &Id, error: Error) -> Error {
    match error {
        Error::Damaged(text) => Error::Damaged(format!("pack {}: {text}", hex(&pack[..8]))),
        other => other,
    }
}
