//! Key slots: what opens a repository, sealed to one holder's public key.
//!
//! ```text
//! offset length
//!   0      8      magic
//!   8      2      format version
//!  10      2      cipher suite
//!  12      1      kind: 1 key file, 2 passphrase, 3 public key
//!  13      1      role: 1 full, 2 write-only, 3 removed
//!  14      2      zeros
//!  16     16      repository id: a hash of the next field
//!  32     32      the repository's authority: an Ed25519 public key, whose private half only full keys hold
//!  64     16      slot id, random; the salt of the stretching
//!  80     32      the holder's X25519 public key
//! 112      8      when it was added, Unix seconds
//! 120     12      Argon2id: KiB of memory, passes, lanes, 4 bytes each; zeros unless it is a passphrase's
//! 132     32      endorsement: keyed hash of bytes 12 to 131 under the holder's secret; zeros if only the public key was known
//! 164      4      label length l
//! 168      4      count of epochs e
//! 172      4      payload length p
//! 176      l      label, UTF-8
//!   …     16 e    the epochs that its sealer knew, in order: number 4, print 12
//!   …     32      ephemeral X25519 public key                  ┐
//!   …     32      commitment to the key, and to all before     │ none of this
//!   …      p      payload, encrypted                           │ where removed
//!   …     16      tag                                          ┘
//!   …     64      Ed25519 signature of all before by the authority
//!   …     32      BLAKE3 of all before
//! ```
//!
//! Payload of a full slot: metadata secret 32, authority seed 32, and of each epoch number 4, secret 32. Of a write-only one:
//! metadata secret 32, number 4 and public key 32 of the newest epoch.
//!
//! Who holds the full secrets seals a slot anew without its holder: so the header says for whom, the signature says by whom,
//! and the endorsement, which only the holder can have made, says that this is the repository the slot was made for. A slot
//! of an older set of epochs is superseded by one with all of these and more; a removed one by nothing.

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use zeroize::Zeroizing;

use super::epochs::{Epoch, EpochTag, Epochs, MAX_EPOCHS, SealingEpoch, TAG_LENGTH};
use super::sealing::{Public, agree_again, public_of};
use super::stretch::{Secret, Stretch, host_private};
use super::{Key, subkey};
use crate::bytes::{Reader, magic};
use crate::cipher::{Suite, TAG};
use crate::error::{Error, Result, damaged};

pub(super) const MAGIC: &str = "snapferry key slot, format 1";
pub(super) const CONTEXT: &str = "snapferry format 1: key slot";
pub(super) const FIXED: usize = 176;
pub(super) const ENDORSED: std::ops::Range<usize> = 12..132;
const SIGNATURE: usize = 64;
const HASH: usize = 32;
/// No label is longer, in bytes.
pub const MAX_LABEL: usize = 128;

/// What a holder has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum SlotKind {
    /// A key file of 32 random bytes.
    KeyFile = 1,
    /// A passphrase.
    Passphrase = 2,
    /// A key file of which only the public half was known when the slot was made.
    PublicKey = 3,
}

/// What a slot lets its holder do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum SlotRole {
    /// Everything.
    Full = 1,
    /// Write, and read metadata.
    WriteOnly = 2,
    /// Nothing: a note that the slot of this id was removed.
    Removed = 3,
}

/// A key slot, its hash and signature verified.
#[derive(Clone, Debug)]
pub struct Slot {
    /// What its holder has.
    pub kind: SlotKind,
    /// What it gives.
    pub role: SlotRole,
    /// Of the repository.
    pub repository: [u8; 16],
    /// Whose signature it bears.
    pub authority: Public,
    /// Its id; the same in every copy.
    pub id: [u8; 16],
    /// Of its holder.
    pub public: Public,
    /// When it was added, Unix seconds.
    pub created: u64,
    /// Of a passphrase's.
    pub stretch: Option<Stretch>,
    /// What people call it.
    pub label: String,
    /// What its sealer knew.
    pub epochs: Vec<EpochTag>,
    suite: Suite,
    payload: usize,
    bytes: Vec<u8>,
}

/// The private half of one slot.
#[derive(Clone)]
pub struct SlotKey {
    /// Of the slot.
    pub id: [u8; 16],
    private: Key,
    public: Public,
}

/// For whom a new slot is.
pub enum Holder<'a> {
    /// Who has this secret; a passphrase is stretched so.
    Secret(Secret<'a>, Stretch),
    /// Who has the private half of this key.
    Public(Public),
}

