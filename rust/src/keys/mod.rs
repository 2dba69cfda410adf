//! The keys of one repository: secrets that its key slots hold, and one derived key for each use.
//!
//! Every derivation is BLAKE3 in its key-derivation or keyed mode, under a context of its own.
//!
//! ```text
//! metadata secret   block ids, page ids, manifest packs, footers, small objects, the key that signs them
//! epoch's secret    data packs: their common key, and the private key to which write-only hosts seal theirs
//! authority         an Ed25519 key that signs key slots; the repository's id is a hash of its public half
//! ```
//!
//! A full key holds all of them; a write-only one the metadata secret and the newest epoch's public key.

mod data;
mod epochs;
mod making;
mod sealing;
mod slots;
mod stretch;

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError, RwLock};

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use zeroize::Zeroizing;

pub(crate) use data::DataKey;
pub use epochs::{EpochTag, MAX_EPOCHS};
pub use sealing::{Public, SEALED_KEY};
pub use slots::{Holder, MAX_LABEL, Slot, SlotKey, SlotKind, SlotRole, host_public, repository_id};
pub use stretch::{Secret, Stretch};

use crate::bytes::{Id, hex};
use crate::cipher::Suite;
use crate::error::{Error, Result};
use epochs::{Epoch, Epochs};
use slots::Contents;

/// A secret key.
pub type Key = Zeroizing<[u8; 32]>;

/// Pack keys kept at hand; 64 Ki of them take some 8 MiB.
const KNOWN_PACKS: usize = 1 << 16;

/// What a pack holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PackKind {
    /// Blocks of volumes.
    Data = 1,
    /// Pages of manifests.
    Manifest = 2,
}

/// What opens a pack's records.
#[derive(Clone)]
pub struct PackKey {
    pub(crate) suite: Suite,
    pub(crate) key: Key,
    pub(crate) kind: PackKind,
}

/// The unwrapped keys of one repository.
pub struct Keyring {
    /// Names the repository: a hash of its authority.
    pub repository: [u8; 16],
    /// Makes block ids.
    pub block_id: Key,
    /// Makes page ids.
    pub page_id: Key,
    /// Seals manifest packs.
    pub manifest: Key,
    /// Seals footers.
    pub footer: Key,
    /// Seals small objects.
    pub object: Key,
    metadata: Key,
    signer: Ed25519KeyPair,
    authority: Public,
    /// None in a write-only key.
    owner: Option<Owner>,
    own: Option<SlotKey>,
    epochs: RwLock<Known>,
    packs: Mutex<HashMap<Id, PackKey>>,
}

struct Known {
    epochs: Epochs,
    /// Under which new packs are sealed; the newest that is held unless it was chosen.
    current: Option<EpochTag>,
}

struct Owner {
    seed: Key,
    signer: Ed25519KeyPair,
}

/// Random bytes from the operating system.
pub fn random<const N: usize>() -> Result<[u8; N]> {
    let mut out = [0; N];
    getrandom::fill(&mut out)
        .map_err(|error| Error::Usage(format!("no random numbers from the system: {error}")))?;
    Ok(out)
}

/// A key for one use, from another key and the bytes that name the use.
pub fn subkey(key: &Key, use_of: &[&[u8]]) -> Key {
    let mut hasher = blake3::Hasher::new_keyed(key);
    for part in use_of {
        hasher.update(part);
    }
    Zeroizing::new(*hasher.finalize().as_bytes())
}

impl Keyring {
    /// A new repository: random secrets, and its first epoch.
    pub fn generate() -> Result<Self> {
        let seed = Zeroizing::new(random()?);
        let public = public_half(&signing_key(&seed)?);
        let metadata = Zeroizing::new(random()?);
        let epochs = Epochs::Full(vec![Epoch::draw(0)?]);
        Self::assemble(public, Contents { metadata, authority: Some(seed), epochs }, None)
    }

