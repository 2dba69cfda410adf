//! A pack: many sealed records in one immutable object, named by the BLAKE3 of its bytes.
//!
//! ```text
//! header, 200 bytes          record                      footer
//!   0  8 magic                 0  4 magic                  0 200 the header again
//!   8  2 format version        4  4 sequence             200  32 keyed hash of header and table
//!  10  2 cipher suite          8  1 codec                232  46 a record, encrypted:
//!  12  1 kind: data, manifest  9  1 kind                           id 32, offset 4, stored 4, plain 4,
//!  13  1 key: held, sealed     10  2 zeros                         codec 1, kind 1
//!  14  2 zeros                12  4 plain length          …  16 tag
//!  16 16 repository id        16  4 stored length
//!  32 16 session              20 12 zeros               trailer, 32 bytes
//!  48 32 salt                 32 32 id                     0   8 position of the footer
//!  80  4 key epoch            64  n ciphertext             8   4 count of records
//!  84  4 block size            …  16 tag                  12   4 zeros
//!  88 80 zeros, or sealed key                             16   8 BLAKE3 of footer and 16 bytes before
//! 168 32 key commitment                                   24   8 magic
//! ```
//!
//! The key byte is 0 where every reader holds the base key: that of manifest packs (epoch 0), or the data key of the epoch. It
//! is 1 where a write-only host drew one at random and sealed it to the epoch's public key: ephemeral public key 32, key 32,
//! tag 16, with the first 88 bytes as associated data.
//!
//! secret = keyed hash of the first 168 bytes under the base key; commitment = keyed hash under the secret; pack key =
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
use crate::keys::{DataKey, Key, Keyring, SEALED_KEY, subkey};
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
const KEY_BYTE: usize = 13;
const EPOCH: usize = 80;
const KEY_BOX: usize = 88;
const SECRET_PART: usize = 168;
const HELD: u8 = 0;
const SEALED: u8 = 1;
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
    magic("snapferry pack, format 1")
}

fn record_magic() -> [u8; 4] {
    let mut out = [0; 4];
    out.copy_from_slice(&magic("snapferry record, format 1")[..4]);
    out
}

fn trailer_magic() -> [u8; 8] {
    magic("snapferry pack trailer, format 1")
}

/// What a pack's header says, before any key has proven it.
#[derive(Clone, Copy, Debug)]
pub struct Header<'a> {
    pub(crate) suite: Suite,
    /// What the pack holds.
    pub kind: PackKind,
    /// Whether its key is sealed in it.
    pub sealed: bool,
    /// Of the data key, or of the public key that it is sealed to.
    pub epoch: u32,
    bytes: &'a [u8],
}

impl<'a> Header<'a> {
    /// Reads the header at the start of `data`, of a pack of that repository.
    pub fn parse(keys: &Keyring, data: &'a [u8]) -> Result<Self> {
        let mut reader = Reader::new(data);
        if data.len() < HEADER || reader.array::<8>()? != header_magic() {
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
        let sealed = match reader.u8()? {
            HELD => false,
            SEALED if kind == PackKind::Data => true,
            _ => return Err(Error::Unsupported("a pack whose key is held in another way".into())),
        };
        if reader.u16()? != 0 {
            return damaged("reserved bytes of a pack's header are not zero");
        }
        if reader.array::<16>()? != keys.repository {
            return Err(Error::KeyMismatch("the pack belongs to another repository".into()));
        }
        let epoch = Reader::new(&data[EPOCH..]).u32()?;
        let bare = !sealed && data[KEY_BOX..SECRET_PART].iter().any(|byte| *byte != 0);
        if bare || (kind == PackKind::Manifest && epoch != 0) {
            return damaged("a pack header with a key where none belongs");
        }
        Ok(Self { suite, kind, sealed, epoch, bytes: &data[..HEADER] })
    }

    /// Whether `keys` hold what opens it, as far as the header says.
    pub fn is_held(&self, keys: &Keyring) -> bool {
        self.kind == PackKind::Manifest || keys.holds_epoch(self.epoch)
    }

    /// The base keys that may be this pack's; two epochs may have one number.
    fn base_keys(&self, keys: &Keyring) -> Result<Vec<Key>> {
        if self.kind == PackKind::Manifest {
            return Ok(vec![keys.manifest.clone()]);
        }
        if !self.sealed {
            return keys.shared_data_keys(self.epoch);
        }
        let sealed = Reader::new(&self.bytes[KEY_BOX..]).array()?;
        keys.open_data_key(self.suite, self.epoch, &self.bytes[..KEY_BOX], &sealed)
    }
}

/// Draws the base key of a new pack, and completes its header's first 168 bytes.
fn draw_base_key(keys: &Keyring, suite: Suite, kind: PackKind, header: &mut [u8]) -> Result<Key> {
    if kind == PackKind::Manifest {
        return Ok(keys.manifest.clone());
    }
    match keys.new_data_key()? {
        DataKey::Shared(epoch, key) => {
            header[EPOCH..EPOCH + 4].copy_from_slice(&epoch.to_le_bytes());
            Ok(key)
        }
        DataKey::Sealed(epoch, public) => {
            header[KEY_BYTE] = SEALED;
            header[EPOCH..EPOCH + 4].copy_from_slice(&epoch.to_le_bytes());
            let (key, sealed) = Keyring::seal_data_key(suite, &public, &header[..KEY_BOX])?;
            header[KEY_BOX..SECRET_PART].copy_from_slice(&sealed);
            Ok(key)
        }
    }
}

fn pack_secret(base: &Key, header: &[u8]) -> Key {
    subkey(base, &[b"pack", &header[..SECRET_PART]])
}

fn commitment(secret: &Key) -> Key {
    subkey(secret, &[b"commitment"])
}

impl PackKey {
    /// Derives the key from the first bytes of a pack and proves it by the commitment.
    pub fn from_header(keys: &Keyring, header: &[u8]) -> Result<Self> {
        let header = Header::parse(keys, header)?;
        let claimed: Id = Reader::new(&header.bytes[SECRET_PART..]).array()?;
        for base in header.base_keys(keys)? {
            let secret = pack_secret(&base, header.bytes);
            if blake3::Hash::from_bytes(*commitment(&secret)) == claimed {
                return Ok(Self::new(header.suite, header.kind, &secret, header.bytes));
            }
        }
        damaged("the pack's header was altered, or made with another key")
    }

    fn new(suite: Suite, kind: PackKind, secret: &Key, header: &[u8]) -> Self {
        Self { suite, key: subkey(secret, &[b"records", header]), kind }
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

const _: () = assert!(SECRET_PART - KEY_BOX == SEALED_KEY);
