//! The keys of the packs that one reader meets.
//!
//! A header proves that it belongs to a pack of this repository, but not to which: the pack's name is the hash of all its
//! bytes, of which a reader has a few. A store could hand out another pack's header, and under its key the honest bytes
//! of every other store would fail. So a key counts as proven once a record opened with it; one that opened nothing is
//! refuted, and the header is asked for again, of whoever has another one.

use std::collections::{HashMap, HashSet};

use super::PackKey;
use crate::bytes::Id;
use crate::keys::Keyring;

/// So many wrong headers of one pack are passed over; then its records are lost.
const PATIENCE: usize = 4;

/// Keys kept from the asking to the opening, whatever the keyring forgets in between.
#[derive(Default)]
pub struct Opened {
    keys: HashMap<Id, PackKey>,
    proven: HashSet<Id>,
    refuted: HashMap<Id, Vec<PackKey>>,
}

impl Opened {
    /// The key of a pack whose header was read.
    pub fn key(&mut self, keyring: &Keyring, pack: &Id) -> Option<PackKey> {
        if !self.keys.contains_key(pack) {
            let key = keyring.pack_key(pack).filter(|key| !self.is_refuted(pack, key))?;
            self.keys.insert(*pack, key);
        }
        self.keys.get(pack).cloned()
    }

    /// Takes a pack's header; false if it is not good, or was found to be another pack's.
    pub fn learn(&mut self, keyring: &Keyring, pack: &Id, header: &[u8]) -> bool {
        match PackKey::from_header(keyring, header) {
            Ok(key) if !self.is_refuted(pack, &key) => {
                keyring.remember_pack(*pack, key.clone());
                self.keys.insert(*pack, key);
                true
            }
            _ => false,
        }
    }

    /// A record of that pack opened under that key.
    pub fn prove(&mut self, pack: &Id, key: &PackKey) {
        if self.proven.insert(*pack) {
            self.refuted.remove(pack);
            self.keys.insert(*pack, key.clone());
        }
    }

    /// Nobody's bytes opened under that key. True if it may be to blame: it is forgotten, and another header may help.
    pub fn refute(&mut self, keyring: &Keyring, pack: &Id, key: &PackKey) -> bool {
        if self.proven.contains(pack) {
            return false;
        }
        if self.is_refuted(pack, key) {
            return true;
        }
        let refuted = self.refuted.entry(*pack).or_default();
        if refuted.len() >= PATIENCE {
            return false;
        }
        refuted.push(key.clone());
        self.keys.remove(pack);
        keyring.forget_pack(pack, key);
        true
    }

    /// Nobody has another header: then it was the records that were bad, and others of that pack may be good.
    pub fn reinstate(&mut self, pack: &Id) {
        if let Some(key) = self.refuted.get_mut(pack).and_then(Vec::pop) {
            self.keys.insert(*pack, key);
        }
    }

    fn is_refuted(&self, pack: &Id, key: &PackKey) -> bool {
        self.refuted.get(pack).is_some_and(|refuted| refuted.iter().any(|other| other.same(key)))
    }
}