    /// Opens a slot with its holder's secret.
    pub fn unlock(slot: &Slot, secret: Secret<'_>) -> Result<Self> {
        Self::open(slot, slot.unlock(secret)?)
    }

    /// Opens a slot with its private key.
    pub fn open(slot: &Slot, key: SlotKey) -> Result<Self> {
        Self::assemble(slot.authority, slot.open(&key)?, Some(key))
    }

    fn assemble(authority: Public, contents: Contents, own: Option<SlotKey>) -> Result<Self> {
        let Contents { metadata, authority: seed, epochs } = contents;
        let derive = |context: &str| Zeroizing::new(blake3::derive_key(context, metadata.as_slice()));
        let owner = match seed {
            Some(seed) => Some(Owner { signer: signing_key(&seed)?, seed }),
            None => None,
        };
        if owner.as_ref().is_some_and(|owner| public_half(&owner.signer) != authority) {
            return Err(Error::Damaged("a key slot that holds another repository's authority".into()));
        }
        Ok(Self {
            repository: repository_id(&authority),
            block_id: derive("snapferry format 1: block ids"),
            page_id: derive("snapferry format 1: page ids"),
            manifest: derive("snapferry format 1: manifest packs"),
            footer: derive("snapferry format 1: pack footers"),
            object: derive("snapferry format 1: small objects"),
            signer: signing_key(&derive("snapferry format 1: seed of the signing key"))?,
            metadata,
            authority,
            owner,
            own,
            epochs: RwLock::new(Known { current: epochs.newest(|_| true), epochs }),
            packs: Mutex::new(HashMap::new()),
        })
    }

    /// Whether it opens data, and not only writes it.
    pub fn reads_data(&self) -> bool {
        self.owner.is_some()
    }

    /// The id of the slot that it was opened with.
    pub fn slot(&self) -> Option<[u8; 16]> {
        self.own.as_ref().map(|key| key.id)
    }

    /// The epochs that it knows, in order.
    pub fn epochs(&self) -> Vec<EpochTag> {
        self.known().epochs.tags()
    }

    /// The epoch of new packs.
    pub fn current_epoch(&self) -> Option<EpochTag> {
        self.known().current
    }

    /// Seals new packs under the newest of these epochs; false, and nothing changes, if it can write with none of them.
    pub fn choose_epoch(&self, allowed: &[EpochTag]) -> bool {
        let mut known = self.epochs.write().unwrap_or_else(PoisonError::into_inner);
        let found = known.epochs.newest(|tag| allowed.contains(tag));
        known.current = found.or(known.current);
        found.is_some()
    }

    /// Takes over the epochs of another copy of the slot that it was opened with; whether there were new ones. New packs stay
    /// under the epoch that they were under.
    pub fn adopt(&self, slot: &Slot) -> Result<bool> {
        let Some(key) = self.own.as_ref().filter(|key| key.id == slot.id) else {
            return Err(Error::Usage("a copy of another slot than the keys were opened with".into()));
        };
        if slot.authority != self.authority {
            return Err(Error::KeyMismatch("the key slot belongs to another repository".into()));
        }
        let contents = slot.open(key)?;
        if *contents.metadata != *self.metadata {
            return Err(Error::Damaged("a key slot with another metadata secret than its copies".into()));
        }
        self.epochs.write().unwrap_or_else(PoisonError::into_inner).epochs.merge(contents.epochs)
    }

    /// The same keys as they are now, for one export: what is adopted or chosen later does not touch them.
    pub fn snapshot(&self) -> Result<Self> {
        let known = self.known();
        let (metadata, epochs) = (self.metadata.clone(), known.epochs.clone());
        let authority = self.owner.as_ref().map(|owner| owner.seed.clone());
        let mut copy =
            Self::assemble(self.authority, Contents { metadata, authority, epochs }, self.own.clone())?;
        copy.epochs.get_mut().unwrap_or_else(PoisonError::into_inner).current = known.current;
        Ok(copy)
    }

