//! The keys of one repository: a random root, and one derived key for each use. Key slots wrap the root.
//!
//! Every derivation is BLAKE3 in its key-derivation or keyed mode, under a context of its own.

use std::collections::HashMap;
use std::sync::Mutex;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use zeroize::Zeroizing;

use crate::bytes::{Id, Reader, hex, magic};
use crate::cipher::{Suite, TAG};
use crate::error::{Error, Result, damaged};

/// A secret key.
pub type Key = Zeroizing<[u8; 32]>;

const SLOT_MAGIC: &str = "snapferry key slot, format 0";
const SLOT_CLEAR: usize = 64;
const SLOT_LENGTH: usize = SLOT_CLEAR + 32 + 32 + TAG + 32;
const SLOT_KIND_KEY_FILE: u8 = 1;
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
    /// Names the repository; 16 random bytes.
    pub repository: [u8; 16],
    root: Key,
    /// Makes block ids.
    pub block_id: Key,
    /// Makes page ids.
    pub page_id: Key,
    /// Seals data packs (epoch 0).
    pub data: Key,
    /// Seals manifest packs.
    pub manifest: Key,
    /// Seals footers.
    pub footer: Key,
    /// Seals small objects.
    pub object: Key,
    signer: Ed25519KeyPair,
    packs: Mutex<HashMap<Id, PackKey>>,
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
    /// A new repository: random id, random root.
    pub fn generate() -> Result<Self> {
        Self::from_root(random()?, Zeroizing::new(random()?))
    }

    fn from_root(repository: [u8; 16], root: Key) -> Result<Self> {
        let derive = |context: &str| Zeroizing::new(blake3::derive_key(context, root.as_slice()));
        let seed = derive("snapferry format 0: seed of the signing key");
        let signer = Ed25519KeyPair::from_seed_unchecked(seed.as_slice())
            .map_err(|_| Error::Usage("the signing key cannot be made".into()))?;
        Ok(Self {
            repository,
            block_id: derive("snapferry format 0: block ids"),
            page_id: derive("snapferry format 0: page ids"),
            data: derive("snapferry format 0: data packs, epoch 0"),
            manifest: derive("snapferry format 0: manifest packs"),
            footer: derive("snapferry format 0: pack footers"),
            object: derive("snapferry format 0: small objects"),
            signer,
            packs: Mutex::new(HashMap::new()),
            root,
        })
    }

    /// A new slot for a secret of at least 32 random bytes, as a key file holds.
    pub fn wrap(&self, secret: &[u8]) -> Result<Vec<u8>> {
        if secret.len() < 32 {
            return Err(Error::Usage("a key file's secret has at least 32 bytes".into()));
        }
        let suite = Suite::preferred();
        let mut slot = Vec::with_capacity(SLOT_LENGTH);
        slot.extend_from_slice(&magic(SLOT_MAGIC));
        slot.extend_from_slice(&0u16.to_le_bytes());
        slot.extend_from_slice(&(suite as u16).to_le_bytes());
        slot.extend_from_slice(&[SLOT_KIND_KEY_FILE, 0, 0, 0]);
        slot.extend_from_slice(&self.repository);
        slot.extend_from_slice(&random::<32>()?);
        let (commitment, key) = slot_keys(secret, &slot);
        slot.extend_from_slice(&*commitment);
        let mut wrapped = self.root.clone();
        let tag = suite.seal(&key, &slot, wrapped.as_mut_slice())?;
        slot.extend_from_slice(wrapped.as_slice());
        slot.extend_from_slice(&tag);
        let hash = blake3::hash(&slot);
        slot.extend_from_slice(hash.as_bytes());
        Ok(slot)
    }

    /// Opens a slot.
    pub fn unwrap(slot: &[u8], secret: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(slot);
        if reader.array::<8>()? != magic(SLOT_MAGIC) {
            return damaged("not a key slot of a format that this program knows (it knows 0)");
        }
        let version = reader.u16()?;
        if version != 0 {
            return Err(Error::Unsupported(format!("key slot of format {version}; this program knows 0")));
        }
        if slot.len() != SLOT_LENGTH {
            return damaged(format!("a key slot of {} bytes instead of {SLOT_LENGTH}", slot.len()));
        }
        let (body, hash) = slot.split_at(SLOT_LENGTH - 32);
        if blake3::hash(body).as_bytes() != hash {
            return damaged("the key slot does not end in its own hash");
        }
        let suite = Suite::from_number(reader.u16()?)?;
        let kind = reader.array::<4>()?;
        if kind != [SLOT_KIND_KEY_FILE, 0, 0, 0] {
            return Err(Error::Unsupported(format!("key slot of kind {}", kind[0])));
        }
        let repository = reader.array()?;
        let clear = &slot[..SLOT_CLEAR];
        let (commitment, key) = slot_keys(secret, clear);
        let claimed = &slot[SLOT_CLEAR..SLOT_CLEAR + 32];
        if blake3::Hash::from_bytes(*commitment) != *claimed {
            return Err(Error::KeyMismatch("the key does not open this slot".into()));
        }
        let mut root = Zeroizing::new([0; 32]);
        let (associated, rest) = slot.split_at(SLOT_CLEAR + 32);
        if !suite.open(&key, associated, &rest[..32], &rest[32..32 + TAG], root.as_mut_slice())? {
            return damaged("the key slot's contents were altered");
        }
        Self::from_root(repository, root)
    }

    /// Signs `message`, 64 bytes.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.signer.sign(message).as_ref().to_vec()
    }

    /// Whether `signature` is this repository's on `message`.
    pub fn signed(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.signer.public_key()).verify(message, signature).is_ok()
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

fn slot_keys(secret: &[u8], clear: &[u8]) -> (Key, Key) {
    let stretched = Zeroizing::new(blake3::derive_key("snapferry format 0: key file", secret));
    let slot = subkey(&stretched, &[clear]);
    (subkey(&slot, &[b"commitment"]), subkey(&slot, &[b"wrapping"]))
}
