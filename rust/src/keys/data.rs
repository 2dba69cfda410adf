//! The base keys of data packs: the epoch's own, or one that was sealed to it.

use zeroize::Zeroizing;

use super::epochs::{Epoch, EpochTag, Epochs};
use super::sealing::{Public, SEALED_KEY, open_key, seal_key};
use super::{Key, Keyring, random};
use crate::cipher::Suite;
use crate::error::{Error, Result};

const CONTEXT: &str = "snapferry format 1: key of one data pack";

/// How the key of a new data pack is drawn.
pub(crate) enum DataKey {
    /// The epoch's own.
    Shared(u32, Key),
    /// A random one, sealed to the epoch.
    Sealed(u32, Public),
}

impl Keyring {
    /// How a new data pack is to be sealed.
    pub(crate) fn new_data_key(&self) -> Result<DataKey> {
        let known = self.known();
        let current = |tag: &EpochTag| Some(*tag) == known.current;
        let key = match &known.epochs {
            Epochs::Full(epochs) => epochs
                .iter()
                .find(|epoch| current(&epoch.tag))
                .map(|epoch| DataKey::Shared(epoch.tag.number, epoch.shared.clone())),
            Epochs::WriteOnly(epochs, _) => epochs
                .iter()
                .find(|epoch| current(&epoch.tag))
                .map(|epoch| DataKey::Sealed(epoch.tag.number, epoch.public)),
        };
        key.ok_or_else(|| Error::Usage("a keyring without an epoch".into()))
    }

    /// A random pack key, and how it stands in a header that begins so.
    pub(crate) fn seal_data_key(
        suite: Suite,
        epoch: &Public,
        header: &[u8],
    ) -> Result<(Key, [u8; SEALED_KEY])> {
        let key = Zeroizing::new(random()?);
        let sealed = seal_key(suite, CONTEXT, epoch, header, &key)?;
        Ok((key, sealed))
    }

    /// The common keys of the epochs of that number.
    pub(crate) fn shared_data_keys(&self, number: u32) -> Result<Vec<Key>> {
        Ok(self.full_epochs(number)?.into_iter().map(|epoch| epoch.shared).collect())
    }

    /// The pack key that was sealed to an epoch of that number, if one opens it.
    pub(crate) fn open_data_key(
        &self,
        suite: Suite,
        number: u32,
        header: &[u8],
        sealed: &[u8; SEALED_KEY],
    ) -> Result<Vec<Key>> {
        let mut keys = Vec::new();
        for epoch in self.full_epochs(number)? {
            let pair = (&epoch.private, &epoch.public);
            keys.extend(open_key(suite, CONTEXT, pair, header, sealed)?);
        }
        Ok(keys)
    }

    fn full_epochs(&self, number: u32) -> Result<Vec<Epoch>> {
        let Epochs::Full(epochs) = &self.known().epochs else {
            return Err(Error::WriteOnly("this key can write data and not read it".into()));
        };
        let found: Vec<Epoch> = epochs.iter().filter(|epoch| epoch.tag.number == number).cloned().collect();
        if found.is_empty() {
            return Err(Error::KeyMismatch(format!(
                "a pack of key epoch {number}, which this key does not hold"
            )));
        }
        Ok(found)
    }

    /// Whether it holds an epoch of that number to read with.
    pub(crate) fn holds_epoch(&self, number: u32) -> bool {
        matches!(&self.known().epochs, Epochs::Full(epochs) if epochs.iter().any(|epoch| epoch.tag.number == number))
    }
}