    /// The same keys with one more epoch.
    pub fn with_new_epoch(&self) -> Result<Self> {
        let (contents, _) = self.as_owner()?;
        let epochs = contents.epochs.with_new()?;
        Self::assemble(self.authority, Contents { epochs, ..contents }, self.own.clone())
    }

    /// A new slot.
    pub fn new_slot(
        &self,
        holder: &Holder<'_>,
        role: SlotRole,
        created: u64,
        label: &str,
    ) -> Result<Vec<u8>> {
        let (contents, owner) = self.as_owner()?;
        contents.new_slot(&owner.signer, &self.authority, holder, role, (random()?, created, label))
    }

    /// The same slot sealed anew, with all the epochs of this keyring.
    pub fn seal_again(&self, slot: &Slot) -> Result<Vec<u8>> {
        self.same_slot(slot, slot.role)
    }

    /// The note that a slot was removed.
    pub fn remove(&self, slot: &Slot) -> Result<Vec<u8>> {
        self.same_slot(slot, SlotRole::Removed)
    }

    fn same_slot(&self, slot: &Slot, role: SlotRole) -> Result<Vec<u8>> {
        if slot.authority != self.authority {
            return Err(Error::KeyMismatch("the key slot belongs to another repository".into()));
        }
        let (contents, owner) = self.as_owner()?;
        contents.same_slot(&owner.signer, slot, role)
    }

    fn as_owner(&self) -> Result<(Contents, &Owner)> {
        let Some(owner) = &self.owner else {
            return Err(Error::WriteOnly("this key can write and not manage keys".into()));
        };
        let (metadata, authority) = (self.metadata.clone(), Some(owner.seed.clone()));
        Ok((Contents { metadata, authority, epochs: self.known().epochs.clone() }, owner))
    }

    fn known(&self) -> std::sync::RwLockReadGuard<'_, Known> {
        self.epochs.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Signs `message`, 64 bytes.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.signer.sign(message).as_ref().to_vec()
    }

    /// Whether `signature` is this repository's on `message`.
    pub fn signed(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.signer.public_key()).verify(message, signature).is_ok()
    }

    /// Signs `message` as the repository's authority, which only a full key can.
    pub fn sign_as_authority(&self, message: &[u8]) -> Result<Vec<u8>> {
        let Some(owner) = &self.owner else {
            return Err(Error::WriteOnly("this key can write and take nothing away".into()));
        };
        Ok(owner.signer.sign(message).as_ref().to_vec())
    }

    /// Whether `signature` is the authority's on `message`.
    pub fn signed_by_authority(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.authority).verify(message, signature).is_ok()
    }

    /// The key of a pack whose header was read, if one of that id was.
    pub fn pack_key(&self, pack: &Id) -> Option<PackKey> {
        self.packs.lock().ok()?.get(pack).cloned()
    }

    /// Forgets the key of a pack if it is still that one.
    pub fn forget_pack(&self, pack: &Id, key: &PackKey) {
        if let Ok(mut packs) = self.packs.lock() {
            if packs.get(pack).is_some_and(|known| known.same(key)) {
                packs.remove(pack);
            }
        }
    }

    /// Remembers the key of a pack.
    pub fn remember_pack(&self, pack: Id, key: PackKey) {
        if let Ok(mut packs) = self.packs.lock() {
            if packs.len() >= KNOWN_PACKS {
                packs.clear();
            }
            packs.insert(pack, key);
        }
    }
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Keyring of repository {}", hex(&self.repository))
    }
}

fn signing_key(seed: &Key) -> Result<Ed25519KeyPair> {
    Ed25519KeyPair::from_seed_unchecked(seed.as_slice())
        .map_err(|_| Error::Usage("the signing key cannot be made".into()))
}

fn public_half(pair: &Ed25519KeyPair) -> Public {
    let mut public = [0; 32];
    public.copy_from_slice(pair.public_key().as_ref());
    public
}