/// What a slot opens to.
pub struct Contents {
    pub(super) metadata: Key,
    pub(super) authority: Option<Key>,
    pub(super) epochs: Epochs,
}

/// The repository's id, of its authority.
pub fn repository_id(authority: &Public) -> [u8; 16] {
    let hash = blake3::derive_key("snapferry format 1: repository id", authority);
    let mut id = [0; 16];
    id.copy_from_slice(&hash[..16]);
    id
}

/// The public half of a host's key file, for a slot of kind public key.
pub fn host_public(secret: &[u8]) -> Result<Public> {
    public_of(&host_private(secret)?)
}

impl Slot {
    /// Reads a slot that anybody may have made: whatever it says was signed by the authority that its repository's id names.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes);
        if reader.array::<8>()? != magic(MAGIC) {
            return damaged("not a key slot of a format that this program knows (it knows 0)");
        }
        let version = reader.u16()?;
        if version != 0 {
            return Err(Error::Unsupported(format!("key slot of format {version}; this program knows 0")));
        }
        crate::envelope::check(bytes)?;
        let suite = Suite::from_number(reader.u16()?)?;
        let kind = match reader.u8()? {
            1 => SlotKind::KeyFile,
            2 => SlotKind::Passphrase,
            3 => SlotKind::PublicKey,
            other => return Err(Error::Unsupported(format!("a key slot of kind {other}"))),
        };
        let role = match reader.u8()? {
            1 => SlotRole::Full,
            2 => SlotRole::WriteOnly,
            3 => SlotRole::Removed,
            other => return Err(Error::Unsupported(format!("a key slot of role {other}"))),
        };
        if reader.u16()? != 0 {
            return damaged("reserved bytes of a key slot are not zero");
        }
        let repository = reader.array()?;
        let authority = reader.array()?;
        if repository_id(&authority) != repository {
            return damaged("a key slot whose authority is not its repository's");
        }
        let (id, public, created) = (reader.array()?, reader.array()?, reader.u64()?);
        let stretch = Stretch { memory: reader.u32()?, passes: reader.u32()?, lanes: reader.u32()? };
        let none = stretch == Stretch { memory: 0, passes: 0, lanes: 0 };
        if (kind == SlotKind::Passphrase) == none {
            return damaged("a key slot whose parameters are not those of its kind");
        }
        let stretch = if none { None } else { Some(stretch.checked()?) };
        reader.take(32)?;
        let (label, count, payload) = (reader.u32()?, reader.u32()?, reader.u32()?);
        let (label, count, payload) = (label as usize, count as usize, payload as usize);
        if label > MAX_LABEL || count == 0 || count > MAX_EPOCHS || payload != payload_length(role, count) {
            return damaged("a key slot whose lengths make no sense");
        }
        let sealed = if role == SlotRole::Removed { 0 } else { 64 + payload + TAG };
        if bytes.len() != FIXED + label + count * TAG_LENGTH + sealed + SIGNATURE + HASH {
            return damaged("a key slot whose length is not what its header says");
        }
        let label = match std::str::from_utf8(reader.take(label)?) {
            Ok(label) if !label.chars().any(char::is_control) => label.to_string(),
            _ => return damaged("a key slot whose label is no text"),
        };
        let mut epochs = Vec::with_capacity(count);
        for _ in 0..count {
            epochs.push(EpochTag { number: reader.u32()?, print: reader.array()? });
        }
        if !epochs.is_sorted_by(|a, b| a < b) {
            return damaged("a key slot whose epochs are not in order");
        }
        let (signed, rest) = bytes.split_at(bytes.len() - SIGNATURE - HASH);
        if UnparsedPublicKey::new(&ED25519, authority).verify(signed, &rest[..SIGNATURE]).is_err() {
            return damaged("a key slot that its repository's authority has not signed");
        }
        Ok(Self {
            kind,
            role,
            repository,
            authority,
            id,
            public,
            created,
            stretch,
            label,
            epochs,
            suite,
            payload,
            bytes: bytes.to_vec(),
        })
    }

    /// The object.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The private half of this slot's key, if `secret` is its holder's. A passphrase takes its time, and its memory.
    pub fn unlock(&self, secret: Secret<'_>) -> Result<SlotKey> {
        let other = || Err(Error::KeyMismatch("the key does not open this slot".into()));
        let (private, endorsing) = match (self.kind, secret, self.stretch) {
            (SlotKind::PublicKey, Secret::KeyFile(secret), _) => (host_private(secret)?, None),
            (SlotKind::KeyFile, Secret::KeyFile(_), _) => halves(secret, &self.id, Stretch::USUAL)?,
            (SlotKind::Passphrase, Secret::Passphrase(_), Some(stretch)) => {
                halves(secret, &self.id, stretch)?
            }
            _ => return other(),
        };
        if public_of(&private)? != self.public {
            return other();
        }
        // The authority copies it when it seals the slot anew. A stranger who made a repository of his own cannot.
        let claimed: [u8; 32] = Reader::new(&self.bytes[ENDORSED.end..]).array()?;
        let made = endorsing
            .map_or(blake3::Hash::from_bytes([0; 32]), |key| endorsement(&key, &self.bytes[ENDORSED]));
        if self.role != SlotRole::Removed && made != claimed {
            return damaged("a key slot that was not made for this repository by whoever has its key");
        }
        Ok(SlotKey { id: self.id, private, public: self.public })
    }

    /// What the slot holds.
    pub fn open(&self, key: &SlotKey) -> Result<Contents> {
        if self.role == SlotRole::Removed {
            return Err(Error::KeyMismatch("this key was removed from the repository".into()));
        }
        if key.id != self.id || key.public != self.public {
            return Err(Error::KeyMismatch("the key does not open this slot".into()));
        }
        let header = FIXED + self.label.len() + self.epochs.len() * TAG_LENGTH + 32;
        let (clear, rest) = self.bytes.split_at(header);
        let ephemeral = Reader::new(&clear[header - 32..]).array()?;
        let agreed = agree_again(CONTEXT, &key.private, &key.public, &ephemeral)?;
        let claimed: [u8; 32] = Reader::new(rest).array()?;
        if blake3::Hash::from_bytes(*subkey(&agreed, &[b"commitment", clear])) != claimed {
            return damaged("a key slot that commits to another key");
        }
        let (ciphertext, tag) = (&rest[32..32 + self.payload], &rest[32 + self.payload..][..TAG]);
        let wrapping = subkey(&agreed, &[b"wrapping", clear]);
        let mut payload = Zeroizing::new(vec![0; self.payload]);
        if !self.suite.open(&wrapping, &self.bytes[..header + 32], ciphertext, tag, &mut payload)? {
            return damaged("the key slot's contents were altered");
        }
        self.contents(&payload)
    }

    fn contents(&self, payload: &[u8]) -> Result<Contents> {
        let mut reader = Reader::new(payload);
        let metadata = Zeroizing::new(reader.array()?);
        let contents = if self.role == SlotRole::WriteOnly {
            let newest = SealingEpoch::new(reader.u32()?, reader.array()?);
            let epochs = Epochs::WriteOnly(vec![newest], self.epochs.clone());
            Contents { metadata, authority: None, epochs }
        } else {
            let authority = Some(Zeroizing::new(reader.array()?));
            let mut epochs = Vec::with_capacity(self.epochs.len());
            for _ in 0..self.epochs.len() {
                epochs.push(Epoch::new(reader.u32()?, Zeroizing::new(reader.array()?))?);
            }
            Contents { metadata, authority, epochs: Epochs::Full(epochs) }
        };
        reader.end()?;
        let newest = contents.epochs.newest(|_| true);
        if contents.epochs.tags() != self.epochs || newest != self.epochs.last().copied() {
            return damaged("a key slot whose epochs are not those that it names");
        }
        Ok(contents)
    }
}

pub(super) fn payload_length(role: SlotRole, epochs: usize) -> usize {
    match role {
        SlotRole::Full => 64 + 36 * epochs,
        SlotRole::WriteOnly => 68,
        SlotRole::Removed => 0,
    }
}

/// The private key of the slot of that id, and the key of its endorsement.
pub(super) fn halves(secret: Secret<'_>, id: &[u8; 16], stretch: Stretch) -> Result<(Key, Option<Key>)> {
    let stretched = secret.stretched(id, stretch)?;
    Ok((subkey(&stretched, &[b"private key"]), Some(subkey(&stretched, &[b"endorsement"]))))
}

pub(super) fn endorsement(key: &Key, header: &[u8]) -> blake3::Hash {
    blake3::keyed_hash(key, header)
}
