//! Epochs: the data secrets that a repository has had, one after another. Old ones open what was written under them.

use zeroize::Zeroizing;

use super::sealing::{Public, public_of};
use super::{Key, random};
use crate::error::{Error, Result};

/// Names an epoch: its number, and 12 bytes of a hash of its public key, because two hosts may begin the same number at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EpochTag {
    /// Counts from 0.
    pub number: u32,
    /// Of the epoch's public key.
    pub print: [u8; 12],
}

/// Bytes of a tag.
pub const TAG_LENGTH: usize = 16;
/// More are not read; a rotation a week comes to them after ten years.
pub const MAX_EPOCHS: usize = 512;

impl EpochTag {
    fn of(number: u32, public: &Public) -> Self {
        let hash = blake3::derive_key("snapferry format 1: print of an epoch", public);
        let mut print = [0; 12];
        print.copy_from_slice(&hash[..12]);
        Self { number, print }
    }

    /// From what stands in slots.
    pub fn from_bytes(bytes: &[u8; TAG_LENGTH]) -> Self {
        let (mut number, mut print) = ([0; 4], [0; 12]);
        number.copy_from_slice(&bytes[..4]);
        print.copy_from_slice(&bytes[4..]);
        Self { number: u32::from_le_bytes(number), print }
    }

    /// As it stands in slots.
    pub fn to_bytes(self) -> [u8; TAG_LENGTH] {
        let mut out = [0; TAG_LENGTH];
        out[..4].copy_from_slice(&self.number.to_le_bytes());
        out[4..].copy_from_slice(&self.print);
        out
    }
}

/// An epoch with its secret, which opens and seals.
#[derive(Clone)]
pub struct Epoch {
    /// Its name.
    pub tag: EpochTag,
    pub(super) secret: Key,
    /// Seals data packs of those who hold the secret.
    pub(super) shared: Key,
    /// Opens the pack keys that were sealed to `public`.
    pub(super) private: Key,
    pub(super) public: Public,
}

impl Epoch {
    /// A new one of that number.
    pub fn draw(number: u32) -> Result<Self> {
        Self::new(number, Zeroizing::new(random()?))
    }

    pub(super) fn new(number: u32, secret: Key) -> Result<Self> {
        let derive = |context: &str| Zeroizing::new(blake3::derive_key(context, secret.as_slice()));
        let private = derive("snapferry format 1: data packs sealed to the epoch");
        let public = public_of(&private)?;
        let shared = derive("snapferry format 1: data packs of the epoch");
        Ok(Self { tag: EpochTag::of(number, &public), shared, private, public, secret })
    }
}

/// An epoch to which keys can be sealed, and none opened.
#[derive(Clone)]
pub struct SealingEpoch {
    /// Its name.
    pub tag: EpochTag,
    pub(super) public: Public,
}

impl SealingEpoch {
    pub(super) fn new(number: u32, public: Public) -> Self {
        Self { tag: EpochTag::of(number, &public), public }
    }
}

/// The epochs that a key holder knows, by tag; the last is the newest.
#[derive(Clone)]
pub enum Epochs {
    /// All of them, to read and write with.
    Full(Vec<Epoch>),
    /// The newest of each copy of the slot, to write with, and the names of all that their sealers knew.
    WriteOnly(Vec<SealingEpoch>, Vec<EpochTag>),
}

impl Epochs {
    /// The names of all, in order.
    pub fn tags(&self) -> Vec<EpochTag> {
        match self {
            Self::Full(epochs) => epochs.iter().map(|epoch| epoch.tag).collect(),
            Self::WriteOnly(_, tags) => tags.clone(),
        }
    }

    /// The newest that can be written with and that `chosen` allows.
    pub fn newest(&self, chosen: impl Fn(&EpochTag) -> bool) -> Option<EpochTag> {
        let held: Vec<EpochTag> = match self {
            Self::Full(epochs) => epochs.iter().map(|epoch| epoch.tag).collect(),
            Self::WriteOnly(epochs, _) => epochs.iter().map(|epoch| epoch.tag).collect(),
        };
        held.into_iter().filter(chosen).max()
    }

    /// Takes over what another copy of the same key's slot knows; whether that was more.
    pub fn merge(&mut self, other: Self) -> Result<bool> {
        let before = self.tags();
        match (&mut *self, other) {
            (Self::Full(mine), Self::Full(theirs)) => {
                mine.extend(theirs);
                mine.sort_by_key(|epoch| epoch.tag);
                mine.dedup_by_key(|epoch| epoch.tag);
            }
            (Self::WriteOnly(mine, tags), Self::WriteOnly(theirs, more)) => {
                mine.extend(theirs);
                mine.sort_by_key(|epoch| epoch.tag);
                mine.dedup_by_key(|epoch| epoch.tag);
                tags.extend(more);
                tags.sort_unstable();
                tags.dedup();
            }
            _ => return Err(Error::Usage("two copies of a key slot whose roles differ".into())),
        }
        Ok(self.tags() != before)
    }

    /// These, and a new one after them.
    pub fn with_new(&self) -> Result<Self> {
        let Self::Full(epochs) = self else {
            return Err(Error::Usage("only a full key begins an epoch".into()));
        };
        if epochs.len() >= MAX_EPOCHS {
            return Err(Error::Usage(format!("a repository has at most {MAX_EPOCHS} key epochs")));
        }
        let newest = epochs.last().map_or(0, |epoch| epoch.tag.number);
        let number = newest.checked_add(1).ok_or_else(|| Error::Usage("no epoch is left".into()))?;
        let mut epochs = epochs.clone();
        epochs.push(Epoch::draw(number)?);
        Ok(Self::Full(epochs))
    }
}
